"""The lifeline of a child service: its standard input is a pipe that only the supervisor holds."""

from __future__ import annotations

import os
import select
import sys


def stdin_ended() -> bool:
    """Whether standard input has ended: the supervisor let go of it, or is dead. Never waits."""
    try:
        ready, _, _ = select.select([sys.stdin], [], [], 0)
        return bool(ready) and not os.read(sys.stdin.fileno(), 4096)
    except (OSError, ValueError):  # closed already
        return True
