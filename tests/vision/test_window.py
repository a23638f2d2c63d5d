"""Windows tile the time; UTC is a label on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.vision.window import Timeline, Window, grid_floor

if TYPE_CHECKING:
    from edge.types import TimeQuality

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Hands:
    """A clock that is set by hand."""

    kernel_boot_id = "0" * 32

    def __init__(self, utc: datetime, mono: float = 500.0, quality: TimeQuality = "synced") -> None:
        self.utc, self.mono, self.quality = utc, mono, quality

    def monotonic(self) -> float:
        return self.mono

    def utcnow(self) -> datetime:
        return self.utc

    def time_quality(self) -> TimeQuality:
        return self.quality

    def advance(self, seconds: float) -> None:
        self.mono += seconds
        self.utc += timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("when", "seconds", "floor"),
    [
        (NOON + timedelta(minutes=17), 3600, NOON),
        (NOON, 3600, NOON),
        (NOON + timedelta(seconds=59.9), 60, NOON),
        (NOON + timedelta(minutes=61), 86400, datetime(2026, 11, 21, tzinfo=UTC)),
    ],
)
def test_grid_floor(when: datetime, seconds: float, floor: datetime) -> None:
    assert grid_floor(when, seconds) == floor


@pytest.mark.parametrize("quality", ["synced", "holdover"])
def test_a_live_camera_of_a_set_clock_is_cut_at_utc_multiples(quality: TimeQuality) -> None:
    clock = Hands(NOON + timedelta(minutes=50), quality=quality)
    line = Timeline(clock, 3600, live=True)
    first = line.next_cut(line.start)
    assert first - line.start == pytest.approx(600)
    assert line.next_cut(first) - first == pytest.approx(3600)
    assert abs(line.utc(first) - (NOON + timedelta(hours=1))) < timedelta(milliseconds=1)
    assert line.mono(first) == first


def test_a_live_camera_of_an_unset_clock_is_cut_at_its_own_multiples() -> None:
    clock = Hands(NOON + timedelta(minutes=50), quality="unsynced")
    line = Timeline(clock, 3600, live=True)
    assert line.next_cut(line.start) - line.start == 3600
    assert line.quality() == "unsynced"


def test_a_window_that_starts_a_hair_early_is_not_milliseconds_long() -> None:
    clock = Hands(NOON - timedelta(microseconds=500))
    line = Timeline(clock, 3600, live=True)
    assert line.next_cut(line.start) - line.start > 3599


def test_a_clock_that_is_set_while_running_labels_what_follows() -> None:
    clock = Hands(datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC), quality="unsynced")
    line = Timeline(clock, 60, live=True)
    clock.advance(10)
    clock.utc, clock.quality = NOON + timedelta(seconds=30), "synced"
    assert line.utc(clock.mono) == NOON + timedelta(seconds=30)
    assert line.next_cut(clock.mono) - clock.mono == pytest.approx(30)


def test_a_replay_gives_the_same_windows_however_fast_it_is_read() -> None:
    labels = []
    for pace in (0.0, 7.0):
        clock = Hands(NOON + timedelta(seconds=25))
        line = Timeline(clock, 10, live=False)
        cuts, t = [], line.start
        for _ in range(5):
            clock.advance(pace)
            t = line.next_cut(t)
            cuts.append((t, line.utc(t), line.mono(t)))
        labels.append(cuts)
    assert labels[0] == labels[1]
    assert [c[0] for c in labels[0]] == [10, 20, 30, 40, 50]
    assert labels[0][0][1] == NOON + timedelta(seconds=30)
    assert labels[0][0][2] == 510


def test_a_look_is_split_over_the_windows_it_lies_in() -> None:
    first, second = Window(0, 10), Window(10, 20)
    for window in (first, second):
        window.watch(8, 13, "ok")
    assert (first.held, second.held) == ({"ok": 2}, {"ok": 3})
    assert first.coverage(10) == pytest.approx(0.2)
    assert second.coverage(20) == pytest.approx(0.3)


@pytest.mark.parametrize(("start", "end"), [(10, 12), (-3, 0), (5, 5), (7, 6)])
def test_a_look_outside_the_window_is_not_credited(start: float, end: float) -> None:
    window = Window(0, 10)
    window.watch(start, end, "ok")
    assert window.held == {}


def test_darkness_covers_nothing() -> None:
    window = Window(0, 10)
    window.watch(0, 10, "dark")
    assert (window.coverage(10), window.scene(10)) == (0.0, "dark")


def test_the_scene_is_what_held_longest_and_frozen_without_a_frame() -> None:
    window = Window(0, 10)
    assert window.scene(10) == "frozen"
    window.watch(0, 3, "ok")
    window.watch(3, 10, "paused")
    assert window.scene(10) == "paused"
    assert window.coverage(10) == pytest.approx(0.3)


def test_the_seconds_of_several_cameras_add_up() -> None:
    window = Window(0, 10, cameras=2)
    window.watch(0, 10, "ok")
    window.watch(0, 4, "ok")
    window.watch(4, 10, "covered")
    assert window.coverage(10) == pytest.approx(0.7)
    assert window.scene(10) == "ok"


def test_time_without_a_frame_is_frozen_however_good_the_rest_was() -> None:
    window = Window(0, 10)
    window.watch(0, 4, "ok")
    assert window.scene(10) == "frozen"
    assert window.scene(7) == "ok"


def test_a_partial_window_is_measured_by_its_own_length() -> None:
    window = Window(0, 3600)
    window.watch(0, 5, "ok")
    assert window.coverage(10) == pytest.approx(0.5)
    assert window.coverage(0) == 0.0


@settings(max_examples=80, deadline=None)
@given(
    offset=st.floats(0, 86400),
    seconds=st.sampled_from([0.1, 0.5, 1.0, 10.0, 60.0, 300.0, 3600.0, 86400.0]),
    quality=st.sampled_from(["synced", "holdover", "unsynced"]),
    live=st.booleans(),
    looks=st.lists(st.floats(0.001, 20), max_size=20),
)
def test_windows_tile_the_time(
    offset: float,
    seconds: float,
    quality: TimeQuality,
    live: bool,  # noqa: FBT001
    looks: list[float],
) -> None:
    """No gap and no overlap: cuts grow, none is too long, and what was watched is watched exactly once."""
    clock = Hands(NOON + timedelta(seconds=offset), quality=quality)
    line = Timeline(clock, seconds, live=live)
    windows, t = [], line.start
    for _ in range(30):
        cut = line.next_cut(t)
        assert 0 < cut - t <= seconds * 1.01
        windows.append(Window(t, cut))
        t = cut
    assert all(a.end == b.start for a, b in pairwise(windows))
    at = line.start
    for length in looks:
        for window in windows:
            window.watch(at, at + length, "ok")
        at += length
    watched = min(at, windows[-1].end) - line.start
    assert sum(w.held.get("ok", 0.0) for w in windows) == pytest.approx(watched, abs=1e-6)
    assert all(w.coverage(w.end) <= 1 for w in windows)
