"""Whether a live camera sends one and the same picture for ever: a driver, or a camera's encoder, that has stuck."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from edge.types import U8

STUCK: Final = 60.0
"""Seconds of the same picture, byte for byte, after which a camera is closed and opened again. A scene in which nothing
moves is none: a sensor's noise makes two pictures differ, and an encoder's next key frame comes sooner."""
LONGEST: Final = 600.0
"""Where opening it did not help it is tried after twice as long, up to this: a camera in the dark may be right, and has
to be open when the light comes on."""
EVERY: Final = 1.0
"""Seconds from look to look: all of a picture is read, which in every frame would cost more than to judge its scene."""
NEXT: Final = "it is reopened; if that does not help, cut its power"
"""What logs say is done about it."""


class Repeats:
    """Looks at a live camera's pictures in order. A replay has none: a clip may show one picture for hours."""

    def __init__(self) -> None:
        self._print: int | None = None
        self._since, self._due, self._limit = math.inf, -math.inf, STUCK

    def stuck(self, image: U8, now: float) -> bool:
        """Whether nothing but this picture, uint8 (H, W) or (H, W, 3), came for so long that it is to be reopened."""
        if now < self._due:
            return False
        self._due = now + EVERY
        fresh = zlib.crc32(np.ascontiguousarray(image).data)
        if fresh != self._print:
            self._print, self._since, self._limit = fresh, now, STUCK
        self._since = min(self._since, now)  # after a reopening, from its first picture on
        if now - self._since < self._limit:
            return False
        self._since, self._limit = math.inf, min(2 * self._limit, LONGEST)
        return True
