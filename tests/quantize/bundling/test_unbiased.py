"""The mean answer of an int8 net is the float net's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the host toolchain: .venv/bin/pip install -e '.[host]'")

from edge_quantize.bundling import convert, float_model, unbiased  # noqa: E402
from edge_quantize.evaluation import score  # noqa: E402 - after the skip


def net(*, last: str | None = None, bias: bool = True) -> Any:  # noqa: ANN401
    """A net whose first class grows with the brightest of many places, which a range taken on dim chips cuts off."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((48, 48, 1))
    x = keras.layers.AveragePooling2D(8)(inputs)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    start = keras.initializers.RandomNormal(stddev=1.5)
    return keras.Model(inputs, keras.layers.Dense(3, last, use_bias=bias, kernel_initializer=start)(x))


@pytest.fixture(scope="module")
def chips() -> Any:  # noqa: ANN401
    noise = np.random.default_rng(0).integers(0, 256, (240, 6, 6)).astype(np.uint8)
    return np.kron(noise, np.ones((8, 8), np.uint8))


def means(model: Any, flat: bytes, chips: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Mean probabilities of the float and of the int8 net."""
    raw = score.outputs(score.open_interpreter(flat), chips)
    return float_model.softmax(float_model.predict(model, chips)).mean(axis=0), score.probabilities(raw).mean(axis=0)


def test_the_mean_answer_is_the_float_nets(chips: Any) -> None:  # noqa: ANN401
    model = net()
    graph, before = convert.fixed(model), [w.copy() for w in model.get_weights()]
    narrow = convert.representative((chips // 8 + 112).astype(np.uint8), np.arange(240) % 3, size=60)
    wanted, biased = means(model, convert.to_tflite(graph, narrow), chips)
    flat = unbiased.to_tflite(model, graph, narrow, chips)
    _, got = means(model, flat, chips)
    assert np.abs(biased - wanted).max() > 0.01
    assert np.abs(got - wanted).max() < np.abs(biased - wanted).max() / 3
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)  # the float model stays what was trained


@pytest.mark.parametrize("made", [{"last": "softmax"}, {"bias": False}])
def test_a_model_without_a_bias_of_logits_is_converted_as_it_is(made: dict[str, Any], chips: Any) -> None:  # noqa: ANN401
    model = net(**made)
    graph, sample = convert.fixed(model), convert.representative(chips, np.arange(240) % 3, size=60)
    assert unbiased.to_tflite(model, graph, sample, chips) == convert.to_tflite(graph, sample)


def test_what_is_right_in_the_mean_is_not_moved() -> None:
    raw = np.array([[108, -118, -118]], np.int8)  # 236, 10 and 10 of 256: what is rare stays as rare
    np.testing.assert_allclose(unbiased.shift(score.probabilities(raw), raw), 0, atol=1e-3)


def test_a_class_that_is_answered_too_seldom_is_moved_up() -> None:
    even = np.full((3, 3), -43, np.int8)
    moved = unbiased.shift(np.array([[0.5, 0.3, 0.2]], np.float32), even)
    assert moved[0] > moved[1] > moved[2]
    assert abs(float(moved.sum())) < 1e-5


def test_sure_answers_are_moved_all_the_way() -> None:
    raw = np.array([[127, -128]] * 90 + [[-128, 127]] * 9 + [[0, 0]], np.int8)  # all but one are sure
    exact = np.array([0.907, 0.093], np.float32)  # the int8 net's mean is .905 and .095
    half = 0.5 / 256
    answers = np.exp(np.log(score.probabilities(raw) + half) + unbiased.shift(exact[None], raw))
    got = (answers / answers.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(got, (exact + half) / (1 + 2 * half), atol=1e-4)
