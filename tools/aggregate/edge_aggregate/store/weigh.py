"""Which payload of a key is kept: pure, and the same whatever the order in which they came.

A key (device, boot_id, seq) has one payload, sent once or more. Where two payloads claim it, the one received first is
kept, of two in the same millisecond the one with the smaller digest; every line of the others is a conflict.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge.contract import Counts, DrawCells, Draws, Models, Prev, Privacy, Window, encode
from edge.contract import Rows as WireRows
from edge.types import CELLS, ROUTES
from edge_aggregate.decode import QUALITIES, SCENES, instant

if TYPE_CHECKING:
    from edge_aggregate.decode import Row


OTHERS_KEPT: Final = 8
"""Payloads that lost a key and are kept, those received first: each line that claims it looks at all of them."""

Origin = tuple[int, int]
"""A line of a log: the segment's id and the line's number from 1."""


@dataclass(slots=True)
class Payload:
    """One payload of a key: `lines` that held it, the first of them."""

    row: Row
    origin: Origin
    lines: int = 1

    def again(self, row: Row, origin: Origin) -> None:
        """One more line that holds it."""
        if origin == self.origin:  # a batch tried twice
            return
        self.lines += 1
        if (row.received_ms, origin) < (self.row.received_ms, self.origin):
            self.row, self.origin = row, origin


@dataclass(slots=True)
class Case(Payload):
    """A key: the payload that counts, and by their digests the others that claim it; `rest`: lines of more of them."""

    others: dict[str, Payload] | None = None
    rest: int = 0

    def add(self, row: Row, origin: Origin) -> None:
        """Take one more line."""
        if row[:-1] == self.row[:-1]:
            self.again(row, origin)
            return
        if self.others is None:
            self.others = {}
        digest = digest_of(row)
        other = self.others.get(digest)
        if other is None:
            other = self.others[digest] = Payload(row, origin)
        else:
            other.again(row, origin)
        mine = digest_of(self.row)
        if (other.row.received_ms, digest) < (self.row.received_ms, mine):
            self.others[mine] = Payload(self.row, self.origin, self.lines)
            del self.others[digest]
            self.row, self.origin, self.lines = other.row, other.origin, other.lines
        if len(self.others) > OTHERS_KEPT:
            last = max(self.others.items(), key=lambda found: (found[1].row.received_ms, found[0]))[0]
            self.rest += self.others.pop(last).lines


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
