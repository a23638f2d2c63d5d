"""What each device last said of itself, for the page of the fleet: the newest `status` and `health`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.contract import ContractError, Health, Status, decode, encode, parse_topic
from edge_aggregate.decode import milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_aggregate.store.engine import Engine

HEALTH_LIMIT: Final = 16_384
"""Bytes of a health as it is kept; a device's has some hundred."""

_HOUR_MS: Final = 3_600_000


class StatusRow(NamedTuple):
    """A device's `status`; times are milliseconds since 1970, UTC."""

    device: str
    site: str
    state: str
    boot_id: str | None
    version: str
    since_ms: int
    trouble: str | None
    status_ms: int


class HealthRow(NamedTuple):
    """A device's `health`, as JSON of the contract's own fields."""

    device: str
    site: str
    health: str
    health_ms: int


class Member(NamedTuple):
    """A device as it was last heard of; a part that never came is None."""

    device: str
    site: str
    state: str | None
    boot_id: str | None
    version: str | None
    since_ms: int | None
    trouble: str | None
    status_ms: int | None
    health: str | None
    health_ms: int | None


def read_message(topic: str, payload: bytes, received_ms: int) -> StatusRow | HealthRow | None:
    """A message on `status` or `health`; None for another of the contract's topics. Raises ContractError."""
    topics, leaf = parse_topic(topic)
    if leaf == "status":
        status = decode(Status, payload)
        if not f"{status.version}{status.trouble}".isprintable():  # a NUL is no text to a database
            msg = "version, trouble: have characters that cannot be printed"
            raise ContractError(msg)
        return StatusRow(
            topics.device,
            topics.site,
            status.state,
            status.boot_id,
            status.version,
            milliseconds(status.since),
            status.trouble,
            received_ms,
        )
    if leaf == "health":
        text = encode(decode(Health, payload))
        if len(text) > HEALTH_LIMIT:
            msg = f"health of {len(text)} bytes, {HEALTH_LIMIT} are kept"
            raise ContractError(msg)
        return HealthRow(topics.device, topics.site, text.decode(), received_ms)
    return None


def _changes(columns: tuple[str, ...], where: str) -> dict[str, str]:
    """Every column anew where the row is worth it."""
    return {name: f"CASE WHEN {where} THEN excluded.{name} ELSE fleet.{name} END" for name in columns[1:]}


def _newer(column: str) -> str:
    """Of two subscribers the slower one must not undo; a clock that was far ahead must not hold up for ever."""
    return (
        f"(fleet.{column} IS NULL OR excluded.{column} >= fleet.{column}"
        f" OR fleet.{column} > excluded.{column} + {_HOUR_MS})"
    )


_LATE_WILL: Final = (
    "(excluded.state = 'offline' AND COALESCE(fleet.state, '') = 'online' AND excluded.since_ms <= fleet.since_ms"
    " AND (excluded.since_ms < fleet.since_ms OR COALESCE(excluded.boot_id, '') <> COALESCE(fleet.boot_id, '')))"
)
"""A will says the boot and the time of its own birth: that of an earlier connection is none of the one that is."""

_STATUS: Final = _changes(StatusRow._fields, f"NOT {_LATE_WILL} AND {_newer('status_ms')}")
_HEALTH: Final = _changes(HealthRow._fields, _newer("health_ms"))


def write_fleet(engine: Engine, statuses: Iterable[StatusRow], healths: Iterable[HealthRow]) -> None:
    """Take what came, in its order, in one transaction; one health of a device. Raises StorageError."""
    with engine.writing():
        for rows in _rounds(statuses):
            engine.upsert("fleet", StatusRow._fields, ["device"], _STATUS, rows)
        engine.upsert("fleet", HealthRow._fields, ["device"], _HEALTH, list(healths))


def _rounds(statuses: Iterable[StatusRow]) -> list[list[StatusRow]]:
    """Each device once in a round, its statuses in their order."""
    rounds: list[list[StatusRow]] = []
    turn: Counter[str] = Counter()
    for row in statuses:
        if turn[row.device] == len(rounds):
            rounds.append([])
        rounds[turn[row.device]].append(row)
        turn[row.device] += 1
    return rounds


def read_fleet(engine: Engine) -> list[Member]:
    """Every device that was heard of, by site and name. Raises StorageError."""
    columns = ", ".join(Member._fields)
    return [Member(*row) for row in engine.fetch(f"SELECT {columns} FROM fleet ORDER BY site, device")]
