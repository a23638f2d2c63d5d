"""The wire, and the one place that knows it: topics, payloads, encoding, CloudEvents properties.

The prose is docs/contract.md; docs/schema/ and docs/asyncapi.yaml are generated from the models here
(`python -m edge.asyncapi`). Models refuse undeclared fields when they are built, so an encoder cannot send
one; `decode_*` ignores fields it does not know, so a newer device does not break an older subscriber.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from edge.errors import EdgeError
from edge.types import CELLS, ROUTES, Scene, Strategy, TimeQuality

if TYPE_CHECKING:
    from typing import Self

    from edge.types import WindowReport

SCHEMA: Final = "edge.counts/1"
EVENT_TYPE: Final = "edge.counts.v1"
CELL_LIMIT: Final = 1_000_000
"""No cell lies beyond ± this; a subscriber refuses what does."""

ID_PATTERN: Final = r"^[a-z0-9-]{1,64}$"


class ContractError(EdgeError):
    """Mend the sender, or set the message aside: it is not what the contract says."""

    exit_code = 65


def _parse_utc(value: object) -> datetime:
    if isinstance(value, str):
        if not re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value):
            msg = "expected an RFC 3339 time"
            raise ValueError(msg)
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime) or value.tzinfo is None:
        msg = "expected a time with an offset"
        raise ValueError(msg)
    value = value.astimezone(UTC)
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def utc_text(value: datetime) -> str:
    """RFC 3339 in UTC with Z: whole seconds, or milliseconds where there are any."""
    spec = "milliseconds" if value.microsecond else "seconds"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def _number(value: float) -> float:
    return int(value) if value == int(value) else value


Utc = Annotated[
    datetime,
    PlainValidator(_parse_utc),
    PlainSerializer(utc_text),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Id = Annotated[str, Field(pattern=ID_PATTERN)]
BootId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Seq = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Cell = Annotated[int, Field(ge=-CELL_LIMIT, le=CELL_LIMIT)]
Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    PlainSerializer(_number),
    WithJsonSchema({"type": "number", "minimum": 0}),
]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class Prev(_Wire):
    """The last run that recorded anything: makes its lost tail visible."""

    boot_id: BootId
    last_seq: Seq


class Window(_Wire):
    """`start` is UTC, a label; `seconds` the actual length."""

    start: Utc
    seconds: Seconds
    time_quality: TimeQuality


class Cells(_Wire):
    """Released votes per class; null is "not released", which includes "none"."""

    angry: Cell | None
    disgust: Cell | None
    fear: Cell | None
    happy: Cell | None
    neutral: Cell | None
    sad: Cell | None
    surprise: Cell | None
    uncertain: Cell | None


class Rows(_Wire):
    """Cells per route."""

    unmasked: Cells
    masked: Cells

    def table(self) -> dict[str, dict[str, int | None]]:
        """Route → cell → released integer or None, in wire order."""
        return {route: {cell: getattr(getattr(self, route), cell) for cell in CELLS} for route in ROUTES}


class DrawCells(_Wire):
    """Noise draws that each released cell holds; 0 where none was released."""

    angry: Whole
    disgust: Whole
    fear: Whole
    happy: Whole
    neutral: Whole
    sad: Whole
    surprise: Whole
    uncertain: Whole


class Draws(_Wire):
    """Noise draws per route."""

    unmasked: DrawCells
    masked: DrawCells


class Privacy(_Wire):
    """What was done to the counts. `epsilon` is per window and unit; null where no noise was added.

    `exhausted`: the day's budget was spent, nothing was counted.
    """

    mechanism: Literal["discrete-laplace", "none"]
    epsilon: Figure | None
    unit: str
    min_count: int
    exhausted: bool = False


class Models(_Wire):
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


class Counts(_Wire):
    """One window of one device. Key: (device, boot_id, seq)."""

    schema_: Annotated[Literal["edge.counts/1"], Field(alias="schema")] = SCHEMA
    site: Id
    device: Id
    boot_id: BootId
    seq: Seq
    prev: Prev | None
    window: Window
    counts: Rows
    suppressed_cells: Annotated[int, Field(ge=0, le=len(ROUTES) * len(CELLS))]
    visitors: int
    coverage: Annotated[float, Field(ge=0, le=1)]
    scene: Scene
    privacy: Privacy
    models: Models
    flush: bool = False
    noise_draws: Draws = Field(default_factory=_default_draws)

    @model_validator(mode="after")
    def _negative_only_in_a_flush(self) -> Self:
        if not self.flush and any(
            v is not None and v < 0 for row in self.counts.table().values() for v in row.values()
        ):
            msg = "a negative cell is legal only with flush"
            raise ValueError(msg)
        return self

    @property
    def key(self) -> tuple[str, str, int]:
        """(device, boot_id, seq): what makes two messages the same window."""
        return self.device, self.boot_id, self.seq


class Status(_Wire):
    """Whether the device is there. `boot_id` is null until a vision service has run once; `trouble` as in `health`."""

    state: Literal["online", "offline", "stopped"]
    boot_id: BootId | None
    version: str
    since: Utc
    trouble: str | None = None


class Percentiles(_Wire):
    """Milliseconds over at least an hour; null before the first."""

    p50: Figure | None
    p95: Figure | None


class OutboxFigures(_Wire):
    """Rows not yet acknowledged by the broker, and the age of the oldest in seconds (0 when none).

    `waiting`: closed windows that are not stored yet. `trouble`: why the outbox cannot be used, else null: `full`,
    `read-only`, `failing`, `denied`, `damaged`, `busy` or another word; the other figures are then the last known.
    """

    unsent: Whole
    oldest_s: Figure
    waiting: Whole = 0
    trouble: str | None = None


class PrivacyFigures(_Wire):
    """Epsilon of one window, spent since UTC midnight, and the most a day can spend; 0 without noise."""

    epsilon: Figure
    spent_today: Figure
    day_bound: Figure
    exhausted: bool


class Health(_Wire):
    """How the service is; nothing in it scales with the number of faces. `soc_c` is null without a sensor.

    `certificate_days`: until the device's certificate ends (negative: has ended), null without one.
    `under_voltage`: whether the board's supply is too weak now, null where the board does not say.
    `detector`: which one finds faces, and on what.
    """

    boot_id: BootId
    backend: str
    fps: Figure
    invoke_ms: Percentiles
    drops: dict[str, Whole]
    restarts: Whole
    outbox: OutboxFigures
    soc_c: Annotated[float, Field(allow_inf_nan=False)] | None
    scene: Scene
    time_quality: TimeQuality
    paused: bool
    versions: dict[str, str]
    certificate_days: Annotated[float, Field(allow_inf_nan=False)] | None = None
    under_voltage: bool | None = None
    privacy: PrivacyFigures | None = None
    detector: str | None = None


class ReplayCommand(_Wire):
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


class ReplayAnswer(_Wire):
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

_P = TypeVar("_P", bound=BaseModel)


def encode(payload: BaseModel) -> bytes:
    """Canonical JSON: compact, UTF-8, fields in the contract's order. The same payload is the same bytes."""
    body = payload.model_dump(mode="json", by_alias=True)
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def decode(model: type[_P], data: bytes | str) -> _P:
    """Read a payload, ignoring unknown fields. Raises ContractError naming the first field that is wrong."""
    try:
        return model.model_validate_json(data, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "payload"
        msg = f"not a {model.__name__.lower()} payload: {where}: {first['msg']}"
        raise ContractError(msg) from error


def decode_counts(data: bytes | str) -> Counts:
    """Read a `counts` or `live` payload. Raises ContractError."""
    return decode(Counts, data)


def counts_payload(
    report: WindowReport,
    *,
    site: str,
    device: str,
    boot_id: str,
    seq: int,
    prev: tuple[str, int] | None,
    start: datetime | None = None,
    time_quality: TimeQuality | None = None,
) -> Counts:
    """The payload of a committed window; `start` and `time_quality` replace the report's own label.

    Raises ContractError when the report breaks the contract (a cell beyond `CELL_LIMIT`, say).
    """
    cells = [value for row in report.counts.values() for value in row.values()]
    try:
        return Counts(
            site=site,
            device=device,
            boot_id=boot_id,
            seq=seq,
            prev=None if prev is None else Prev(boot_id=prev[0], last_seq=prev[1]),
            window=Window(
                start=start or report.start,
                seconds=round(report.seconds, 3),
                time_quality=time_quality or report.time_quality,
            ),
            counts=Rows.model_validate(report.counts),
            suppressed_cells=sum(value is None for value in cells),
            visitors=sum(value for value in cells if value is not None),
            coverage=round(report.coverage, 4),
            scene=report.scene,
            privacy=Privacy(
                mechanism=report.privacy.mechanism,
                epsilon=report.privacy.epsilon,
                unit=report.privacy.unit,
                min_count=report.privacy.min_count,
                exhausted=report.privacy.exhausted,
            ),
            models=Models(
                gate=report.models.gate,
                fer_unmasked=report.models.fer_unmasked,
                fer_masked=report.models.fer_masked,
                route=report.models.route,
            ),
            flush=report.flush,
            noise_draws=Draws.model_validate(report.noise_draws),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        msg = f"window {boot_id}/{seq} cannot be sent: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ContractError(msg) from error


def cloudevents(payload: Counts) -> list[tuple[str, str]]:
    """The CloudEvents 1.0 user properties of a `counts` message; `time` is the window's end."""
    return [
        ("specversion", "1.0"),
        ("id", f"{payload.boot_id}/{payload.seq}"),
        ("source", f"/{payload.site}/{payload.device}"),
        ("type", EVENT_TYPE),
        ("time", utc_text(payload.window.start + timedelta(seconds=payload.window.seconds))),
    ]


Command = Literal["replay", "pause", "resume", "paused", "identify"]
COMMANDS: Final[tuple[Command, ...]] = ("replay", "pause", "resume", "paused", "identify")

_TOPIC: Final = re.compile(
    r"(?P<root>.+)/v1/(?P<site>[a-z0-9-]{1,64})/(?P<device>[a-z0-9-]{1,64})"
    r"/(?P<leaf>status|health|counts|live|cmd/(?:replay|pause|resume|paused|identify)|reply/[a-z0-9-]{1,64})"
)


@dataclass(frozen=True, slots=True)
class Topics:
    """Topic names of one device, `<root>/v1/<site>/<device>/…`. Raises ContractError for a bad id or root."""

    root: str
    site: str
    device: str

    def __post_init__(self) -> None:
        """Check the three parts."""
        for name in ("site", "device"):
            if not re.fullmatch(ID_PATTERN[1:-1], getattr(self, name)):
                msg = f"{name} id {getattr(self, name)!r} does not match {ID_PATTERN}"
                raise ContractError(msg)
        if not re.fullmatch(r"[^/+#\0]+(/[^/+#\0]+)*", self.root):
            msg = f"topic root {self.root!r} is empty or has a wildcard or an empty level"
            raise ContractError(msg)

    def __call__(self, leaf: str) -> str:
        """The full topic of a leaf: `status`, `counts`, `cmd/replay`, `reply/<id>` and so on."""
        return f"{self.root}/v1/{self.site}/{self.device}/{leaf}"


def parse_topic(topic: str) -> tuple[Topics, str]:
    """The device and the leaf of a topic. Raises ContractError when it is none of the contract's."""
    match = _TOPIC.fullmatch(topic)
    if match is None:
        msg = f"topic {topic!r} is none of this contract's"
        raise ContractError(msg)
    return Topics(match["root"], match["site"], match["device"]), match["leaf"]
