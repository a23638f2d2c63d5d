"""The one-slot mailbox between a live camera and the pipeline: only the newest frame waits."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Hands over the newest item; an item overwritten before it was taken is counted."""

    def __init__(self) -> None:
        self.overwritten = 0
        self._item: T | None = None
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Offer an item, replacing one that nobody took."""
        with self._changed:
            if self._item is not None:
                self.overwritten += 1
            self._item = item
            self._changed.notify()

    def take(self, timeout: float) -> T | None:
        """Take the newest item, waiting up to `timeout` seconds; None when none came."""
        with self._changed:
            if self._item is None:
                self._changed.wait(timeout)
            item, self._item = self._item, None
            return item
