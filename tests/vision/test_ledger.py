"""Vision's own memory: each window is drawn once, and a day's budget is a bound whatever restarts and clocks do."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.config import StorageSection
from edge.errors import StorageError
from edge.outbox.outbox import Outbox
from edge.types import Vote, WindowReport
from edge.vision.ledger import DAY_S, SHORTEST_DAY_S, Ledger
from edge.vision.privacy import Accumulators, Policy
from edge.vision.recorder import Recorder
from edge.vision.service import Vision
from edge.vision.window import Timeline, Window
from tests.support.appliance import closing, vision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.config import Config
    from edge.types import TimeQuality

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HAPPY = [Vote("unmasked", "happy")] * 3
HELD_BACK = Policy("off", Fraction(1), 10)


class Clock:
    """Readings that tests set."""

    def __init__(self) -> None:
        self.kernel_boot_id, self.mono, self.now = "0" * 32, 1000.0, NOON

    def monotonic(self) -> float:
        return self.mono

    def utcnow(self) -> datetime:
        return self.now

    quality: TimeQuality = "synced"

    def time_quality(self) -> TimeQuality:
        return self.quality

    def pass_time(self, seconds: float) -> None:
        """Both clocks run."""
        self.mono += seconds
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A picture of nobody."""
    file = tmp_path / "still.png"
    cv2.imwrite(str(file), np.zeros((64, 64, 3), np.uint8))
    return file


def recorder(folder: Path, clock: Clock, policy: str = "policy") -> Recorder:
    """Of a run that has begun."""
    made = Recorder(StorageSection(outbox=folder / "outbox.db", runtime=folder), clock, policy, "lobby/kiosk-07")
    made.begin()
    return made


def test_what_is_held_back_outlives_a_restart_but_not_a_change_of_policy(tmp_path: Path) -> None:
    seen: list[tuple[Accumulators, str | None]] = []

    def watching(held: Accumulators, day: str | None) -> tuple[WindowReport, Accumulators]:
        seen.append((held, day))
        return closing(HAPPY, HELD_BACK, end=NOON)(held, day)

    for policy in ("one", "one", "two"):
        run = recorder(tmp_path, Clock(), policy)
        run.put(watching)
        run.close()
    assert [day for _, day in seen] == [None, "2026-11-21", "2026-11-21"]
    assert [held.get("unmasked", {}).get("happy") for held, _ in seen] == [None, (3, 0), None]


def test_what_a_power_cut_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    recorder(tmp_path, Clock()).close()
    folder = tmp_path / "outbox.db.ledger"
    (folder / ".ledger.json.0123abcd").write_bytes(b"{")
    recorder(tmp_path, Clock()).close()
    assert [path.name for path in folder.iterdir()] == ["ledger.json"]


def test_the_ledger_is_visions_alone(tmp_path: Path) -> None:
    run = recorder(tmp_path, Clock())
    run.put(closing(HAPPY))
    run.close()
    folder = run.ledger.path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.ledger.path.stat().st_mode) == 0o600
    with sqlite3.connect(tmp_path / "outbox.db") as db:
        assert not db.execute("SELECT * FROM meta WHERE name IN ('accumulators', 'spent', 'policy')").fetchall()
    db.close()
    folder.chmod(0o770)
    with pytest.raises(StorageError, match="writable by nobody else"):
        recorder(tmp_path, Clock())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_ledger_that_somebody_else_put_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outbox.db.ledger").mkdir(mode=0o700)
    os.chown(tmp_path / "outbox.db.ledger", 4711, -1)
    with pytest.raises(StorageError, match="must belong to the vision service"):
        recorder(tmp_path, Clock())


def test_a_window_closed_before_a_power_cut_is_recorded_after_it_as_it_was_drawn(tmp_path: Path) -> None:
    clock = Clock()
    run = recorder(tmp_path, clock)
    run.put(closing(HAPPY, end=NOON))
    enemy = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    enemy.execute("BEGIN IMMEDIATE")  # held for ever: no commit of vision's gets through
    assert run._outbox is not None
    run._outbox._db.execute("PRAGMA busy_timeout=10")
    run.put(closing([Vote("masked", "sad")], end=NOON + timedelta(hours=1)))
    assert (run.waiting, run.trouble) == (1, "busy")
    enemy.execute("ROLLBACK")
    enemy.close()
    clock.kernel_boot_id = "1" * 32  # the power goes, and comes back
    again = recorder(tmp_path, clock)
    again.put(closing(end=NOON + timedelta(hours=2)))
    again.close()
    with Outbox(tmp_path / "outbox.db") as outbox:
        rows = outbox.unsent()
    assert [row.report().counts["masked"]["sad"] for row in rows] == [0, 1, 0]
    assert [row.kernel_boot_id[0] for row in rows] == ["0", "0", "1"], "its monotonic times are the old kernel's"
    last = recorder(tmp_path, clock)
    last.close()
    with Outbox(tmp_path / "outbox.db") as outbox:
        assert len(outbox.unsent()) == 3, "not twice"


