"""Augmentation of whole batches where the net is trained: geometry, light, what cameras do to a face, erasing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own usage

from edge_quantize.training.augment import SIDE_LIT

if TYPE_CHECKING:
    from torch import Tensor

    from edge_quantize.training.augment import Augment

BLUR_REACH = 3
"""Half the side of a blur kernel in pixels."""


def augment(chips: Tensor, spec: Augment) -> Tensor:
    """Augmented, normalised batch: uint8 (N, 48, 48) → float32 (N, 1, 48, 48) of whole grey levels."""
    x = warp(chips[:, None].float(), spec)
    x = _some(x, light(x, spec), spec.p_light)
    if spec.p_camera:
        hit = torch.rand(len(x), device=x.device) < spec.p_camera
        kind = torch.randint(len(CAMERA_EFFECTS), (len(x),), device=x.device)
        for k, effect in enumerate(CAMERA_EFFECTS):
            rows = (hit & (kind == k)).nonzero()[:, 0]
            if len(rows):
                x = x.index_copy(0, rows, effect(x[rows], spec))
    if spec.p_erase:
        x = _some(x, erase(x, spec), spec.p_erase)
    return (x.round().clamp(0, 255) - 128) / 128


def _some(x: Tensor, changed: Tensor, share: float) -> Tensor:
    """`changed` for a random share of the batch, `x` for the rest."""
    return torch.where((torch.rand(len(x), device=x.device) < share)[:, None, None, None], changed, x)


def _even(x: Tensor, low: float, high: float) -> Tensor:
    """One number a chip, (N,), even in [low, high)."""
    return torch.rand(len(x), device=x.device) * (high - low) + low


def warp(x: Tensor, spec: Augment) -> Tensor:
    """Flip, rotate, scale and shift in one bilinear pass; what lies outside repeats the edge."""
    turn = _even(x, -spec.rotate, spec.rotate) * math.pi / 180
    zoom = _even(x, *spec.scale)
    mirror = torch.where(torch.rand(len(x), device=x.device) < spec.flip, -1.0, 1.0)
    cos, sin = turn.cos() / zoom, turn.sin() / zoom
    dx, dy = _even(x, -2 * spec.shift, 2 * spec.shift), _even(x, -2 * spec.shift, 2 * spec.shift)
    # grid_sample asks where each output pixel comes from: the inverse of the map, in half sides
    first = torch.stack([cos * mirror, sin * mirror, -mirror * (cos * dx + sin * dy)], 1)
    second = torch.stack([-sin, cos, sin * dx - cos * dy], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def light(x: Tensor, spec: Augment) -> Tensor:
    """Gamma, even in its logarithm, contrast about the mean, gain, then light from one side."""
    gamma = _even(x, math.log(spec.gamma[0]), math.log(spec.gamma[1])).exp()[:, None, None, None]
    contrast = _even(x, *spec.contrast)[:, None, None, None]
    y = 255 * (x.clamp(0, 255) / 255) ** gamma
    mean = y.mean(dim=(1, 2, 3), keepdim=True)
    gain = _even(x, math.log(spec.gain[0]), math.log(spec.gain[1])).exp()[:, None, None, None]
    lit = (gain * (mean + contrast * (y - mean))).clamp(0, 255)
    lost = _even(x, 0, spec.side) * (_even(x, 0, 1) < SIDE_LIT)
    turn = _even(x, 0, 2 * math.pi)[:, None, None, None]
    along = torch.linspace(-0.5, 0.5, x.shape[-1], device=x.device)
    across = turn.cos() * along[None, None, None, :] + turn.sin() * along[None, None, :, None]
    return lit * (1 - lost[:, None, None, None] * (across + 0.5).clamp(0, 1))


def noise(x: Tensor, spec: Augment) -> Tensor:
    """Gaussian noise of a strength drawn for each chip."""
    return x + _even(x, 0, spec.noise)[:, None, None, None] * torch.randn_like(x)


def _filter(x: Tensor, kernels: Tensor) -> Tensor:
    """Each chip through its own kernel (N, K, K), edges repeated."""
    half = kernels.shape[-1] // 2
    padded = F.pad(x, (half, half, half, half), mode="replicate").transpose(0, 1)
    return F.conv2d(padded, kernels[:, None], groups=len(x)).transpose(0, 1)


def blur(x: Tensor, _spec: Augment) -> Tensor:
    """Gaussian blur of σ .4 to 1.2 pixels."""
    at = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=x.device)
    line = torch.exp(-0.5 * (at / _even(x, 0.4, 1.2)[:, None]) ** 2)
    line = line / line.sum(1, keepdim=True)
    return _filter(x, line[:, :, None] * line[:, None, :])


def motion(x: Tensor, _spec: Augment) -> Tensor:
    """Blur along a line of 3 to 5 pixels in any direction."""
    length = torch.randint(3, 6, (len(x),), device=x.device)
    turn = _even(x, 0, math.pi)
    along = torch.linspace(-0.5, 0.5, 9, device=x.device) * (length - 1)[:, None]
    rows = (2 + along * turn.sin()[:, None]).round().long()
    columns = (2 + along * turn.cos()[:, None]).round().long()
    kernels = torch.zeros(len(x), 25, device=x.device).scatter_(1, rows * 5 + columns, 1.0)
    return _filter(x, (kernels / kernels.sum(1, keepdim=True)).view(-1, 5, 5))


def resolution(x: Tensor, _spec: Augment) -> Tensor:
    """Down to 24 to 40 pixels, one size a batch, and up again."""
    side = x.shape[-1]
    small = int(torch.randint(side // 2, side * 5 // 6 + 1, ()))
    shrunk = F.interpolate(x, (small, small), mode="area")
    return F.interpolate(shrunk, (side, side), mode="bicubic", align_corners=False).clamp(0, 255)


def jpeg(x: Tensor, _spec: Augment) -> Tensor:
    """Packed as JPEG of quality 25 to 79 and unpacked, by OpenCV on the CPU."""
    done = []
    for chip in x[:, 0].round().clamp(0, 255).to(torch.uint8).cpu().numpy():
        quality = int(torch.randint(25, 80, ()))
        _, packed = cv2.imencode(".jpg", chip, [cv2.IMWRITE_JPEG_QUALITY, quality])
        done.append(torch.from_numpy(np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.float32)))
    return torch.stack(done)[:, None].to(x.device)


CAMERA_EFFECTS: Final = (noise, blur, motion, motion, resolution, jpeg)
"""One is drawn for each chip. Motion stands twice: people walk, and it is what nets lose most to."""


def erase(x: Tensor, spec: Augment) -> Tensor:
    """Cover one rectangle with one grey level."""
    side = x.shape[-1]
    area, aspect = _even(x, *spec.erase) * side * side, _even(x, -0.7, 0.7).exp()
    height, width = (area * aspect).sqrt().clamp(1, side), (area / aspect).sqrt().clamp(1, side)
    top = torch.rand(len(x), device=x.device) * (side - height)
    left = torch.rand(len(x), device=x.device) * (side - width)
    at = torch.arange(side, device=x.device)
    rows = (at >= top[:, None]) & (at < (top + height)[:, None])
    columns = (at >= left[:, None]) & (at < (left + width)[:, None])
    covered = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(covered, _even(x, 0, 256).floor()[:, None, None, None], x)
