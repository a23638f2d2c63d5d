"""What a store holds does not depend on how the log came: its order, its batches, a second try."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.ingest import expand, ingest_files
from edge_aggregate.store import open_store
from edge_aggregate.store.sqlite import AT_ONCE
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import SourceError, StorageError
from tests.support.windows import BOOT, DAY, dump, window, write_log

if TYPE_CHECKING:
    from pathlib import Path

OLD = "b" * 32


def messy_log(seed: int) -> list[dict[str, Any] | str]:
    """Three days of three devices, and a later one: gaps, a lost tail, duplicates, conflicts, hostile lines."""
    r = random.Random(seed)  # noqa: S311 - no secret
    lines: list[dict[str, Any] | str] = []
    for device in range(3):
        boots = [f"{device}{'c' * 31}", f"{device}{'d' * 31}"]
        for hour in range(72):
            second = hour >= 40
            fields: dict[str, Any] = {
                "start": DAY + timedelta(hours=hour),
                "device": f"kiosk-{device}",
                "boot": boots[second],
                "prev": (boots[0], 40) if second else None,
                "site": "lobby" if device else "hall",
                "cells": {"unmasked_happy": r.randrange(10, 40), "masked_sad": r.randrange(10, 30)},
                "draws": {"unmasked_happy": r.randrange(1, 9)},
                "flush": hour % 24 == 23,
            }
            seq = hour - 39 if second else hour + 1
            if r.random() < 0.08 or 37 < hour < 40:
                continue
            lines.append(window(seq, **fields))
            while r.random() < 0.2:
                lines.append(window(seq, **fields, received=DAY + timedelta(hours=r.randrange(100))))
            while r.random() < 0.1:
                other = fields | {"coverage": r.choice([0.25, 0.5])}
                lines.append(window(seq, **other, received=DAY + timedelta(hours=r.randrange(hour, 100))))
            if r.random() < 0.05:
                lines.append('{"cut": [')
    # A week on, so that the span of these days is over: what is read after this line comes late for it.
    lines.append(window(60, start=DAY + timedelta(days=8), device="kiosk-0", boot=f"0{'d' * 31}", site="hall"))
    return lines


def store_of(folder: Path, lines: list[dict[str, Any] | str], batch_lines: int) -> dict[str, list[str]]:
    path = write_log(folder / "log.jsonl", lines)
    with open_store(":memory:", create=True) as store:
        ingest_files(store, [path], batch_lines=batch_lines)
        return dump(store)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1000), batch_lines=st.integers(1, 300), shuffle=st.integers(0, 1000))
def test_neither_order_nor_batches_change_what_counts(
    tmp_path_factory: pytest.TempPathFactory, seed: int, batch_lines: int, shuffle: int
) -> None:
    lines = messy_log(seed)
    whole = store_of(tmp_path_factory.mktemp("whole"), lines, 10_000)
    random.Random(shuffle).shuffle(lines)  # noqa: S311 - no secret
    assert store_of(tmp_path_factory.mktemp("cut"), lines, batch_lines) == whole
    assert all(whole[table] for table in whole), "every table has something in it"


def test_days_are_what_the_windows_add_up_to(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", messy_log(7))
    with open_store(":memory:", create=True) as store:
        ingest_files(store, [path], batch_lines=37)
        by_day = store.engine.fetch(
            "SELECT SUM(windows), SUM(duplicates), SUM(unmasked_happy), SUM(draws_unmasked_happy) FROM days"
        )
        by_window = store.engine.fetch(
            "SELECT COUNT(*), SUM(duplicates), SUM(unmasked_happy), SUM(draws_unmasked_happy) FROM windows"
        )
        by_span = store.engine.fetch(
            "SELECT SUM(windows), SUM(duplicates), SUM(unmasked_happy), SUM(draws_unmasked_happy) FROM spans"
        )
        last = store.engine.fetch("SELECT windows FROM days WHERE day = (SELECT MAX(day) FROM days)")
    assert by_day == by_window
    assert by_span[0][0] == by_day[0][0] - last[0][0], "all but the day whose span is not over"


def test_a_file_is_read_once_whatever_it_is_called(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", messy_log(1))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    with open_store(str(tmp_path / "store.db"), create=True) as store:
        first = ingest_files(store, [path])
        before = dump(store)
        again = ingest_files(store, [path, copy])
        assert dump(store) == before
    assert (first.skipped, again.skipped, again.files) == (0, 2, 0)


def test_a_file_that_grew_is_read_on_and_one_that_changed_is_refused(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", [window(1)])
    with open_store(":memory:", create=True) as store:
        ingest_files(store, [path])
        with path.open("a") as file:
            file.write(write_log(tmp_path / "more", [window(2, start=DAY + timedelta(hours=1))]).read_text())
        assert ingest_files(store, [path]).merged.windows == 1
        write_log(path, [window(9), window(2), window(3)])
        with pytest.raises(SourceError, match="was changed before byte"):
            ingest_files(store, [path])


def test_a_batch_that_fails_leaves_what_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = messy_log(3)
    path = write_log(tmp_path / "log.jsonl", lines)
    with open_store(":memory:", create=True) as store:
        real = store.engine.load
        loads = []

        def fails(table: str, *args: Any) -> None:  # noqa: ANN401
            loads.append(table)
            if loads.count("windows") == 3 and table == "windows":
                msg = "the disk is full"
                raise StorageError(msg)
            real(table, *args)

        monkeypatch.setattr(store.engine, "load", fails)
        with pytest.raises(StorageError):
            ingest_files(store, [path], batch_lines=50)
        assert store.progress(str(path)) is not None
        monkeypatch.undo()
        ingest_files(store, [path], batch_lines=50)
        resumed = dump(store)
    assert resumed == store_of(tmp_path, lines, 1000)


def test_the_one_received_first_is_kept_and_the_other_shown(tmp_path: Path) -> None:
    late = window(1, coverage=0.5, received=DAY + timedelta(hours=5))
    early = window(1, coverage=0.25, received=DAY + timedelta(hours=2))
    path = write_log(tmp_path / "log", [late, late, early])
    with open_store(":memory:", create=True) as store:
        merged = ingest_files(store, [path]).merged
        assert store.engine.fetch("SELECT coverage, duplicates FROM windows") == [(0.25, 0)]
        assert store.engine.fetch("SELECT lines FROM variants") == [(2,)]
    assert (merged.windows, merged.duplicates, merged.conflicts) == (1, 0, 2)


def test_a_number_that_leaves_out_a_million_is_a_dead_letter_and_not_a_million_missing(tmp_path: Path) -> None:
    lines = [window(1), window(2_000_003), window(2, prev=(OLD, 2_000_000)), window(4, prev=(OLD, 3))]
    with open_store(":memory:", create=True) as store:
        merged = ingest_files(store, [write_log(tmp_path / "log", lines)]).merged
        gaps = store.engine.fetch("SELECT SUM(last_seq - first_seq + 1) FROM gaps")
        assert store.engine.fetch("SELECT kind, lines FROM dead_kinds") == [("gap", 2)]
    assert (merged.windows, merged.dead, gaps) == (2, 2, [(2 + 3,)])


@pytest.mark.parametrize("batch_lines", [1, 10])
@pytest.mark.parametrize("absurd_first", [True, False])
def test_an_absurd_claim_takes_no_windows_place(tmp_path: Path, batch_lines: int, *, absurd_first: bool) -> None:
    """It was received first, and would win; whether what it contradicts is held, or comes with it, or after it."""
    lines = [
        window(1, prev=(OLD, 3), received=DAY + timedelta(hours=5)),
        window(1, prev=(OLD, 2**63 - 1), received=DAY + timedelta(hours=2)),
        window(1, prev=(OLD, 3), received=DAY + timedelta(hours=4)),
    ]
    with open_store(":memory:", create=True) as store:
        log = write_log(tmp_path / "log", lines[1:] + lines[:1] if absurd_first else lines)
        merged = ingest_files(store, [log], batch_lines=batch_lines).merged
        assert store.engine.fetch("SELECT prev_seq, duplicates FROM windows") == [(3, 1)]
        assert store.engine.fetch("SELECT first_seq, last_seq FROM gaps") == [(1, 3)]
        assert store.engine.fetch("SELECT kind, lines FROM dead_kinds") == [("gap", 1)]
    assert tuple(merged) == (1, 1, 0, 1)


def test_whether_a_file_is_in_is_looked_up_and_not_searched_for() -> None:
    with open_store(":memory:", create=True) as store:
        plan = store.engine.fetch("EXPLAIN QUERY PLAN SELECT name FROM segments WHERE bytes = 1 AND sha256 = ''")
    assert "USING INDEX segments_by_content" in str(plan)


def test_dead_letters_are_bounded_and_all_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_aggregate.store.merge.DEAD_KEPT", 5)
    with open_store(":memory:", create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log", [f"no {n}" for n in range(12)])], batch_lines=4)
        assert store.engine.fetch("SELECT COUNT(*), MAX(line) FROM dead") == [(5, 12)]
        assert store.engine.fetch("SELECT lines FROM dead_kinds") == [(12,)]


def test_of_more_keys_than_a_query_takes_each_is_found_once() -> None:
    names = [f"kiosk-{number:04}" for number in range(2 * AT_ONCE + 1)]
    with open_store(":memory:", create=True) as store:
        store.engine.load("devices", ("id", "name"), [(at, name) for at, name in enumerate(names) if at % 3])
        for wanted in (names, names[:AT_ONCE], names[:1], []):
            found = store.engine.match("devices", ("name",), [(name,) for name in wanted], ("name", "id"))
            assert found == [(name, at) for at, name in enumerate(wanted) if at % 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no database at all, but long enough to be one" * 50, "is no store"), (None, "no store is there")],
)
def test_what_is_no_store_is_told_in_a_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "store.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError, match=message):
        open_store(str(path))


def test_a_store_of_another_program_or_a_newer_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StorageError, match="another program"):
        open_store(str(tmp_path / "other.db"), create=True)
    with open_store(str(tmp_path / "store.db"), create=True) as store:
        store.engine.run("UPDATE meta SET value = 99 WHERE key = 'schema'")
    with pytest.raises(StorageError, match="newer edge-aggregate"):
        open_store(str(tmp_path / "store.db"))


def test_globs_are_expanded_by_the_program_and_unfinished_segments_left(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.jsonl.tmp"):
        write_log(tmp_path / name, [])
    names = [path.name for path in expand([f"{tmp_path}/*", f"{tmp_path}/a.jsonl"])]
    assert names == ["a.jsonl", "b.jsonl"]
    with pytest.raises(SourceError, match="no such file"):
        expand([f"{tmp_path}/*.log"])
    with pytest.raises(SourceError, match="is a folder"):
        expand([str(tmp_path)])


def test_payloads_as_text_and_as_bytes_are_the_same_window(tmp_path: Path) -> None:
    import base64
    import json

    line = window(1)
    text = json.dumps(line["payload"])
    lines = [line, line | {"payload": text}, line | {"payload": {"base64": base64.b64encode(text.encode()).decode()}}]
    lines.append(line | {"payload": {"base64": base64.b64encode(b"\xff\xfe").decode()}})
    with open_store(":memory:", create=True) as store:
        merged = ingest_files(store, [write_log(tmp_path / "log", lines)]).merged
    assert (merged.windows, merged.duplicates, merged.dead) == (1, 2, 1)
    assert BOOT in text
