"""Figures of merit against values worked out by hand or published."""

from __future__ import annotations

import numpy as np
import pytest
from edge_quantize.evaluation import metrics


def test_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263 and 15 of 148.
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert metrics.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert metrics.wilson(0, 20)[0] == 0.0
    assert metrics.wilson(0, 0) == (0.0, 1.0)


def test_confusion_has_truth_in_rows() -> None:
    table = metrics.confusion(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 3]), 3, 4)
    assert table == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def test_per_class_figures() -> None:
    classes = metrics.per_class([[8, 2], [4, 6]], ("no", "yes"))
    assert classes["yes"] == {"precision": 0.75, "recall": 0.6, "f1": 0.6667, "specificity": 0.8, "n": 10}
    assert metrics.per_class([[5, 0], [5, 0]], ("no", "yes"))["yes"]["f1"] == 0.0


def test_calibration_error_of_a_model_that_is_right_as_often_as_it_says() -> None:
    honest = np.tile(np.array([[0.75, 0.25]], np.float32), (400, 1))
    truth = np.repeat([0, 1], [300, 100])
    assert metrics.calibration_error(honest, truth) == pytest.approx(0.0, abs=1e-6)
    assert metrics.calibration_error(honest, np.zeros(400, int)) == pytest.approx(0.25, abs=1e-6)


def test_temperature_is_recovered() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20000, 7))
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (odds.cumsum(axis=1) > rng.random((20000, 1))).argmax(axis=1)
    assert metrics.fit_temperature((logits * 1.7).astype(np.float32), truth) == pytest.approx(1.7, rel=0.05)


def test_threshold_leaves_at_most_a_tenth_uncertain() -> None:
    rng = np.random.default_rng(1)
    probabilities = np.round(rng.dirichlet(np.ones(7), 5000) * 256).astype(np.float32) / 256
    threshold = metrics.uncertain_threshold(probabilities)
    top = probabilities.max(axis=1)
    assert (top < threshold).mean() <= 0.1 < (top < threshold + 1 / 256).mean()


def test_mcnemar_counts_only_what_one_of_both_gets_right() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 50)
    second = np.array([False] * 10 + [True] * 2 + [True] * 50)
    assert metrics.mcnemar(first, second) == pytest.approx(0.03857, abs=1e-4)
    assert metrics.mcnemar(first, first) == 1.0
