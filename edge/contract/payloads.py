"""The payloads of the wire, field by field. The prose is docs/contract.md."""

from __future__ import annotations

from datetime import MAXYEAR
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from edge.contract.fields import (
    CELL_LIMIT,
    EARLIEST,
    LATEST,
    BootId,
    Cell,
    Digest,
    Epsilon,
    Figure,
    Id,
    Key,
    NoiseDraws,
    Seconds,
    Seq,
    Utc,
    Whole,
    Wire,
    Word,
    utc_text,
)
from edge.types import CELLS, ROUTES, FrameRate, Scene, Strategy, TimeQuality

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Self

SCHEMA: Final = "edge.counts/1"
_CELLS: Final = len(ROUTES) * len(CELLS)


class Prev(Wire):
    """The last run that recorded anything: makes its lost tail visible."""

    boot_id: BootId
    last_seq: Seq


class Window(Wire):
    """`start` is UTC, a label, not before 2020; `seconds` the actual length."""

    start: Utc
    seconds: Seconds
    time_quality: TimeQuality

    @field_validator("start")
    @classmethod
    def _has_a_date(cls, value: datetime) -> datetime:
        if not EARLIEST <= value < LATEST:
            msg = f"{utc_text(value)} is no window's start: {EARLIEST.year} to {MAXYEAR - 1} are"
            raise ValueError(msg)
        return value


class Cells(Wire):
    """Released votes per class; null is "not released", which includes "none"."""

    angry: Cell | None
    disgust: Cell | None
    fear: Cell | None
    happy: Cell | None
    neutral: Cell | None
    sad: Cell | None
    surprise: Cell | None
    uncertain: Cell | None


class Rows(Wire):
    """Cells per route."""

    unmasked: Cells
    masked: Cells

    def table(self) -> dict[str, dict[str, int | None]]:
        """Route → cell → released integer or None, in wire order."""
        return {route: {cell: getattr(getattr(self, route), cell) for cell in CELLS} for route in ROUTES}


class DrawCells(Wire):
    """Noise draws that each released cell holds; 0 where none was released."""

    angry: NoiseDraws
    disgust: NoiseDraws
    fear: NoiseDraws
    happy: NoiseDraws
    neutral: NoiseDraws
    sad: NoiseDraws
    surprise: NoiseDraws
    uncertain: NoiseDraws


class Draws(Wire):
    """Noise draws per route."""

    unmasked: DrawCells
    masked: DrawCells


class Privacy(Wire):
    """What was done to the counts. `epsilon` is per window and unit; null where no noise was added.

    `exhausted`: the day's budget was spent, nothing was counted.
    """

    mechanism: Literal["discrete-laplace", "none"]
    epsilon: Epsilon | None
    unit: Word
    min_count: Whole
    exhausted: bool = False

    @model_validator(mode="after")
    def _epsilon_of_noise(self) -> Self:
        if (self.mechanism == "none") != (self.epsilon is None):
            msg = f"mechanism {self.mechanism} does not go with epsilon {self.epsilon}"
            raise ValueError(msg)
        return self


class Models(Wire):
    """Digests of the models that counted (null: not asked under this strategy), and the routing strategy."""

    gate: Digest | None
    fer_unmasked: Digest | None
    fer_masked: Digest | None
    route: Strategy


def _default_draws(data: dict[str, Any]) -> Draws:
    rows: Rows | None = data.get("counts")
    privacy: Privacy | None = data.get("privacy")
    one = 0 if privacy is not None and privacy.mechanism == "none" else 1
    if rows is None:  # validation has failed elsewhere and will say so
        return Draws.model_validate({r: dict.fromkeys(CELLS, 0) for r in ROUTES})
    return Draws.model_validate(
        {r: {c: 0 if v is None else one for c, v in cells.items()} for r, cells in rows.table().items()}
    )


