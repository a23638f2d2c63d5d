"""The garbage collector paused for a stretch of work that makes many objects and no cycles."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def gc_paused() -> Iterator[None]:
    """Without the collector of cycles, which would walk through the rows of a batch over and over and find none.

    It is a sixth of what a row costs. It holds for the whole process, so for a batch and no longer.
    """
    if not gc.isenabled():  # within another, or by somebody's choice
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
