"""Conversion to int8 on a net small enough to convert in a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge.errors import BundleError, ConfigError, SourceError

keras = pytest.importorskip("keras", reason="the host toolchain: .venv/bin/pip install -e '.[host]'")

from edge_quantize.bundling import convert, float_model, golden  # noqa: E402
from edge_quantize.evaluation import score  # noqa: E402 - after the skip

if TYPE_CHECKING:
    from pathlib import Path


def tiny(classes: int = 3) -> Any:  # noqa: ANN401
    """Untrained net of the right signature whose answers vary with the brightness of three bands."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((48, 48, 1))
    x = keras.layers.Conv2D(8, 3, 2, "same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.AveragePooling2D(8)(keras.layers.ReLU()(x))
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(classes, kernel_initializer="he_normal")(x))


@pytest.fixture(scope="module")
def chips() -> Any:  # noqa: ANN401
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (90, 6, 6)).astype(np.uint8)
    return np.kron(noise, np.ones((8, 8), np.uint8))


@pytest.fixture(scope="module")
def converted(chips: Any) -> Any:  # noqa: ANN401
    model = tiny()
    labels = np.arange(90) % 3
    return model, convert.to_tflite(model, convert.representative(chips, labels, size=60))


def test_quantisation_is_the_one_of_the_design(converted: Any) -> None:  # noqa: ANN401
    given, answer = score.quantisation(score.open_interpreter(converted[1]))
    assert given == {"shape": [1, 48, 48, 1], "dtype": "int8", "scale": 0.0078125, "zero_point": 0}
    assert answer == {"shape": [1, 3], "dtype": "int8", "scale": 0.00390625, "zero_point": -128}


def test_int8_answers_as_the_float_model(converted: Any, chips: Any) -> None:  # noqa: ANN401
    model, flat = converted
    exact = float_model.softmax(float_model.predict(model, chips))
    coarse = score.probabilities(score.outputs(score.open_interpreter(flat), chips))
    assert np.abs(exact - coarse).max() < 0.06
    paired = convert.compare(model, flat, chips, exact.argmax(axis=1))
    assert paired.float_accuracy == 1.0
    assert paired.agreement > 0.9


def test_another_input_scale_is_refused(chips: Any) -> None:  # noqa: ANN401
    with pytest.raises(BundleError, match="all-0 and an all-255"):
        convert.to_tflite(tiny(), np.clip(chips, 60, 200))


def test_representative_set_is_balanced_and_pinned(chips: Any) -> None:  # noqa: ANN401
    labels = np.repeat([0, 1, 2], [80, 6, 4])
    sample = convert.representative(chips, labels, size=30)
    assert len(sample) == 32
    assert sample[-2].max() == 0
    assert sample[-1].min() == 255
    from_last = sum(any((s == c).all() for c in chips[86:]) for s in sample[:30])
    assert from_last == 10


def test_folded_temperature_equals_divided_logits(chips: Any) -> None:  # noqa: ANN401
    model = tiny()
    before = float_model.predict(model, chips)
    float_model.fold_temperature(model, 0.85)
    np.testing.assert_allclose(float_model.predict(model, chips), before / 0.85, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="Dense"):
        float_model.fold_temperature(keras.Model(model.input, keras.layers.Softmax()(model.output)), 1.0)


def test_a_loss_above_the_bound_is_refused_by_name() -> None:
    paired = convert.Paired(0.66, 0.65, 0.98, 0.001, 0.04, 3589)
    convert.refuse_loss(paired, "fer_masked", 1.1)
    with pytest.raises(BundleError, match=r"fer_masked: int8 scores 65\.00%, float 66\.00%.*1\.00 points lost"):
        convert.refuse_loss(paired, "fer_masked", 0.5)


def test_cost_counts_folded_weights() -> None:
    # 3·3·1·8 + 8 at 24·24 places, then 72·3 + 3.
    assert float_model.cost(tiny()) == (80 + 219, 72 * 576 + 216)


def test_golden_answers_are_sure_and_repeatable(converted: Any, chips: Any) -> None:  # noqa: ANN401
    model, flat = converted
    made, answers = golden.make(model, flat, chips, np.arange(90) % 3, 3)
    assert np.bincount(answers.argmax(axis=1)).tolist() == [golden.PER_CLASS] * 3
    best = np.sort(answers.astype(int), axis=1)
    assert (best[:, -1] - best[:, -2]).min() >= golden.MARGIN
    np.testing.assert_array_equal(score.outputs(score.open_interpreter(flat), made), answers)


def test_unreadable_models_and_wrong_signatures_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.keras"):
        float_model.load_keras(tmp_path / "gone.keras")
    other = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(7)])
    other.save(tmp_path / "other.keras")
    with pytest.raises(ConfigError, match="48, 48, 1"):
        float_model.load_keras(tmp_path / "other.keras")
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"broken\.tflite"):
        score.open_interpreter(tmp_path / "broken.tflite")
