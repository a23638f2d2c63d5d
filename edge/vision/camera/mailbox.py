"""The one-slot mailbox between a live camera and the pipeline: only the newest frame waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Hands over the newest item; an item overwritten before it was taken is counted and discarded.

    `discard` is called on an item that nobody will take, before its successor is taken in: with a camera's own
    buffers, the mailbox never holds two. `bell` is set at each new item, for a reader of several mailboxes.
    """

    def __init__(self, discard: Callable[[T], None] | None = None, bell: threading.Event | None = None) -> None:
        self.overwritten = 0
        self._discard, self._bell = discard, bell
        self._item: T | None = None
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Offer an item, replacing one that nobody took."""
        with self._changed:
            self._drop()
            self._item = item
            self._changed.notify()
        if self._bell is not None:
            self._bell.set()

    def take(self, timeout: float) -> T | None:
        """Take the newest item, waiting up to `timeout` seconds; None when none came."""
        with self._changed:
            if self._item is None:
                self._changed.wait(timeout)
            item, self._item = self._item, None
            return item

    def clear(self) -> None:
        """Discard what waits; it counts as overwritten."""
        with self._changed:
            self._drop()

    def _drop(self) -> None:
        item, self._item = self._item, None
        if item is not None:
            self.overwritten += 1
            if self._discard is not None:
                self._discard(item)
