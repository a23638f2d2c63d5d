"""Copies, checks, retention and migrations of a store, in both engines."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.cli import main
from edge_aggregate.decode import milliseconds
from edge_aggregate.figures import figures, local_series
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period, last, zone
from edge_aggregate.profile import week
from edge_aggregate.sites import Sites
from edge_aggregate.store import Store, open_store
from edge_aggregate.store import store as store_module
from edge_aggregate.store.days import renew_spans, spans_summed
from edge_aggregate.store.fleet import HealthRow, StatusRow, read_fleet, write_fleet
from edge_aggregate.store.schema import VERSION
from edge_aggregate.store.upkeep import backup, check_store, restore, retain
from edge_aggregate.web import views

from edge.errors import ConfigError, StorageError
from tests.aggregate.test_store import messy_log
from tests.support.windows import DAY, dump, window, write_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD_BOOT = "9" * 32


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """New stores of an engine."""
    made: list[str] = []

    def new() -> str:
        made.append(str(tmp_path / f"store{len(made)}.db"))
        return made[-1] if request.param == "sqlite" else str(request.getfixturevalue("postgres").address())

    return new


def test_a_backup_is_a_store_and_goes_back_into_either_engine(tmp_path: Path, address: Callable[[], str]) -> None:
    copy = tmp_path / "copy.db"
    lines = messy_log(11)
    with open_store(address(), create=True) as store, open_store(address(), create=True) as other:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", lines)], batch_lines=40)
        expected = dump(store)
        backup(store, copy)
        with pytest.raises(StorageError, match="is there already"):
            backup(store, copy)
        with open_store(str(copy), read_only=True) as opened:
            assert dump(opened) == expected
            assert check_store(opened) == []
        restore(copy, other)
        assert dump(other) == expected
        assert ingest_files(other, [tmp_path / "log.jsonl"]).skipped == 1, "it knows what is in"
        with pytest.raises(StorageError, match="is not empty"):
            restore(copy, other)
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.db"]


def test_check_finds_nothing_in_a_sound_store_and_says_what_is_wrong(
    tmp_path: Path, address: Callable[[], str]
) -> None:
    with open_store(address(), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", messy_log(4))], batch_lines=17)
        assert check_store(store) == []
        store.engine.run("UPDATE days SET unmasked_happy = unmasked_happy + 1 WHERE day = (SELECT MIN(day) FROM days)")
        store.engine.run("UPDATE spans SET late_ms = late_ms + 1")
        store.engine.run("DELETE FROM gaps WHERE first_seq = (SELECT MIN(first_seq) FROM gaps)")
        store.engine.run("DELETE FROM sites WHERE name = 'hall'")
        found = " | ".join(check_store(store))
    assert "2026-03-02 is not the sum of its windows" in found
    assert "the 8 days from 2026-02-28 are not the sum of its days" in found
    assert "misses other numbers" in found
    assert "windows: " in found
    assert "of a site that is not there" in found


def old_and_new() -> list[dict[str, Any] | str]:
    """A run that ended long ago and lost its end, and one that goes on, with gaps on both sides of the cut."""
    lines: list[dict[str, Any] | str] = []
    for day in range(100):
        if day in (10, 30, 31, 90):
            continue
        fields: dict[str, Any] = {"cells": {"unmasked_happy": 10 + day, "masked_sad": 20}, "flush": True, "hours": 24}
        lines.append(window(day + 1, start=DAY + timedelta(days=day), **fields))
        if day < 5:
            lines.append(window(day + 1, start=DAY + timedelta(days=day), device="kiosk-2", boot=OLD_BOOT, **fields))
    lines.append(window(1, start=DAY + timedelta(days=6), device="kiosk-2", prev=(OLD_BOOT, 6)))
    return [*lines, "{cut"]


def test_retention_says_what_it_drops_and_changes_no_figure(tmp_path: Path, address: Callable[[], str]) -> None:
    first, cut, end = (milliseconds(DAY + timedelta(days=days)) for days in (0, 31, 100))
    with open_store(address(), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", old_and_new())])
        months = [Period(first, cut), Period(cut, end)]
        before = [figures(store, month)[0] for month in months]
        done = retain(store, 70)
        after = [figures(store, month)[0] for month in months]
        assert (done.before_ms, done.windows, done.gaps, done.days) == (cut - 86_400_000, 29 + 5 + 1, 2, 0)
        assert [one.n for one in after] == [one.n for one in before]
        assert after[1] == before[1], "the gap across the cut belongs to the day after it"
        assert check_store(store) == []
        late = [window(3, start=DAY + timedelta(days=2)), window(11, start=DAY + timedelta(days=10))]
        merged = ingest_files(store, [write_log(tmp_path / "late.jsonl", late)]).merged
        assert (merged.windows, merged.dead) == (0, 2)
        assert store.engine.fetch("SELECT lines FROM dead_kinds WHERE kind = 'retired'") == [(2,)]
        assert retain(store, 70)[1:4] == (0, 0, 0)
        assert retain(store, 65, days_too=True).days == 32 + 5 + 1
        assert check_store(store) == []
        with pytest.raises(ConfigError, match="at least 65 days"):
            retain(store, 30)


def test_one_clock_far_ahead_makes_retention_drop_nothing_more(tmp_path: Path, address: Callable[[], str]) -> None:
    ahead = window(101, start=DAY + timedelta(days=100), received=DAY.replace(year=2099))
    done = []
    for newest in (window(101, start=DAY + timedelta(days=100)), ahead):
        with open_store(address(), create=True) as store:
            ingest_files(store, [write_log(tmp_path / "log.jsonl", [*old_and_new(), newest])])
            done.append(retain(store, 70))
            more = write_log(tmp_path / "more.jsonl", [window(102, start=DAY + timedelta(days=101))])
            assert ingest_files(store, [more]).merged.windows == 1
    assert done[0].windows
    assert done[1] == done[0]


def test_one_clock_far_ahead_blanks_no_page(tmp_path: Path, address: Callable[[], str]) -> None:
    ahead = window(101, start=DAY + timedelta(days=100), received=DAY.replace(year=2099))
    with open_store(address(), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [*old_and_new(), ahead])])
        assert store.newest_ms == milliseconds(DAY + timedelta(days=100, hours=2)), "an hour after the window ended"
        heard = milliseconds(DAY + timedelta(days=100))
        write_fleet(store.engine, [StatusRow("kiosk-9", "lobby", "online", None, "1", heard, None, heard)], [])
        (week_,) = figures(store, last("7d", store.newest_ms))
        assert (week_.windows, week_.state) == (7, "provisional")
        devices = views.fleet(store, Sites({}))["devices"]
        silent = {one["device"]: one["silent_h"] > 7 * 24 for one in devices}
        assert silent == {"kiosk-1": False, "kiosk-2": True, "kiosk-9": False}


def test_once_received_far_ahead_the_last_day_is_the_last_day(tmp_path: Path, address: Callable[[], str]) -> None:
    """Whatever comes after it, and however long that clock would have held."""
    first = window(1, start=DAY, received=DAY + timedelta(days=400))
    rest = [window(hour + 1, start=DAY + timedelta(hours=hour)) for hour in range(1, 101)]
    with open_store(address(), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [first])])
        for batch, lines in enumerate((rest[:60], rest[60:])):
            ingest_files(store, [write_log(tmp_path / f"{batch}.jsonl", lines)])
        assert store.newest_ms == milliseconds(DAY + timedelta(hours=101, seconds=1))
        (figure,) = figures(store, last("24h", store.newest_ms))
        assert figure.windows == 23, "the clock is a second after the last window's end"


def test_what_is_no_window_moves_no_clock_and_makes_nothing_old(tmp_path: Path, address: Callable[[], str]) -> None:
    ahead = DAY.replace(year=2099)
    absurd = window(10**7, start=ahead, received=ahead)  # a dead letter: it leaves out too many
    with open_store(address(), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [absurd])])
        assert store.newest_ms == 0
        assert retain(store, 70)[1:] == (0, 0, 0, 0, 0, 0)
        merged = ingest_files(store, [write_log(tmp_path / "more.jsonl", [window(1)])]).merged
        assert (merged.windows, merged.dead) == (1, 0)


def test_retention_forgets_devices_that_nobody_heard_of_since(tmp_path: Path, address: Callable[[], str]) -> None:
    with open_store(address(), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", old_and_new())])
        old, new = milliseconds(DAY), milliseconds(DAY + timedelta(days=99))
        statuses = [StatusRow(f"kiosk-{n}", "lobby", "online", None, "1", old, None, old) for n in (1, 2)]
        write_fleet(store.engine, statuses, [HealthRow("kiosk-2", "lobby", "{}", new)])
        assert retain(store, 70).fleet == 1
        assert [one.device for one in read_fleet(store.engine)] == ["kiosk-2"]


def test_of_parts_of_days_that_were_dropped_nothing_is_said(
    tmp_path: Path, address: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    place, lisbon = address(), zone("Europe/Lisbon")
    with open_store(place, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", old_and_new())])
        period = last("90d", store.newest_ms)
        spring = Period(milliseconds(DAY + timedelta(days=27)), period.end_ms)  # from here on an hour before UTC's day
        before = local_series(store, spring, lisbon, ["lobby"])
        retain(store, 65)
        whole = [figures(store, Period(milliseconds(DAY), milliseconds(DAY + timedelta(days=9))))[0].windows]
        assert whole == [9 + 5 + 1]
        with pytest.raises(ConfigError, match=r"before 2026-04-06 00:00\+00:00 only whole UTC days are left"):
            local_series(store, spring, lisbon, ["lobby"])
        after = local_series(store, spring, lisbon, ["lobby"], holes=True)
        assert [one.windows for one in after[:9]] == [0] * 9
        assert after[9:] == before[9:]
        with pytest.raises(ConfigError, match="before 2026-04-06 were dropped"):
            week(store, "lobby", spring, lisbon)
    ask = ["index", "--store", place, "--zone", "Europe/Lisbon", "--from", "2026-03-30", "--to", "2026-03-31"]
    assert main([*ask, "--by", "day"]) == 2
    assert main(ask) == 2
    assert "a part of one is asked for: give dates with --zone UTC" in capsys.readouterr().err


def test_an_older_store_is_brought_up_once_and_all_or_nothing(
    tmp_path: Path, address: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = address()
    with open_store(place, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [window(1)])])
        store.engine.run("UPDATE meta SET value = ? WHERE key = 'schema'", (VERSION,))
    new = VERSION + 1
    monkeypatch.setattr(store_module, "VERSION", new)
    broken = ("ALTER TABLE terms ADD COLUMN note TEXT", "ALTER TABLE nothing ADD COLUMN note TEXT")
    monkeypatch.setattr(store_module, "MIGRATIONS", {new - 1: broken})
    with pytest.raises(StorageError):
        open_store(place)
    monkeypatch.setattr(store_module, "MIGRATIONS", {new - 1: broken[:1]})
    with pytest.raises(StorageError, match=r"older edge-aggregate .* run `ingest` once"):
        open_store(place, read_only=True)
    with open_store(place) as one, open_store(place) as two:
        assert one.engine.version() == two.engine.version() == new
        assert one.engine.fetch("SELECT COUNT(note), COUNT(*) FROM terms") == [(0, 1)]
    monkeypatch.undo()
    with pytest.raises(StorageError, match="newer edge-aggregate"):
        open_store(place)


def as_before(store: Store, version: int) -> None:
    """Take away what a store of an older version did not have."""
    newer = {
        1: ("DROP TABLE spans", "DELETE FROM meta WHERE key = 'spans'"),
        2: ("DROP INDEX segments_by_content",),
        3: ("DROP INDEX terms_by_value", "ALTER TABLE terms DROP COLUMN device"),
    }
    for statement in (statement for at, some in newer.items() if at >= version for statement in some):
        store.engine.run(statement)
    store.engine.run("UPDATE meta SET value = ? WHERE key = 'schema'", (version,))


def test_a_store_whose_clock_was_far_ahead_is_put_right_once(tmp_path: Path, address: Callable[[], str]) -> None:
    place = address()
    late = window(101, start=DAY + timedelta(days=100), received=DAY.replace(year=2099))
    with open_store(place, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [*old_and_new(), late])])
        before, right, spans = dump(store), store.newest_ms, spans_summed(store.engine)
        with store.engine.writing():  # as it would have been
            store.engine.run(
                "UPDATE meta SET value = ? WHERE key = 'newest_ms'", (milliseconds(DAY.replace(year=2099)),)
            )
            renew_spans(store.engine, ())
        assert spans_summed(store.engine) > spans + 1000
        as_before(store, 3)
    with open_store(place) as store:
        assert (store.newest_ms, spans_summed(store.engine)) == (right, spans)
        assert (dump(store), check_store(store)) == (before, [])
        assert store.engine.fetch("SELECT COUNT(*) FROM terms WHERE device IS NULL") == [(1,)]


def test_a_store_without_spans_gets_them_and_says_the_same(tmp_path: Path, address: Callable[[], str]) -> None:
    place, month = address(), Period(milliseconds(DAY), milliseconds(DAY + timedelta(days=60)))
    with open_store(place, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", old_and_new())])
        before, found = dump(store), figures(store, month)
        assert before["spans"]
        as_before(store, 1)
    with open_store(place) as store:
        assert (figures(store, month), check_store(store)) == (found, [])
        assert not dump(store)["spans"]
        ingest_files(store, [write_log(tmp_path / "more.jsonl", ["{cut"])])
        assert dump(store)["spans"] == before["spans"]
        assert (figures(store, month), check_store(store)) == (found, [])


def test_a_store_that_cannot_look_contents_up_learns_to(tmp_path: Path, address: Callable[[], str]) -> None:
    place = address()
    with open_store(place, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", old_and_new())])
        before = dump(store)
        as_before(store, 2)
    with open_store(place) as store:
        assert store.engine.version() == VERSION
        assert dump(store) == before
        store.engine.run("DROP INDEX segments_by_content")  # which is there


def test_the_commands_back_up_check_retain_and_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, copy, new = (str(tmp_path / name) for name in ("store.db", "copy.db", "new.db"))
    with open_store(store, create=True) as opened:
        ingest_files(opened, [write_log(tmp_path / "log.jsonl", old_and_new())])
        before = dump(opened)
    assert main(["backup", "--store", store, copy]) == 0
    assert main(["backup", "--store", store, copy]) == 74, "never over another file"
    assert main(["restore", "--store", new, copy]) == 0
    with open_store(new, read_only=True) as opened:
        assert dump(opened) == before
    assert main(["retain", "--store", store, "--days", "70"]) == 0
    assert main(["check", "--store", store]) == 0
    assert "dropped what began before 2026-04-01: 35 windows" in capsys.readouterr().out
    with open_store(new) as opened:
        opened.engine.run("UPDATE days SET unmasked_happy = unmasked_happy + 1 WHERE day = (SELECT MIN(day) FROM days)")
    assert main(["check", "--store", new]) == 1
    assert "is not the sum of its windows" in capsys.readouterr().out