def test_an_outbox_of_an_older_version_hands_over_what_it_held(tmp_path: Path) -> None:
    held = {"unmasked": {"happy": [7, 2]}}
    old = {
        "accumulators": json.dumps(held),
        "policy": "policy",
        "flush_day": "2026-11-20",
        "spent": '["2026-11-21", "3"]',
    }
    with vision(tmp_path) as outbox:
        outbox.commit(closing(HAPPY))
        outbox._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", old.items())
    run = recorder(tmp_path, Clock())
    assert run.ledger.held == {"unmasked": {"happy": (7, 2)}}
    assert (run.ledger.flush_day, float(run.ledger.spent("2026-11-21"))) == ("2026-11-20", 3.0)
    run.close()
    with vision(tmp_path, "b" * 32) as outbox:
        assert outbox.inherited() == {}, "a version that goes back does not release it a second time"
        outbox._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", old.items())
        assert len(outbox.unsent()) == 1
    again = recorder(tmp_path, Clock())
    assert again.ledger.held == {"unmasked": {"happy": (7, 2)}}
    again.close()


@pytest.mark.parametrize("value", ["[" * 100_000, "{", "7", '[["x"]]', '{"unmasked": {"happy": ["x", 1]}}'])
def test_what_an_older_outbox_holds_may_be_an_enemys(tmp_path: Path, value: str) -> None:
    with vision(tmp_path) as outbox:
        for name in ("accumulators", "spent", "policy", "flush_day"):
            outbox._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
    recorder(tmp_path, Clock()).close()


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"version": 2}', b"\xff"])
def test_a_damaged_ledger_fails_towards_spent(tmp_path: Path, content: bytes) -> None:
    clock = Clock()
    run = recorder(tmp_path, clock)
    run.put(closing(HAPPY))
    run.close()
    run.ledger.path.write_bytes(content)
    ledger = Ledger(tmp_path / "outbox.db", clock, "policy")
    assert ledger.spent("2026-11-21") > 10**6
    assert ledger.path.with_name("ledger.json.damaged").read_bytes() == content
    clock.pass_time(86400)
    assert ledger.spent("2026-11-22") == 0


def test_a_new_days_budget_takes_half_a_day_of_the_monotonic_clock(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path / "outbox.db", clock, "policy")
    ledger.spend("2026-11-21", Fraction(5))
    for day in ("2026-11-22", "2026-11-20", "2027-11-21", "2026-11-23"):
        assert ledger.spent(day) == 5, "a clock that is set gives nobody a budget"
    clock.pass_time(SHORTEST_DAY_S)
    assert ledger.spent("2026-11-22") == 0
    ledger.spend("2026-11-22", Fraction(1))
    assert [ledger.spent(day) for day in ("2026-11-21", "2026-11-22")] == [1, 1]
    clock.kernel_boot_id, clock.mono = "1" * 32, 5.0
    assert ledger.spent("2026-11-21") == 1, "back in time after a power cut"
    assert ledger.spent("2026-11-23") == 1
    clock.pass_time(SHORTEST_DAY_S)
    assert ledger.spent("2026-11-21") == 0


def test_a_clock_that_starts_in_the_past_each_morning_does_not_hold_the_days_budget_back(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path / "outbox.db", clock, "policy")
    ledger.spend("2026-11-21", Fraction(12))
    ledger.save(())
    for day in ("2026-11-22", "2026-11-23"):
        clock.kernel_boot_id, clock.mono = day, 5.0  # off over night, and no battery behind the clock
        ledger = Ledger(tmp_path / "outbox.db", clock, "policy")
        clock.quality = "unsynced"
        assert ledger.spent("2026-01-01") > 0, "no budget for starting in the past"
        clock.quality = "synced"
        assert ledger.spent(day) == 0
        ledger.spend(day, Fraction(1))
        ledger.save(())
    clock.quality, clock.kernel_boot_id, clock.mono = "unsynced", "never set", 5.0
    ledger = Ledger(tmp_path / "outbox.db", clock, "policy")
    assert ledger.spent("2026-01-01") == 1
    clock.pass_time(SHORTEST_DAY_S)
    assert ledger.spent("2026-01-01") == 0, "without a network time itself makes the day"


class Restarted(Clock):
    """Not set, and at the same date each time it is switched on."""

    quality: TimeQuality = "unsynced"

    def __init__(self, boot: int, at: datetime) -> None:
        super().__init__()
        self.kernel_boot_id, self.mono, self.now = f"{boot:032x}", 5.0, at


