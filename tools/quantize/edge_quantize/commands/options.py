"""Options that another one makes meaningless: refused, since who gives one believes that it does something.

The aggregator has the same words: the two tools share no room that knows of command lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raises ConfigError with those of `names` that the command line changed, and `why` they mean nothing.

    `args.default_of` is `get_default` of the command's parser; one given with its default is as if it were not.
    """
    said = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) != args.default_of(name)]
    if said:
        msg = f"{', '.join(said)}: {why}"
        raise ConfigError(msg)