class Counts(Wire):
    """One window of one device. Key: (device, boot_id, seq)."""

    schema_: Annotated[Literal["edge.counts/1"], Field(alias="schema")] = SCHEMA
    site: Id
    device: Id
    boot_id: BootId
    seq: Seq
    prev: Prev | None
    window: Window
    counts: Rows
    suppressed_cells: Annotated[int, Field(ge=0, le=_CELLS)]
    visitors: Annotated[int, Field(ge=-_CELLS * CELL_LIMIT, le=_CELLS * CELL_LIMIT)]
    coverage: Annotated[float, Field(ge=0, le=1)]
    scene: Scene
    privacy: Privacy
    models: Models
    flush: bool = False
    noise_draws: Draws = Field(default_factory=_default_draws)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        rows = self.counts.unmasked, self.counts.masked  # not `table`: this runs for every payload that is read
        released = [v for row in rows for v in vars(row).values() if v is not None]
        if not self.flush and any(v < 0 for v in released):
            msg = "a negative cell is legal only with flush"
            raise ValueError(msg)
        if self.visitors != sum(released):
            msg = f"visitors is {self.visitors}, the released cells add up to {sum(released)}"
            raise ValueError(msg)
        return self

    @property
    def key(self) -> tuple[str, str, int]:
        """(device, boot_id, seq): what makes two messages the same window."""
        return self.device, self.boot_id, self.seq


class Status(Wire):
    """Whether the device is there. `boot_id` is null until a vision service has run once; `trouble` as in `health`."""

    state: Literal["online", "offline", "stopped"]
    boot_id: BootId | None
    version: Word
    since: Utc
    trouble: Word | None = None


class Percentiles(Wire):
    """Milliseconds over at least an hour; null before the first."""

    p50: Figure | None
    p95: Figure | None


class OutboxFigures(Wire):
    """Rows not yet acknowledged by the broker, and the age of the oldest in seconds (0 when none).

    `waiting`: closed windows that are not stored yet. `trouble`: why the outbox cannot be used, else null: `full`,
    `read-only`, `failing`, `denied`, `damaged`, `busy` or another word; the other figures are then the last known.
    """

    unsent: Whole
    oldest_s: Figure
    waiting: Whole = 0
    trouble: Word | None = None


class PrivacyFigures(Wire):
    """Epsilon of one window, spent since UTC midnight, and the most a day can spend; 0 without noise."""

    epsilon: Figure
    spent_today: Figure
    day_bound: Figure
    exhausted: bool


class Health(Wire):
    """How the service is; nothing in it scales with the number of faces. `soc_c` is null without a sensor.

    `rate`: `none`: no frames come; `slow`: a look at a blank picture, timed every 10 s, takes longer than the camera
    leaves for it; else `ok`. A device that still sends `fps` is read as `ok` or `none`.
    `certificate_days`: until the device's certificate ends (negative: has ended), null without one.
    `under_voltage`: whether the board's supply is too weak now, null where the board does not say.
    `detector`: which one finds faces, and on what.
    """

    boot_id: BootId
    backend: Word
    rate: FrameRate
    invoke_ms: Percentiles
    drops: Annotated[dict[Key, Whole], Field(max_length=32)]
    restarts: Whole
    outbox: OutboxFigures
    soc_c: Annotated[float, Field(allow_inf_nan=False)] | None
    scene: Scene
    time_quality: TimeQuality
    paused: bool
    versions: Annotated[dict[Key, Word], Field(max_length=8)]
    certificate_days: Annotated[float, Field(allow_inf_nan=False)] | None = None
    under_voltage: bool | None = None
    privacy: PrivacyFigures | None = None
    detector: Word | None = None

    @model_validator(mode="before")
    @classmethod
    def _rate_of_an_older_device(cls, data: Any) -> Any:  # noqa: ANN401 - whatever was decoded
        if isinstance(data, dict) and "rate" not in data and isinstance(data.get("fps"), int | float):
            known = {key: value for key, value in data.items() if key != "fps"}
            return {**known, "rate": "ok" if data["fps"] > 0 else "none"}
        return data


class ReplayCommand(Wire):
    """Asks for the rows `from` … `to`, both included, of one boot once more."""

    id: Id
    boot_id: BootId
    from_: Annotated[Seq, Field(alias="from")]
    to: Seq

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.from_ > self.to:
            msg = f"from {self.from_} lies after to {self.to}"
            raise ValueError(msg)
        return self


class ReplayAnswer(Wire):
    """How many of the rows asked for were sent again, and how many are gone (or never were)."""

    id: Id
    sent: Whole
    gone: Whole


PAYLOADS: Final[dict[str, type[BaseModel]]] = {
    "status": Status,
    "health": Health,
    "counts": Counts,
    "replay-command": ReplayCommand,
    "replay-answer": ReplayAnswer,
}
"""Schema name → model; `live` is a `counts` payload again."""
