"""The share with the classifier's errors undone: constrained inverse, Wald, clipped, calibration error included."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import add, mul
from typing import TYPE_CHECKING

from edge_aggregate.calibration import ROLES
from edge_aggregate.statistics.parts import WIDTH, Band, clip, draw_variance, held_or_none, wald

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edge_aggregate.calibration import Correction
    from edge_aggregate.statistics.parts import Part

Key = tuple[str, str]

_UNMASKED, _MASKED = slice(WIDTH), slice(WIDTH, 2 * WIDTH)


@dataclass(slots=True)
class Estimate:
    """One place and period: `value` is the corrected share before it is clipped, `variance` that of sample and noise.

    `votes` holds, per table, the eight sums over n: what the table's own error works on. `noises` and `weights` are of
    every cell that counts, in one order.
    """

    value: float
    variance: float
    n: int
    votes: dict[Key, tuple[float, ...]]
    noises: list[float]
    weights: list[float]

    @property
    def lean(self) -> float:
        """How far the noise in n moves the value on the average: only a city asks."""
        moved = [noise * (self.value - w) for noise, w in zip(self.noises, self.weights, strict=True)]
        return math.fsum(moved) / (self.n * self.n)


@dataclass(slots=True)
class _Cells:
    """What was counted through one table."""

    counts: tuple[int, ...]
    draws: dict[float | None, tuple[int, ...]]

    def noise(self) -> list[float]:
        """Variance of the noise in each."""
        rows = []
        for epsilon, draws in self.draws.items():
            each = draw_variance(epsilon)
            rows.append([each * k for k in draws])
        return rows[0] if len(rows) == 1 else [math.fsum(column) for column in zip(*rows, strict=True)]


def estimate(parts: Iterable[Part], tables: Mapping[Key, Correction], held: Sequence[int] = ()) -> Estimate | None:
    """The corrected share of one place and period; None where n ≤ 0 or a model is unknown that has counted.

    n are all sixteen cells: `uncertain` too was somebody, and the table says for whom it is answered, how often.
    """
    held = held_or_none(held)
    summed = _by_table(parts, held)
    if summed is None:
        return None
    counts: list[int] = []
    noises: list[float] = []
    weights: list[float] = []
    for key, cells in summed.items():
        if key not in tables:
            return None
        counts += cells.counts
        noises += cells.noise()
        weights += tables[key].happy
    n = sum(counts)
    if n <= 0:
        return None
    value = math.fsum(map(mul, weights, counts)) / n
    h = clip(value)
    terms = [
        ((y if y > 0 else 0) + noise)  # noqa: FURB136 - a call for each of 16,000 cells
        * (w - h)
        * (w - h)
        for y, noise, w in zip(counts, noises, weights, strict=True)
    ]
    if any(held):
        for r, role in enumerate(ROLES):
            # Which of a route's models it was that held back is not known: the one for which it matters most.
            models = [[(w - h) * (w - h) for w in tables[key].happy] for key in summed if key[0] == role]
            most = models[0] if len(models) == 1 else map(max, *models) if models else ()
            terms += [kept * square / 3 for kept, square in zip(held[r * WIDTH :], most, strict=False)]
    # Votes in one cell alone have no spread, and yet the next one may fall elsewhere: never surer than one vote is.
    variance = max(math.fsum(terms) / (n * n), (n + 1) / (n * (n + 2) ** 2))
    votes = {key: tuple([y / n for y in cells.counts]) for key, cells in summed.items()}
    return Estimate(value, variance, n, votes, noises, weights)


def _by_table(parts: Iterable[Part], held: Sequence[int]) -> dict[Key, _Cells] | None:
    """What each model counted; None where something was counted by none.

    A row whose model was not asked (strategy `single`: the masked one) got noise and no vote: it is left out.
    """
    summed: dict[Key, _Cells] = {}
    for part in parts:
        for role, digest, row in ((ROLES[0], part.unmasked, _UNMASKED), (ROLES[1], part.masked, _MASKED)):
            counts, draws = part.cells[row], part.draws[row]
            if not any(counts) and not any(draws) and not any(held[row]):
                continue
            if digest is None:
                asked = part.masked if row is _UNMASKED else part.unmasked
                if asked is None or (part.epsilon is None and any(counts)):
                    return None
                continue
            cells = summed.get((role, digest))
            if cells is None:
                summed[role, digest] = _Cells(counts, {part.epsilon: draws})
                continue
            cells.counts = tuple(map(add, cells.counts, counts))
            before = cells.draws.get(part.epsilon)
            cells.draws[part.epsilon] = draws if before is None else tuple(map(add, before, draws))
    return summed


Faces = dict[Key, tuple[float, ...]]


def faces(votes: Mapping[Key, Sequence[float]], tables: Mapping[Key, Correction]) -> Faces:
    """Per table the shares of the seven expressions that were seen through it.

    Corrected, set to 0 where negative, and scaled to what the votes add up to.
    """
    return {key: _faces(shares, tables[key]) for key, shares in votes.items()}


def votes_of(weighted: Iterable[tuple[float, Estimate]]) -> dict[Key, Sequence[float]]:
    """The votes of several places, summed with their weights."""
    rows: dict[Key, list[list[float]]] = {}
    for a, one in weighted:
        for key, votes in one.votes.items():
            rows.setdefault(key, []).append([a * share for share in votes])
    return {key: [math.fsum(column) for column in zip(*each, strict=True)] for key, each in rows.items()}


def _faces(votes: Sequence[float], table: Correction) -> tuple[float, ...]:
    shares = [math.fsum(map(mul, votes, weights)) for weights in table.inverse]
    if min(shares) < 0:
        shares = [x if x > 0 else 0.0 for x in shares]
    total, wanted = math.fsum(shares), max(math.fsum(votes), 0.0)
    return tuple([x * wanted / total for x in shares]) if total else (0.0,) * len(shares)


def calibration_variance(of: Faces, tables: Mapping[Key, Correction], minus: Faces | None = None) -> float:
    """What the tables' own errors add to a variance; of a difference, where `minus` is subtracted.

    A table is wrong in the same way wherever and whenever it is used, so faces are summed before they are squared.
    """
    if not minus:
        return math.fsum([x * x * spread for key in of for x, spread in zip(of[key], tables[key].spread, strict=True)])
    none = (0.0,) * 7
    return math.fsum(
        (x - y) * (x - y) * spread
        for key in of.keys() | minus.keys()
        for x, y, spread in zip(of.get(key, none), minus.get(key, none), tables[key].spread, strict=True)
    )


def corrected(parts: Iterable[Part], tables: Mapping[Key, Correction], held: Sequence[int] = ()) -> Band | None:
    """The share of happy visitors with the classifier's errors undone, and its band.

    Args:
        parts: what was released in the period.
        tables: corrections by (role, digest).
        held: as for `as_read`.

    Returns:
        None where the sixteen cells add up to nothing, or a model has counted whose table is not there.

    Raises:
        ValueError: `held` has another length than 16 or 0.

    """
    found = estimate(parts, tables, held)
    if found is None:
        return None
    return wald(found.value, found.variance + calibration_variance(faces(found.votes, tables), tables))
