"""The coverage bench: its mechanism is the appliance's, and a small run of it tells a good band from a bad one."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench import coverage, coverage_page
from bench.coverage import KINDS
from bench.coverage_simulation import ROOT, WINDOWS, Crowd, Redraws, held_back, released, simulate
from edge.types import CELLS, ROUTES
from edge.vision.privacy import Policy, flush_day, flush_due, release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction
    from pathlib import Path

    from edge.vision.privacy import Accumulators

KINDS_OF = ("as read", "corrected")


@pytest.fixture(scope="module")
def draws() -> Redraws:
    return Redraws(50, seed=5)


def test_the_simulation_releases_as_the_appliance_does(draws: Redraws) -> None:
    rng = np.random.default_rng(3)
    votes = rng.poisson(2 * 10 * Crowd(10, 0.3, 0.4).cells(draws.truth), (4, 2 * WINDOWS, 16))
    noise = rng.integers(-4, 5, votes.shape)
    flush = np.arange(1, 2 * WINDOWS + 1) % WINDOWS == 0
    values, drawn = released(votes, noise, flush, 10)
    policy, midnight = Policy("discrete-laplace", 1, 10), datetime(2026, 11, 21, tzinfo=UTC)
    seen = set()
    for run in range(len(votes)):
        held: Accumulators = {}
        last = flush_day(midnight)
        for w in range(2 * WINDOWS):
            turn = iter(noise[run, w].tolist())
            counts = {
                r: dict(zip(CELLS, votes[run, w, 8 * i :][:8].tolist(), strict=True)) for i, r in enumerate(ROUTES)
            }

            def draw(_: Fraction, turn: Iterator[int] = turn) -> int:
                return next(turn)

            end = midnight + timedelta(hours=2 * (w + 1))
            due, last = flush_due(end, last), flush_day(end)
            cells, each, held = release(counts, held, policy, flush=due, draw=draw)
            flat = [cells[r][c] for r in ROUTES for c in CELLS]
            assert [v or 0 for v in flat] == values[run, w].tolist()
            assert [each[r][c] for r in ROUTES for c in CELLS] == drawn[run, w].tolist()
            assert [v is None for v in flat] == (drawn[run, w] == 0).tolist()
            seen.add((due, min(v for v in flat if v is not None) < 0 if any(v is not None for v in flat) else None))
    assert {(True, True), (False, False)} <= seen


def test_what_is_held_back_is_told_from_what_is_released() -> None:
    """One cell of twelve windows: null at the end, a first release from before the start, both, or neither."""
    flush = np.zeros(WINDOWS, bool)
    flush[-1] = True
    draws = np.zeros((1, WINDOWS, 16), np.int64)
    draws[0, :, 0] = [1] * 12
    draws[0, 3, 1], draws[0, 11, 1] = 4, 8
    draws[0, 11, 2:] = 12
    assert held_back(draws, flush, 2, 6)[0, :3].tolist() == [0, 2, 1]
    assert held_back(draws, flush, 0, 4)[0, :3].tolist() == [0, 0, 1]
    assert held_back(draws, flush, 3, 4)[0, :3].tolist() == [0, 1, 1]
    assert held_back(draws, flush, 4, 12)[0, :3].tolist() == [0, 0, 1]
    assert held_back(draws, flush, 0, 12)[0].tolist() == [0] * 16


def test_the_noise_is_the_mechanisms(draws: Redraws) -> None:
    closed = simulate(Crowd(0, 0.3, 0.1), draws.truth, 4000, 1, np.random.default_rng(2))
    sums, drawn = closed.values.sum(1), closed.draws.sum(1)
    assert (drawn == WINDOWS).all()
    assert sums.var() == pytest.approx(WINDOWS * 1.8413, rel=0.02)
    assert abs(sums.mean()) < 0.1


def test_tables_are_drawn_anew_and_none_is_the_truth(draws: Redraws) -> None:
    happy = np.array([[row.happy for row in pair.values()] for pair in draws.corrections])
    assert len({tuple(row) for row in happy[:, 0].tolist()}) == 50
    assert happy.std(0).min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_holds_what_it_should_in_most_of_a_few_runs(kind: coverage.Kind, draws: Redraws) -> None:
    told = coverage.DONE_BY[kind](Crowd(30, 0.25, 0.10), draws, np.random.default_rng(1))
    if kind == "change":
        assert told["nothing"]["corrected"] < 0.2
        assert told["5 points"]["corrected"] > 0.3
        return
    assert told
    for name, row in told.items():
        assert row["coverage"] > 0.8, name
        assert row["width"] < 90, name


def test_a_band_without_the_tables_error_would_be_found_out(draws: Redraws) -> None:
    """The bench can fail: at a busy place it is the tables that are wrong, not the count."""
    sure = Redraws(0, seed=5)
    for pair in draws.corrections:
        sure.corrections.append({key: replace(c, spread=(0.0,) * 7) for key, c in pair.items()})
    told = [coverage.whole_days(Crowd(600, 0.25, 0.10), d, np.random.default_rng(1)) for d in (draws, sure)]
    held, missed = (t["week, corrected"]["coverage"] for t in told)  # by the shipped tables: how far they err varies
    assert held > 0.85
    assert missed < held - 0.2


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "build/coverage.jsonl"
    ran: list[Any] = []

    def note(crowd: Crowd, draws: Redraws, rng: np.random.Generator) -> dict[str, Any]:
        ran.append(crowd)
        return {"drawn": int(rng.integers(1 << 30)), "of": len(draws.corrections)}

    monkeypatch.setattr(coverage, "DONE_BY", dict.fromkeys(KINDS, note))
    monkeypatch.setattr("sys.argv", ["coverage", "--redraws", "50", "--ledger", str(ledger)])
    coverage.main()
    whole = ledger.read_text()
    assert len(ran) == len(whole.splitlines()) == len(list(coverage.scenarios()))
    ledger.write_text("".join(whole.splitlines(keepends=True)[:7]))
    ran.clear()
    coverage.main()
    assert len(ran) == len(list(coverage.scenarios())) - 7
    assert ledger.read_text() == whole
    assert {json.loads(line)["kind"] for line in whole.splitlines()} == set(KINDS)


def test_the_page_says_what_was_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bands = [f"{p}, {k}" for p in ("day", "week", "2 h", "local day UTC−6", "city day", "city week") for k in KINDS_OF]
    fine = {"bands": 9, "coverage": 0.951, "error": 0.2, "width": 4.0, "none": 1}
    changes = {n: {"as read": 0.05, "corrected": 0.04} for n in ("nothing", "the others", "2 points", "5 points")}
    fifty = {"fifty places, ten of them by 5 points": {"rounds": 1, "false": 0.03, "found": 0.5}}
    rows = []
    for kind, crowd in coverage.scenarios():
        low = crowd == Crowd(30, 0.5, 0.4)
        told = {n: fine | ({"coverage": 0.911} if low and n == "week, corrected" else {}) for n in bands}
        rows.append({"kind": kind, "crowd": asdict(crowd), "redraws": 300, "told": told})
        if kind == "change":
            rows[-1]["told"] = changes | fifty
    ledger = tmp_path / "ledger"
    ledger.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("sys.argv", ["page", "--ledger", str(ledger), "--out", str(tmp_path / "coverage.md")])
    coverage_page.main()
    page = " ".join((tmp_path / "coverage.md").read_text().split())
    assert "| week, corrected | **0.911** | 0.950 | 0.951 |" in page
    assert page.count("**0.") == 1
    assert "300 pairs" in page
    assert "5.0 % at the most" in page
    assert (tmp_path / "coverage.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_that_is_published_was_reached_with_tables_enough() -> None:
    """Every aim of the issue that the bands were made for, as the committed page has it."""
    page = (ROOT / "bench/coverage.md").read_text()
    redraws = re.search(r"([\d,]+) pairs of\s+confusion tables", page)
    assert redraws is not None
    assert int(redraws[1].replace(",", "")) >= 300
    rows = re.findall(r"^\| ([^|]+) \| \**([\d.]+)\** \|", page, re.MULTILINE)
    least = {name.strip(): float(low) for name, low in rows}
    assert {
        "day, corrected",
        "week, corrected",
        "week, as read",
        "2 h, corrected",
        "city day, corrected",
    } <= least.keys()
    # A thousand days say a coverage to ±.007, and the least of thirty lies two or three times that below it.
    chance = {name: 0.015 if name.startswith("city") else 0.0 for name in least}
    assert all(low >= coverage_page.AIM - chance[name] for name, low in least.items()), least
    assert all("city" in row for row in page.splitlines() if "**0." in row)
