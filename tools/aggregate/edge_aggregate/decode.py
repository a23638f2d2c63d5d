"""One reader of what strangers sent: a line of a landing log, or a message, to a row of integers or a dead letter.

Nothing here raises for what it is given: an executor of a cluster, a subscriber and a file reader all call the same two
functions, and what they return pickles.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from msgspec.structs import asdict, astuple

from edge.contract import (
    EARLIEST,
    SIZE_LIMIT,
    ContractError,
    Models,
    Privacy,
    decode_counts,
    parse_topic,
    parse_utc,
    read_json,
    utc_text,
)
from edge.contract.fields import LATEST
from edge_aggregate import fast_decode

if TYPE_CHECKING:
    from edge.contract import Counts
    from edge.types import Scene, Strategy, TimeQuality

LINE_LIMIT: Final = 8 * SIZE_LIMIT
"""Bytes of a line: a payload at its largest, as a text with every character escaped, and its envelope."""

QUALITIES: Final[tuple[TimeQuality, ...]] = ("synced", "holdover", "unsynced")
SCENES: Final[tuple[Scene, ...]] = ("ok", "dark", "covered", "frozen", "paused")
"""Closed words of the contract, stored as their place here: append, never reorder."""

UNSYNCED: Final = QUALITIES.index("unsynced")
"""Windows whose clock was never set: shown apart, left out of every index."""

_QUALITY: Final = {name: place for place, name in enumerate(QUALITIES)}
_SCENE: Final = {name: place for place, name in enumerate(SCENES)}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD_MS: Final = 86_400_000
_LATEST_MS: Final = (LATEST - _EPOCH).days * 86_400_000
_EXCERPT: Final = 1_000
_parse_topic = lru_cache(65_536)(parse_topic)


class Terms(NamedTuple):
    """Under what a window was counted: the privacy statement and the models, all as on the wire."""

    mechanism: Literal["discrete-laplace", "none"]
    epsilon: float | None
    unit: str
    min_count: int
    exhausted: bool
    gate: str | None
    fer_unmasked: str | None
    fer_masked: str | None
    strategy: Strategy


_terms = lru_cache(4096)(Terms)
"""A fleet has few: the same object each time is found faster."""


class Row(NamedTuple):
    """One window, with every declared field of its payload: two rows are equal when their payloads are.

    `cells` and `draws` have 16 places: unmasked's eight in `edge.types.CELLS` order, then masked's. Times are
    milliseconds since 1970, UTC. `received_ms` is the log's clock and no part of the payload.
    """

    device: str
    boot_id: str
    seq: int
    site: str
    start_ms: int
    seconds: float
    quality: int
    coverage: float
    scene: int
    flush: bool
    suppressed: int
    prev_boot: str | None
    prev_seq: int | None
    terms: Terms
    cells: tuple[int | None, ...]
    draws: tuple[int, ...]
    received_ms: int

    @property
    def end_ms(self) -> int:
        """When the window ended."""
        return self.start_ms + round(self.seconds * 1000)


class Dead(NamedTuple):
    """A line that is no window and never will be: why, and the first `_EXCERPT` characters of it."""

    kind: str
    reason: str
    topic: str | None
    received_ms: int | None
    excerpt: str


def milliseconds(value: datetime) -> int:
    """Milliseconds since 1970, UTC."""
    since = value - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def instant(ms: int) -> datetime:
    """The way back."""
    return _EPOCH + timedelta(milliseconds=ms)


def decode_line(line: bytes) -> Row | Dead | None:
    """A line of a landing log; None where it holds another of the contract's topics, or nothing.

    The usual line is read and checked in one pass. Whatever that does not take is read again in parts, which says why.
    """
    if len(line) <= LINE_LIMIT:
        try:
            found = fast_decode.read_line(line)
            row = _fast_row(found.topic, milliseconds(parse_utc(found.received)), found.payload)
        except (ValueError, ContractError, RecursionError):
            row = None
        if row is not None:
            return row
    return _decode_parts(line)


def decode_fast(topic: str, received_ms: int, payload: bytes) -> Row | None:
    """The window of a message as devices send them; None says nothing: `decode_message` does."""
    if len(payload) > SIZE_LIMIT:
        return None
    try:
        return _fast_row(topic, received_ms, fast_decode.read_payload(payload))
    except (ValueError, ContractError, RecursionError):
        return None


def _fast_row(topic: str, received_ms: int, payload: fast_decode.Counts) -> Row | None:
    """What `_checked` and the models look at beyond types; None, or an error, where anything is amiss."""
    topics, leaf = _parse_topic(topic)
    counts, draws = payload.counts, payload.noise_draws
    cells = (*astuple(counts.unmasked), *astuple(counts.masked))
    released = [cell for cell in cells if cell is not None]
    start_ms = _start_ms(payload.window.start)
    if not (
        leaf == "counts"
        and topics.site == payload.site
        and topics.device == payload.device
        and payload.visitors == sum(released)
        and (payload.flush or not released or min(released) >= 0)
        and start_ms <= received_ms + _AHEAD_MS
        and received_ms < _LATEST_MS
    ):
        return None
    return _row(
        payload,
        topics.site,  # and not the payload's, which are equal: one text for all lines of a device
        topics.device,
        start_ms,
        _fast_terms(payload.privacy, payload.models),
        cells,
        (*astuple(draws.unmasked), *astuple(draws.masked)),
        received_ms,
    )


@lru_cache(4096)
def _fast_terms(privacy: fast_decode.Privacy, models: fast_decode.Models) -> Terms:
    """As the contract's models have it. Raises ValueError where they refuse it, which is not remembered."""
    Privacy(**asdict(privacy))
    Models(**asdict(models))
    if not privacy.unit.isprintable():
        msg = "privacy.unit: has characters that cannot be printed"
        raise ValueError(msg)
    return _terms(*astuple(privacy), *astuple(models))


