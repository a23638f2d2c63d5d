"""The layer table of `edge_quantize.training.nets`, built in plain PyTorch.

Three traps lie between the two builders: TensorFlow's `same` at stride 2 pads (0, 1) where PyTorch pads
(1, 1); PyTorch's BN momentum is the share of the new statistics; kernels are HWIO there and OIHW here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own usage
from torch import Tensor, nn

from edge_quantize.training.nets import BN_EPSILON, BN_MOMENTUM, Net, Row, check_weights, convolutions, projects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_quantize.training.nets import Weights


DEVICE: Final = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where nets are trained and asked."""


def on_device(x: Tensor) -> Tensor:
    """A batch (N, 1, 48, 48) where the nets are, in the memory layout in which convolutions are fastest."""
    return x.to(DEVICE).contiguous(memory_format=torch.channels_last)


def torch_net(net: Net, weights: Mapping[str, NDArray[np.generic]] | None = None) -> TorchNet:
    """The net of a layer table where nets are trained, with given weights or fresh ones.

    Raises ValueError where the weights do not fit the table.
    """
    made = TorchNet(net)
    if weights is not None:
        set_torch_weights(made, weights)
    placed: TorchNet = made.to(DEVICE, memory_format=torch.channels_last)
    return placed


class Conv(nn.Module):  # type: ignore[misc]  # PyTorch is not there when types are checked
    """Convolution, padded as TensorFlow's `same`, and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        # Even sides only: a 3×3 kernel at stride 2 then needs one pixel, which goes right and below.
        self.pad = (0, 1, 0, 1) if stride == 2 and kernel == 3 else None
        inside = kernel // 2 if self.pad is None else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, inside, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BN_EPSILON, momentum=1 - BN_MOMENTUM)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) → (N, outputs, S / stride, S / stride)."""
        if self.pad is not None:
            x = F.pad(x, self.pad)
        done: Tensor = self.bn(self.conv(x))
        return done


class Block(nn.Module):  # type: ignore[misc]
    """Two convolutions with a shortcut around both."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        self.a = Conv(inputs, row.channels, row.stride)
        self.b = Conv(row.channels, row.channels, 1)
        self.p = Conv(inputs, row.channels, row.stride, kernel=1) if projects(inputs, row) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) → (N, channels, S / stride, S / stride), before the last ReLU."""
        y = self.b(F.relu(self.a(x)))
        done: Tensor = y + (x if self.p is None else self.p(x))
        return done


class TorchNet(nn.Module):  # type: ignore[misc]
    """Float (N, 1, 48, 48) → logits (N, classes)."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.rows = nn.ModuleList()
        inputs = 1
        for row in net.rows:
            made = Conv(inputs, row.channels, row.stride) if row.kind == "conv" else Block(inputs, row)
            self.rows.append(made)
            inputs = row.channels
        self.dropout = nn.Dropout(net.dropout)
        self.head = nn.Linear(inputs, net.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised chips."""
        for row in self.rows:
            x = F.relu(row(x))
        done: Tensor = self.head(self.dropout(x.mean(dim=(2, 3))))
        return done


def _convs(model: TorchNet) -> dict[str, Conv]:
    """The convolutions of a model under their neutral names."""
    found: dict[str, Conv] = {}
    for row, made in zip(model.net.rows, model.rows, strict=True):
        if isinstance(made, Conv):
            found[row.name] = made
        elif isinstance(made, Block):
            found |= {f"{row.name}.{part}": conv for part, conv in made.named_children() if isinstance(conv, Conv)}
    return found


def torch_weights(model: TorchNet) -> Weights:
    """Weights under neutral names, float32, kernels HWIO."""

    def out(t: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = t.detach().float().cpu().numpy().astype(np.float32)
        return array

    found: Weights = {}
    for name, c in _convs(model).items():
        found[f"{name}/kernel"] = np.ascontiguousarray(out(c.conv.weight).transpose(2, 3, 1, 0))
        running = (c.bn.running_mean, c.bn.running_var)
        parts = zip(("gamma", "beta", "mean", "var"), (c.bn.weight, c.bn.bias, *running), strict=True)
        found |= {f"{name}/{part}": out(t) for part, t in parts if t is not None}
    return found | {"head/kernel": out(model.head.weight).T.copy(), "head/bias": out(model.head.bias)}


def set_torch_weights(model: TorchNet, weights: Mapping[str, NDArray[np.generic]]) -> None:
    """Put neutral weights into a model of this table. Raises ValueError where they do not fit it."""
    check_weights(model.net, weights)

    def put(target: Tensor | None, array: NDArray[np.generic]) -> None:
        if target is not None:
            target.data.copy_(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))

    modules = _convs(model)
    for c in convolutions(model.net):
        m = modules[c.name]
        put(m.conv.weight, weights[f"{c.name}/kernel"].transpose(3, 2, 0, 1))
        put(m.bn.weight, weights[f"{c.name}/gamma"])
        put(m.bn.bias, weights[f"{c.name}/beta"])
        put(m.bn.running_mean, weights[f"{c.name}/mean"])
        put(m.bn.running_var, weights[f"{c.name}/var"])
    put(model.head.weight, weights["head/kernel"].T)
    put(model.head.bias, weights["head/bias"])
