"""What a film's container says of its frames: how many there are, and whether the file reaches its own end.

Only three kinds say so; for all others FFmpeg guesses from duration and rate, which is wrong for films whose frame
rate varies. Layouts: ISO/IEC 14496-12 (MP4, MOV), RFC 8794 and 9559 (Matroska, WebM), Microsoft's RIFF (AVI).
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Bytes = bytes | mmap.mmap


class Contents(NamedTuple):
    """`frames`: how many are stated (None: not known); `empty`: entries that repeat a frame; `whole`: not cut off."""

    frames: int | None
    empty: int
    whole: bool


_MP4: Final = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}
_EDITS: Final = 64
"""Parts of an edit list that are read: a damaged one may claim four billion."""
_EBML: Final = b"\x1a\x45\xdf\xa3"
UNKNOWN: Final = Contents(None, 0, whole=True)


def contents(path: Path) -> Contents:
    """Read a film's structure, not its pictures. Raises OSError when the file cannot be read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[4:8] in _MP4:
            return _mp4(data)
        if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
            return _avi(data)
        if data[:4] == _EBML:
            return Contents(None, 0, whole=_matroska_whole(data))
        if data[:3] == b"GIF":  # its trailer is all that shows a cut
            return Contents(None, 0, whole=bytes(data[-1024:]).rstrip(b"\0").endswith(b";"))
    return UNKNOWN


def looks_like_film(path: Path) -> bool:
    """Tell by its first bytes whether a file is an MP4, MOV, AVI or Matroska, whatever its name."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] in _MP4 or (head[:4] == b"RIFF" and head[8:] == b"AVI ") or head[:4] == _EBML


def _boxes(data: Bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the payloads of MP4 boxes; stops where there is no box."""
    at = start
    while at + 8 <= end:
        size, head = int.from_bytes(data[at : at + 4]), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        elif size == 0:
            size = end - at
        if size < head:
            return
        yield bytes(data[at + 4 : at + 8]), at + head, at + size
        at += size


def _mp4(data: Bytes) -> Contents:
    whole, frames = True, None
    for kind, start, end in _boxes(data, 0, len(data)):
        whole &= end <= len(data)
        if kind == b"moof":  # fragments: the head counts none of their frames
            return Contents(None, 0, whole=whole)
        if kind == b"moov":
            frames = _mp4_frames(data, start, min(end, len(data)))
    return Contents(frames, 0, whole=whole)


def _mp4_frames(data: Bytes, start: int, end: int) -> int | None:
    """Samples of the first video track, if its edit list shows all of them (trimmed films keep what they hide)."""
    scale = 1
    for kind, at, stop in _boxes(data, start, end):
        if kind == b"mvhd":
            scale = _unsigned(data, at + (20 if data[at] == 1 else 12)) or 1
        if kind != b"trak":
            continue
        found: dict[bytes, int] = {}
        waiting = [(at, stop)]
        while waiting:
            for inner, a, b in _boxes(data, *waiting.pop()):
                if inner in {b"mdia", b"minf", b"stbl", b"edts"}:
                    waiting.append((a, b))
                found.setdefault(inner, a)
        kind_at = found.get(b"hdlr", end) + 8
        if data[kind_at : kind_at + 4] != b"vide" or not {b"stsz", b"mdhd"} <= found.keys():
            continue
        samples = _unsigned(data, found[b"stsz"] + 8)
        shown = _shown(data, found[b"elst"]) / scale if b"elst" in found else None
        head = found[b"mdhd"]
        wide = data[head] == 1
        units = _unsigned(data, head + (20 if wide else 12)) or 1
        seconds = _unsigned(data, head + (24 if wide else 16), 8 if wide else 4) / units
        trimmed = shown is not None and shown < seconds * (1 - 1 / max(samples, 1)) - 1e-2
        return None if trimmed or not samples else samples
    return None


def _unsigned(data: Bytes, at: int, width: int = 4) -> int:
    """An unsigned number; a slice without an end would copy the rest of the film."""
    return int.from_bytes(data[at : at + width])


def _shown(data: Bytes, at: int) -> int:
    """Length of an edit list's parts that show something, in the film's units."""
    long = data[at] == 1
    width, step = (8, 20) if long else (4, 12)
    total = 0
    for n in range(min(_EDITS, int.from_bytes(data[at + 4 : at + 8]))):
        entry = data[at + 8 + n * step : at + 8 + (n + 1) * step]
        if int.from_bytes(entry[width : 2 * width], signed=True) >= 0:
            total += int.from_bytes(entry[:width])
    return total


def _avi(data: Bytes) -> Contents:
    """Stated frames and the empty chunks among them, which repeat the frame before."""
    at, empty, frames = 0, 0, None
    end = 0
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"RIFF":
            end = at + 8 + size
        elif at >= end:
            return Contents(frames, empty, whole=True)  # what follows the last RIFF is not looked at
        if not kind.isalnum() and not kind.strip().isalnum() and not kind.startswith(b"ix"):
            return Contents(frames, empty, whole=False)
        if kind in {b"RIFF", b"LIST"}:
            at += 12
            continue
        if kind == b"strh" and data[at + 8 : at + 12] == b"vids" and frames is None:
            frames = int.from_bytes(data[at + 40 : at + 44], "little") or None
        empty += kind[2:] in {b"dc", b"db"} and size == 0
        at += 8 + size + size % 2
    return Contents(frames, empty, whole=at <= len(data) + 1 and end <= len(data) + 1)


_SEGMENT: Final = 0x18538067
_CLUSTER: Final = 0x1F43B675


def _matroska_whole(data: Bytes) -> bool:
    """Tell whether every element from the first to the last block is there; segments and clusters are entered."""
    at, end = 0, len(data)
    while at < end:
        mark, width = _number(data, at, keep=True)
        size, more = _number(data, at + width, keep=False)
        if not width or width > 4 or not more:
            return False
        at += width + more
        unknown = size == (1 << 7 * more) - 1  # a recording whose writer could not go back
        if mark == _SEGMENT and not unknown:
            if at + size > len(data):
                return False
            end = at + size
        if mark in {_SEGMENT, _CLUSTER}:
            continue
        at += size
    return at == end


def _number(data: Bytes, at: int, *, keep: bool) -> tuple[int, int]:
    """An EBML number and its width in bytes, 0 where there is none; `keep` leaves the width's mark in it."""
    first = data[at] if at < len(data) else 0
    if not first or at + 9 - first.bit_length() > len(data):
        return 0, 0
    width = 9 - first.bit_length()
    value = int.from_bytes(data[at : at + width])
    return (value if keep else value & ((1 << 7 * width) - 1)), width
