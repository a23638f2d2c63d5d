"""The layer table, its counts, its Keras builder and the neutral weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edge_quantize.bundling.float_model import cost
from edge_quantize.training import nets
from edge_quantize.training.keras_net import build_keras, keras_weights, load_keras, save_keras, set_keras_weights
from edge_quantize.training.weights import check_weights, seeded_weights

from edge.errors import SourceError
from edge.vision.preprocess import to_input

keras = pytest.importorskip("keras", reason="the host extra is not installed")
FORWARD = Path(nets.__file__).parents[1] / "frozen" / "forward.npz"


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("fer-cpu", 1.9e6, 120e6),
        ("fer-pair", 2.5e6, 150e6),
        ("fer-fine-pair", 2.5e6, 300e6),
        ("fer-gpu", 1.9e6, 330e6),
        ("gate", 1e5, 12e6),
        ("gate-deep", 1e5, 12e6),
    ],
)
def test_shipped_nets_keep_their_budgets(name: str, params: float, macs: float) -> None:
    net = nets.NETS[name]
    assert nets.count_params(net) <= params
    assert nets.count_macs(net) <= macs


@pytest.mark.parametrize("name", ["fer-cpu", "fer-pair", "fer-fine-pair"])
def test_counts_are_those_of_the_built_net(name: str) -> None:
    net = nets.NETS[name]
    model = build_keras(net)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    # four vectors of a normalisation fold into one bias vector
    folded = model.count_params() - sum(3 * layer.gamma.shape[0] for layer in norms)
    assert nets.count_params(net) == folded
    assert cost(model) == (nets.count_params(net), nets.count_macs(net)), "what a manifest says"
    macs = sum(
        int(np.prod(layer.kernel.shape)) * layer.output.shape[1] * layer.output.shape[2]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
    )
    assert nets.count_macs(net) == macs + int(np.prod(model.get_layer("head").kernel.shape))


@pytest.mark.parametrize("name", ["fer-cpu", "fer-fine", "fer-gpu", "fer-lite"])
def test_the_last_map_of_a_fer_net_is_6_by_6(name: str) -> None:
    assert nets.convolutions(nets.NETS[name])[-1].side == 6


@pytest.mark.parametrize("name", ["fer-cpu", "fer-gpu", "fer-pair", "gate"])
def test_keras_gives_the_committed_logits(name: str) -> None:
    net = nets.NETS[name]
    with np.load(FORWARD) as golden:
        chips, logits = golden["chips"], golden[name]
    model = build_keras(net, batch=len(chips))
    set_keras_weights(net, model, seeded_weights(net))
    found = np.asarray(model(to_input(chips)))
    assert np.abs(found - logits).max() <= 1e-4
    # the comparison can fail: the same net one pixel aside answers otherwise
    assert np.abs(np.asarray(model(to_input(np.roll(chips, 1, axis=2)))) - logits).max() > 1e-2


def test_weights_come_back_as_they_were_put_in() -> None:
    net = nets.NETS["gate"]
    weights = seeded_weights(net, seed=3)
    model = build_keras(net, batch=1)
    set_keras_weights(net, model, weights)
    found = keras_weights(net, model)
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[name], weights[name]) for name in weights)
    assert model.input_shape == (1, 48, 48, 1)


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    net = nets.NETS["gate"]
    weights = dict(seeded_weights(net))
    kernel = weights.pop("conv3/kernel")
    with pytest.raises(ValueError, match="conv3/kernel"):
        check_weights(net, weights)
    with pytest.raises(ValueError, match=r"conv3/kernel: expected shape \(3, 3, 24, 32\)"):
        check_weights(net, weights | {"conv3/kernel": kernel[:1]})
    with pytest.raises(ValueError, match="conv9/kernel"):
        check_weights(net, weights | {"conv3/kernel": kernel, "conv9/kernel": kernel})


def test_weights_come_back_from_a_file_of_keras(tmp_path: Path) -> None:
    net = nets.NETS["gate"]
    weights = seeded_weights(net, seed=4)
    save_keras(net, weights, tmp_path / "net.keras")
    found = load_keras(tmp_path / "net.keras")
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[name], weights[name]) for name in weights)
    (tmp_path / "other.keras").write_bytes(b"no net")
    with pytest.raises(SourceError, match=r"other\.keras is no net"):
        load_keras(tmp_path / "other.keras")
