"""What a check found; imports nothing internal."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Level = Literal["ok", "warning", "error"]
EXIT_CODES: Final[dict[Level, int]] = {"ok": 0, "warning": 1, "error": 2}
"""As monitoring plugins answer (https://www.monitoring-plugins.org/doc/guidelines.html)."""


class Finding(NamedTuple):
    """One line: what is so, why that matters, how to mend it (both empty when it is well)."""

    level: Level
    check: str
    what: str
    why: str = ""
    mend: str = ""
