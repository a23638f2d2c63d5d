"""The outbox's disk is full, or cannot be written: no window is lost, and whoever has to end says why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from edge.errors import StorageError
from tests.faults.card import can_insert, inserted
from tests.faults.kiosk import DEVICE, PATIENCE_S, Kiosk
from tests.support.broker import needs_mosquitto
from tests.support.wire import Ear, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


@contextmanager
def nurse(kiosk: Kiosk) -> Iterator[Callable[[str | None], bool]]:
    """Somebody who watches the broker only: says whether the last `status` and `health` name this trouble."""
    with Ear(kiosk.broker.port, f"{DEVICE}/status", f"{DEVICE}/health") as ear:

        def told(trouble: str | None) -> bool:
            last = {m.topic.rpartition("/")[2]: json.loads(m.payload) for m in ear.heard}
            return (
                len(last) == 2
                and last["status"]["state"] == "online"
                and last["status"]["trouble"] == last["health"]["outbox"]["trouble"] == trouble
            )

        yield told


def contiguous(kiosk: Kiosk) -> bool:
    """Whether no window is missing between others."""
    reports = [row.report() for row in kiosk.rows()]
    return all(abs(next_.mono_start - one.mono_end) < 1e-6 for one, next_ in pairwise(reports))


def fails(kiosk: Kiosk) -> bool:
    """Whether vision has met the fault."""
    return "commit_failed" in kiosk.vision_log.read_text()


def test_full_for_a_while(tmp_path: Path, disk: Path, bundle_folder: Path, done: Done) -> None:
    with Kiosk(tmp_path, bundle_folder, storage=disk) as kiosk, nurse(kiosk) as told:
        wait(lambda: told(None), PATIENCE_S, kiosk.publisher_log.read_text)
        with full(disk):
            wait(lambda: fails(kiosk), PATIENCE_S, kiosk.vision_log.read_text)
            wait(lambda: told("full"), PATIENCE_S, kiosk.publisher_log.read_text)
            before = len(kiosk.acknowledged())
        wait(lambda: len(kiosk.acknowledged()) > before + 5, PATIENCE_S, kiosk.vision_log.read_text)
        wait(lambda: told(None), PATIENCE_S, kiosk.publisher_log.read_text)
        reckoning = kiosk.reckon()
        assert contiguous(kiosk), "a window that closed meanwhile is missing"
    assert reckoning.bad == 0, reckoning
    done({"disk_full": 1}, committed=reckoning.committed)


@pytest.mark.skipif(not can_insert(), reason="needs root and loop devices, for a card of its own")
def test_the_card_turns_read_only_under_running_services(tmp_path: Path, bundle_folder: Path, done: Done) -> None:
    """As ext4 does after an error; it can be repaired because nobody holds a file there, and nobody starts again."""
    with inserted(tmp_path) as card, Kiosk(tmp_path, bundle_folder, storage=card.mounted) as kiosk:
        with nurse(kiosk) as told:
            wait(lambda: told(None), PATIENCE_S, kiosk.publisher_log.read_text)
            card.abort()
            wait(lambda: fails(kiosk), PATIENCE_S, kiosk.vision_log.read_text)
            wait(lambda: "event=outbox-unusable" in kiosk.publisher_log.read_text(), PATIENCE_S)
            wait(lambda: told("failing") or told("read-only"), PATIENCE_S, kiosk.publisher_log.read_text)
            wait(card.unmounted, PATIENCE_S, lambda: "a service holds a file on the card")
            wait(lambda: "not mounted" in kiosk.vision_log.read_text(), PATIENCE_S, kiosk.vision_log.read_text)
            assert not list(card.mounted.iterdir()), "a new outbox would lie under the card's, and be lost"
            before = len(kiosk.acknowledged())
            card.check()
            card.mount()
            wait(lambda: len(kiosk.acknowledged()) > before + 5, PATIENCE_S, kiosk.vision_log.read_text)
            wait(lambda: told(None), PATIENCE_S, kiosk.publisher_log.read_text)
        reckoning = kiosk.reckon()
        assert contiguous(kiosk), "a window that closed meanwhile is missing"
        assert len({row.boot_id for row in kiosk.rows()}) == 1, "no restart, no new run"
    assert reckoning.bad == 0, reckoning
    done({"read_only": 1}, committed=reckoning.committed)


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


def test_read_only_at_the_start(tmp_path: Path, disk: Path, bundle_folder: Path, done: Done) -> None:
    with Kiosk(tmp_path, bundle_folder, storage=disk) as kiosk:
        for service in (kiosk.vision, kiosk.publisher):
            assert service is not None
            service.terminate()
            assert service.wait(PATIENCE_S) == 0
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        vision = kiosk._start("vision", kiosk.vision_log)
        assert vision.wait(PATIENCE_S) == StorageError.exit_code
        kiosk.publisher = kiosk._start("publish", kiosk.publisher_log)
        with nurse(kiosk) as told:
            wait(lambda: told("read-only"), PATIENCE_S, kiosk.publisher_log.read_text)
        assert "remount" in kiosk.publisher_log.read_text()
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        kiosk.start_vision()
        reckoning = kiosk.reckon()
    assert reckoning.bad == 0, reckoning
    done({"read_only": 1}, committed=reckoning.committed)
