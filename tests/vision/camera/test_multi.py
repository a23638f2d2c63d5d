"""The mailbox between a camera and the pipeline, and several cameras as one."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.config.camera import CameraSection
from edge.errors import SourceError
from edge.types import Frame
from edge.vision.camera import open_cameras, reconnecting
from edge.vision.camera.mailbox import Mailbox
from edge.vision.camera.multi import MultiCamera
from edge.vision.camera.reconnecting import Reconnecting
from tests.support.wire import wait

if TYPE_CHECKING:
    from pathlib import Path


def frame(index: int) -> Frame:
    return Frame(np.zeros((4, 4), np.uint8), index / 10, index)


class Tray:
    """A live camera whose frames a test puts in."""

    live = True

    def __init__(self, bell: threading.Event) -> None:
        self.mailbox: Mailbox[Frame] = Mailbox(bell=bell)
        self.ended = False
        self.drops: dict[str, int] = {"overwritten": 1}
        self.fault = ""

    @property
    def turns(self) -> tuple[int, ...]:
        return (self.mailbox.overwritten,)

    def read(self, timeout: float) -> Frame | None:
        if self.fault:
            raise SourceError(self.fault)
        return self.mailbox.take(timeout)

    def close(self) -> None:
        self.ended = True


def test_the_mailbox_lets_an_overwritten_item_go_before_it_takes_the_next() -> None:
    discarded: list[int] = []
    box: Mailbox[int] = Mailbox(discarded.append)
    for i in range(1, 4):
        box.put(i)
    assert (discarded, box.overwritten) == ([1, 2], 2)
    assert box.take(0) == 3
    assert box.take(0) is None
    box.put(4)
    box.clear()
    assert box.take(0) is None
    assert (discarded, box.overwritten) == ([1, 2, 4], 3)


def test_live_cameras_are_served_in_turn_however_busy_one_is() -> None:
    bell = threading.Event()
    trays = [Tray(bell), Tray(bell), Tray(bell)]
    both = MultiCamera(trays, bell)
    seen = []
    for i in range(6):
        for tray in trays[:2]:
            tray.mailbox.put(frame(i))
        got = both.read(0)
        assert got is not None
        seen.append(got.camera)
    assert seen == [0, 1, 0, 1, 0, 1]
    assert both.drops == {"overwritten": 3}


def test_a_frame_of_any_camera_ends_the_wait() -> None:
    bell = threading.Event()
    trays = [Tray(bell), Tray(bell)]
    threading.Timer(0.2, lambda: trays[1].mailbox.put(frame(7))).start()
    got = MultiCamera(trays, bell).read(60)
    assert got is not None
    assert (got.camera, got.index) == (1, 7)


def test_several_have_ended_when_all_have() -> None:
    bell = threading.Event()
    trays = [Tray(bell), Tray(bell)]
    several = MultiCamera(trays, bell)
    trays[0].close()
    assert not several.ended
    several.close()
    assert several.ended


class Shelf:
    """What opens a tray, as often as there is one."""

    def __init__(self, *trays: Tray) -> None:
        self.trays = list(trays)
        self.tries = 0

    def __call__(self) -> Tray:
        self.tries += 1
        if not self.trays:
            msg = "no tray"
            raise SourceError(msg)
        return self.trays.pop(0)


def test_one_that_fails_is_opened_again_while_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(reconnecting, "FIRST_RETRY", 0.01)
    bell = threading.Event()
    steady, broken, mended = Tray(bell), Tray(bell), Tray(bell)
    shelf = Shelf(broken)
    both = MultiCamera([Reconnecting("a", Shelf(steady)), Reconnecting("b", shelf)], bell)
    broken.fault = "hangs again"
    steady.mailbox.put(frame(1))
    assert [got and got.camera for got in (both.read(0), both.read(0))] == [0, None]
    assert broken.ended
    assert 'camera_absent name=b why="hangs again"' in caplog.text
    assert both.drops == {"overwritten": 2, "camera_lost": 1}, "what the broken one has lost is not forgotten"
    before, tries = both.turns[1], shelf.tries
    wait(lambda: shelf.tries > tries)
    assert both.turns[1] > before, "a try counts as a turn, or the watchdog would bite"
    shelf.trays.append(mended)
    wait(lambda: "camera_back name=b" in caplog.text)
    mended.mailbox.put(frame(2))
    got = both.read(60)
    assert got is not None
    assert (got.camera, got.index) == (1, 2)
    both.close()
    assert steady.ended
    assert mended.ended


def test_the_last_one_to_fail_ends_the_service() -> None:
    bell = threading.Event()
    last = Tray(bell)
    both = MultiCamera([Reconnecting("a", Shelf()), Reconnecting("b", Shelf(last))], bell)
    assert both.read(0) is None
    last.fault = "hangs again"
    with pytest.raises(SourceError, match="no tray; hangs again"):
        both.read(0)
    assert both.ended


def test_replays_come_merged_by_time_and_whole(tmp_path: Path) -> None:
    for folder, count in (("a", 3), ("b", 5)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), np.zeros((4, 4), np.uint8))
    cameras = open_cameras(
        [
            CameraSection(kind="replay", source=str(tmp_path / "a"), still_seconds=1.0),
            CameraSection(kind="replay", source=str(tmp_path / "b"), still_seconds=0.4),
        ]
    )
    seen: list[Frame] = []
    while not cameras.ended:
        got = cameras.read(0)
        assert got is not None
        seen.append(got)
    assert [sum(f.camera == n for f in seen) for n in (0, 1)] == [3, 5]
    assert all(a.t <= b.t for a, b in pairwise(seen))
    assert cameras.read(0) is None
