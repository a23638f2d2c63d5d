"""Kernels fitted again for int8: each layer learns to make the float network's answer from what int8 left of its input.

BlazeFace's pointwise convolutions subtract large, like channels from each other, which multiplies rounding errors: as
it is, post-training quantisation loses four of ten faces. Layer by layer, in the order of computation:

1. Every channel of every map is scaled and moved so that it goes from 0 to 6 and is cut off there by ReLU6: all share
   one int8 scale without wasting it (as between layers in Nagel et al. 2019, arXiv:1906.04721).
2. A 1×1 convolution is solved anew by ridge regression, from the rounded input to the float network's output (as in
   layer-wise reconstruction, Hubara et al. 2020, arXiv:2006.10518).
3. Its weights are rounded one input channel after the other, those left taking up the error (Frantar et al. 2022, GPTQ,
   arXiv:2210.17323).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edge_quantize.bundling.blazeface import Block, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.types import F32

    F64 = NDArray[np.float64]

TOP: Final = 6.0
RIDGES: Final = (1e-4, 1e-3, 1e-2)
"""Shares of the inputs' mean variance that are added to each; what fits best after rounding is taken."""
_ROUNDS: Final = 3
_PLACES: Final = 50_000
"""Places of a map that a kernel is solved on; of a larger one, every so-manieth."""
_ELSEWHERE: Final = 0.03
"""Weight of a place without a face, against 1 on a sure one."""


def fitted(weights: Weights, frames: F32) -> Weights:
    """Weights whose int8 network is nearest to the float one.

    Args:
        weights: the float network's, heads from 0 to 6.
        frames: float inputs (N, 128, 128, 3) with faces of all sizes.

    """
    faces = _faces(weights, frames)
    inputs = _patches(frames, len(weights.stem))
    wanted = np.maximum(inputs @ weights.stem.reshape(-1, len(weights.stem_bias)) + weights.stem_bias, 0)
    unit = wanted.max(axis=0) / TOP
    start = weights.stem.reshape(inputs.shape[1], -1) / unit, weights.stem_bias / unit
    stem, stem_bias = _solved(inputs, wanted / unit, *start, _at(faces, 64))
    shape = len(frames), 64, 64, len(unit)
    exact, rough = wanted.reshape(shape), _levels(inputs @ stem + stem_bias).reshape(shape)
    blocks, maps = [], []
    for block in weights.blocks:
        if block.stride > 1:
            maps.append((exact, rough, unit))
        channels = len(unit)
        depthwise = block.depthwise * unit[:, None]
        kept = np.zeros((channels, channels), np.float32)
        if block.stride == 1:
            # What of an answer is the place's own input is left to the skip connection: a smaller range, finer steps.
            own = _slope(rough, _depthwise(rough, depthwise, 1))
            depthwise[1, 1, :, 0] -= own
            kept = np.diag(own)
        answer = _depthwise(rough, depthwise, block.stride) + block.depthwise_bias
        low, high = answer.min(axis=(0, 1, 2)), answer.max(axis=(0, 1, 2))
        gain = TOP / np.maximum(high - low, 1e-3)
        kernel = _rounded((depthwise * gain[:, None])[..., 0])[..., None]
        bias = (block.depthwise_bias - low) * gain
        answer = _levels(_depthwise(rough, kernel, block.stride) + bias)
        inputs = _beside(rough, answer, block.stride)
        wanted = _beside(exact, _depthwise(exact, block.depthwise, block.stride) + block.depthwise_bias, block.stride)
        wanted = np.maximum(wanted @ block.kernel + block.bias, 0)
        before, unit = np.concatenate([unit, 1 / gain]), np.maximum(wanted.max(axis=0), 1e-3) / TOP
        start = block.kernel * before[:, None] / unit
        start[:channels] += kept @ block.kernel[channels:] / unit
        start = start, (block.bias + low @ block.kernel[channels:]) / unit
        joined, joined_bias = _solved(inputs, wanted / unit, *start, _at(faces, answer.shape[1]))
        rough = _levels(inputs @ joined + joined_bias).reshape(*answer.shape[:3], -1)
        exact = wanted.reshape(rough.shape)
        blocks.append(Block(block.stride, kernel, bias, joined, joined_bias))
    heads = []
    ends = [maps[-1], (exact, rough, unit)]
    for (true, seen, scale), (kernel, bias) in zip(ends, weights.heads, strict=True):
        wanted, sure = _head(true, kernel, bias)
        start = kernel.reshape(len(scale), -1) * scale[:, None], bias.reshape(-1)
        solved, solved_bias = _solved(seen.reshape(-1, len(scale)), wanted, *start, sure.reshape(-1) + _ELSEWHERE)
        heads.append((solved.reshape(kernel.shape), solved_bias.reshape(bias.shape)))
    return Weights(stem.reshape(weights.stem.shape), stem_bias, blocks, heads)


def _head(x: F32, kernel: F32, bias: F32) -> tuple[F32, F32]:
    """A head's answers (P, A × 17) at the P places of a map (N, S, S, C); how sure it is of a face there (N, S, S)."""
    answers = x.reshape(-1, len(kernel)) @ kernel.reshape(len(kernel), -1) + bias.reshape(-1)
    score = answers.reshape(*x.shape[:3], *bias.shape)[..., 0].max(axis=-1)
    # Between 0 and 6 a score of 3 is a probability of one half.
    return answers, (1 / (1 + np.exp(np.clip(2 * (TOP / 2 - score), -30, 30)))).astype(np.float32)


