"""Power cuts: an outbox on the ext4 disk of a User-Mode Linux, which is a kernel in a process that can be killed.

The guest's root is this machine's, read-only; its disk is an image file. What the guest kernel held in its page
cache is gone with it, what it wrote to its disk is there: that is what a power cut leaves.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from tests.faults.kiosk import REPO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UML = shutil.which("linux.uml")
GUEST = REPO / "tests" / "faults" / "guest.py"
BOOT_S = 120


class Machine:
    """A booted guest that runs `guest.py` with these arguments on the disk; `lines` is what it says."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        assert UML is not None
        disk, init, mounted = folder / "disk.img", folder / "init.sh", folder / "mounted"
        mounted.mkdir(exist_ok=True)  # a place of its own: a mount on /tmp or /mnt would hide a checkout there
        if not disk.exists():
            with disk.open("wb") as file:
                file.truncate(64 * 2**20)
            subprocess.run(["mkfs.ext4", "-q", "-F", str(disk)], check=True)
        command = shlex.join([sys.executable, str(GUEST), str(mounted / "outbox.db"), *arguments])
        paths = ":".join([str(REPO), *(p for p in sys.path if p)])
        init.write_text(
            f"#!/bin/sh\nmount -t proc proc /proc\nmount -t ext4 /dev/ubda {shlex.quote(str(mounted))}\n"
            f"PYTHONPATH={shlex.quote(paths)} {command}\nsync\nhalt -f -f\n"
        )
        init.chmod(0o755)
        self._process = subprocess.Popen(
            [
                UML,
                "mem=256M",
                "root=/dev/root",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                f"ubd0={disk}",
                f"init={init}",
                f"uml_dir={folder}/uml",
                "con=null",
                "con0=null,fd:1",
                "ssl=null",
                "quiet",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": "/dev/shm"},  # noqa: S108 - where UML keeps its memory
            start_new_session=True,
            text=True,
        )

    def lines(self) -> Iterator[list[str]]:
        """What the guest says, each line split into words, until it ends; a line cut short is left out."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("outbox ") and line.endswith("\n"):
                yield line.split()[1:]

    def cut(self) -> None:
        """Take the power away, now."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def ended(self) -> int:
        """How the guest ended, 0 by halting; it has closed its console."""
        return self._process.wait(10)

    def __enter__(self) -> Self:
        """It boots already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        if self._process.poll() is None:
            self.cut()
        assert self._process.stdout is not None
        self._process.stdout.close()


def panics(folder: Path) -> bool:
    """Whether its kernel ends before the first program: 6.1 cannot put AMX's registers back (`put_fp_registers`)."""
    with Machine(folder, "0" * 32, "FULL", "--look") as machine:
        for _ in machine.lines():
            pass
        return machine.ended() != 0


def cut_power(folder: Path, times: int, moments: Iterator[float], synchronous: str) -> tuple[int, int]:
    """Boot, commit, cut the power after `moments` s, over and over on one disk.

    Returns how many windows were said to be committed, and how many of these the disk does not have.
    """
    said: dict[str, int] = {}
    found: dict[str, int] = {}
    for run in range(times + 1):
        last = run == times
        with Machine(folder, f"{run:032x}", synchronous, *(["--look"] if last else [])) as machine:
            until = time.monotonic() + BOOT_S
            for what, *values in machine.lines():
                if what == "found":
                    found[values[0]] = int(values[1])
                elif what == "committed":
                    if values[0] not in said:
                        until = time.monotonic() + next(moments)
                    said[values[0]] = int(values[1])
                assert what != "broken", values
                if time.monotonic() > until:
                    machine.cut()
            assert last or f"{run:032x}" in said, "the guest has not booted"
    # A file that is gone with all it held is found by nobody.
    return sum(said.values()), sum(max(0, n - found.get(boot, 0)) for boot, n in said.items())
