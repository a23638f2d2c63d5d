"""The share as the classifier reads it, and the contract's band for it: sampling and noise, not the classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_aggregate.statistics.parts import Band, Z, clip, counted, draw_variance, held_or_none, votes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_aggregate.statistics.parts import Part


@dataclass(slots=True)
class Share:
    """Happy votes of n at one place in one period, the variances of the noise in them, and what may be held back."""

    happy: int
    n: int
    noise_happy: float
    noise_all: float
    held_happy: int
    held_other: int

    @property
    def p(self) -> float:
        """The share, kept off 0 and 1, where a variance would be 0."""
        return inner(self.happy / self.n, self.n)

    @property
    def lean(self) -> float:
        """How far noise in n moves happy / n on the average: by the second terms of its Taylor series."""
        return (self.happy / self.n * self.noise_all - self.noise_happy) / (self.n * self.n)

    def variance(self, p: float) -> float:
        """Of happy / n, if the share is p: of the sample, of the noise, of what cells may hold back."""
        square = self.n * self.n
        return math.fsum(
            (
                p * (1 - p) / self.n,
                self.noise_happy * (1 - 2 * p) / square,
                self.noise_all * p * p / square,
                self.held_happy * (1 - p) * (1 - p) / (3 * square),
                self.held_other * p * p / (3 * square),
            )
        )


def share(parts: Iterable[Part], held: Sequence[int] = ()) -> Share | None:
    """The sums of a period as a share; None where n ≤ 0."""
    parts = list(parts)
    happy, n = counted(parts)
    if n <= 0:
        return None
    draws: dict[float | None, tuple[int, int]] = {}
    for part in parts:
        (k, of_all), before = votes(part.draws), draws.get(part.epsilon)
        draws[part.epsilon] = (k, of_all) if before is None else (before[0] + k, before[1] + of_all)
    noises = [(draw_variance(epsilon), k, of_all) for epsilon, (k, of_all) in draws.items()]
    held_happy, held_all = votes(held_or_none(held))
    return Share(
        happy,
        n,
        math.fsum([each * k for each, k, _ in noises]),
        math.fsum([each * of_all for each, _, of_all in noises]),
        held_happy,
        held_all - held_happy,
    )


def inner(value: float, n: int) -> float:
    """A share, at least 1/(n + 2) away from 0 and 1."""
    least = 1 / (n + 2)
    return min(max(value, least), 1 - least)


def wilson(index: float, p: float, variance: float) -> Band:
    """Wilson's band around p for as many votes as would have this variance; opened to hold the index itself."""
    n = p * (1 - p) / variance
    index = clip(index)
    stretch = 1 + Z * Z / n
    centre = (p + Z * Z / (2 * n)) / stretch
    half = Z * math.sqrt(variance + Z * Z / (4 * n * n)) / stretch
    return Band(index, min(index, clip(centre - half)), max(index, clip(centre + half)))


def as_read(parts: Iterable[Part], held: Sequence[int] = ()) -> Band | None:
    """The share as read, with the contract's band.

    Args:
        parts: what was released in the period.
        held: 16 sums over devices of E · min_count², for periods that do not begin and end at a flush: E says how
            often the cell kept something for later, or got something from before (0, 1 or 2).

    Returns:
        None where n ≤ 0. The band covers the share that the classifier would read of very many such visitors.

    Raises:
        ValueError: `held` has another length than 16 or 0.

    """
    found = share(parts, held)
    if found is None:
        return None
    return wilson(found.happy / found.n, found.p, found.variance(found.p))
