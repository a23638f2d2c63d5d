"""Fields that the contract's payloads are made of: ids, times, cells and figures, each with its bounds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema

from edge.errors import EdgeError

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
Word = Annotated[str, Field(max_length=64)]
Key = Annotated[str, Field(max_length=32)]
Seconds = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    PlainSerializer(_number),
    WithJsonSchema({"type": "number", "minimum": 0}),
]


class Wire(BaseModel):
    """A part of a payload. Built, it refuses undeclared fields; decoded (`edge.contract.codec`), it ignores them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)
