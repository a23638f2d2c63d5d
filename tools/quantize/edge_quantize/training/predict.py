"""Answers of a net on chips, and how good they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own usage

from edge.vision.preprocess import to_input
from edge_quantize.training.torch_net import on_device

if TYPE_CHECKING:
    from edge_quantize.training.labelled import F32, U8, Labelled
    from edge_quantize.training.torch_net import TorchNet


@torch.no_grad()  # type: ignore[untyped-decorator]
def probabilities(model: TorchNet, chips: U8, batch: int = 256) -> F32:
    """Softmax of a net on uint8 chips (N, 48, 48): float32 (N, classes)."""
    model.eval()
    parts = []
    for start in range(0, len(chips), batch):
        x = torch.from_numpy(to_input(chips[start : start + batch])).permute(0, 3, 1, 2)
        parts.append(F.softmax(model(on_device(x)).float(), 1).cpu().numpy())
    found: F32 = np.concatenate(parts).astype(np.float32)
    return found


def score(model: TorchNet, labelled: Labelled) -> dict[str, float]:
    """Accuracy and cross entropy (nats) of a net, and n."""
    found = probabilities(model, labelled.chips)
    right = found.argmax(axis=1) == labelled.labels
    loss = -np.log(np.maximum(found[np.arange(len(found)), labelled.labels], 1e-9))
    return {"accuracy": float(right.mean()), "loss": float(loss.mean()), "n": len(found)}
