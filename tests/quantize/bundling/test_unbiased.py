"""The mean answer of an int8 net is the float net's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the host toolchain: pip install 'edge-fer[host]'")

from edge_quantize.bundling import convert, float_model, unbiased  # noqa: E402
from edge_quantize.evaluation import score  # noqa: E402 - after the skip


def net(*, softmax: bool = False) -> Any:  # noqa: ANN401
    """A net whose first class grows with the brightest of many places, which a range taken on dim chips cuts off."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((48, 48, 1))
    x = keras.layers.AveragePooling2D(8)(inputs)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    x = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=1.5))(x)
    return keras.Model(inputs, keras.layers.Softmax()(x) if softmax else x)


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


def test_a_model_of_probabilities_is_converted_as_it_is(chips: Any) -> None:  # noqa: ANN401
    model = net(softmax=True)
    graph, sample = convert.fixed(model), convert.representative(chips, np.arange(240) % 3, size=60)
    assert unbiased.to_tflite(model, graph, sample, chips) == convert.to_tflite(graph, sample)


def test_the_shift_of_what_is_even_already_is_none() -> None:
    raw = np.array([[0, -64, -64], [-64, 0, -64], [-64, -64, 0]], np.int8)  # .5, .25, .25 each way round
    np.testing.assert_allclose(unbiased.shift(score.probabilities(raw), raw), 0, atol=1e-3)
    more = np.array([[0.5, 0.3, 0.2]], np.float32)
    moved = unbiased.shift(more, raw)
    assert moved[0] > moved[1] > moved[2]
    assert abs(float(moved.sum())) < 1e-5
