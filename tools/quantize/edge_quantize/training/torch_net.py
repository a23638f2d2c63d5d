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

from edge_quantize.training.nets import BN_EPSILON, BN_MOMENTUM, Net, Row, convolutions, projects
from edge_quantize.training.weights import check_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edge_quantize.training.weights import Weights


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
    """Convolution, padded as TensorFlow's `same`, batch normalisation, and ReLU where wanted."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, kernel: int = 3, *, depthwise: bool = False, relu: bool = False
    ) -> None:
        super().__init__()
        # Even sides only: a kernel at stride 2 then needs an odd number of pixels, the larger half right and below.
        before = (kernel - 2) // 2
        self.pad = (before, before + 1, before, before + 1) if stride == 2 and kernel > 1 else None
        inside = kernel // 2 if self.pad is None else 0
        self.depthwise, self.relu = depthwise, relu
        groups = inputs if depthwise else 1
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, inside, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BN_EPSILON, momentum=1 - BN_MOMENTUM)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) → (N, outputs, S / stride, S / stride)."""
        if self.pad is not None:
            x = F.pad(x, self.pad)
        done: Tensor = self.bn(self.conv(x))
        return F.relu(done) if self.relu else done


class Block(nn.Module):  # type: ignore[misc]
    """Two convolutions with a shortcut around both."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        self.a = Conv(inputs, row.channels, row.stride)
        self.b = Conv(row.channels, row.channels, 1)
        self.p = Conv(inputs, row.channels, row.stride, kernel=1) if projects(inputs, row) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) → (N, channels, S / stride, S / stride)."""
        y = self.b(F.relu(self.a(x)))
        return F.relu(y + (x if self.p is None else self.p(x)))


class Bottleneck(nn.Module):  # type: ignore[misc]
    """A depthwise convolution between two of 1×1, with a shortcut where the shape stays."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        wide = inputs * row.expand
        self.e = Conv(inputs, wide, 1, kernel=1) if row.expand > 1 else None
        self.d = Conv(wide, wide, row.stride, row.kernel, depthwise=True)
        self.c = Conv(wide, row.channels, 1, kernel=1)
        self.shortcut = not projects(inputs, row)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, S, S) → (N, channels, S / stride, S / stride)."""
        y = x if self.e is None else F.relu6(self.e(x))
        done: Tensor = self.c(F.relu6(self.d(y)))
        return done + x if self.shortcut else done


class TorchNet(nn.Module):  # type: ignore[misc]
    """Float (N, 1, 48, 48) → logits (N, classes)."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.trunks = nn.ModuleList(_trunk(rows) for rows in net.trunks)
        self.dropout = nn.Dropout(net.dropout)
        self.head = nn.Linear(net.features, net.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised chips."""
        ends = [trunk(x).mean(dim=(2, 3)) for trunk in self.trunks]
        done: Tensor = self.head(self.dropout(torch.cat(ends, 1)))
        return done


def _trunk(rows: tuple[Row, ...]) -> nn.Sequential:
    made: list[nn.Module] = []
    inputs = 1
    for row in rows:
        if row.kind == "conv":
            made.append(Conv(inputs, row.channels, row.stride, row.kernel, relu=True))
        else:
            made.append((Block if row.kind == "block" else Bottleneck)(inputs, row))
        inputs = row.channels
    return nn.Sequential(*made)


def named_convolutions(model: TorchNet) -> dict[str, Conv]:
    """The convolutions of a model under their neutral names."""
    found: dict[str, Conv] = {}
    rows = [row for trunk in model.net.trunks for row in trunk]
    for row, made in zip(rows, (one for trunk in model.trunks for one in trunk), strict=True):
        if isinstance(made, Conv):
            found[row.name] = made
        else:
            found |= {f"{row.name}.{part}": conv for part, conv in made.named_children() if isinstance(conv, Conv)}
    return found


def _order(*, depthwise: bool) -> tuple[int, int, int, int]:
    """Axes of PyTorch's kernel as neutral weights have them; depthwise, its channels count as inputs."""
    return (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)


def torch_weights(model: TorchNet) -> Weights:
    """Weights under neutral names, float32, kernels HWIO."""

    def out(t: Tensor) -> NDArray[np.float32]:
        array: NDArray[np.float32] = t.detach().float().cpu().numpy().astype(np.float32)
        return array

    found: Weights = {}
    for name, c in named_convolutions(model).items():
        found[f"{name}/kernel"] = np.ascontiguousarray(out(c.conv.weight).transpose(_order(depthwise=c.depthwise)))
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

    modules = named_convolutions(model)
    for c in convolutions(model.net):
        m = modules[c.name]
        put(m.conv.weight, weights[f"{c.name}/kernel"].transpose(np.argsort(_order(depthwise=c.depthwise))))
        put(m.bn.weight, weights[f"{c.name}/gamma"])
        put(m.bn.bias, weights[f"{c.name}/beta"])
        put(m.bn.running_mean, weights[f"{c.name}/mean"])
        put(m.bn.running_var, weights[f"{c.name}/var"])
    put(model.head.weight, weights["head/kernel"].T)
    put(model.head.bias, weights["head/bias"])
