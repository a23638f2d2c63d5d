"""Answers of a logits model on chips, and how good they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.vision.preprocess import to_input

if TYPE_CHECKING:
    from edge_quantize.training.labelled import F32, U8, Labelled


def probabilities(model: Any, chips: U8, batch: int = 256) -> F32:  # noqa: ANN401 - keras ships no types
    """Softmax of a logits model on uint8 chips (N, 48, 48): float32 (N, classes)."""
    outputs = [np.asarray(model(to_input(chips[i : i + batch]))) for i in range(0, len(chips), batch)]
    logits = np.concatenate(outputs)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def score(model: Any, labelled: Labelled) -> dict[str, float]:  # noqa: ANN401
    """Accuracy and cross entropy (nats) of a logits model, and n."""
    found = probabilities(model, labelled.chips)
    right = found.argmax(axis=1) == labelled.labels
    loss = -np.log(np.maximum(found[np.arange(len(found)), labelled.labels], 1e-9))
    return {"accuracy": float(right.mean()), "loss": float(loss.mean()), "n": len(found)}
