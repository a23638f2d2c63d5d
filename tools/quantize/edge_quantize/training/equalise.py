"""Channels of bottlenecks brought to one range, so that int8's one scale a tensor serves each of them.

Channels of a linear bottleneck, and of a depthwise convolution, differ in range by an order of magnitude, and int8
rounds them all by the widest. What a layer multiplies, its readers divide: float answers stay (Nagel et al. 2019,
"Data-free quantization through weight equalization and bias correction", arXiv:1906.04721).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from edge.vision.preprocess import to_input
from edge_quantize.training.nets import projects
from edge_quantize.training.torch_net import named_convolutions, on_device, torch_net

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from edge.types import F32, U8
    from edge_quantize.training.nets import Net, Row
    from edge_quantize.training.torch_net import TorchNet
    from edge_quantize.training.weights import Weights

CAP: Final = 6.0
"""Where a ReLU6 cuts off."""
MARGIN: Final = 1.1
"""What a range is taken for, times what was seen of it: nothing that other chips show shall be cut off."""
MOST: Final = 32.0
"""A channel is multiplied by this at most."""
BATCH: Final = 100


@dataclass(slots=True)
class _Tensor:
    """Who makes a tensor and who reads it; a shortcut's sums lie in one tensor with what they are sums of."""

    makers: list[str]
    readers: list[str] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)
    bounded: bool = False
    """By a ReLU6."""


def equalised(net: Net, weights: Mapping[str, NDArray[np.generic]], chips: U8) -> Weights:
    """Weights that answer in float as `weights` do, with the channels of each tensor around bottlenecks of one range.

    Args:
        net: a table; trunks without a bottleneck stay as they are.
        weights: under neutral names.
        chips: uint8 (N, 48, 48), on which ranges are measured. What others show beyond 1.1 times of them, a ReLU6 cuts.

    """
    made: Weights = {name: np.array(array, np.float32) for name, array in weights.items()}
    tensors = [one for rows in net.trunks for one in _tensors(rows)]
    seen = _ranges(torch_net(net, weights), chips) if tensors else {}
    for one in tensors:
        widest = np.max([seen[name] for name in (*one.makers, *one.sums)], axis=0)
        goal = CAP / MARGIN if one.bounded else widest.max()
        by = np.clip(goal / np.maximum(widest, goal / MOST), 1, MOST).astype(np.float32)
        for maker in one.makers:
            for part in ("gamma", "beta"):
                made[f"{maker}/{part}"] *= by
        for reader in one.readers:
            made[f"{reader}/kernel"] /= by[:, None]  # channels in are the last axis but one
    return made


def _tensors(rows: tuple[Row, ...]) -> list[_Tensor]:
    """The tensors of a trunk whose channels can be scaled: what bottlenecks make, and what they read."""
    found: list[_Tensor] = []
    stream: _Tensor | None = None
    inputs = 1
    for row in rows:
        if row.kind == "conv":
            if stream is not None:
                stream.readers.append(row.name)
            stream = _Tensor([row.name])
            found.append(stream)
        elif row.kind == "bottleneck":
            first = f"{row.name}.e" if row.expand > 1 else f"{row.name}.d"
            if stream is not None:
                stream.readers.append(first)
            if row.expand > 1:
                found.append(_Tensor([first], [f"{row.name}.d"], bounded=True))
            found.append(_Tensor([f"{row.name}.d"], [f"{row.name}.c"], bounded=True))
            if projects(inputs, row):
                stream = _Tensor([f"{row.name}.c"])
                found.append(stream)
            elif stream is not None:
                stream.makers.append(f"{row.name}.c")
                stream.sums.append(row.name)
        else:
            stream = None
        inputs = row.channels
    # Without a reader in its trunk a tensor is pooled. Between plain convolutions there is nothing to win.
    return [one for one in found if one.readers and any(row.kind == "bottleneck" for row in rows)]


@torch.no_grad()  # type: ignore[untyped-decorator]
def _ranges(model: TorchNet, chips: U8) -> dict[str, F32]:
    """The largest value of each channel that an activation lets through; of what has none, the largest magnitude."""
    seen: dict[str, F32] = {}

    def note(name: str, *, linear: bool) -> Callable[[object, object, Tensor], None]:
        def see(_module: object, _inputs: object, made: Tensor) -> None:
            top = (made.abs() if linear else made).amax(dim=(0, 2, 3)).cpu().numpy()
            seen[name] = np.maximum(seen.get(name, 0), top)

        return see

    for name, conv in named_convolutions(model).items():
        conv.register_forward_hook(note(name, linear=name.endswith(".c")))
    for rows, trunk in zip(model.net.trunks, model.trunks, strict=True):
        for row, made in zip(rows, trunk, strict=True):
            if row.kind == "bottleneck":
                made.register_forward_hook(note(row.name, linear=True))
    model.eval()
    for start in range(0, len(chips), BATCH):
        model(on_device(torch.from_numpy(to_input(chips[start : start + BATCH])).permute(0, 3, 1, 2)))
    return seen
