"""Text files of people and their editors: UTF-8, with or without a mark; else one line that says what it is."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final

from edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SECRET_LIMIT: Final = 65_536
"""Bytes of a password file; MQTT carries no longer password."""


def decode_text(content: bytes) -> str:
    """UTF-8 without its byte order mark. Raises ValueError naming the likely encoding, and nothing of the content."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            msg = f"not UTF-8 text but {name}: save it as UTF-8"
            raise ValueError(msg)
    if b"\0" in content:
        msg = "not UTF-8 text but full of NUL bytes (UTF-16 without a mark?): save it as UTF-8"
        raise ValueError(msg)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        msg = f"not UTF-8 text (line {line}; Latin-1 or Windows-1252?): save it as UTF-8"
        raise ValueError(msg) from None


def first_line(path: Path, key: str) -> str:
    """The first line of a password file, without its end. Raises ConfigError, which begins with the setting's key."""
    try:
        with path.open("rb") as file:
            content = file.read(_SECRET_LIMIT + 1)
        text = decode_text(content)
    except OSError as error:
        msg = (
            f"{key}: {path} cannot be read ({error.strerror}): "
            "put the password into it, readable by this user, or mend the path"
        )
        raise ConfigError(msg) from error
    except ValueError as error:
        msg = f"{key}: {path} cannot be read ({error})"
        raise ConfigError(msg) from error
    if len(content) > _SECRET_LIMIT:
        msg = f"{key}: {path} holds over {_SECRET_LIMIT} bytes, so no password: name the right file"
        raise ConfigError(msg)
    return text.partition("\n")[0].rstrip("\r")
