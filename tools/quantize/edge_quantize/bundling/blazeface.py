"""MediaPipe's short-range BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047), rebuilt in Keras from its own weights.

The float16 weights are read from the `.tflite` file of the mediapipe wheel (Apache-2.0). What is changed:

- The first convolution takes what the device has, BGR as (u8 - 128) / 128, instead of RGB as u8 / 127.5 - 1.
- A block adds its input to what a pointwise convolution makes. Here one convolution does both, on the input and the
  depthwise answer side by side, its kernel an identity above the pointwise one: the sum is not rounded twice to int8.
- The heads map each output from its span (`SPANS`) to 0…6 and cut it off there by ReLU6, so that scores, centres, sizes
  and keypoints all use the whole of one int8 output tensor.
- For int8 the kernels are fitted again, see `refit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from edge.bundle.model_check import check_model
from edge.errors import SourceError, install
from edge.vision.detect.regions import SIDE
from edge_quantize.bundling.convert import to_int8_tflite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.types import F32, U8


def _span(score: float, centre: float, small: float, large: float, keypoint: float) -> F32:
    low, high = [-score, -centre, -centre, small, small], [score, centre, centre, large, large]
    return np.array([low + [-keypoint] * 12, high + [keypoint] * 12], np.float32)


SPANS: Final = np.stack([_span(6, 16, 8, 72, 40), _span(6, 40, 24, 160, 88)])
"""(2, 2, 17): smallest and largest value of each output, on the 16×16 and the 8×8 map, from faces in real photos."""
_CONV, _DEPTHWISE, _DEQUANTIZE = 3, 4, 6


class Block(NamedTuple):
    """A depthwise 3×3 convolution (3, 3, C, 1), and one of 1×1 (2 C, D) over the block's input and its answer."""

    stride: int
    depthwise: F32
    depthwise_bias: F32
    kernel: F32
    bias: F32


@dataclass(frozen=True, slots=True)
class Weights:
    """All of the network."""

    stem: F32
    """(5, 5, 3, 24), stride 2."""
    stem_bias: F32
    blocks: list[Block]
    heads: list[tuple[F32, F32]]
    """For the 16×16 and the 8×8 map: kernel (C, A, 17) and bias (A, 17) of A anchors a cell; its outputs are
    score (logit), centre from the anchor's, size, six keypoints from the anchor's centre, in pixels of the input."""


def weights_file() -> Path:
    """Path of the wheel's model. Raises SourceError with what to install."""
    spec = find_spec("mediapipe")
    for folder in spec.submodule_search_locations or [] if spec else []:
        path = Path(folder) / "modules" / "face_detection" / "face_detection_short_range.tflite"
        if path.is_file():
            return path
    msg = f"BlazeFace's weights come with mediapipe 0.10.21, which is not installed: {install('host')}"
    raise SourceError(msg)


def read_weights(content: bytes) -> Weights:
    """Read the wheel's model: a stem, sixteen blocks, and a score and a box head on each of two maps, in this order."""
    model = check_model(content)
    (graph,) = model["subgraphs"]
    codes = [code.get("deprecated_builtin_code", 0) for code in model["operator_codes"]]
    constants: dict[int, F32] = {}
    layers: list[tuple[F32, F32, int]] = []
    for operator in graph["operators"]:
        kind, inputs = codes[operator.get("opcode_index", 0)], [int(i) for i in operator["inputs"]]
        if kind == _DEQUANTIZE:
            tensor = graph["tensors"][inputs[0]]
            half = model["buffers"][tensor["buffer"]]["data"].view(np.float16)
            constants[int(operator["outputs"][0])] = half.reshape(tensor["shape"]).astype(np.float32)
        elif kind in {_CONV, _DEPTHWISE}:
            kernel = constants[inputs[1]].transpose(1, 2, 3, 0)  # both kinds to Keras's order
            layers.append((kernel, constants[inputs[2]], operator["builtin_options"]["stride_w"]))
    (stem, stem_bias, _), *pairs = layers[:-4]
    blocks = []
    for (depthwise, shift, step), (pointwise, bias, _) in zip(pairs[::2], pairs[1::2], strict=True):
        identity = np.eye(len(shift), len(bias), dtype=np.float32)
        blocks.append(Block(step, depthwise, shift, np.concatenate([identity, pointwise[0, 0]]), bias))
    heads = []
    for (score, score_bias, _), (box, box_bias, _) in zip(layers[-4:-2], layers[-2:], strict=True):
        anchors = len(score_bias)
        heads.append((np.concatenate([score[0, 0, :, :, None], box.reshape(box.shape[2], anchors, -1)], axis=-1),
                      np.concatenate([score_bias[:, None], box_bias.reshape(anchors, -1)], axis=-1)))  # fmt: skip
    return Weights(stem, stem_bias, blocks, heads)


