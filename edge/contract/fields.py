"""Fields that the contract's payloads are made of: ids, times, cells and figures, each with its bounds."""

from __future__ import annotations

import re
from datetime import MAXYEAR, UTC, datetime
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema

from edge.errors import EdgeError

CELL_LIMIT: Final = 1_000_000
"""No cell lies beyond ± this; a subscriber refuses what does."""

WHOLE_LIMIT: Final = 2**63 - 1
"""The largest whole number of the wire: what SQLite and most languages hold."""

DRAWS_LIMIT: Final = 1_000_000
"""Noise draws that one cell can hold."""

EPSILON: Final = (1e-6, 1e6)
"""Smallest and largest epsilon: below, the noise of one draw is wider than `CELL_LIMIT`."""

EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""No window begins before: an older date is a clock's that was never set."""

LATEST: Final = datetime(MAXYEAR, 1, 1, tzinfo=UTC)
"""Nor does one begin then or after, so that every window's end is a date too."""

WINDOW_LIMIT_S: Final = 31 * 86400
"""Seconds of a window, at most; a device cuts within a day."""

ID_PATTERN: Final = r"^[a-z0-9-]{1,64}$"


_RFC3339: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")


class ContractError(EdgeError):
    """Mend the sender, or set the message aside: it is not what the contract says."""

    exit_code = 65


def parse_utc(value: object) -> datetime:
    """An RFC 3339 text or an aware datetime, in UTC, to the millisecond. Raises ValueError."""
    if isinstance(value, str):
        if not _RFC3339.match(value):
            msg = "expected an RFC 3339 time"
            raise ValueError(msg)
        try:
            value = datetime.fromisoformat(value)
        except ValueError:  # its text would repeat the whole value
            msg = "expected an RFC 3339 time of a day and an hour that exist"
            raise ValueError(msg) from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        msg = "expected a time with an offset"
        raise ValueError(msg)
    if value.tzinfo is not UTC:
        try:
            value = value.astimezone(UTC)
        except OverflowError:  # the first or last hours there are, with an offset
            msg = "a time beyond the calendar"
            raise ValueError(msg) from None
    below_ms = value.microsecond % 1000
    return value.replace(microsecond=value.microsecond - below_ms) if below_ms else value


def utc_text(value: datetime) -> str:
    """RFC 3339 in UTC with Z: whole seconds, or milliseconds where there are any."""
    spec = "milliseconds" if value.microsecond else "seconds"
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def _number(value: float) -> float:
    return int(value) if value == int(value) else value


Utc = Annotated[
    datetime,
    PlainValidator(parse_utc),
    PlainSerializer(utc_text),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Id = Annotated[str, Field(pattern=ID_PATTERN)]
BootId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Seq = Annotated[int, Field(ge=1, le=WHOLE_LIMIT)]
Whole = Annotated[int, Field(ge=0, le=WHOLE_LIMIT)]
NoiseDraws = Annotated[int, Field(ge=0, le=DRAWS_LIMIT)]
Epsilon = Annotated[float, Field(ge=EPSILON[0], le=EPSILON[1])]
Cell = Annotated[int, Field(ge=-CELL_LIMIT, le=CELL_LIMIT)]
Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Word = Annotated[str, Field(max_length=64)]
Key = Annotated[str, Field(max_length=32)]
Seconds = Annotated[
    float,
    Field(ge=0, le=WINDOW_LIMIT_S),
    PlainSerializer(_number),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": WINDOW_LIMIT_S}),
]


class Wire(BaseModel):
    """A part of a payload. Built, it refuses undeclared fields; decoded (`edge.contract.codec`), it ignores them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)