@lru_cache(4096)
def _start_ms(text: str) -> int:
    """When a window begins: with the hours, many at once. Raises ValueError for no time, or one of no window."""
    start = parse_utc(text)
    if not EARLIEST <= start < LATEST:
        msg = "no window's start"
        raise ValueError(msg)
    return milliseconds(start)


def _decode_parts(line: bytes) -> Row | Dead | None:
    if not line.strip():
        return None
    try:
        topic, received_ms, body = _envelope(line)
    except ContractError as error:
        return Dead("envelope", _printable(str(error)), None, None, _excerpt(line))
    return decode_message(topic, received_ms, body)


def _envelope(line: bytes) -> tuple[str, int, bytes | str | dict[str, object]]:
    """(topic, received, payload) of a line. Raises ContractError."""
    entry = read_json(line, limit=LINE_LIMIT)
    if not isinstance(entry, dict) or not {"topic", "received", "payload"} <= entry.keys():
        msg = "not an object with topic, received and payload"
        raise ContractError(msg)
    topic, body = entry["topic"], entry["payload"]
    if not isinstance(topic, str):
        msg = "topic is no text"
        raise ContractError(msg)
    try:
        received_ms = milliseconds(parse_utc(entry["received"]))
    except ValueError as error:
        msg = f"received: {error}"
        raise ContractError(msg) from error
    if isinstance(body, dict) and body.keys() == {"base64"}:
        try:
            body = base64.b64decode(body["base64"], validate=True)
        except (TypeError, ValueError) as error:
            msg = "payload: its base64 cannot be read"
            raise ContractError(msg) from error
    if not isinstance(body, str | bytes | dict):
        msg = "payload is neither an object nor a text"
        raise ContractError(msg)
    return topic, received_ms, body


