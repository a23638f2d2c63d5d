"""When to try again: a second after a failure, then twice as long each time, a minute at most."""

from __future__ import annotations

import random
import time
from typing import Final

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 60.0


class Backoff:
    """The pauses between tries. They grow with each failure; only `shrink` makes them short again."""

    def __init__(self) -> None:
        self._at, self._pause = 0.0, FIRST_RETRY_S

    @property
    def left(self) -> float:
        """Seconds until the next try, 0 when it is due."""
        return max(0.0, self._at - time.monotonic())

    @property
    def longest(self) -> bool:
        """Whether the pauses grow no more."""
        return self._pause >= LONGEST_RETRY_S

    def fail(self) -> None:
        """A try has failed: the next one waits, and not in step with other devices."""
        self._at = time.monotonic() + self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._pause = min(LONGEST_RETRY_S, self._pause * 2)

    def shrink(self) -> None:
        """It went well for a while: the next failure is the first again."""
        self._pause = FIRST_RETRY_S

    def now(self) -> None:
        """Do not wait for the next try; the pause after it stays as it is."""
        self._at = 0.0
