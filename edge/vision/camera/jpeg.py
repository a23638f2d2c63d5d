"""Whether a JPEG is whole: OpenCV and Pillow show what an interrupted copy left, and grey for the rest."""

from __future__ import annotations

import re
from typing import Final

_SCAN_END: Final = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""A marker inside JPEG scan data that is neither a stuffed byte nor a restart (ITU-T T.81, B.1.1)."""
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
"""The next marker between segments: whatever stands before it is filler, which libjpeg and browsers skip."""
_ALONE: Final = {0x01, *range(0xD0, 0xD9)}
"""TEM, restarts and SOI have no length."""


def jpeg_ends(data: bytes) -> bool:
    """Tell whether a JPEG has its end-of-image mark; True for another format.

    Decoders refuse what stops short, but a copy that was interrupted may keep the file's length and hold zeros
    from there on: libjpeg decodes those to grey and only warns. What follows the mark is not looked at.
    """
    if not data.startswith(b"\xff\xd8"):
        return True
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = found[1][0], found.end()
        if marker == 0xD9:
            return True
        if marker in _ALONE:
            continue
        at += max(2, int.from_bytes(data[at : at + 2]))
        if marker == 0xDA:  # start of scan
            end = _SCAN_END.search(data, at)
            if end is None:
                return False
            at = end.start()
    return False


def without_leading_filler(data: bytes) -> bytes:
    """A JPEG whose first segment follows its start mark at once: decoders know a JPEG by that; others as they are."""
    first = _MARKER.search(data, 2) if data.startswith(b"\xff\xd8") else None
    return data if first is None or first.start() == 2 else data[:2] + data[first.start() :]
