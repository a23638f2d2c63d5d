"""One camera's pipeline: its time counts once, another camera does not hold it up for ever, a pause forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from edge.types import CropSpec, FaceBox, Frame
from edge.vision.pipeline import Pipeline
from edge.vision.window import MAX_GAP, Window

if TYPE_CHECKING:
    from edge.types import U8
    from edge.vision.route import Router

PICTURE = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)


class Somebody:
    """A detector that always finds one face and notes when it is to forget."""

    kind = "haar"

    def __init__(self, *boxes: FaceBox) -> None:
        self.boxes, self.forgotten = list(boxes), 0

    def detect(self, image: U8, *, thorough: bool = False, zoom: float = 1.0) -> list[FaceBox]:
        assert image.size
        assert zoom == 1.0
        assert not thorough
        return self.boxes

    def forget(self) -> None:
        self.forgotten += 1


class Sure:
    """A router that calls every face bare and happy."""

    def masked(self, chips: U8) -> Any:  # noqa: ANN401
        return np.zeros(len(chips))

    def expressions(self, chips: U8, _routes: object) -> Any:  # noqa: ANN401
        return [{"unmasked": np.eye(7, dtype=np.float32)[3]} for _ in chips]


def pipeline(*boxes: FaceBox) -> tuple[Pipeline, Somebody]:
    detector = Somebody(*boxes)
    made = Pipeline(detector, cast("Router", Sure()), CropSpec(), {"unmasked": 0.0, "masked": 0.0})
    return made, detector


def frame(t: float, index: int = 0) -> Frame:
    return Frame(np.roll(PICTURE, index, axis=1), t, index)


def test_time_is_credited_once_however_often_it_is_asked_for() -> None:
    slow, _ = pipeline()
    window = Window(0.0, 60.0, 1)
    slow.see(frame(0.0))
    for until in (0.1, 0.2, 0.2, 0.15, 0.3):
        slow.credit(window, until)
    assert sum(window.held.values()) == pytest.approx(0.3)
    slow.credit(window, 50.0)
    slow.credit(window, 60.0)
    assert sum(window.held.values()) == pytest.approx(MAX_GAP)


@pytest.mark.parametrize("cameras", [2, 5])
def test_busy_pipelines_hold_another_camera_until_its_turn_comes_and_not_for_ever(cameras: int) -> None:
    other, _ = pipeline()
    window = Window(0.0, 600.0, 1)
    other.see(frame(0.0))
    for turn in range(100):
        now = 0.4 * (turn + 1)
        other.hold(now - 0.4, now + MAX_GAP, cameras)
        other.credit(window, now)
    assert other.span is not None
    assert other.span[1] == pytest.approx(0.4 * cameras + MAX_GAP), "it sends nothing any more"
    other.see(frame(50.0, 1))
    other.hold(50.0, 52.5, cameras)
    assert other.span[1] == 52.5


def test_a_pause_keeps_the_votes_of_who_left_and_nothing_else() -> None:
    one, detector = pipeline(FaceBox(20, 20, 60, 60, score=1.0))
    for index in range(8):
        one.see(frame(index * 0.5, index))
    detector.boxes.clear()
    for index in range(8, 16):
        one.see(frame(index * 0.5, index))
    detector.boxes.append(FaceBox(80, 20, 60, 60, score=1.0))
    for index in range(16, 24):
        one.see(frame(index * 0.5, index))
    one.forget()
    assert detector.forgotten == 1
    assert not one._tracker._tracks
    assert len(one.votes()) == 1
    assert one.votes() == []


def test_pauses_do_not_multiply_a_vote() -> None:
    """Who may send commands may silence whoever stands there, and must not make them several."""
    one, _ = pipeline(FaceBox(20, 20, 60, 60, score=1.0))
    index = 0
    for pause in range(6):
        for _ in range(8):
            index += 1
            one.see(frame(index * 0.5 + pause * 5, index))
        if pause < 5:
            one.forget()
    assert len(one.votes()) == 1
