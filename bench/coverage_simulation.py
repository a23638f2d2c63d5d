"""Kiosks whose truth is known: a crowd, votes, noise, the appliance's release rule, and tables drawn anew.

Votes are Poisson, noise is discrete Laplace, and cells are released by the appliance's rule (`released`; a test holds
it against `edge.vision.privacy`). The shipped manifest's tables are the truth of how faces are read. Each redraw gives
the aggregator other tables, as another set of as many labelled pictures would have: with the manifest as truth and
corrector both, the simulation would prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from edge_aggregate.calibration import Table, correct, read_manifest
from edge_aggregate.statistics import Part

from bench.privacy_utility import OTHERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_aggregate.calibration import Correction
    from numpy.typing import NDArray

    I64 = NDArray[np.int64]
    F64 = NDArray[np.float64]
    Corrections = Mapping[tuple[str, str], Correction]

ROOT: Final = Path(__file__).parents[1]
SADDER: Final = (0.10, 0.03, 0.07, 0.0, 0.45, 0.25, 0.10)
"""Another crowd with as many happy ones."""
WINDOWS: Final = 12
"""A day, of two hours each, the default; noise is drawn in all of them."""
MIN_COUNT, EPSILON = 10, 1.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who comes: `rate` visitors an hour from 8 to 20, of whom `happy` are and `masked` wear a mask."""

    rate: int
    happy: float
    masked: float
    others: tuple[float, ...] = OTHERS

    def cells(self, truth: F64) -> F64:
        """Shares (16) of the votes, of a truth (2, 7, 8) of how each route reads."""
        faces = np.array([self.happy if i == 3 else (1 - self.happy) * o for i, o in enumerate(self.others)])
        return np.concatenate([(1 - self.masked) * faces @ truth[0], self.masked * faces @ truth[1]])

    def read(self, truth: F64) -> float:
        """The share of happy ones as the classifier reads it, `uncertain` left out."""
        cells = self.cells(truth)
        return float((cells[3] + cells[11]) / (1 - cells[7] - cells[15]))


def released(votes: I64, noise: I64, flush: NDArray[np.bool_], min_count: int) -> tuple[I64, I64]:
    """What windows release: (values, draws), 0 draws for null; all int (runs, windows, 16), `flush` bool (windows,)."""
    values, draws = np.zeros_like(votes), np.zeros_like(votes)
    held, drawn = np.zeros_like(votes[:, 0]), np.zeros_like(votes[:, 0])
    for w in range(votes.shape[1]):
        held, drawn = held + votes[:, w] + noise[:, w], drawn + 1
        out = flush[w] | (held >= min_count)
        values[:, w], draws[:, w] = np.where(out, held, 0), np.where(out, drawn, 0)
        held, drawn = np.where(out, 0, held), np.where(out, 0, drawn)
    return values, draws


def held_back(draws: I64, flush: NDArray[np.bool_], start: int, end: int) -> I64:
    """How often a cell of windows `start` to `end` kept votes for later or got some from before: (runs, 16), 0 to 2."""
    inside = draws[:, start:end]
    at_end = (inside[:, -1] == 0) & (not flush[end - 1])
    first = np.argmax(inside > 0, axis=1)
    of_first = np.take_along_axis(inside, first[:, None], axis=1)[:, 0]
    found: I64 = at_end.astype(np.int64) + (of_first > first + 1)
    return found


@dataclass(frozen=True, slots=True)
class Days:
    """Released windows of many runs: values and draws (runs, windows, 16), which windows flush."""

    values: I64
    draws: I64
    flush: NDArray[np.bool_]

    def part(self, run: int, start: int, end: int, models: tuple[str, str]) -> Part:
        """One run's sums over windows `start` to `end`."""
        cells, draws = self.values[run, start:end].sum(0), self.draws[run, start:end].sum(0)
        return Part(*models, EPSILON, tuple(cells.tolist()), tuple(draws.tolist()))

    def held(self, start: int, end: int) -> list[tuple[int, ...]]:
        """Per run the sixteen sums of E · min_count²."""
        kept = MIN_COUNT**2 * held_back(self.draws, self.flush, start, end)
        return [tuple(row) for row in kept.tolist()]


def simulate(crowd: Crowd, truth: F64, runs: int, days: int, rng: np.random.Generator, shift: int = 0) -> Days:
    """`runs` times so many UTC days; people come from 8 to 20 of a clock that is `shift` windows behind UTC."""
    hour = 2 * ((np.arange(days * WINDOWS) - shift) % WINDOWS)
    open_ = (hour >= 8) & (hour < 20)
    votes = rng.poisson(2 * crowd.rate * open_[None, :, None] * crowd.cells(truth), (runs, len(hour), 16))
    q = 1 - np.exp(-EPSILON)
    noise = rng.geometric(q, votes.shape) - rng.geometric(q, votes.shape)
    flush = np.arange(1, len(hour) + 1) % WINDOWS == 0
    return Days(*released(votes, noise, flush, MIN_COUNT), flush)


class Redraws:
    """The truth, and as many pairs of tables that an aggregator might have in its stead."""

    def __init__(self, count: int, seed: int) -> None:
        self.tables = read_manifest(next(ROOT.glob("models/*/manifest.json")))
        self.models = self.tables[0].digest, self.tables[1].digest
        smoothed = [np.array(t.counts) + 0.1 for t in self.tables]
        self.truth = np.stack([rows / rows.sum(1, keepdims=True) for rows in smoothed])
        rng = np.random.default_rng(seed)
        self.corrections: list[Corrections] = []
        for _ in range(count):
            drawn = [correct(self._again(i, rng)) for i in range(2)]
            self.corrections.append({c.key: c for c in drawn})
            correct.cache_clear()

    def _again(self, route: int, rng: np.random.Generator) -> Table:
        table = self.tables[route]
        drawn = [rng.multinomial(sum(row), p).tolist() for row, p in zip(table.counts, self.truth[route], strict=True)]
        return replace(table, counts=tuple(map(tuple, drawn)))
