#!/usr/bin/python3
"""Bring this device to what its fleet's repository says, if the last commit there is signed by a key it was given.

    edge-pull https://git.example/fleet.git --limit kiosk-01 [--branch main] [--inventory inventory] [--at-least COMMIT]

Fetches by https or ssh, verifies the one commit it is going to run against `/etc/edge/pull-signers` (ssh's allowed
signers, `fleet ssh-ed25519 AAAA…`), refuses what does not follow the commit it ran before, and runs
`ansible/pull.yml` of it. Standard library, git, ssh-keygen and Ansible only. Not `ansible-pull --verify-commit`: that
verifies by the branch's name, so a tag of the same name on an old signed commit vouches for an unsigned branch.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

SIGNERS = Path("/etc/edge/pull-signers")
CACHE = Path("/var/cache/edge-pull/fleet")
PULLED = Path("/opt/edge/pulled")
"""The last commit that was run: what comes next must follow it."""
ADDRESS = re.compile(r"(https|ssh)://\S+|[\w.-]+@[\w.-]+:\S+")
PLAYBOOK = "ansible/pull.yml"
FETCHED = "refs/edge/fetched"


class Refused(Exception):
    """What is wrong and what to do, in one line."""


class GitFailed(Refused):
    """Git itself could not: the network, or what a power cut has left of the cache."""


class Places(NamedTuple):
    """Where things lie on this device."""

    signers: Path = SIGNERS
    cache: Path = CACHE
    pulled: Path = PULLED


def _git(places: Places, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = (
        f"gpg.ssh.allowedSignersFile={places.signers}",
        "gpg.program=/bin/false",  # the one pinned file decides: no keyring of this user's does
        "gpg.x509.program=/bin/false",
        "fetch.fsckObjects=true",
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=60",
    )
    command = ["git", "-C", str(places.cache), *(word for option in options for word in ("-c", option)), *arguments]
    said = os.environ | {"GIT_ALLOW_PROTOCOL": "https:ssh", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=said)


def _asked(places: Places, *arguments: str) -> str:
    done = _git(places, *arguments)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        msg = f"git {arguments[0]}: {lines[-1]}"
        raise GitFailed(msg)
    return done.stdout.strip()


def fetch(url: str, branch: str, places: Places) -> str:
    """Get the branch's history; returns the commit it ends at. Nothing of it is checked out yet."""
    if not ADDRESS.fullmatch(url):
        msg = "the repository's address must begin with https:// or ssh://, or be user@host:path: nothing else is safe"
        raise Refused(msg)
    places.cache.mkdir(parents=True, exist_ok=True)
    _asked(places, "init", "--quiet")
    # No tags: a name that the repository chooses must never mean another commit than the one that is run.
    refspec = f"+refs/heads/{branch}:{FETCHED}"
    _asked(places, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--", url, refspec)
    return _asked(places, "rev-parse", "--verify", f"{FETCHED}^{{commit}}")


def verify(commit: str, places: Places) -> None:
    """The commit is signed by a key in the signers' file, which nobody but root and its owner may write."""
    try:
        mode = places.signers.stat().st_mode
    except OSError as error:
        msg = (
            f"{places.signers}: {error.strerror}: lay the keys that may sign there, one a line: fleet ssh-ed25519 AAAA…"
        )
        raise Refused(msg) from error
    if mode & 0o022:
        msg = f"{places.signers} may be written by others: chmod 0644 it"
        raise Refused(msg)
    done = _git(places, "verify-commit", commit)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it is not signed"])[-1]
        msg = f"commit {commit[:12]} is not signed by a key of {places.signers} ({said}): nothing of it was run"
        raise Refused(msg)


def follow(commit: str, at_least: str | None, places: Places) -> None:
    """The commit follows the one that ran before, and `at_least`: an old state, though signed, is not gone back to."""
    before = [places.pulled.read_text().strip()] if places.pulled.exists() else []
    for old in (*before, *([at_least] if at_least else [])):
        if not re.fullmatch(r"[0-9a-f]{40,64}", old):
            msg = f"{old[:64]!r} is no full commit id: give 40 hex digits, or remove {places.pulled}"
            raise Refused(msg)
        if answer := _git(places, "merge-base", "--is-ancestor", old, commit).returncode:
            msg = (
                f"commit {commit[:12]} does not follow {old[:12]}, which ran before: an old state is served, or "
                f"history was rewritten. If it was you: rm {places.pulled}"
            )
            raise Refused(msg) if answer == 1 else GitFailed(msg)  # else a commit is missing, or cannot be read


def _checked_out(url: str, branch: str, at_least: str | None, places: Places) -> str:
    """The commit that is in the cache's folder now, fetched, verified and following those before."""
    commit = fetch(url, branch, places)
    verify(commit, places)
    follow(commit, at_least, places)
    _asked(places, "checkout", "--quiet", "--force", "--detach", commit)
    _asked(places, "clean", "-ffdxq")
    return commit


def pull(url: str, branch: str, at_least: str | None, places: Places) -> Path:
    """Fetch, verify, check out; returns the folder. Nothing older is run from then on, even if this one fails.

    A cache that git fails on, as after a power cut, is made anew once: what is trusted is noted outside it. The old one
    stays where that fails too: it was the network, and fetching all of it again may be dear.
    """
    old = places.cache.with_name(f"{places.cache.name}.old")
    if old.exists():  # the run that put it aside was cut off
        shutil.rmtree(places.cache, ignore_errors=True)
        old.rename(places.cache)
    try:
        commit = _checked_out(url, branch, at_least, places)
    except GitFailed as error:
        print(f"edge-pull: {error}: once more, with an empty {places.cache}", file=sys.stderr)
        places.cache.rename(old)
        try:
            commit = _checked_out(url, branch, at_least, places)
        except (Refused, OSError):
            shutil.rmtree(places.cache, ignore_errors=True)
            old.rename(places.cache)
            raise
        shutil.rmtree(old)
    places.pulled.parent.mkdir(parents=True, exist_ok=True)
    fresh = places.pulled.with_name(f".{places.pulled.name}.new")
    fresh.write_text(f"{commit}\n")
    os.sync()
    fresh.replace(places.pulled)
    print(f"edge-pull: running {commit[:12]} of {branch}", flush=True)
    return places.cache


def main(places: Places | None = None) -> int:
    """Pull, then become ansible-playbook."""
    parser = argparse.ArgumentParser(prog="edge-pull", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="the fleet's repository: https:// or ssh://")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--inventory", default="inventory", help="path in the repository (%(default)s)")
    parser.add_argument("--limit", required=True, help="this device's name in the inventory")
    parser.add_argument("--at-least", metavar="COMMIT", help="refuse anything that does not follow this commit")
    arguments = parser.parse_args()
    os.umask(0o022)
    try:
        folder = pull(arguments.url, arguments.branch, arguments.at_least, places or Places())
        os.chdir(folder)
        command = ("ansible-playbook", "-c", "local", "-i", arguments.inventory, "-l", arguments.limit, PLAYBOOK)
        os.execvp(command[0], command)  # noqa: S606 - no shell is meant
    except (Refused, OSError) as error:
        print(f"edge-pull: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
