"""Weights of a net under neutral names, whichever library holds it: `<convolution>/<part>` and `head/<part>`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edge_quantize.training.nets import BESIDE, convolutions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_quantize.training.nets import Net

F32 = NDArray[np.float32]
Weights = dict[str, F32]

BN_PARTS: Final = ("gamma", "beta", "mean", "var")


def weight_shapes(net: Net) -> dict[str, tuple[int, ...]]:
    """Neutral names and shapes: `<conv>/kernel` HWIO, `<conv>/{gamma,beta,mean,var}`, `head/{kernel,bias}`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for c in convolutions(net):
        shapes[f"{c.name}/kernel"] = c.shape
        shapes |= {f"{c.name}/{part}": (c.outputs,) for part in BN_PARTS}
    shapes["head/kernel"] = (net.features, net.classes)
    shapes["head/bias"] = (net.classes,)
    return shapes


def check_weights(net: Net, weights: Mapping[str, NDArray[np.generic]]) -> None:
    """Raise ValueError unless names and shapes are exactly those of the table."""
    shapes = weight_shapes(net)
    if missing := sorted(shapes.keys() - weights.keys()):
        msg = f"weights for {net.name} lack {missing[0]} and {len(missing) - 1} more"
        raise ValueError(msg)
    if extra := sorted(weights.keys() - shapes.keys()):
        msg = f"{net.name} has no place for {extra[0]} and {len(extra) - 1} more"
        raise ValueError(msg)
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            msg = f"{net.name} {name}: expected shape {shape}, got {weights[name].shape}"
            raise ValueError(msg)


def seeded_weights(net: Net, seed: int = 0) -> Weights:
    """Weights that anyone can make again, for comparing two builders: float32 under neutral names."""
    rng = np.random.default_rng(seed)
    made: Weights = {}
    for name, shape in weight_shapes(net).items():
        even = rng.random(shape) * 2 - 1
        if name.endswith("kernel"):
            values = even * np.sqrt(6 / np.prod(shape[:-1]))  # He et al. 2015: variance 2 / fan-in
        elif name.endswith(("gamma", "var")):
            values = 1 + 0.5 * even
        else:
            values = 0.2 * even
        made[name] = values.astype(np.float32)
    return made


def paired(one: Mapping[str, NDArray[np.generic]], other: Mapping[str, NDArray[np.generic]], share: float) -> Weights:
    """Weights of a pair from those of its two nets: its logits are (1 - share) × the first's + share × the other's."""
    made: Weights = {name: np.asarray(array, np.float32) for name, array in one.items()}
    made |= {f"{BESIDE}{name}": np.asarray(array, np.float32) for name, array in other.items()}
    for part in ("kernel", "bias"):
        first, second = (1 - share) * made[f"head/{part}"], share * made.pop(f"{BESIDE}head/{part}")
        made[f"head/{part}"] = np.concatenate([first, second]) if part == "kernel" else first + second
    return {name: np.asarray(array, np.float32) for name, array in made.items()}


def deepened(net: Net, weights: Mapping[str, NDArray[np.generic]], seed: int = 0) -> Weights:
    """Weights of `net` from those of a shallower net of the same widths: the blocks it lacks begin as the identity.

    A new block's second normalisation has gain 0, so the net answers as the shallow one did (Goyal et al. 2017,
    "Accurate, large minibatch SGD", 5.1). Raises ValueError where the given weights have no place in `net`.
    """
    rng = np.random.default_rng(seed)
    made: Weights = {}
    for name, shape in weight_shapes(net).items():
        if name in weights:
            made[name] = np.asarray(weights[name], np.float32)
        elif name.endswith("kernel"):
            made[name] = (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)
        else:
            ones = name.endswith("var") or (name.endswith("gamma") and not name.endswith(".b/gamma"))
            made[name] = np.full(shape, float(ones), np.float32)
    check_weights(net, made | {name: np.asarray(array, np.float32) for name, array in weights.items()})
    return made
