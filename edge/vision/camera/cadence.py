"""Which frames of a live camera are looked at: at most so many a second, evenly spread."""

from __future__ import annotations

from typing import Final

SLACK: Final = 0.25
"""Share of the time between two frames by which one may come early: clocks of cameras jitter."""


class Cadence:
    """Takes at most `most` frames a second of those that come, whatever they show: who is seen must not decide it."""

    def __init__(self, most: float) -> None:
        self._every = 1 / most
        self._due = float("-inf")

    def takes(self, t: float) -> bool:
        """Whether the frame that came at `t`, seconds on a clock that only goes on, is one of them."""
        if t < self._due - SLACK * self._every:
            return False
        # Counted from when it was due, so that early and late ones even out; a pause is not caught up with.
        self._due = (t if t > self._due + self._every else self._due) + self._every
        return True
