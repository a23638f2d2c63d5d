"""From votes to figures that may leave: count, add exact noise, accumulate, release at a threshold.

Pure functions. What bounds a visitor's contribution is the input's shape: one `Vote` per track and window,
counted here and nowhere else. Everything after the noise is post-processing, so epsilon per window holds for
whatever is released, carried over or flushed. Unit of protection: one class per track per window (a vote
added or removed changes one cell by one).

Noise: discrete Laplace, P(x) ∝ exp(-epsilon·|x|), by the exact integer sampler of Canonne, Kamath and
Steinke, "The Discrete Gaussian for Differential Privacy" (2020), algorithms 1 and 2. No float is involved
(Mironov 2012 shows what floats give away).
"""

from __future__ import annotations

import math
import secrets
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from edge.types import CELLS, ROUTES, Counts, PrivacyStatement, ReleasedCounts, Vote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

Accumulators = dict[str, dict[str, tuple[int, int]]]
"""Route → cell → (noised value carried over, noise draws in it). Already private; JSON-able; kept on disk."""


class Policy:
    """What is to be done to the counts.

    `epsilon` is per window, `daily_epsilon` what the windows of a UTC day may spend together (None: no bound).
    Floats are taken by their shortest decimal. Raises ValueError unless epsilon is positive while there is noise.
    """

    def __init__(
        self,
        noise: Literal["discrete-laplace", "off"],
        epsilon: Fraction | float,
        min_count: int,
        daily_epsilon: Fraction | float | None = None,
    ) -> None:
        self.noise, self.min_count = noise, min_count
        self.epsilon = Fraction(str(epsilon))
        self.daily_epsilon = None if daily_epsilon is None else Fraction(str(daily_epsilon))
        if noise != "off" and self.epsilon <= 0:
            msg = f"privacy.epsilon must be positive, got {self.epsilon}"
            raise ValueError(msg)

    @property
    def exact(self) -> bool:
        """Neither noise nor threshold: raw counts, zeros included."""
        return self.noise == "off" and self.min_count <= 1

    @property
    def key(self) -> str:
        """Names the policy: values accumulated under one must not be released under another's statement."""
        return f"{self.noise}/{self.epsilon if self.noise != 'off' else '-'}/{self.min_count}"

    @property
    def cost(self) -> Fraction:
        """What a window with votes in it spends."""
        return Fraction(0) if self.noise == "off" else self.epsilon

    def affords(self, spent: Fraction) -> bool:
        """Whether one more window fits into a day that has spent this much."""
        return self.daily_epsilon is None or spent + self.cost <= self.daily_epsilon

    def day_bound(self, seconds: float) -> Fraction:
        """The most that windows of this length can spend in a day (basic composition)."""
        most = windows_a_day(seconds) * self.cost
        return most if self.daily_epsilon is None else min(most, self.daily_epsilon // self.cost * self.cost)

    def statement(self, *, exhausted: bool = False) -> PrivacyStatement:
        """What every payload says was done."""
        if self.noise == "off":
            return PrivacyStatement("none", None, self.min_count)
        return PrivacyStatement("discrete-laplace", float(self.epsilon), self.min_count, exhausted=exhausted)


def windows_a_day(seconds: float) -> int:
    """How many windows of this length a UTC day has; what a day may spend unless `daily_epsilon` says otherwise."""
    return math.ceil(86400 / seconds)


def tally(votes: Iterable[Vote]) -> Counts:
    """Votes per route and cell, all sixteen cells present. Raw: for `release` only."""
    counts: Counts = {route: dict.fromkeys(CELLS, 0) for route in ROUTES}
    for vote in votes:
        counts[vote.route][vote.cell] += 1
    return counts


def flush_day(end: datetime) -> str:
    """UTC date a window belongs to for the daily flush: that of its end, to the nearest second.

    The window that ends at midnight carries the new date, so it is the one that empties the old day; a
    close some milliseconds early must not postpone that by a whole window.
    """
    return (end + timedelta(milliseconds=500)).date().isoformat()


def flush_due(end: datetime, last: str | None) -> bool:
    """Whether the window ending at `end` (UTC) flushes, given the day stored at the window before.

    Any change of date flushes, backwards too: a clock set back must not block flushing until it catches up.
    """
    return last is not None and flush_day(end) != last


def _bernoulli(numerator: int, denominator: int, randbelow: Callable[[int], int]) -> bool:
    return randbelow(denominator) < numerator


def _bernoulli_exp(numerator: int, denominator: int, randbelow: Callable[[int], int]) -> bool:
    """Bernoulli(exp(-numerator/denominator)) for a ratio in [0, 1]: algorithm 1."""
    k = 1
    while _bernoulli(numerator, denominator * k, randbelow):
        k += 1
    return k % 2 == 1


def discrete_laplace(epsilon: Fraction, randbelow: Callable[[int], int] = secrets.randbelow) -> int:
    """One exact draw with P(x) ∝ exp(-epsilon·|x|): algorithm 2, s/t = epsilon. Raises ValueError if ≤ 0."""
    if epsilon <= 0:
        msg = f"epsilon must be positive, got {epsilon}"
        raise ValueError(msg)
    s, t = epsilon.numerator, epsilon.denominator
    while True:
        u = randbelow(t)
        if not _bernoulli_exp(u, t, randbelow):
            continue
        v = 0
        while _bernoulli_exp(1, 1, randbelow):
            v += 1
        magnitude = (u + t * v) // s
        negative = _bernoulli(1, 2, randbelow)
        if negative and magnitude == 0:
            continue  # or zero would be twice as likely
        return -magnitude if negative else magnitude


def release(
    votes: Counts | None,
    held: Accumulators,
    policy: Policy,
    *,
    flush: bool,
    draw: Callable[[Fraction], int] = discrete_laplace,
) -> tuple[ReleasedCounts, dict[str, dict[str, int]], Accumulators]:
    """Close a window: (released cells, noise draws per released cell, what is held from now on).

    Every one of the sixteen cells gets exactly one draw, whatever its count, so that nothing tells an empty
    cell from a full one. The noised value joins the accumulator, which is released and reset at
    `min_count`; a flush releases every cell as it is, negative values included. Unreleased cells are None
    with 0 draws.

    `votes` is None where no vote could be counted, for a reason that is public: no frame was looked at, or
    the day's budget is spent. Such a window depends on nobody, so it draws no noise, and its cells are
    unknown: only a flush releases what they hold from before.
    """
    released: ReleasedCounts = {}
    draws: dict[str, dict[str, int]] = {}
    kept: Accumulators = {}
    for route in ROUTES:
        released[route], draws[route], kept[route] = {}, {}, {}
        for cell in CELLS:
            before = value, drawn = held.get(route, {}).get(cell, (0, 0))
            if votes is None:
                out = flush and before != (0, 0)
            else:
                value += votes[route][cell]
                if policy.noise != "off":
                    value += draw(policy.epsilon)
                    drawn += 1
                out = policy.exact or flush or value >= policy.min_count
            if out:
                released[route][cell], draws[route][cell], kept[route][cell] = value, drawn, (0, 0)
            else:
                released[route][cell], draws[route][cell], kept[route][cell] = None, 0, (value, drawn)
    return released, draws, kept
