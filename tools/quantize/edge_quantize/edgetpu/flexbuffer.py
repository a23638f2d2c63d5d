"""One value out of a FlexBuffer map, every offset checked: `flatbuffers.flexbuffers` follows them unchecked.

Format: https://flatbuffers.dev/flexbuffers/ ("FlexBuffer binary encoding").
"""

from __future__ import annotations

from typing import Final

from edge.bundle.flatbuffer import Malformed

MAP: Final = 9
STRING: Final = 5
BLOB: Final = 25
MAX_KEYS: Final = 1000


def read_bytes(data: bytes, key: str) -> bytes:
    """Value of `key` in the map that is the root of `data`, a string or a blob.

    Raises:
        Malformed: no such map, key or value; the offset and what is wrong there.

    """
    if len(data) < 3:
        raise Malformed(0, f"a flexbuffer of {len(data)} bytes")
    end = len(data)
    width, packed = data[end - 1], data[end - 2]
    if packed >> 2 != MAP:
        raise Malformed(end - 2, f"the flexbuffer's root has type {packed >> 2}, not map")
    at = _follow(data, end - 2 - width, width)
    step = 1 << (packed & 3)
    count = _unsigned(data, at - step, step)
    if count > MAX_KEYS:
        raise Malformed(at - step, f"a map of {count} keys")
    keys = _follow(data, at - 3 * step, step)
    key_step = _unsigned(data, at - 2 * step, step)
    types = at + count * step
    _unsigned(data, types + max(count - 1, 0), 1)
    for index in range(count):
        place = _follow(data, keys + index * key_step, key_step)
        if data[place : place + len(key) + 1] == key.encode() + b"\0":
            return _content(data, at + index * step, step, data[types + index])
    raise Malformed(at, f"the map has no key {key!r}")


def _content(data: bytes, at: int, step: int, packed: int) -> bytes:
    if packed >> 2 not in {STRING, BLOB}:
        raise Malformed(at, f"a value of type {packed >> 2}, not string or blob")
    start, width = _follow(data, at, step), 1 << (packed & 3)
    size = _unsigned(data, start - width, width)
    if start + size > len(data):
        raise Malformed(start - width, f"{size} bytes run past the flexbuffer's {len(data)}")
    return data[start : start + size]


def _unsigned(data: bytes, at: int, width: int) -> int:
    if width not in {1, 2, 4, 8}:
        raise Malformed(max(at, 0), f"an integer of {width} bytes")
    if at < 0 or at + width > len(data):
        raise Malformed(max(at, 0), f"outside the flexbuffer of {len(data)} bytes")
    return int.from_bytes(data[at : at + width], "little")


def _follow(data: bytes, at: int, width: int) -> int:
    """Offsets of a FlexBuffer point backwards."""
    to = at - _unsigned(data, at, width)
    if to < 0:
        raise Malformed(at, "an offset points before the flexbuffer")
    return to
