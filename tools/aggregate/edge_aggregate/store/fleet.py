"""What each device last said of itself, for the page of the fleet: the newest `status` and `health`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from edge.contract import ContractError, Health, Status, decode, encode, parse_topic
from edge_aggregate.decode import milliseconds
from edge_aggregate.device_notes import REMOVED, shown, spoke_ms
from edge_aggregate.store.merge import count_merge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_aggregate.store.engine import Engine

HEALTH_LIMIT: Final = 16_384
"""Bytes of a health as it is kept; a device's has some hundred."""

HEARD: Final = "heard_ms"
"""In `meta`: when the newest status or health came."""

_HOUR_MS: Final = 3_600_000


class StatusRow(NamedTuple):
    """A device's `status`; times are milliseconds since 1970, UTC. `retained`: a broker repeats what was said once."""

    device: str
    site: str
    state: str
    boot_id: str | None
    version: str
    since_ms: int
    trouble: str | None
    status_ms: int
    retained: bool = False


class HealthRow(NamedTuple):
    """A device's `health`, as JSON of the contract's own fields."""

    device: str
    site: str
    health: str
    health_ms: int
    retained: bool = False


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
    if not payload and leaf in ("status", "health"):  # what was retained is taken away, as `remove.yml` does
        if leaf == "health":
            return None
        return StatusRow(topics.device, topics.site, REMOVED, None, "", received_ms, None, received_ms)
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


def _status_changes(where: str) -> dict[str, str]:
    """As `_changes`. A health of another site goes: one that came before the first status may be of any."""
    elsewhere = f"{where} AND excluded.site <> fleet.site"
    gone = {name: f"CASE WHEN {elsewhere} THEN NULL ELSE fleet.{name} END" for name in ("health", "health_ms")}
    return _changes(_STATUS_COLUMNS, where) | gone


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

_MOVED: Final = f"(excluded.state = '{REMOVED}' AND excluded.site <> fleet.site)"
"""What was retained at the site where a device stood before goes, and the device stays."""

_LEFT_BEHIND: Final = (
    "(fleet.state IS NOT NULL AND excluded.since_ms < fleet.since_ms"
    f" AND fleet.since_ms <= fleet.status_ms + {_HOUR_MS}"
    " AND (excluded.site <> fleet.site OR COALESCE(excluded.boot_id, '') <> COALESCE(fleet.boot_id, '')))"
)
"""Retained, where a kiosk stood before or by a run before: a broker repeats it at each connection, for ever.

A row that was true only after it was heard is of a clock that was ahead, and holds up nothing.
"""
_ELSEWHERE: Final = "(fleet.state IS NOT NULL AND excluded.site <> fleet.site)"
"""A health does not say since when it is so: where a device is now, its status says."""

_STATUS_COLUMNS: Final = StatusRow._fields[:-1]
_HEALTH_COLUMNS: Final = HealthRow._fields[:-1]
_STATUS: Final = f"NOT {_LATE_WILL} AND NOT {_MOVED} AND {_newer('status_ms')}"
_HEALTH: Final = _newer("health_ms")
_STATUS_CHANGES: Final = [_status_changes(_STATUS), _status_changes(f"NOT {_LEFT_BEHIND} AND {_STATUS}")]
_HEALTH_CHANGES: Final = [
    _changes(_HEALTH_COLUMNS, _HEALTH),
    _changes(_HEALTH_COLUMNS, f"NOT {_ELSEWHERE} AND {_HEALTH}"),
]
"""Of what is said now, and of what is retained."""


def write_fleet(engine: Engine, statuses: Iterable[StatusRow], healths: Iterable[HealthRow]) -> None:
    """Take what came, in its order, in one transaction, statuses first. Raises StorageError.

    It counts as a merge where the page of the fleet shows something else after it, and only there.
    """
    statuses, healths = list(statuses), list(healths)
    devices = sorted({row.device for row in statuses} | {row.device for row in healths})
    with engine.writing():
        before = _members(engine, devices)
        for retained, said in _rounds(statuses):
            engine.upsert("fleet", _STATUS_COLUMNS, ["device"], _STATUS_CHANGES[retained], [row[:-1] for row in said])
        for retained, measured in _rounds(healths):
            rows = [row[:-1] for row in measured]
            engine.upsert("fleet", _HEALTH_COLUMNS, ["device"], _HEALTH_CHANGES[retained], rows)
        after = _members(engine, devices)
        _note_heard(engine, max(map(spoke_ms, after.values()), default=0))
        if any(name not in before or _differs(before[name], one) for name, one in after.items()):
            count_merge(engine)


def _members(engine: Engine, devices: list[str]) -> dict[str, Member]:
    found = engine.match("fleet", ("device",), [(name,) for name in devices], Member._fields)
    return {row[0]: Member(*row) for row in found}


def _differs(was: Member, one: Member) -> bool:
    return was != one and shown(was) != shown(one)


def _note_heard(engine: Engine, at_ms: int) -> None:
    """Note when the newest message came, for the pages; what lies ahead of this clock was noted by a wrong one."""
    engine.run(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value ="
        f" CASE WHEN meta.value > ? THEN excluded.value ELSE {engine.greatest}(meta.value, excluded.value) END",
        (HEARD, at_ms, time.time_ns() // 1_000_000 + _HOUR_MS),
    )


_Said = TypeVar("_Said", StatusRow, HealthRow)


def _rounds(said: Iterable[_Said]) -> list[tuple[bool, list[_Said]]]:
    """Each device once in a round, all it said in its order; what is retained in rounds of its own."""
    rounds: list[tuple[bool, list[_Said]]] = []
    turn: dict[str, int] = {}
    for row in said:
        at = turn.get(row.device, 0)
        while at < len(rounds) and rounds[at][0] != row.retained:
            at += 1
        if at == len(rounds):
            rounds.append((row.retained, []))
        rounds[at][1].append(row)
        turn[row.device] = at + 1
    return rounds


def read_fleet(engine: Engine) -> list[Member]:
    """Every device that was heard of, by site and name. Raises StorageError."""
    columns = ", ".join(Member._fields)
    return [Member(*row) for row in engine.fetch(f"SELECT {columns} FROM fleet ORDER BY site, device")]
