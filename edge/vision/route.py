"""Which model is asked about a face: the strategies `gate`, `highest-probability` and `single`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.inference.protocol import Backend
    from edge.types import F32, U8, Route, Strategy

FER_ROLE: Final[dict[Route, str]] = {"unmasked": "fer_unmasked", "masked": "fer_masked"}
ROLES: Final[dict[Strategy, tuple[str, ...]]] = {
    "gate": ("gate", "fer_unmasked", "fer_masked"),
    "highest-probability": ("fer_unmasked", "fer_masked"),
    "single": ("fer_unmasked",),
}
"""Models each strategy needs."""


class Router:
    """Asks the models of one strategy. All faces of a frame at once, so that models swap least."""

    def __init__(self, backend: Backend, strategy: Strategy) -> None:
        self.strategy: Strategy = strategy
        self._backend = backend

    def masked(self, chips: U8) -> list[float | None]:
        """The gate's probability of a mask for each of uint8 chips (N, 48, 48); None where no gate is asked."""
        if self.strategy != "gate":
            return [None] * len(chips)
        return [float(p[1]) for p in self._backend.probabilities("gate", chips)]

    def expressions(self, chips: U8, routes: Sequence[Route]) -> list[dict[Route, F32]]:
        """Per chip the probabilities (7,) of each model asked.

        `gate` asks the model of the face's route, `single` the unmasked one, `highest-probability` both (the
        scheme that Kurniawan et al. 2023, "Facial Expression Recognition in Covid-19 Pandemic Era Using 2 Stage
        Convolutional Neural Network", compare theirs with).
        """
        answers: list[dict[Route, F32]] = [{} for _ in chips]
        for route, role in FER_ROLE.items():
            if self.strategy == "single" and route == "masked":
                continue
            rows = [i for i, r in enumerate(routes) if self.strategy != "gate" or r == route]
            if rows:
                for i, p in zip(rows, self._backend.probabilities(role, chips[np.asarray(rows)]), strict=True):
                    answers[i][route] = p
        return answers
