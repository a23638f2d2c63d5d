"""Bottlenecks equalised for int8: the same float answers, and int8 ones that come nearer to them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from edge_quantize.training.nets import NETS, Net, Row
from edge_quantize.training.weights import seeded_weights

from edge.vision.preprocess import to_input

if TYPE_CHECKING:
    from edge_quantize.training.weights import Weights
    from numpy.typing import NDArray

    from edge.types import F32, U8

pytest.importorskip("torch", reason="PyTorch is not installed: make torch")
pytest.importorskip("keras", reason="the host extra is not installed")

from edge_quantize.bundling.convert import to_int8_tflite
from edge_quantize.evaluation.score import open_interpreter, quantisation
from edge_quantize.training.equalise import equalised
from edge_quantize.training.keras_net import build_keras, set_keras_weights

LITE: Final = (
    Row("beside.stem", "conv", 8, 2),
    Row("beside.stage1.0", "bottleneck", 8),
    Row("beside.stage2.0", "bottleneck", 12, 2, 5, 3),
    Row("beside.stage2.1", "bottleneck", 12, 1, 3, 3),
    Row("beside.stage2.2", "bottleneck", 12, 1, 3, 3),
    Row("beside.top", "conv", 16, kernel=1),
)
PAIR: Final = Net("small-pair", (Row("stem", "conv", 8, 2), Row("stage1.0", "block", 8, 2)), 7, 0.0, LITE)


def chips(n: int) -> U8:
    return np.random.default_rng(3).integers(0, 256, (n, 6, 6), np.uint8).repeat(8, 1).repeat(8, 2)


def uneven(net: Net) -> Weights:
    """Weights whose channels differ in range, as trained ones do, and the kernels of those that read them."""
    made, rng = seeded_weights(net, 4), np.random.default_rng(5)
    chain = ["stem", "stage1.0.d", "stage1.0.c", "stage2.0.e", "stage2.0.d", "stage2.0.c"]
    chain += ["stage2.1.e", "stage2.1.d", "stage2.1.c", "stage2.2.e", "stage2.2.d", "stage2.2.c"]
    for maker, reader in pairwise(f"beside.{name}" for name in chain):
        if maker.endswith("stem") or not reader.endswith(".e"):
            by = np.exp(rng.uniform(-3.4, 0, made[f"{maker}/gamma"].shape)).astype(np.float32)
            made[f"{maker}/gamma"] *= by
            made[f"{maker}/beta"] *= by
            made[f"{reader}/kernel"] /= by[:, None]
    return made


def answers(net: Net, weights: Weights, x: F32) -> NDArray[np.float32]:
    model = build_keras(net)
    set_keras_weights(net, model, weights)
    return np.asarray(model.predict(x, verbose=0), np.float32)


def test_float_answers_stay() -> None:
    weights = uneven(PAIR)
    made = equalised(PAIR, weights, chips(40))
    assert any(not np.allclose(made[name], weights[name]) for name in weights)
    x = to_input(chips(40))
    np.testing.assert_allclose(answers(PAIR, made, x), answers(PAIR, weights, x), atol=1e-4)


def test_int8_comes_nearer_to_float() -> None:
    shown, weights = to_input(chips(30)), uneven(PAIR)
    missed = []
    for made in (weights, equalised(PAIR, weights, chips(30))):
        model = build_keras(PAIR, batch=1)
        set_keras_weights(PAIR, model, made)
        opened = open_interpreter(to_int8_tflite(model, [chip[None] for chip in shown]))
        given, told = quantisation(opened)
        error = []
        for chip, right in zip(shown, answers(PAIR, made, shown), strict=True):
            asked = np.round(chip[None] / given["scale"] + given["zero_point"])
            opened.set_tensor(opened.get_input_details()[0]["index"], np.clip(asked, -128, 127).astype(np.int8))
            opened.invoke()
            raw = opened.get_tensor(opened.get_output_details()[0]["index"])[0].astype(np.float32)
            error.append((raw - told["zero_point"]) * told["scale"] - right)
        missed.append(float(np.square(error).mean()))
    assert missed[1] < 0.7 * missed[0], missed


@pytest.mark.parametrize("name", ["fer-cpu", "gate-deep"])
def test_nets_without_a_bottleneck_stay_as_they_are(name: str) -> None:
    weights = seeded_weights(NETS[name], 1)
    made = equalised(NETS[name], weights, chips(2))
    assert all(np.array_equal(made[key], weights[key]) for key in weights)
