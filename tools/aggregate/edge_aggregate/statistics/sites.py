"""Figures of several places together: the noise of each is its own, a table's error is common to all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from edge_aggregate.statistics.estimates import calibration_variance, corrected, estimate, faces, votes_of
from edge_aggregate.statistics.parts import clip, wald
from edge_aggregate.statistics.shares import as_read, inner, share, wilson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_aggregate.calibration import Correction
    from edge_aggregate.statistics.parts import Band, Part

FULL: Final = 3.0
"""Standard deviations of noise in n: below, a share is a ratio of noise, and one closed shop would hide a city."""


def bare_share(happy: int, n: int, noise: float) -> float | None:
    """A share that stands without a band: into [0, 1], and none where n is not `FULL` above nothing.

    `noise`: the variance of the noise in n.
    """
    return clip(happy / n) if n > FULL * math.sqrt(noise) else None


def full_share(parts: Sequence[Part]) -> float | None:
    """The same of one place, as read."""
    found = share(parts)
    return None if found is None else bare_share(found.happy, found.n, found.noise_all)


@dataclass(frozen=True, slots=True)
class CityBands:
    """As read and corrected, and how many places are in it."""

    read: Band | None
    corrected: Band | None
    sites: int


def city(
    sites: Sequence[tuple[Fraction | int, Sequence[Part]]],
    tables: Mapping[tuple[str, str], Correction],
    held: Sequence[Sequence[int]] = (),
) -> CityBands:
    """The weighted mean of places' shares.

    What noise in the denominator adds to each share on the average is lost in the band of one place, and not in that of
    many. It is taken off the corrected mean and both bands; the index as read stays the mean of the places' own, as
    anybody would reckon it. Where one place alone counts, its figures are the city's.

    Args:
        sites: (weight > 0, parts) of each. A place whose n is not `FULL` standard deviations of its noise above
            nothing was as good as empty: its weight goes to the others.
        tables: corrections by (role, digest).
        held: for each place as for `as_read`; `()`: nothing is held back anywhere.

    Returns:
        `read` is None where no place counts; `corrected` too, and where one that counts has an unknown model.

    Raises:
        ValueError: a weight is not above 0, or `held` is not one for each place.

    """
    if held and len(held) != len(sites):
        msg = f"held sums of {len(held)} places, {len(sites)} are there"
        raise ValueError(msg)
    if any(weight <= 0 for weight, _ in sites):
        msg = "a weight is not above 0"
        raise ValueError(msg)
    counting = [
        (Fraction(weight), parts, found, held[i] if held else ())
        for i, (weight, parts) in enumerate(sites)
        if (found := share(parts, held[i] if held else ())) and found.n > FULL * math.sqrt(found.noise_all)
    ]
    if not counting:
        return CityBands(None, None, 0)
    if len(counting) == 1:
        _, parts, _, kept = counting[0]
        return CityBands(as_read(parts, kept), corrected(parts, tables, kept), 1)
    whole = sum(weight for weight, _, _, _ in counting)
    weights = [float(weight / whole) for weight, _, _, _ in counting]
    shares = [found for _, _, found, _ in counting]
    index = math.fsum(a * one.happy / one.n for a, one in zip(weights, shares, strict=True))
    middle = index - math.fsum(a * one.lean for a, one in zip(weights, shares, strict=True))
    variance = math.fsum(a * a * one.variance(one.p) for a, one in zip(weights, shares, strict=True))
    read = wilson(index, inner(middle, sum(one.n for one in shares)), variance)
    estimates = [estimate(parts, tables, kept) for _, parts, _, kept in counting]
    known = [(a, one) for a, one in zip(weights, estimates, strict=True) if one is not None]
    if len(known) < len(estimates):
        return CityBands(read, None, len(counting))
    value = math.fsum(a * (one.value - one.lean) for a, one in known)
    spread = math.fsum(a * a * one.variance for a, one in known)
    error = calibration_variance(faces(votes_of(known), tables), tables)
    return CityBands(read, wald(value, spread + error), len(counting))
