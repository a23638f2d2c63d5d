"""Errors named by what to do about them, and what both tools share of them: idle options, how to install.

Imports nothing.

Every error a user can meet is an `EdgeError`. Its text is one line that says what is wrong, where, and
what to do; the command line prints that line and exits with the class's `exit_code` (table: docs/operate.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


class EdgeError(Exception):
    """Base of all errors that are reported to a user without a traceback."""

    exit_code = 1


class ConfigError(EdgeError):
    """Mend the configuration or the command line, then start again."""

    exit_code = 2


class SourceError(EdgeError):
    """Give another input: a video, image, dataset or camera that cannot be opened or decoded."""

    exit_code = 66


class BundleError(EdgeError):
    """Install another model bundle: this one is damaged, incomplete or computes wrongly."""

    exit_code = 65


class BackendError(EdgeError):
    """The inference runtime is missing or failed: install it, or choose another accelerator."""

    exit_code = 69


class StorageError(EdgeError):
    """Make room, or repair the folder or database: the outbox, runtime or temporary folder cannot be used.

    `trouble` is the cause in a word, for those who see only `health`.
    """

    exit_code = 74
    trouble = "unusable"


class BrokerUnavailable(EdgeError):
    """Wait: the broker is absent or did not take everything in time; the rows are kept."""

    exit_code = 75


class BrokerRefused(EdgeError):
    """Mend credentials, certificate or ACL: the broker answered and said no."""

    exit_code = 77


def install(extra: str) -> str:
    """What to do about a missing package that an extra of ours brings; no index has ours, and a release is whole."""
    device = "; on a device: install another release" if extra == "device" else ""
    return f'in a clone: .venv/bin/pip install -e ".[{extra}]"{device}'


def refuse_options(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Refuse options that another one makes meaningless, since who gives one believes that it does something.

    Raises ConfigError with those of `names` that the command line changed, and `why` they mean nothing.
    `args.default_of` is `get_default` of the command's parser; one given with its default is as if it were not.
    """
    said = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) != args.default_of(name)]
    if said:
        msg = f"{', '.join(said)}: {why}"
        raise ConfigError(msg)
