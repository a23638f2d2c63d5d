"""One visitor, one track, one vote a window; a face there again within three seconds is the same visitor."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.types import EMOTIONS, FaceBox, Route, Vote
from edge.vision.track import Tracker, chip_weight

if TYPE_CHECKING:
    from edge.types import F32

NO_THRESHOLD: dict[Route, float] = {"unmasked": 0.0, "masked": 0.0}


def box(x: float, y: float = 100.0, side: float = 60.0) -> FaceBox:
    return FaceBox(x, y, side, side)


def sure_of(emotion: str, p: float = 0.94) -> F32:
    rest = (1 - p) / (len(EMOTIONS) - 1)
    return np.array([p if e == emotion else rest for e in EMOTIONS], np.float32)


def look(
    tracker: Tracker,
    t: float,
    *boxes: FaceBox,
    emotion: str = "happy",
    masked: float | None = None,
    still: bool = False,
) -> list[int]:
    """One frame through the tracker, all its faces with the same answer."""
    numbers = tracker.associate(boxes, t, still=still)
    for number in numbers:
        route = tracker.gate(number, masked, t)
        tracker.express(number, {route: sure_of(emotion)}, 1.0, t)
    return numbers


@pytest.mark.parametrize(("gap", "same"), [(0.1, True), (1.0, True), (2.9, True), (3.1, False), (60.0, False)])
def test_a_face_keeps_its_number_for_three_seconds(gap: float, same: bool) -> None:  # noqa: FBT001
    tracker = Tracker(NO_THRESHOLD)
    before = look(tracker, 0.0, box(100))
    for i in range(1, int(2 * gap)):
        look(tracker, i / 2)
    look(tracker, gap - 0.01)
    after = look(tracker, gap, box(100))
    assert (before == after) is same


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("stall", "same"), [(3.1, True), (6.0, True), (15.9, True), (30.0, False)])
def test_a_silence_of_the_camera_is_nobodys_absence(stall: float, *, same: bool, dark: bool) -> None:
    """A lost camera is noticed after 5 s and opened again: whoever stands there has one vote, not one more.

    So has whoever stands before a lens that somebody covers.
    """
    tracker = Tracker(NO_THRESHOLD)
    numbers = set()
    t = 0.0
    for _ in range(3):
        for _ in range(10):
            t += 0.2
            numbers |= set(look(tracker, t, box(100)))
        for i in range(1, int(stall / 0.2)) if dark else ():
            assert tracker.pass_over(t + 0.2 * i) == []
        assert dark is False or (len(tracker._tracks) == 1) is same, "after 18 s it knows nobody"
        t += stall
    assert (len(numbers) == 1) is same
    assert len(tracker.votes()) == len(numbers)


def test_who_left_before_a_silence_is_not_found_again_after_it() -> None:
    tracker = Tracker(NO_THRESHOLD)
    before = look(tracker, 0.0, box(100))
    for t in (0.5, 1.0, 1.5, 2.0, 2.5):
        look(tracker, t)
    assert look(tracker, 8.5, box(100)) != before, "2.5 s of frames without a face, and a second of the silence"


def test_after_a_silence_the_gate_is_believed_at_once() -> None:
    tracker = Tracker(NO_THRESHOLD)
    for i in range(10):
        look(tracker, 0.2 * i, box(100), masked=0.05)
    (number,) = tracker.associate([box(100)], 8.0)
    assert tracker.gate(number, 0.9, 8.0) == "masked"


def test_two_faces_have_two_numbers_and_keep_them_in_any_order() -> None:
    tracker = Tracker(NO_THRESHOLD)
    a, b = look(tracker, 0.0, box(100), box(400))
    assert a != b
    assert look(tracker, 0.1, box(402), box(103)) == [b, a]


def test_another_place_or_another_size_is_another_visitor() -> None:
    tracker = Tracker(NO_THRESHOLD)
    (a,) = look(tracker, 0.0, box(100))
    (b,) = look(tracker, 0.1, box(300))
    (c,) = look(tracker, 0.2, box(300, side=120))
    assert len({a, b, c}) == 3


def test_two_crossing_paths_are_two_visitors_all_the_way() -> None:
    """One walks right and one left, one behind the other."""
    tracker = Tracker(NO_THRESHOLD)
    numbers: set[int] = set()
    for i in range(41):
        numbers |= set(look(tracker, i / 10, box(100 + 10 * i, 100), box(500 - 10 * i, 150)))
    assert len(numbers) == 2
    assert len(tracker.votes()) == 2


@pytest.mark.parametrize(
    ("times", "votes"),
    [
        ([0.0], 0),
        ([0.0, 0.2], 0),
        ([0.0, 0.2, 0.4], 1),
        ([0.0, 0.1, 0.2], 0),
        ([0.0, 0.1, 0.2, 0.3, 0.4], 1),
        ([i / 100 for i in range(40)], 0),
        ([i / 100 for i in range(41)], 1),
        ([0.0, 1.0, 2.0], 1),
    ],
)
def test_a_vote_needs_three_sightings_a_fifth_of_a_second_apart(times: list[float], votes: int) -> None:
    tracker = Tracker(NO_THRESHOLD)
    for t in times:
        look(tracker, t, box(100))
    assert len(tracker.votes()) == votes


def test_every_still_votes_by_itself() -> None:
    tracker = Tracker(NO_THRESHOLD)
    (a,) = look(tracker, 0.0, box(100), still=True)
    (b,) = look(tracker, 1.0, box(100), still=True)
    assert a != b
    assert tracker.votes() == [Vote("unmasked", "happy")] * 2
    assert tracker.votes() == []


def test_a_visitor_votes_once_in_each_window_and_anew_in_the_next() -> None:
    tracker = Tracker(NO_THRESHOLD)
    for i in range(10):
        look(tracker, i * 0.2, box(100), emotion="happy")
    assert tracker.votes() == [Vote("unmasked", "happy")]
    for i in range(10, 20):
        look(tracker, i * 0.2, box(100), emotion="sad")
    assert tracker.votes() == [Vote("unmasked", "sad")]
    assert tracker.votes() == []


def test_a_visitor_who_left_votes_once() -> None:
    tracker = Tracker(NO_THRESHOLD)
    for i in range(4):
        look(tracker, i * 0.2, box(100))
    look(tracker, 10.0)
    assert tracker.votes() == [Vote("unmasked", "happy")]
    assert tracker.votes() == []


def test_sightings_of_the_last_window_do_not_count() -> None:
    tracker = Tracker(NO_THRESHOLD)
    for t in (0.0, 0.2):
        look(tracker, t, box(100))
    assert tracker.votes() == []
    look(tracker, 0.4, box(100))
    assert tracker.votes() == []


@pytest.mark.parametrize(("start", "bad", "stays"), [(0.95, 0.05, "masked"), (0.05, 0.95, "unmasked")])
def test_one_bad_answer_of_the_gate_does_not_flip_the_route(start: float, bad: float, stays: str) -> None:
    tracker = Tracker(NO_THRESHOLD)
    routes = []
    for i in range(20):
        t = i / 15
        (number,) = tracker.associate([box(100)], t)
        routes.append(tracker.gate(number, bad if i == 10 else start, t))
        tracker.express(number, {routes[-1]: sure_of("happy")}, 1.0, t)
    assert set(routes) == {stays}


def test_a_mask_put_on_flips_the_route_after_a_while_and_only_once() -> None:
    tracker = Tracker(NO_THRESHOLD)
    routes = []
    for i in range(60):
        t = i / 15
        (number,) = tracker.associate([box(100)], t)
        routes.append(tracker.gate(number, 0.05 if i < 20 else 0.95, t))
        tracker.express(number, {routes[-1]: sure_of("happy")}, 1.0, t)
    assert routes[:22] == ["unmasked"] * 22
    assert routes[-1] == "masked"
    assert sum(a != b for a, b in pairwise(routes)) == 1


@pytest.mark.parametrize(("first", "then", "route"), [(0.9, 0.5, "masked"), (0.1, 0.5, "unmasked")])
def test_between_four_and_six_tenths_the_route_stays(first: float, then: float, route: str) -> None:
    tracker = Tracker(NO_THRESHOLD)
    (number,) = look(tracker, 0.0, box(100), masked=first)
    for i in range(1, 100):
        tracker.associate([box(100)], i / 10)
        assert tracker.gate(number, then, i / 10) == route
        tracker.express(number, {"unmasked": sure_of("happy")}, 1.0, i / 10)


@pytest.mark.parametrize(("p", "cell"), [(0.59, "uncertain"), (0.61, "happy")])
def test_below_the_threshold_the_vote_is_uncertain(p: float, cell: str) -> None:
    tracker = Tracker({"unmasked": 0.6, "masked": 0.0})
    for t in (0.0, 0.2, 0.4):
        (number,) = tracker.associate([box(100)], t)
        tracker.express(number, {"unmasked": sure_of("happy", p)}, 1.0, t)
    (vote,) = tracker.votes()
    assert vote.cell == cell


def test_the_vote_is_the_weighted_mean_of_logs() -> None:
    tracker = Tracker(NO_THRESHOLD)
    for t, emotion, weight in ((0.0, "sad", 0.1), (0.2, "sad", 0.1), (0.4, "happy", 1.0)):
        (number,) = tracker.associate([box(100)], t)
        tracker.express(number, {"unmasked": sure_of(emotion)}, weight, t)
    assert tracker.votes() == [Vote("unmasked", "happy")]


def test_with_both_models_asked_the_more_confident_one_votes() -> None:
    tracker = Tracker(NO_THRESHOLD)
    for t in (0.0, 0.2, 0.4):
        (number,) = tracker.associate([box(100)], t)
        tracker.express(number, {"unmasked": sure_of("sad", 0.5), "masked": sure_of("fear", 0.8)}, 1.0, t)
    assert tracker.votes() == [Vote("masked", "fear")]


def test_a_zero_probability_does_not_end_a_mean() -> None:
    tracker = Tracker(NO_THRESHOLD)
    certain = np.array([0, 0, 0, 1, 0, 0, 0], np.float32)
    for t in (0.0, 0.2, 0.4):
        (number,) = tracker.associate([box(100)], t)
        track = tracker.express(number, {"unmasked": certain}, 1.0, t)
        assert np.isfinite(track.probabilities).all()
    assert tracker.votes() == [Vote("unmasked", "happy")]


def test_a_sharp_large_chip_weighs_more() -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    flat = np.full((48, 48), 100, np.uint8)
    assert chip_weight(sharp, 96) > chip_weight(flat, 96) > 0
    assert chip_weight(sharp, 96) == chip_weight(sharp, 400) > chip_weight(sharp, 48)


FRAMES = st.lists(
    st.tuples(st.floats(0.0, 4.0), st.lists(st.tuples(st.integers(0, 600), st.integers(40, 120)), max_size=5)),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(frames=FRAMES, every=st.integers(1, 12))
def test_no_window_has_more_votes_than_tracks_that_were_seen_in_it(
    frames: list[tuple[float, list[tuple[int, int]]]], every: int
) -> None:
    tracker, t = Tracker(NO_THRESHOLD), 0.0
    here: list[int] = []
    for i, (gap, faces) in enumerate(frames, 1):
        t += gap
        numbers = look(tracker, t, *[box(float(x), side=float(side)) for x, side in faces])
        assert len(set(numbers)) == len(faces)
        here += numbers
        if i % every == 0:
            seen_enough = {n for n in here if here.count(n) >= 3}
            assert len(tracker.votes()) <= len(seen_enough)
            here = []


def play(tracker: Tracker, times: list[float], *, p: float, masked: float | None = None) -> list[float]:
    """One face seen at these times; when it was looked at."""
    looked = []
    for t in times:
        (number,) = tracker.associate([box(100)], t)
        if tracker.due(number, t):
            looked.append(t)
            route = tracker.gate(number, masked, t)
            tracker.express(number, {route: sure_of("happy", p)}, 1.0, t)
        else:
            tracker.keep(number, t)
    return looked


AT_30 = [i / 30 for i in range(90)]


def test_no_camera_is_so_fast_that_a_face_is_looked_at_more_than_ten_times_a_second() -> None:
    looked = play(Tracker(NO_THRESHOLD), AT_30, p=0.2)
    assert all(b - a >= 0.1 - 1e-6 for a, b in pairwise(looked))
    assert len(looked) == 30


def test_a_settled_vote_is_looked_at_twice_a_second() -> None:
    looked = play(Tracker(NO_THRESHOLD), AT_30, p=0.94)
    assert all(b - a >= 0.5 - 1e-6 for a, b in pairwise(looked[5:]))
    assert looked[-1] >= 2.4


@pytest.mark.parametrize(("p", "masked"), [(0.2, 0.05), (0.94, 0.45)])
def test_an_open_vote_or_an_open_mask_is_not_settled(p: float, masked: float) -> None:
    assert len(play(Tracker(NO_THRESHOLD), AT_30, p=p, masked=masked)) == 30


def test_a_new_window_is_looked_at_at_once() -> None:
    tracker = Tracker(NO_THRESHOLD)
    play(tracker, AT_30, p=0.94)
    tracker.votes()
    assert play(tracker, [3.0, 3.01], p=0.94) == [3.0]


def test_frames_without_a_look_are_sightings() -> None:
    tracker = Tracker(NO_THRESHOLD)
    (number,) = tracker.associate([box(100)], 0.0)
    tracker.express(number, {"unmasked": sure_of("happy")}, 1.0, 0.0)
    for t in (0.2, 0.4):
        tracker.associate([box(100)], t)
        assert tracker.keep(number, t).frames > 1
    assert tracker.votes() == [Vote("unmasked", "happy")]


def test_a_look_stands_for_the_frames_since_the_one_before() -> None:
    """Two looks at a sad face, then one that ends four frames of a happy one: the mean over time is happy."""
    tracker = Tracker(NO_THRESHOLD)
    for t, emotion in ((0.0, "sad"), (0.2, "sad"), (0.4, None), (0.6, None), (0.8, None), (1.0, "happy")):
        (number,) = tracker.associate([box(100)], t)
        if emotion is None:
            tracker.keep(number, t)
        else:
            tracker.express(number, {"unmasked": sure_of(emotion)}, 1.0, t)
    assert tracker.votes() == [Vote("unmasked", "happy")]
