"""TOML of people and strangers: brackets within brackets are counted before they are read."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

DEPTH_LIMIT: Final = 100
"""Arrays and tables inside one another, at most; the reader recurses in Python for each."""
_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[][{}]|\\.*',
    re.DOTALL,
)
"""A string or a comment, in which brackets mean nothing; a bracket; or a backslash elsewhere, which ends all TOML."""


def read_toml(text: str) -> dict[str, Any]:
    """Tables of a text.

    Raises:
        ValueError: it is no TOML (tomllib.TOMLDecodeError, which names the line), or deeper than `DEPTH_LIMIT`. What
            tomllib cannot hold (a number of 5,000 digits, 30 February) is a plain ValueError without a line.

    """
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > DEPTH_LIMIT:
            line = text.count("\n", 0, token.start()) + 1
            msg = f"brackets within brackets, more than {DEPTH_LIMIT} deep (line {line})"
            raise ValueError(msg)
    return tomllib.loads(text)
