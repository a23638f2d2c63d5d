"""The simulation is the mechanism, its day is the default configuration's, and the default is useful."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench.privacy_utility import BUSY, CELLS, QUIET, cast, discrete_laplace, errors, release_days, worst
from edge.config.schema import PrivacySection, WindowSection
from edge.types import CELLS as NAMES
from edge.types import ROUTES
from edge.vision.privacy import Policy, release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

    from bench.privacy_utility import Day
    from edge.vision.privacy import Accumulators


def test_the_simulation_is_the_mechanism() -> None:
    rng = np.random.default_rng(7)
    day = replace(QUIET, seconds=3600.0, opens=7.0, closes=23.0)
    votes, light = cast(day, 5, rng)
    noise = discrete_laplace(rng, 1.0, votes.shape)
    simulated = release_days(votes, noise, light, day.min_count)
    policy = Policy("discrete-laplace", 1, day.min_count)
    seen_negative = False
    for d in range(len(votes)):
        held: Accumulators = {}
        for w in range(votes.shape[1]):
            turn = iter(noise[d, w].tolist())
            counts = {r: dict(zip(NAMES, votes[d, w, 8 * i :][:8].tolist(), strict=True)) for i, r in enumerate(ROUTES)}

            def draw(_: Fraction, turn: Iterator[int] = turn) -> int:
                return next(turn)

            seen = counts if light[w] else None
            released, _, held = release(seen, held, policy, flush=w == votes.shape[1] - 1, draw=draw)
            flat = [released[r][c] or 0 for r in ROUTES for c in NAMES]
            assert flat == simulated[d, w].tolist()
            seen_negative |= min(flat) < 0
    assert seen_negative
    assert votes.shape[2] == CELLS


def test_the_day_is_the_default_configuration() -> None:
    privacy = PrivacySection()
    assert (WindowSection().seconds, privacy.epsilon, privacy.min_count) == (
        QUIET.seconds,
        QUIET.epsilon,
        QUIET.min_count,
    )


@pytest.mark.parametrize(("day", "quantile", "mean"), [(QUIET, 4.0, 0.5), (BUSY, 1.0, 0.1)])
@pytest.mark.parametrize("happy", [0.15, 0.3, 0.5])
def test_a_day_can_be_read_at_the_default_settings(day: Day, quantile: float, mean: float, happy: float) -> None:
    error = errors(replace(day, happy=happy), 1000)
    assert worst(error) <= quantile
    assert abs(error.mean()) <= mean


def test_what_was_left_would_not_do() -> None:
    """Noise in the dark, or a threshold without carrying over: the reasons for both rules."""
    assert worst(errors(replace(QUIET, seconds=3600.0, dark_draws=True), 1000)) > 4
    assert worst(errors(replace(QUIET, carry=False), 1000)) > 4
