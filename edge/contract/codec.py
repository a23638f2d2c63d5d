"""Payloads to bytes and back, and a committed window to the payload that is sent of it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel, ValidationError

from edge.contract.fields import EARLIEST, ContractError, utc_text
from edge.contract.payloads import Counts, Draws, Models, Prev, Privacy, Rows, Window
from edge.contract.strangers_json import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge.types import TimeQuality, WindowReport

EVENT_TYPE: Final = "edge.counts.v1"

_P = TypeVar("_P", bound=BaseModel)


def encode(payload: BaseModel) -> bytes:
    """Canonical JSON: compact, UTF-8, fields in the contract's order. The same payload is the same bytes.

    Raises ContractError when a text in it has no bytes (half a surrogate pair).
    """
    body = payload.model_dump(mode="json", by_alias=True)
    try:
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        msg = f"a {type(payload).__name__.lower()} payload holds half a surrogate pair"
        raise ContractError(msg) from error


def decode(model: type[_P], data: bytes | str | Mapping[str, object]) -> _P:
    """Read a payload, ignoring unknown fields: JSON, or what `read_json` made of it.

    Raises ContractError naming the first field that is wrong, and none other.
    """
    if isinstance(data, bytes | str):
        try:
            data = read_json(data)  # type: ignore[assignment]  # whatever it is, the model judges it
        except ContractError as error:
            msg = f"not a {model.__name__.lower()} payload: {error}"
            raise ContractError(msg) from error
    try:
        return model.model_validate(data, extra="ignore")
    except ValidationError as error:
        msg = f"not a {model.__name__.lower()} payload: {_first(error)}"
        raise ContractError(msg) from error
    except (OverflowError, RecursionError) as error:
        msg = f"not a {model.__name__.lower()} payload: a number or a depth beyond what is read ({error})"
        raise ContractError(msg) from error


def _first(error: ValidationError) -> str:
    """The first thing wrong. A place may be a stranger's own key: it is cut and its control characters are escaped."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(ascii(str(part)[:64])[1:-1] for part in first["loc"]) or "payload"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def decode_counts(data: bytes | str | Mapping[str, object]) -> Counts:
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

    A start before `EARLIEST` is a clock's that was never set, or set by a server that is years behind: it is sent as
    `EARLIEST` and unsynced, which says no less and which subscribers take.

    Raises ContractError when the report breaks the contract (a cell beyond `CELL_LIMIT`, say).
    """
    start, time_quality = start or report.start, time_quality or report.time_quality
    if start.tzinfo is not None and start < EARLIEST:  # without a zone, the window below is refused
        start, time_quality = EARLIEST, "unsynced"
    cells = [value for row in report.counts.values() for value in row.values()]
    try:
        return Counts(
            site=site,
            device=device,
            boot_id=boot_id,
            seq=seq,
            prev=None if prev is None else Prev(boot_id=prev[0], last_seq=prev[1]),
            window=Window(
                start=start,
                seconds=round(report.seconds, 3),
                time_quality=time_quality,
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
        msg = f"window {boot_id}/{seq} cannot be sent: {_first(error)}"
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
