"""What the fleet's devices keep of their windows, for replays: a file without a name, and where in it each row is."""

from __future__ import annotations

import tempfile
from array import array
from typing import Final, NamedTuple

_SENT: Final = 1 << 63
_SIZE: Final = 16
"""Bits of a row's length; a payload has one or two thousand bytes."""


class Kept(NamedTuple):
    """A row that a device has, and whether it went out before: what did not comes by itself."""

    payload: bytes
    sent: bool


class Spool:
    """Rows by (device, boot_id) and seq, eight bytes of memory each."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=1 << 20)  # noqa: SIM115 - it lives as long as this
        self._end = 0
        self._rows: dict[tuple[str, str], array[int]] = {}

    def keep(self, device: str, boot_id: str, seq: int, payload: bytes | None) -> None:
        """A window was closed; None: it is gone. `seq` counts up from 1 in each run."""
        rows = self._rows.setdefault((device, boot_id), array("Q"))
        rows.extend([0] * (seq - len(rows)))
        if payload is not None:
            rows[seq - 1] = self._end << _SIZE | len(payload)
            self._file.write(payload)
            self._end += len(payload)

    def sent(self, device: str, boot_id: str, seq: int) -> None:
        """It went out."""
        self._rows[device, boot_id][seq - 1] |= _SENT

    def last(self, device: str, boot_id: str) -> int:
        """The greatest seq of a run, 0 where it is unknown."""
        return len(self._rows.get((device, boot_id), ()))

    def row(self, device: str, boot_id: str, seq: int) -> Kept | None:
        """One row; None where it is gone, or never was."""
        place = self._rows[device, boot_id][seq - 1]
        if not place:
            return None
        where = place & ~_SENT
        self._file.seek(where >> _SIZE)
        payload = self._file.read(where & ((1 << _SIZE) - 1))
        self._file.seek(0, 2)
        return Kept(payload, bool(place & _SENT))

    def close(self) -> None:
        """Its file goes."""
        self._file.close()
