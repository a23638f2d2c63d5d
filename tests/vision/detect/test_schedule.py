"""What changed is searched at once, the rest in turn, and no more of it than the budget pays."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.vision.detect.regions import Region, around, holds, regions, room, shows
from edge.vision.detect.schedule import BUSY, EVERY, MOVED, Rest, Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edge.types import U8
    from edge.vision.detect.regions import Place

SIZES = [(480, 270), (1280, 720)]


class Machine:
    """A clock that goes on by `ms` with each search."""

    def __init__(self, ms: float) -> None:
        self.ms, self.now = ms, 0.0

    def __call__(self) -> float:
        return self.now

    def search(self, schedule: Schedule, image: U8, parts: tuple[Region, ...], faces: object = ()) -> list[Region]:
        schedule.begin()
        shown = schedule.choose(image, parts, faces)  # type: ignore[arg-type]
        self.now += self.ms * len(shown) / 1000
        schedule.end(len(shown))
        return shown


def noise(width: int, height: int, sigma: float = 5.0) -> Iterator[U8]:
    """A grey wall as a sensor sees it."""
    rng = np.random.default_rng(3)
    return cycle([np.clip(rng.normal(128, sigma, (height, width)), 0, 255).astype(np.uint8) for _ in range(6)])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_still_picture_is_searched_wholly_in_thirty_frames_and_evenly(width: int, height: int) -> None:
    schedule, parts, film = Schedule(), regions(width, height, 3), noise(width, height)
    assert set(schedule.choose(next(film), parts, ())) == set(parts), "nothing of it was searched before"
    shown = [schedule.choose(next(film), parts, ()) for _ in range(3 * EVERY)]
    for since in range(2 * EVERY):
        assert {part for some in shown[since : since + EVERY] for part in some} == set(parts)
    assert sum(map(len, shown)) == 3 * len(parts)
    assert max(map(len, shown)) <= -(-len(parts) // EVERY), "an idle frame costs a thirtieth of a busy one"


def test_where_something_moves_is_searched_in_that_frame() -> None:
    schedule, parts, film = Schedule(), regions(1280, 720, 3), noise(1280, 720)
    for _ in range(3):
        schedule.choose(next(film), parts, ())
    image = next(film)
    cv2.circle(image, (200, 150), 15, (90,), -1)
    shown = schedule.choose(image, parts, ())
    there = [
        part for part in parts if part.x <= 180 and part.x + part.w >= 220 and part.y <= 130 and part.y + part.h >= 170
    ]
    assert set(there) <= set(shown)
    assert len(shown) <= len(there) + 4, "and little else"


def swaying(step: int, picture: U8 | None = None) -> U8:
    """A person of a face 60 pixels wide, a few pixels to and fro, in front of a wall: uint8 (360, 480)."""
    image = np.full((360, 480), 128, np.uint8) if picture is None else picture
    x = 240 + round(8 * np.sin(step / 3))
    cv2.rectangle(image, (x - 80, 210), (x + 80, 360), (60,), -1)
    cv2.ellipse(image, (x, 150), (35, 50), 0, 0, 360, (165,), -1)
    return image


FACE = (240.0, 150.0, 60.0, 60.0)


def shown_in(some: Sequence[Region], face: Place, frame: Region) -> bool:
    """Whether one of these regions shows a face."""
    return any(shows(part, room(face, frame), face[2]) for part in some)


def swayed(frames: int) -> tuple[Schedule, tuple[Region, ...], list[list[Region]]]:
    """A schedule that followed that person for so many frames, and what was searched in each."""
    schedule, parts = Schedule(), regions(480, 360, 3)
    return schedule, parts, [schedule.choose(swaying(step), parts, [FACE]) for step in range(frames)]


def test_who_is_followed_is_no_reason_to_search_around_them_in_every_frame() -> None:
    _, parts, shown = swayed(60)
    assert all(shown_in(some, FACE, parts[0]) for some in shown), "they are followed in each"
    over = [part for part in parts if holds(part, room(FACE, parts[0]))]
    for since in range(10, 60 - BUSY):
        assert {part for some in shown[since : since + BUSY + 1] for part in some} >= set(over)
    assert np.mean([len(some) for some in shown[10:]]) < 1 + (len(parts) + 1) / BUSY
    alone = Schedule()
    whenever = [alone.choose(swaying(step), parts, ()) for step in range(60)]
    assert sum(map(len, whenever[10:])) > 2 * sum(map(len, shown[10:])), "the same movement of somebody unknown"


@pytest.mark.parametrize(
    ("at", "grey"), [((225, 260), 200), ((190, 240), 120), ((20, 60), 150)], ids=["on a coat", "a darker one", "beside"]
)
def test_somebody_new_is_searched_for_at_once_before_and_beside_who_is_followed(at: tuple[int, int], grey: int) -> None:
    schedule, parts, _ = swayed(33)
    image = swaying(33)
    cv2.ellipse(image, (at[0] + 18, at[1] + 25), (18, 25), 0, 0, 360, (grey,), -1)
    shown = schedule.choose(image, parts, [FACE])
    new = (at[0] + 18.0, at[1] + 25.0, 36.0, 36.0)
    there = [part for part in parts[1:] if shown_in([part], new, parts[0])]
    assert there
    assert set(there) <= set(shown)


def test_where_a_followed_person_was_is_searched_when_they_are_lost() -> None:
    schedule, parts, _ = swayed(33)
    shown = schedule.choose(swaying(36), parts, ())
    over = [part for part in parts if holds(part, room(FACE, parts[0]))]
    assert set(over) <= set(shown)


def test_what_comes_slowly_is_searched_before_it_is_there() -> None:
    schedule, parts = Schedule(), regions(480, 270, 2)
    last: dict[Region, int] = {}
    for step in range(60):
        image = np.full((270, 480), 100, np.uint8)
        image[100:160, 200:260] += np.uint8(step * 2)
        last |= dict.fromkeys(schedule.choose(image, parts, ()), step)
        over = [p for p in parts if p.x <= 200 and p.x + p.w >= 260 and p.y <= 100 and p.y + p.h >= 160]
        assert over
        assert all(2 * (step - last[part]) < MOVED for part in over)


def test_a_budget_is_kept_and_everything_gets_its_turn() -> None:
    machine = Machine(10)
    schedule, parts = Schedule(45, machine), regions(480, 270, 2)
    rng = np.random.default_rng(1)
    shown = [machine.search(schedule, rng.integers(0, 255, (270, 480), np.uint8), parts) for _ in range(40)]
    assert schedule.searches == 4
    assert [len(some) for some in shown[1:]] == [4] * 39
    assert all(some[0] == parts[0] for some in shown), "the whole frame moves in each: near faces come first"
    for since in range(1, 37):
        assert {part for some in shown[since : since + 3] for part in some} == set(parts)


@pytest.mark.parametrize(("ms", "pays"), [(0.4, 62), (2.5, 10), (5, 6), (9, 6), (11, 5), (30, 2), (100, 1)])
def test_the_automatic_budget_is_25_ms_or_six_searches_up_to_60(ms: float, pays: int) -> None:
    machine, parts = Machine(ms), regions(480, 270, 2)
    schedule = Schedule("auto", machine)
    assert schedule.searches == 1, "nothing was timed yet"
    machine.search(schedule, next(noise(480, 270)), parts)
    assert schedule.searches == pays


def test_the_smallest_budget_follows_a_face_and_looks_for_another() -> None:
    machine = Machine(100)
    schedule, parts = Schedule(1, machine), regions(1280, 720, 3)
    rng, face = np.random.default_rng(1), (640.0, 360.0, 36.0, 36.0)
    shown = [machine.search(schedule, rng.integers(0, 255, (720, 1280), np.uint8), parts, [face]) for _ in range(40)]
    assert all(shown_in(some, face, parts[0]) for some in shown)
    assert {part for some in shown for part in some} >= set(parts)
    assert max(map(len, shown)) <= 3


def test_a_machine_that_was_busy_when_it_started_is_not_taken_for_a_slow_one() -> None:
    machine = Machine(50)
    schedule, parts = Schedule(25, machine), regions(480, 270, 2)
    rng = np.random.default_rng(1)
    for ms, pays in ((50, 1), (5, 5), (50, 5)):
        machine.ms = ms
        machine.search(schedule, rng.integers(0, 255, (270, 480), np.uint8), parts)
        assert schedule.searches == pays
    for _ in range(64):  # but one that has become slow is
        machine.search(schedule, rng.integers(0, 255, (270, 480), np.uint8), parts)
    assert schedule.searches == 1


def test_without_a_budget_the_clock_decides_nothing() -> None:
    shown = []
    for ms in (0.1, 1000):
        machine, schedule, film = Machine(ms), Schedule(None), noise(480, 270)
        shown.append([machine.search(schedule, next(film), regions(480, 270, 2)) for _ in range(12)])
    assert shown[0] == shown[1]


def test_a_face_is_followed_where_nothing_else_shows_it() -> None:
    schedule, parts, film = Schedule(), regions(480, 270, 2), noise(480, 270)
    far, near = (300.0, 100.0, 30.0, 30.0), (200.0, 130.0, 100.0, 100.0)
    schedule.choose(next(film), parts, ())
    for face in (far, near):
        for _ in range(EVERY):
            assert shown_in(schedule.choose(next(film), parts, [face]), face, parts[0])
    crowd = [(300.0, 100.0, 30.0, 30.0), (310.0, 104.0, 30.0, 30.0)]
    assert len([r for r in schedule.choose(next(film), parts, crowd) if r not in parts]) == 1, "one square for both"


def test_a_place_put_off_is_searched_in_the_next_frame() -> None:
    schedule, parts, film = Schedule(), regions(480, 270, 2), noise(480, 270)
    for _ in range(3):
        shown = schedule.choose(next(film), parts, ())
    x, y, side, _ = next(part for part in parts[1:] if part not in shown)
    place = (x + side / 2, y + side / 2, 20.0, 20.0)
    schedule.put_off(place)
    assert Region(x, y, side, side) in schedule.choose(next(film), parts, ())


@pytest.mark.parametrize("box", [(3.0, 5.0, 40.0, 30.0), (478.0, 268.0, 40.0, 40.0), (240.0, 135.0, 900.0, 900.0)])
def test_a_square_around_a_box_lies_in_the_frame(box: tuple[float, float, float, float]) -> None:
    frame = Region(0, 0, 480, 270)
    x, y, w, h = around(box, 3, frame)
    assert w == h > 0
    assert x >= 0 <= y
    assert x + w <= 480
    assert y + h <= 270
    assert x <= box[0] <= x + w
    assert y <= box[1] <= y + h


def test_a_detector_of_whole_frames_rests_while_nothing_moves_and_nobody_is_there() -> None:
    rest, film = Rest(turns=2), noise(480, 270)
    wanted = [rest.wanted(next(film)) for _ in range(3 * EVERY)]
    assert wanted[:2] == [True, True]
    assert sum(wanted[2:]) <= 10
    assert all(any(wanted[since : since + EVERY]) for since in range(2 * EVERY))
    image = next(film)
    image[100:140, 200:240] = 0
    assert rest.wanted(image)
    for _ in range(30):
        rest.found()
        assert rest.wanted(image), "who is there is looked at in every frame"
