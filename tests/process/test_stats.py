"""Figures in constant memory, within their stated error."""

from __future__ import annotations

import numpy as np
import pytest

from edge.process import stats as figures
from edge.process.stats import RESOLUTION, Percentiles, Rate


class Time:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr(figures, "time", fake)
    return fake


def test_without_a_value_there_is_no_percentile() -> None:
    assert Percentiles().at(0.5) is None


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.0])
def test_percentiles_are_within_the_resolution(share: float) -> None:
    values = np.random.default_rng(0).lognormal(1.0, 1.0, 2000)
    percentiles = Percentiles()
    for value in values:
        percentiles.add(float(value))
    wanted = float(np.quantile(values, share, method="inverted_cdf"))
    assert percentiles.at(share) == pytest.approx(wanted, rel=RESOLUTION)


def test_memory_does_not_grow_with_values() -> None:
    percentiles = Percentiles()
    for i in range(10_000):
        percentiles.add(1 + (i % 100))
    assert len(percentiles._now) <= 100


def test_what_is_two_hours_old_is_forgotten(time: Time) -> None:
    percentiles = Percentiles()
    percentiles.add(1000)
    time.now += 3601
    percentiles.add(1)
    assert percentiles.at(1.0) == pytest.approx(1000, rel=RESOLUTION)
    time.now += 3601
    percentiles.add(1)
    assert percentiles.at(1.0) == pytest.approx(1, rel=RESOLUTION)


def test_zero_is_counted_and_no_error() -> None:
    percentiles = Percentiles()
    percentiles.add(0.0)
    assert percentiles.at(0.5) == pytest.approx(0.0, abs=1e-3)


def test_a_rate_settles_and_falls_when_nothing_comes(time: Time) -> None:
    rate = Rate()
    for _ in range(400):
        time.now += 0.1
        rate.tick()
    assert rate.value == pytest.approx(10, rel=0.02)
    time.now += 60
    assert rate.value < 0.01
