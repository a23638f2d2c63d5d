"""Which payload of a key is kept: pure, and the same whatever the order in which they came.

A key (device, boot_id, seq) has one payload, sent once or more. Where two payloads claim it, the one received first is
kept, of two in the same millisecond the one with the smaller digest; every line of the others is a conflict.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from edge.contract import Counts, DrawCells, Draws, Models, Prev, Privacy, Window, encode
from edge.contract import Rows as WireRows
from edge.types import CELLS, ROUTES
from edge_aggregate.decode import QUALITIES, SCENES, instant

if TYPE_CHECKING:
    from edge_aggregate.decode import Row


class Origin(NamedTuple):
    """A line of a log: the segment's id and the line's number from 1."""

    segment: int
    line: int


@dataclass(slots=True)
class Payload:
    """One payload of a key: `lines` that held it, the first of them."""

    row: Row
    origin: Origin
    lines: int = 1


@dataclass(slots=True)
class Case:
    """All payloads of a key; `kept` is the one that counts."""

    kept: Payload
    others: dict[str, Payload] = field(default_factory=dict)

    def add(self, row: Row, origin: Origin) -> bool:
        """Take one more line; whether what is kept, or when it was first received, changed."""
        if _same(row, self.kept.row):
            return _again(self.kept, row, origin)
        digest = digest_of(row)
        other = self.others.get(digest)
        if other is None:
            other = self.others[digest] = Payload(row, origin)
        else:
            _again(other, row, origin)
        mine = self.kept.row.received_ms, digest_of(self.kept.row)
        if (other.row.received_ms, digest) < mine:
            self.others[mine[1]] = self.kept
            self.kept = self.others.pop(digest)
            return True
        return False


def _same(one: Row, other: Row) -> bool:
    return one[:-1] == other[:-1]


def _again(payload: Payload, row: Row, origin: Origin) -> bool:
    if origin == payload.origin:  # a batch tried twice
        return False
    payload.lines += 1
    if (row.received_ms, origin) < (payload.row.received_ms, payload.origin):
        changed = row.received_ms != payload.row.received_ms
        payload.row, payload.origin = row, origin
        return changed
    return False


def canonical(row: Row) -> bytes:
    """The payload of a row, as a device would send it: `edge.contract.encode`."""
    terms = row.terms
    cells = (row.cells[:8], row.cells[8:])
    draws = (row.draws[:8], row.draws[8:])
    payload = Counts(
        site=row.site,
        device=row.device,
        boot_id=row.boot_id,
        seq=row.seq,
        prev=None if row.prev_boot is None else Prev(boot_id=row.prev_boot, last_seq=row.prev_seq or 0),
        window=Window(start=instant(row.start_ms), seconds=row.seconds, time_quality=QUALITIES[row.quality]),
        counts=WireRows.model_validate(
            {route: dict(zip(CELLS, part, strict=True)) for route, part in zip(ROUTES, cells, strict=True)}
        ),
        suppressed_cells=row.suppressed,
        visitors=sum(cell for cell in row.cells if cell is not None),
        coverage=row.coverage,
        scene=SCENES[row.scene],
        privacy=Privacy(
            mechanism=terms.mechanism,
            epsilon=terms.epsilon,
            unit=terms.unit,
            min_count=terms.min_count,
            exhausted=terms.exhausted,
        ),
        models=Models(
            gate=terms.gate,
            fer_unmasked=terms.fer_unmasked,
            fer_masked=terms.fer_masked,
            route=terms.strategy,
        ),
        flush=row.flush,
        noise_draws=Draws(
            **{
                route: DrawCells(**dict(zip(CELLS, part, strict=True)))
                for route, part in zip(ROUTES, draws, strict=True)
            }
        ),
    )
    return encode(payload)


def digest_of(row: Row) -> str:
    """sha256 of the canonical payload, in hex: what breaks a tie between two payloads of one key."""
    return hashlib.sha256(canonical(row)).hexdigest()