def decode_message(topic: str, received_ms: int, body: bytes | str | dict[str, object]) -> Row | Dead | None:
    """A message as it came, or None where its topic is another of the contract's."""
    kind = "topic"
    try:
        if _parse_topic(topic)[1] != "counts":
            return None
        kind = "payload"
        payload = decode_counts(body)
        row = _checked(topic, received_ms, payload)
    except ContractError as error:
        kind = error.kind if isinstance(error, _Refused) else kind
        return Dead(kind, _printable(str(error)), _printable(topic[:200]), received_ms, _excerpt(body))
    return row


class _Refused(ContractError):
    """A payload that keeps the contract, and is no window all the same."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


def _checked(topic: str, received_ms: int, payload: Counts) -> Row | None:
    """The row of a payload that came under this topic at this time; None where the topic is another."""
    topics, leaf = _parse_topic(topic)
    if leaf != "counts":
        return None
    if topics.site != payload.site or topics.device != payload.device:
        msg = f"topic says {topics.site}/{topics.device}, payload says {payload.site}/{payload.device}"
        raise _Refused(msg, "topic")
    if not payload.privacy.unit.isprintable():  # a NUL is no text to a database
        msg = "privacy.unit: has characters that cannot be printed"
        raise _Refused(msg, "payload")
    if received_ms >= _LATEST_MS:  # days around the newest message must be dates too
        msg = f"received {utc_text(instant(received_ms))}: mend the clock by which it was received, or the log"
        raise _Refused(msg, "future")
    row = row_of(payload, received_ms)
    if row.start_ms > received_ms + _AHEAD_MS:
        msg = f"starts {utc_text(payload.window.start)}, over a day ahead of when it was received"
        raise _Refused(msg, "future")
    return row


def row_of(payload: Counts, received_ms: int) -> Row:
    """The row of a payload that keeps the contract."""
    privacy, models, counts, draws = payload.privacy, payload.models, payload.counts, payload.noise_draws
    return _row(
        payload,
        payload.site,
        payload.device,
        milliseconds(payload.window.start),
        _terms(
            privacy.mechanism,
            privacy.epsilon,
            privacy.unit,
            privacy.min_count,
            privacy.exhausted,
            models.gate,
            models.fer_unmasked,
            models.fer_masked,
            models.route,
        ),
        (*vars(counts.unmasked).values(), *vars(counts.masked).values()),
        (*vars(draws.unmasked).values(), *vars(draws.masked).values()),
        received_ms,
    )


def _row(
    payload: Counts | fast_decode.Counts,
    site: str,
    device: str,
    start_ms: int,
    terms: Terms,
    cells: tuple[int | None, ...],
    draws: tuple[int, ...],
    received_ms: int,
) -> Row:
    """In the order of `Row`: names would cost each window a tenth of its decoding."""
    window, prev = payload.window, payload.prev
    return Row(
        device,
        payload.boot_id,
        payload.seq,
        site,
        start_ms,
        float(window.seconds),
        _QUALITY[window.time_quality],
        payload.coverage + 0.0,  # -0.0 is 0.0: equal rows must have one digest
        _SCENE[payload.scene],
        payload.flush,
        payload.suppressed_cells,
        None if prev is None else prev.boot_id,
        None if prev is None else prev.last_seq,
        terms,
        cells,
        draws,
        received_ms,
    )


def _printable(text: str) -> str:
    """A text that terminals, pages and databases take as it is: no controls, no half characters."""
    return (text if text.isprintable() else ascii(text)[1:-1])[:1000]


def _excerpt(data: bytes | str | dict[str, object]) -> str:
    """The start of it as printable ASCII: a dead letter is shown on terminals and pages."""
    if isinstance(data, dict):
        data = json.dumps(data)[:_EXCERPT]
    if isinstance(data, bytes):
        data = data[:_EXCERPT].decode("utf-8", "backslashreplace")
    return ascii(data[:_EXCERPT])[1:-1][:_EXCERPT]