@pytest.mark.parametrize("at", [datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 1, 20, tzinfo=UTC)])
def test_a_clock_that_never_gets_on_begins_a_day_by_running(tmp_path: Path, at: datetime) -> None:
    """Ten hours a day, in windows of two; at 20:00 each run passes midnight."""
    begun, ran = [], 0.0
    for boot in range(30):
        clock = Restarted(boot, at)
        ledger = Ledger(tmp_path / "outbox.db", clock, "policy")
        for _ in range(5):
            day = clock.now.date().isoformat()
            clock.pass_time(7200)
            ran += 2
            if ledger.spent(day) == 0:
                begun.append(ran)
            ledger.spend(day, Fraction(1))
            ledger.save(())
    spans = [b - a for a, b in pairwise(begun)]
    assert len(begun) >= 12
    assert set(spans[1:]) == {24.0}, "no more than one a day of running, and no less"


def test_a_day_that_its_date_begins_is_begun_by_no_running(tmp_path: Path) -> None:
    """The midnight flush has just been, and a second one would release a window by itself."""
    clock = Clock()
    clock.quality = "unsynced"
    ledger = Ledger(tmp_path / "outbox.db", clock, "policy")
    ledger.spend("2026-11-21", Fraction(1))
    clock.pass_time(DAY_S + 1)
    assert ledger.spent("2026-11-22") == 0
    assert not ledger.begins_by_running("2026-11-22")
    assert ledger.begins_by_running("2026-11-21"), "where the date stands still"


def test_running_begins_no_day_once_the_clock_is_set(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path / "outbox.db", clock, "policy")
    ledger.spend("2026-11-21", Fraction(1))
    clock.mono += 10 * DAY_S
    assert ledger.spent("2026-11-21") == 1, "set, and it says that it is the same day"
    clock.quality = "unsynced"
    assert ledger.spent("2026-11-21") == 0
    assert ledger.begins_by_running("2026-11-21")
    ledger.spend("2026-11-21", Fraction(1))
    assert not ledger.begins_by_running("2026-11-21")
    clock.mono += SHORTEST_DAY_S
    assert ledger.spent("2026-11-22") == 1, "its dates do not count any more"
    clock.quality = "synced"
    assert ledger.spent("2026-11-22") == 0


def test_a_day_that_running_begins_empties_the_old_one(settings: Callable[..., Config], still: Path) -> None:
    clock = Restarted(1, datetime(2026, 5, 1, 1, tzinfo=UTC))
    service = Vision(settings(still), clock=clock)
    window = Window(0.0, 7200.0, looked=True, watched=True)
    ledger = service._recorder.ledger
    flushed = []
    for hours in (0, 2, 24, 2):
        clock.mono += hours * 3600
        service._recorder.put(service._report(window, 7200.0, []))
        with Outbox(service._config.storage.outbox) as outbox:
            flushed.append(outbox.unsent()[-1].report().flush)
    assert flushed == [False, False, True, False]
    assert ledger.spent("2026-05-01") == 2
    service._finish()


def test_a_window_from_midnight_is_the_new_days(settings: Callable[..., Config], still: Path) -> None:
    """Its label is taken as it closes, and a clock that was slewed meanwhile puts it some microseconds before."""
    clock = Clock()
    clock.now = datetime(2026, 11, 22, 2, tzinfo=UTC) - timedelta(microseconds=40)
    service = Vision(settings(still), clock=clock)
    service._timeline = Timeline(clock, 7200, live=True)
    ledger = service._recorder.ledger
    ledger.spend("2026-11-21", Fraction(12))
    clock.mono += SHORTEST_DAY_S
    window = Window(clock.mono - 7200, clock.mono, watched=True)
    report, _ = service._report(window, clock.mono, [])({}, None)
    assert report.start.day == 21
    assert not report.privacy.exhausted
    service._finish()


def test_by_default_a_day_costs_no_more_than_its_windows_however_often_it_is_started(
    settings: Callable[..., Config], tmp_path: Path
) -> None:
    folder = tmp_path / "stills"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), np.random.default_rng(i).integers(0, 255, (120, 160), np.uint8))
    config = settings(folder, window={"seconds": 43200.0})
    for _ in range(4):
        Vision(config).run()
    with Outbox(config.storage.outbox) as outbox:
        spoken = [row.report().privacy.exhausted for row in outbox.unsent()]
    assert spoken == [False, False, True, True], "two windows of twelve hours make a day"


def test_steps_of_the_clock_make_no_short_windows() -> None:
    clock = Clock()
    line = Timeline(clock, 3600, live=True)
    clock.now += timedelta(minutes=50)
    first = line.next_cut(line.start)
    assert first - line.start == pytest.approx(600), "the first may be short"
    lengths = []
    t = first
    for step in (59, -31, 45, 29.5, -59, 1):
        clock.pass_time(t - clock.mono)
        clock.now += timedelta(minutes=step)
        end = line.next_cut(t)
        lengths.append(end - t)
        t = end
    assert min(lengths) >= 1800
    clock.pass_time(t - clock.mono)
    assert line.next_cut(t) - t == pytest.approx(3600), "back on the grid"
