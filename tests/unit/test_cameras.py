"""The mailbox between a camera and the pipeline, and several cameras as one."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.camera import open_cameras
from edge.camera.mailbox import Mailbox
from edge.camera.several import Several
from edge.config_camera import CameraSection
from edge.types import Frame

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

    @property
    def turns(self) -> tuple[int, ...]:
        return (self.mailbox.overwritten,)

    def read(self, timeout: float) -> Frame | None:
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
    both = Several(trays, bell)
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
    got = Several(trays, bell).read(60)
    assert got is not None
    assert (got.camera, got.index) == (1, 7)


def test_several_have_ended_when_all_have() -> None:
    bell = threading.Event()
    trays = [Tray(bell), Tray(bell)]
    several = Several(trays, bell)
    trays[0].close()
    assert not several.ended
    several.close()
    assert several.ended


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
