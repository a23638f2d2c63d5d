"""The outbox's disk is full, or cannot be written: no window is lost, and whoever has to end says why."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from edge.errors import StorageError
from tests.broker import needs_mosquitto
from tests.faults.kiosk import PATIENCE_S, Kiosk
from tests.wire import wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.conftest import Done

pytestmark = [
    needs_mosquitto,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root, to mount a small tmpfs"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):  # noqa: PT012
        while True:
            file.write(bytes(4096))
    yield
    ballast.unlink()


def fails(kiosk: Kiosk) -> bool:
    """Whether vision has met the fault."""
    return "commit_failed" in kiosk.vision_log.read_text()


def test_full_for_a_while(tmp_path: Path, disk: Path, bundle_folder: Path, done: Done) -> None:
    with Kiosk(tmp_path, bundle_folder, storage=disk) as kiosk:
        with full(disk):
            wait(lambda: fails(kiosk), PATIENCE_S, kiosk.vision_log.read_text)
            before = len(kiosk.acknowledged())
        wait(lambda: len(kiosk.acknowledged()) > before + 5, PATIENCE_S, kiosk.vision_log.read_text)
        reckoning = kiosk.reckon()
        reports = [row.report() for row in kiosk.rows()]
    assert reckoning.bad == 0, reckoning
    for one, next_ in pairwise(reports):
        assert abs(next_.mono_start - one.mono_end) < 1e-6, "a window that closed meanwhile is missing"
    done({"disk_full": 1}, committed=reckoning.committed)


def test_full_at_the_end(tmp_path: Path, disk: Path, bundle_folder: Path, done: Done) -> None:
    with Kiosk(tmp_path, bundle_folder, storage=disk) as kiosk:
        assert kiosk.vision is not None
        with full(disk):
            wait(lambda: fails(kiosk), PATIENCE_S, kiosk.vision_log.read_text)
            kiosk.vision.terminate()
            assert kiosk.vision.wait(PATIENCE_S) == StorageError.exit_code
        assert "windows could not be recorded" in kiosk.vision_log.read_text()
        kiosk.start_vision()
        reckoning = kiosk.reckon()
    assert reckoning.bad == 0, reckoning
    done({"disk_full": 1}, committed=reckoning.committed)


def test_remounted_read_only(tmp_path: Path, disk: Path, bundle_folder: Path, done: Done) -> None:
    with Kiosk(tmp_path, bundle_folder, storage=disk) as kiosk:
        for service in (kiosk.vision, kiosk.publisher):
            assert service is not None
            service.terminate()
            assert service.wait(PATIENCE_S) == 0
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        vision = kiosk._start("vision", kiosk.vision_log)
        assert vision.wait(PATIENCE_S) == StorageError.exit_code
        kiosk.publisher = kiosk._start("publish", kiosk.publisher_log)
        wait(lambda: "event=outbox-unusable" in kiosk.publisher_log.read_text(), PATIENCE_S)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        kiosk.start_vision()
        reckoning = kiosk.reckon()
    assert reckoning.bad == 0, reckoning
    done({"read_only": 1}, committed=reckoning.committed)
