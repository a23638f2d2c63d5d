"""A memory card: an ext4 image on a loop device, whose counters are the kernel's own. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR = 512


class Card:
    """The image at `folder/card.img`, mounted at `mounted`."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.mounted, image = folder / "card", folder / "card.img"
        self.mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(megabytes * 2**20)
        _run("mkfs.ext4", "-q", "-F", image)
        self.device = _run("losetup", "--find", "--show", image)
        self.mount()

    def mount(self, *options: str) -> None:
        """Mount it; `errors=remount-ro` is what a Raspberry Pi's card is mounted with."""
        _run("mount", "-o", ",".join(["errors=remount-ro", *options]), self.device, self.mounted)

    def unmounted(self) -> bool:
        """Unmount it; False while somebody holds a file on it."""
        return subprocess.run(["umount", self.mounted], check=False, capture_output=True).returncode == 0

    def abort(self) -> None:
        """Make it read-only under open files, as ext4 does after an error of the medium."""
        subprocess.run(["sync", "-f", self.mounted], check=True)
        _run("mount", "-o", "remount,abort", self.mounted)

    def check(self) -> None:
        """Repair the unmounted file system."""
        subprocess.run(["e2fsck", "-fy", self.device], capture_output=True, check=False)

    def written(self) -> int:
        """Bytes that the device was told to write, the file system's journal among them."""
        subprocess.run(["sync", "-f", self.mounted], check=True)
        return SECTOR * int(Path("/sys/block", Path(self.device).name, "stat").read_text().split()[6])


def _run(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def inserted(folder: Path, megabytes: int = 64) -> Iterator[Card]:
    """A card for as long as the context lasts."""
    card = Card(folder, megabytes)
    try:
        yield card
    finally:
        subprocess.run(["umount", "-l", card.mounted], check=False, capture_output=True)
        subprocess.run(["losetup", "--detach", card.device], check=False)


def can_insert() -> bool:
    """Whether this machine lets us mount a loop device."""
    return os.geteuid() == 0 and shutil.which("losetup") is not None and Path("/dev/loop-control").exists()