def _faces(weights: Weights, frames: F32) -> F32:
    """How sure the float network is of a face at or beside each of 8×8 places (N, 8, 8)."""
    import tensorflow as tf

    x = _patches(frames, len(weights.stem)) @ weights.stem.reshape(-1, len(weights.stem_bias)) + weights.stem_bias
    x, maps = np.maximum(x, 0).reshape(len(frames), 64, 64, -1), []
    for block in weights.blocks:
        if block.stride > 1:
            maps.append(x)
        answer = _depthwise(x, block.depthwise, block.stride) + block.depthwise_bias
        rows = _beside(x, answer, block.stride) @ block.kernel + block.bias
        x = np.maximum(rows, 0).reshape(*answer.shape[:3], -1)
    fine, coarse = (_head(found, *head)[1][..., None] for found, head in zip([maps[-1], x], weights.heads, strict=True))
    sure = np.maximum(tf.nn.max_pool2d(fine, 2, 2, "SAME"), coarse)
    return np.asarray(tf.nn.max_pool2d(sure, 3, 1, "SAME"))[..., 0]


def _at(faces: F32, side: int) -> F32:
    """Weights of the places of a map."""
    return faces.repeat(side // 8, axis=1).repeat(side // 8, axis=2).reshape(-1) + _ELSEWHERE


def _slope(x: F32, y: F32) -> F32:
    """Regression of each channel of y on the same of x."""
    x, y = (one.reshape(-1, one.shape[-1])[::7] for one in (x, y))
    off = x - x.mean(axis=0)
    return np.asarray((off * y).sum(axis=0) / np.maximum((off**2).sum(axis=0), 1e-3), np.float32)


def _solved(inputs: F32, target: F32, kernel: F32, bias: F32, weight: F32) -> tuple[F32, F32]:
    """Int8 kernel (C, D) and bias (D,) that make the target (N, D) of the inputs (N, C), near those they start from.

    A ReLU6 follows, so below a target of 0 any answer below 0 is right, and above one of 6 any above.
    """
    every = len(inputs) // _PLACES | 1
    inputs, target = inputs[::every].astype(np.float64), target[::every]
    share = weight[::every] / weight[::every].sum(dtype=np.float64)
    mean = share @ inputs
    centred = inputs - mean
    weighted = centred * share[:, None]
    moment = weighted.T @ centred

    def missing(kernel: F64, bias: F64) -> F64:
        answer = inputs @ kernel + bias
        right = ((target <= 0) & (answer < 0)) | ((target >= TOP) & (answer > TOP))
        return np.where(right, 0, np.clip(target, 0, TOP) - answer)

    best: tuple[float, F64, F64] | None = None
    for ridge in RIDGES:  # the larger, the smaller are weights, and so what rounding does to them
        damped = moment + np.eye(len(moment)) * ridge * np.trace(moment) / len(moment)
        new, new_bias = kernel.astype(np.float64), bias.astype(np.float64)
        for _ in range(_ROUNDS):
            off = missing(new, new_bias)
            step = np.linalg.solve(damped, weighted.T @ off)
            new, new_bias = new + step, new_bias + share @ off - mean @ step
        rounded = _rounded_in_turn(new, damped)
        new_bias = new_bias + mean @ (new - rounded)
        new_bias += share @ missing(rounded, new_bias)
        error = float((share @ missing(rounded, new_bias) ** 2).sum())
        if best is None or error < best[0]:
            best = error, rounded, new_bias
    assert best is not None  # noqa: S101 - for the type checker
    return best[1].astype(np.float32), best[2].astype(np.float32)


def _rounded(kernel: F32) -> F32:
    """Int8 values of a kernel, one scale for each of the last axis."""
    step = np.maximum(np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1))), 1e-9) / 127
    return np.asarray(np.rint(kernel / step) * step, np.float32)


def _rounded_in_turn(kernel: F64, moment: F64) -> F64:
    """Int8 values of a kernel, the inputs that vary most first; `moment` holds their covariances."""
    step = np.maximum(np.abs(kernel).max(axis=0), 1e-9) / 127
    order = np.argsort(-np.diag(moment))
    factor = np.linalg.cholesky(np.linalg.inv(moment[np.ix_(order, order)])).T
    while True:
        left = kernel[order]
        for row in range(len(left)):
            exact = left[row].copy()
            left[row] = np.clip(np.rint(exact / step), -127, 127) * step
            left[row + 1 :] -= np.outer(factor[row, row + 1 :] / factor[row, row], exact - left[row])
        reach = np.rint(np.abs(left / step).max(axis=0))
        if (reach == 127).all():
            return left[np.argsort(order)]
        # The converter takes its steps from the largest weights: they must come out as these.
        step *= np.maximum(reach, 64) / 127


def _levels(x: F32) -> F32:
    """Int8 values of a tensor behind ReLU6."""
    step = TOP / 255
    return np.asarray(np.rint(np.clip(x, 0, TOP) / step) * step, np.float32)


def _patches(frames: F32, side: int) -> F32:
    """What each place of the stem sees, one row a place."""
    import tensorflow as tf

    patches = tf.image.extract_patches(frames, [1, side, side, 1], [1, 2, 2, 1], [1, 1, 1, 1], "SAME")
    return np.asarray(patches).reshape(-1, patches.shape[-1])


def _depthwise(x: F32, kernel: F32, stride: int) -> F32:
    import tensorflow as tf

    return np.asarray(tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME"))


def _beside(x: F32, answer: F32, stride: int) -> F32:
    """Rows (N, 2 C) of a block's input, at the answer's size, and its depthwise answer."""
    import tensorflow as tf

    skip = np.asarray(tf.nn.max_pool2d(x, stride, stride, "SAME")) if stride > 1 else x
    return np.concatenate([skip, answer], axis=-1).reshape(-1, 2 * x.shape[-1])
