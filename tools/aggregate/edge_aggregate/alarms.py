"""Log lines that a storm of strangers cannot multiply."""

from __future__ import annotations

import logging
import time
from typing import Final

log = logging.getLogger("edge.aggregate")

SAID_S: Final = 60.0
"""Between two lines about the same kind of thing."""


class Teller:
    """Says the first of a kind at once, the others once a minute with their number."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, int]] = {}

    def say(self, kind: str, text: str, *, level: int = logging.WARNING, more: int = 1) -> None:
        """Say it, or count it."""
        now = time.monotonic()
        at, held = self._said.get(kind, (-SAID_S, 0))
        if now - at < SAID_S:
            self._said[kind] = at, held + more
            return
        log.log(level, "%s%s", text, f" ({held} more since the last such line)" if held else "")
        self._said[kind] = now, 0
