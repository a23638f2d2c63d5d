"""What one device may put into a store, so that it costs others nothing: its certificate lets it say anything."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.check import check_log
from edge_aggregate.decode import milliseconds
from edge_aggregate.export import dead_letters
from edge_aggregate.figures import figures
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period
from edge_aggregate.store import Store, open_store
from edge_aggregate.store.ids import TERMS_MOST
from edge_aggregate.store.upkeep import check_store, retain
from edge_aggregate.store.weigh import OTHERS_KEPT

from tests.support.windows import DAY, dump, window, write_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

FIRST = Period(milliseconds(DAY), milliseconds(DAY + timedelta(days=1)))


@pytest.fixture
def put(tmp_path: Path) -> Callable[[Store, Iterable[dict[str, Any]]], tuple[int, ...]]:
    """Counts lines as a log of their own: windows, duplicates, conflicts, dead letters."""
    logs: list[Path] = []

    def counted(store: Store, lines: Iterable[dict[str, Any]]) -> tuple[int, ...]:
        logs.append(write_log(tmp_path / f"{len(logs)}.jsonl", lines))
        return tuple(ingest_files(store, logs[-1:]).merged)

    return counted


def rogue(numbers: Iterable[int], **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - of `window`
    """Each window under another statement."""
    return [window(n, device="kiosk-9", boot="9" * 32, site="hall", min_count=n, **fields) for n in numbers]


def terms_read(store: Store, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """How many rows of the terms it reads."""
    fetch, rows = store.engine.fetch, 0

    def watched(sql: str, values: Sequence[int | float | str | None] = ()) -> list[tuple[Any, ...]]:
        nonlocal rows
        found = fetch(sql, values)
        rows += len(found) if "FROM terms" in sql else 0
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store.engine, "fetch", watched)
        work()
    return rows


def test_a_device_that_says_another_thing_each_time_is_refused_and_nobody_else(
    address: str, put: Callable[..., tuple[int, ...]]
) -> None:
    over = TERMS_MOST + 1
    with open_store(address, create=True) as store:
        assert put(store, [window(1, min_count=over)]) == (1, 0, 0, 0)
        assert put(store, rogue(range(1, over))) == (TERMS_MOST, 0, 0, 0)
        assert put(store, rogue(range(over, over + 100))) == (1, 0, 0, 99), "the first is under what another one said"
        assert put(store, rogue(range(1, 3))) == (0, 2, 0, 0)
        assert put(store, [window(2, min_count=over + 1)]) == (1, 0, 0, 0)
        assert store.engine.fetch("SELECT lines FROM dead_kinds WHERE kind = 'terms'") == [(99,)]
        letter = dead_letters(store)[-1]
        assert letter["reason"] == f"its device has brought {TERMS_MOST} other privacy statements and models before"
        assert store.engine.fetch("SELECT COUNT(*) FROM terms") == [(TERMS_MOST + 2,)]
        assert put(store, rogue([over + 1])) == (1, 0, 0, 0), "now somebody else has said it"
        together = [*rogue([500]), window(3, min_count=500), *rogue([501])]
        assert put(store, together) == (2, 0, 0, 1), "who says it first in a batch takes it from nobody"
        assert check_store(store) == []


def test_what_others_have_said_costs_neither_a_merge_nor_a_page(
    address: str, put: Callable[..., tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(address, create=True) as store:
        put(store, [window(1), *rogue(range(100, 100 + TERMS_MOST), cells={"unmasked_happy": 200})])
        assert terms_read(store, monkeypatch, lambda: put(store, [window(2)])) == 1
        assert terms_read(store, monkeypatch, lambda: put(store, [window(2)])) <= 3, "one that is there"
        assert terms_read(store, monkeypatch, lambda: figures(store, FIRST, ["lobby"])) <= 1
        assert figures(store, FIRST, ["hall"])[0].happy == TERMS_MOST * 200


def test_terms_are_looked_up_and_not_searched_for() -> None:
    with open_store(":memory:", create=True) as store:
        plan = store.engine.fetch(
            "EXPLAIN QUERY PLAN SELECT id FROM terms WHERE mechanism = '' AND epsilon IS NULL AND unit = ''"
            " AND min_count = 1 AND exhausted = 0 AND gate IS NULL AND fer_unmasked = '' AND fer_masked = ''"
            " AND strategy = ''"
        )
    assert "USING INDEX terms_by_value (min_count=? AND unit=? AND epsilon=? AND fer_unmasked=?" in str(plan)


def test_retention_forgets_what_nothing_is_counted_under_any_more(
    address: str, put: Callable[..., tuple[int, ...]]
) -> None:
    with open_store(address, create=True) as store:
        put(store, [*rogue(range(1, 10)), window(1, min_count=20), window(2, start=DAY + timedelta(days=90))])
        retain(store, 70)
        assert store.engine.fetch("SELECT COUNT(*) FROM terms") == [(11,)], "the sums of days are told by them"
        assert figures(store, FIRST, ["hall"])[0].windows == 9
        retain(store, 70, days_too=True)
        assert store.engine.fetch("SELECT COUNT(*) FROM terms") == [(1,)]
        assert put(store, rogue([10], start=DAY + timedelta(days=91))) == (1, 0, 0, 0), "and learns anew"
        assert check_store(store) == []


def contradicting(count: int) -> list[dict[str, Any]]:
    """So many payloads of one window, twice each; the first is received first."""
    return [
        window(1, cells={"unmasked_happy": 10 + n}, received=DAY + timedelta(hours=2, minutes=n))
        for n in range(count)
        for _ in range(2)
    ]


@pytest.mark.parametrize("batch_lines", [1, 7, 1000])
def test_of_many_payloads_of_one_window_the_first_counts_and_few_are_kept(
    tmp_path: Path, address: str, batch_lines: int
) -> None:
    lines = contradicting(40)
    random.Random(batch_lines).shuffle(lines)  # noqa: S311 - no secret
    with open_store(address, create=True) as store:
        merged = ingest_files(store, [write_log(tmp_path / "log.jsonl", lines)], batch_lines=batch_lines).merged
        assert store.engine.fetch("SELECT unmasked_happy FROM windows") == [(10,)]
        assert store.engine.fetch("SELECT SUM(unmasked_happy) FROM days") == [(10,)]
        assert store.engine.fetch("SELECT COUNT(*) FROM variants") == [(OTHERS_KEPT + 1,)]
        ((conflicts,),) = store.engine.fetch("SELECT SUM(lines) FROM variants")
        assert merged.windows + merged.duplicates + merged.conflicts == len(lines), "every line is told of"
        assert conflicts == merged.conflicts
        assert len(dead_letters(store)) == OTHERS_KEPT
        assert check_store(store) == []


def test_few_payloads_of_one_window_are_all_kept_in_any_order(tmp_path: Path) -> None:
    lines = contradicting(OTHERS_KEPT + 1)
    found = []
    for seed in range(4):
        random.Random(seed).shuffle(lines)  # noqa: S311 - no secret
        with open_store(":memory:", create=True) as store:
            ingest_files(store, [write_log(tmp_path / "log.jsonl", lines)], batch_lines=1 + 5 * seed)
            found.append(dump(store))
    assert all(one == found[0] for one in found)
    assert len(found[0]["variants"]) == OTHERS_KEPT


def test_a_log_of_many_contradictions_lists_those_that_are_kept(tmp_path: Path) -> None:
    found = check_log(write_log(tmp_path / "log.jsonl", contradicting(40)))
    assert (found.windows, found.duplicates, found.conflicts) == (1, 1, 78)
    assert len(found.conflicting) == OTHERS_KEPT


def test_the_last_dead_letters_are_the_end_of_all_of_them(tmp_path: Path) -> None:
    lines: list[dict[str, Any] | str] = ["{cut", *contradicting(4), window(10**7), "{cut too", window(10**7 + 1)]
    with open_store(":memory:", create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", lines)])
        every = dead_letters(store)
        assert len(every) == 7
        for newest in (2, 4, 100):
            assert dead_letters(store, newest) == every[-newest:]
