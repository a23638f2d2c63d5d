"""What validation says of a run: whether the rate should fall, and whether going on is of use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_quantize.training.recipe import Recipe


@dataclass(slots=True)
class Watch:
    """Validation losses so far, as the schedule needs them; the run's log replays it."""

    best: float = math.inf
    best_at: float = 0.0
    """Seconds of training at the best loss."""
    waiting_since: float = 0.0
    """Seconds of training at the best loss or at the last fall of the rate."""
    falls: int = 0
    ended: bool = False

    def see(self, recipe: Recipe, seconds: float, loss: float) -> bool:
        """Take in a validation loss (nats) after so many seconds of training; True when none was better."""
        budget = recipe.budget_minutes * 60
        better = loss < self.best
        if better:
            self.best, self.best_at, self.waiting_since = loss, seconds, seconds
        elif seconds - self.waiting_since >= recipe.plateau_patience * budget:
            self.falls, self.waiting_since = self.falls + 1, seconds
        self.ended = bool(recipe.patience) and seconds - self.best_at >= recipe.patience * budget
        return better


def replayed(recipe: Recipe, history: Iterable[tuple[float, float]]) -> Watch:
    """Watch that has seen a run's (seconds, validation loss) so far."""
    watch = Watch()
    for seconds, loss in history:
        watch.see(recipe, seconds, loss)
    return watch
