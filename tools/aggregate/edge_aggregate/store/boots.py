"""What is known of each run of a device: how far it counted, where numbers are missing, when it was last emptied.

A gap is a run of numbers that never came, and belongs to the time at which the next one that came begins. The last
numbers of a run may be missing too: the next run says in `prev` how far it had come (a claim).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edge_aggregate.decode import UNSYNCED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edge_aggregate.decode import Row
    from edge_aggregate.store.engine import Engine


@dataclass(slots=True)
class Boot:
    """A row of `boots`, and whether it is to be written."""

    id: int
    device: int
    top_seq: int = 0
    floor_seq: int = 0
    closed_ms: int | None = None
    last_start_ms: int | None = None
    first_received_ms: int | None = None
    fresh: list[int] = field(default_factory=list)
    recount: bool = False

    def note(self, row: Row) -> None:
        """Take what a window of it says."""
        self.last_start_ms = max(self.last_start_ms or row.start_ms, row.start_ms)
        self.first_received_ms = min(self.first_received_ms or row.received_ms, row.received_ms)
        exact = row.terms.mechanism == "none" and row.terms.min_count <= 1
        if (row.flush or exact) and row.quality != UNSYNCED:
            self.closed_ms = max(self.closed_ms or 0, row.end_ms)


Claim = tuple[int, int, int]
"""Minus the last number, when the claiming window starts, its site: the least of them counts."""


def renew(engine: Engine, touched: Iterable[Boot], claims: Mapping[tuple[int, int], Claim]) -> None:
    """Bring `boots`, `claims` and `gaps` up to date after windows were written."""
    changed = _claim(engine, claims)
    for boot in touched:
        if boot.recount:
            changed |= _claim_again(engine, boot.id)
    for boot in touched:
        fresh = sorted(boot.fresh)
        plain = not fresh or fresh == list(range(boot.top_seq + 1, boot.top_seq + 1 + len(fresh)))
        claimed = bool(fresh) and _claimed(engine, boot.id) > boot.top_seq
        boot.top_seq = max([boot.top_seq, *fresh[-1:]])
        if boot.recount or not plain or claimed or boot.id in changed:
            changed.discard(boot.id)
            _find_gaps(engine, boot.id, boot.floor_seq)
        if boot.recount:
            _look_again(engine, boot)
        elif fresh:
            engine.run(
                "UPDATE boots SET top_seq = ?, closed_ms = ?, last_start_ms = ?, first_received_ms = ? WHERE id = ?",
                (boot.top_seq, boot.closed_ms, boot.last_start_ms, boot.first_received_ms, boot.id),
            )
    for boot_id in sorted(changed):  # claimed about, without a window of its own in this batch
        ((floor,),) = engine.fetch("SELECT floor_seq FROM boots WHERE id = ?", (boot_id,))
        _find_gaps(engine, boot_id, floor)


def _claim(engine: Engine, claims: Mapping[tuple[int, int], Claim]) -> set[int]:
    """Write claims that say more than what is known; the boots they are about."""
    changed = set()
    for (boot, by_boot), claim in sorted(claims.items()):
        found = engine.fetch(
            "SELECT -last_seq, start_ms, site FROM claims WHERE boot = ? AND by_boot = ?", (boot, by_boot)
        )
        if found and tuple(found[0]) <= claim:
            continue
        engine.run("DELETE FROM claims WHERE boot = ? AND by_boot = ?", (boot, by_boot))
        engine.run("INSERT INTO claims VALUES (?, ?, ?, ?, ?)", (boot, by_boot, -claim[0], *claim[1:]))
        changed.add(boot)
    return changed


def _claim_again(engine: Engine, by_boot: int) -> set[int]:
    """What this boot's windows claim, read from all of them: one was replaced."""
    about = {boot for (boot,) in engine.fetch("SELECT boot FROM claims WHERE by_boot = ?", (by_boot,))}
    engine.run("DELETE FROM claims WHERE by_boot = ?", (by_boot,))
    found: dict[tuple[int, int], Claim] = {}
    for prev, seq, start, site in engine.fetch(
        "SELECT prev_boot, prev_seq, start_ms, site FROM windows WHERE boot = ? AND prev_boot IS NOT NULL", (by_boot,)
    ):
        claim = (-seq, start, site)
        found[prev, by_boot] = min(found.get((prev, by_boot), claim), claim)
    return about | _claim(engine, found)


def _claimed(engine: Engine, boot: int) -> int:
    found = engine.fetch("SELECT COALESCE(MAX(last_seq), 0) FROM claims WHERE boot = ?", (boot,))
    return int(found[0][0])


_HOLES: Final = (
    "SELECT before_seq + 1, seq - 1, site, after_ms, start_ms FROM (SELECT seq, site, start_ms,"
    " LAG(seq, 1, CAST(? AS BIGINT)) OVER (ORDER BY seq) AS before_seq, LAG(start_ms) OVER (ORDER BY seq) AS after_ms"
    " FROM windows WHERE boot = ?) AS numbered WHERE seq > before_seq + 1"
)


def _find_gaps(engine: Engine, boot: int, floor: int) -> None:
    """The gaps of a boot, from all its windows and what later boots claim of it."""
    engine.run("DELETE FROM gaps WHERE boot = ?", (boot,))
    holes = engine.fetch(_HOLES, (floor, boot))
    last = engine.fetch("SELECT seq, start_ms FROM windows WHERE boot = ? ORDER BY seq DESC LIMIT 1", (boot,))
    top, after_ms = last[0] if last else (floor, None)
    claims = engine.fetch(
        "SELECT last_seq, start_ms, site FROM claims WHERE boot = ? ORDER BY last_seq DESC, start_ms, site LIMIT 1",
        (boot,),
    )
    if claims and claims[0][0] > top:
        last_seq, start_ms, site = claims[0]
        holes.append((top + 1, last_seq, site, after_ms, start_ms))
    engine.load(
        "gaps",
        ("boot", "first_seq", "last_seq", "site", "after_ms", "before_ms"),
        [(boot, *hole) for hole in holes],
    )


def _look_again(engine: Engine, boot: Boot) -> None:
    """A boot's own figures from all its windows: one was replaced, and may have been the one that said so."""
    engine.run(
        "UPDATE boots SET top_seq = (SELECT COALESCE(MAX(seq), 0) FROM windows WHERE boot = boots.id),"
        " last_start_ms = (SELECT MAX(start_ms) FROM windows WHERE boot = boots.id),"
        " first_received_ms = (SELECT MIN(received_ms) FROM windows WHERE boot = boots.id),"
        " closed_ms = (SELECT MAX(w.start_ms + w.milliseconds) FROM windows w JOIN terms t ON t.id = w.terms"
        f" WHERE w.boot = boots.id AND w.quality <> {UNSYNCED}"
        " AND (w.flush = 1 OR (t.mechanism = 'none' AND t.min_count <= 1))) WHERE id = ?",
        (boot.id,),
    )
