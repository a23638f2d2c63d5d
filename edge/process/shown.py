"""What may be shown of a text that holds strangers' words: no secret of a URL, nothing a terminal obeys."""

from __future__ import annotations

import re
from typing import Final

_LOGIN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/+)(?:[^\s:@/]*:(?![0-9]+(?:[\s/:]|$)).*|\S*)@")
"""Slashes may be one only: a URL taken for a path has lost one. Up to the last @, and over spaces where something other
than a port follows the first colon: a password may hold both."""


def without_secrets(text: str) -> str:
    """The text with the user and password of every URL in it left out."""
    return _LOGIN.sub(r"\1…@", text) if "@" in text else text


def shown(text: object) -> str:
    """One line for a terminal or a log: no secrets; control, bidirectional and undecodable characters are escaped."""
    line = without_secrets(str(text))
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