def from_bgr(weights: Weights) -> Weights:
    """Take BGR as (u8 - 128) / 128 where the network was trained with RGB as u8 / 127.5 - 1."""
    bias = weights.stem_bias + weights.stem.sum(axis=(0, 1, 2)) * (0.5 / 127.5)
    return Weights(weights.stem[:, :, ::-1] * (128 / 127.5), bias, weights.blocks, weights.heads)


def to_input(images: U8) -> F32:
    """The network's float input of BGR images."""
    return ((images.astype(np.float32) - 128) / 128).astype(np.float32)


def spanned(weights: Weights) -> Weights:
    """Heads whose outputs go from 0 (smallest value of the span) to 6 (largest)."""
    heads = [(kernel * (6 / (high - low)), (bias - low) * (6 / (high - low)))
             for (kernel, bias), (low, high) in zip(weights.heads, SPANS, strict=True)]  # fmt: skip
    return Weights(weights.stem, weights.stem_bias, weights.blocks, heads)


def network(weights: Weights, *, cut_off: bool = False) -> Any:  # noqa: ANN401 - Keras has no types
    """Build the Keras model, whose operators all map to an Edge TPU.

    Args:
        weights: of 24 to 96 channels.
        cut_off: every layer ends in ReLU6, as after `refit`; else in ReLU, depthwise ones and the heads in nothing.

    Returns:
        Float32 (1, 128, 128, 3) → (1, 896, 17): first the 16×16 map's two anchors a cell, then the 8×8 map's six.

    """
    import keras
    from keras import layers

    def convolved(layer: Any, x: Any, kernel: F32, bias: F32) -> Any:  # noqa: ANN401
        y = layer(x)
        layer.set_weights([kernel, bias])
        return y

    relu, linear = ("relu6", "relu6") if cut_off else ("relu", None)
    frame = keras.Input(batch_shape=(1, SIDE, SIDE, 3), name="frame")
    stem = layers.Conv2D(weights.stem.shape[-1], weights.stem.shape[:2], 2, padding="same", activation=relu)
    x = convolved(stem, frame, weights.stem, weights.stem_bias)
    maps = []
    for block in weights.blocks:
        if block.stride > 1:
            maps.append(x)
        skip = layers.MaxPooling2D(block.stride)(x) if block.stride > 1 else x
        depthwise = layers.DepthwiseConv2D(block.depthwise.shape[:2], block.stride, padding="same", activation=linear)
        both = layers.Concatenate()([skip, convolved(depthwise, x, block.depthwise, block.depthwise_bias)])
        joined = layers.Conv2D(len(block.bias), 1, activation=relu)
        x = convolved(joined, both, block.kernel[None, None], block.bias)
    answers = []
    for found, (kernel, bias) in zip([maps[-1], x], weights.heads, strict=True):
        head = layers.Conv2D(bias.size, 1, activation=linear)
        flat = convolved(head, found, kernel.reshape(1, 1, -1, bias.size), bias.reshape(-1))
        answers.append(layers.Reshape((-1, bias.shape[-1]))(flat))
    return keras.Model(frame, layers.Concatenate(axis=1, name="anchors")(answers), name="blazeface")


def quantised(content: bytes, images: Sequence[U8], refit: Callable[[Weights, F32], Weights]) -> bytes:
    """The network of the wheel's file as an int8 `.tflite` for BGR as q = u8 - 128; see `grids` for its answers.

    Args:
        content: the wheel's `.tflite`.
        images: BGR (128, 128, 3) with faces of all sizes; ranges of activations are taken from them.
        refit: fits the kernels again for int8 on normalised images, `edge_quantize.bundling.refit.fitted`.

    """
    frames = to_input(np.stack(images))
    pins = np.stack([np.full((1, SIDE, SIDE, 3), level, np.float32) for level in (-1.0, 127 / 128)])
    weights = refit(spanned(from_bgr(read_weights(content))), frames)
    return to_int8_tflite(network(weights, cut_off=True), [*frames[:, None], *pins])


def grids(scale: float, zero_point: int) -> list[dict[str, Any]]:
    """`anchors` of the manifest, by the scale and zero point of the int8 output."""
    described = []
    for (low, high), cells, each in zip(SPANS, (16, 8), (2, 6), strict=True):
        step = scale * (high - low) / 6
        described.append({"cells": cells, "each": each, "step": [round(float(v), 8) for v in step],
                          "zero": [round(float(v), 6) for v in low - zero_point * step]})  # fmt: skip
    return described


def cost(content: bytes) -> tuple[int, int]:
    """(parameters, multiply-accumulates) of one image's inference."""
    model = network(read_weights(content))
    kernels = [(layer.get_weights()[0], layer.output.shape) for layer in model.layers if layer.get_weights()]
    macs = sum(int(kernel.size) * int(shape[1]) * int(shape[2]) for kernel, shape in kernels)
    return int(model.count_params()), macs
