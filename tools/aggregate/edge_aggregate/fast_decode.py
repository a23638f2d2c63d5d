"""The usual window, read and checked in one pass by msgspec: what devices send, and nothing else.

This may refuse whatever it likes, since that is read again by the contract's own models, which take it or say why. It
must never take what they refuse, nor read it otherwise. So every field is declared and typed and there may be no other:
nothing is skipped unread, be it a NaN, bytes that are no UTF-8 or a depth without end. What is no matter of types
(`edge_aggregate.decode`) is looked at once for the many windows that say the same.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder

from edge.contract.fields import CELL_LIMIT, DRAWS_LIMIT, EPSILON, WHOLE_LIMIT, WINDOW_LIMIT_S
from edge.types import CELLS, ROUTES, Scene, Strategy, TimeQuality

_SUM: Final = len(ROUTES) * len(CELLS) * CELL_LIMIT

BootId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Seq = Annotated[int, Meta(ge=1, le=WHOLE_LIMIT)]
Whole = Annotated[int, Meta(ge=0, le=WHOLE_LIMIT)]
Cell = Annotated[int, Meta(ge=-CELL_LIMIT, le=CELL_LIMIT)]
NoiseDraws = Annotated[int, Meta(ge=0, le=DRAWS_LIMIT)]


class Part(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """A part of a window: a tree, in which there is nothing for the collector of cycles."""


class Prev(Part, frozen=True):
    """The last run that recorded anything."""

    boot_id: BootId
    last_seq: Seq


class Window(Part, frozen=True):
    """`start` as a text, not yet looked at."""

    start: str
    seconds: Annotated[float, Meta(ge=0, le=WINDOW_LIMIT_S)]
    time_quality: TimeQuality


class Cells(Part, frozen=True):
    """Released votes per class, in the order of `edge.types.CELLS`."""

    angry: Cell | None
    disgust: Cell | None
    fear: Cell | None
    happy: Cell | None
    neutral: Cell | None
    sad: Cell | None
    surprise: Cell | None
    uncertain: Cell | None


class Rows(Part, frozen=True):
    """Cells per route."""

    unmasked: Cells
    masked: Cells


class DrawCells(Part, frozen=True):
    """Noise draws per class, in the order of `edge.types.CELLS`."""

    angry: NoiseDraws
    disgust: NoiseDraws
    fear: NoiseDraws
    happy: NoiseDraws
    neutral: NoiseDraws
    sad: NoiseDraws
    surprise: NoiseDraws
    uncertain: NoiseDraws


class Draws(Part, frozen=True):
    """Noise draws per route."""

    unmasked: DrawCells
    masked: DrawCells


class Privacy(Part, frozen=True):
    """What was done to the counts; that mechanism and epsilon agree is not yet looked at."""

    mechanism: Literal["discrete-laplace", "none"]
    epsilon: Annotated[float, Meta(ge=EPSILON[0], le=EPSILON[1])] | None
    unit: Annotated[str, Meta(max_length=64)]
    min_count: Whole
    exhausted: bool = False


class Models(Part, frozen=True):
    """Digests as texts, not yet looked at."""

    gate: str | None
    fer_unmasked: str | None
    fer_masked: str | None
    route: Strategy


class Counts(Part, frozen=True):
    """A payload; one that leaves out `noise_draws` is not the usual one."""

    schema: Literal["edge.counts/1"]
    site: str
    device: str
    boot_id: BootId
    seq: Seq
    prev: Prev | None
    window: Window
    counts: Rows
    suppressed_cells: Annotated[int, Meta(ge=0, le=len(ROUTES) * len(CELLS))]
    visitors: Annotated[int, Meta(ge=-_SUM, le=_SUM)]
    coverage: Annotated[float, Meta(ge=0, le=1)]
    scene: Scene
    privacy: Privacy
    models: Models
    noise_draws: Draws
    flush: bool = False


class Line(Part, frozen=True):
    """A line of a landing log as `edge_aggregate.landing` writes it."""

    topic: str
    received: str
    payload: Counts


read_line: Final = Decoder(Line).decode
read_payload: Final = Decoder(Counts).decode
"""Both raise ValueError or RecursionError for what is not the usual window."""
