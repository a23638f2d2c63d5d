"""What is known of each run of a device: how far it counted, where numbers are missing, when it was last emptied.

A gap is a run of numbers that never came, and belongs to the time at which the next one that came begins. The last
numbers of a run may be missing too: the next run says in `prev` how far it had come (a claim).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edge_aggregate.decode import UNSYNCED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from edge_aggregate.decode import Row
    from edge_aggregate.store.engine import Engine
    from edge_aggregate.store.weigh import Case

BOOT_COLUMNS: Final = (
    *("id", "device", "boot_id", "top_seq", "floor_seq"),
    *("closed_ms", "last_start_ms", "first_received_ms"),
)


@dataclass(slots=True)
class Boot:
    """A row of `boots`, and what a batch does to it.

    `cases`: the batch's windows by their numbers; `held`: those of them that were there before, as they were;
    `recount`: one of these is replaced; `changed`: to be written.
    """

    id: int
    device: int
    boot_id: str
    top_seq: int = 0
    floor_seq: int = 0
    closed_ms: int | None = None
    last_start_ms: int | None = None
    first_received_ms: int | None = None
    cases: dict[int, Case] = field(default_factory=dict)
    held: dict[int, Row] = field(default_factory=dict)
    recount: bool = False
    changed: bool = False

    def fresh(self) -> list[int]:
        """Numbers that were not there before, in their order."""
        return sorted(self.cases.keys() - self.held.keys()) if self.held else sorted(self.cases)

    def note(self, rows: Sequence[Row]) -> None:
        """Take what windows of it say."""
        self.changed = True
        self.last_start_ms = max([row.start_ms for row in rows] + _known(self.last_start_ms))
        self.first_received_ms = min([row.received_ms for row in rows] + _known(self.first_received_ms))
        emptied = [row.end_ms for row in rows if row.quality != UNSYNCED and _empties(row)]
        if emptied:
            self.closed_ms = max([*emptied, self.closed_ms or 0])

    def columns(self) -> tuple[int | str | None, ...]:
        """`BOOT_COLUMNS`."""
        return (
            *(self.id, self.device, self.boot_id, self.top_seq, self.floor_seq),
            *(self.closed_ms, self.last_start_ms, self.first_received_ms),
        )


def _empties(row: Row) -> bool:
    return row.flush or (row.terms.min_count <= 1 and row.terms.mechanism == "none")


def _known(value: int | None) -> list[int]:
    return [] if value is None else [value]


Claim = tuple[int, int, int]
"""Minus the last number, when the claiming window starts, its site: the least of them counts."""


def renew(engine: Engine, touched: Collection[Boot], claims: Mapping[tuple[int, int], Claim]) -> None:
    """Bring `boots`, `claims` and `gaps` up to date after windows were written."""
    claimed = _claim(engine, claims)
    for boot in touched:
        if boot.recount:
            claimed |= _claim_again(engine, boot.id)
    tails = _tails(engine, [boot.id for boot in touched if boot.cases.keys() - boot.held.keys()])
    holes: list[tuple[Boot, int]] = []
    for boot in touched:
        fresh, top = boot.fresh(), boot.top_seq
        boot.top_seq = max([top, *fresh[-1:]])
        if boot.recount:
            holes.append((boot, boot.floor_seq))
        elif boot.id in claimed or (
            fresh and (fresh[0] != top + 1 or fresh[-1] != top + len(fresh) or tails.get(boot.id, 0) > top)
        ):
            holes.append((boot, min([top, *(seq - 1 for seq in fresh[:1])])))
    engine.upsert("boots", BOOT_COLUMNS, ("id",), _BOOT_CHANGES, [boot.columns() for boot in touched if boot.changed])
    gaps = [gap for boot, since in holes for gap in find_gaps(engine, boot.id, boot.floor_seq, since)]
    for boot in touched:
        if boot.recount:
            _look_again(engine, boot)
    others = sorted(claimed - {boot.id for boot in touched})  # a claim that was taken back
    for number, floor in engine.match("boots", ("id",), [(other,) for other in others], ("id", "floor_seq")):
        gaps += find_gaps(engine, number, floor, floor)
    engine.load("gaps", GAP_COLUMNS, gaps)


_BOOT_CHANGES: Final = {
    name: f"excluded.{name}" for name in ("top_seq", "closed_ms", "last_start_ms", "first_received_ms")
}


def _claim(engine: Engine, claims: Mapping[tuple[int, int], Claim]) -> set[int]:
    """Write claims that say more than what is known; the boots they are about."""
    known = {
        (boot, by_boot): (-last_seq, start_ms, site)
        for boot, by_boot, last_seq, start_ms, site in engine.match(
            "claims", ("boot", "by_boot"), sorted(claims), _CLAIM_COLUMNS
        )
    }
    new = {key: claim for key, claim in claims.items() if key not in known or claim < known[key]}
    engine.upsert(
        "claims",
        _CLAIM_COLUMNS,
        ("boot", "by_boot"),
        {name: f"excluded.{name}" for name in ("last_seq", "start_ms", "site")},
        [(*key, -claim[0], *claim[1:]) for key, claim in sorted(new.items())],
    )
    return {boot for boot, _ in new}


_CLAIM_COLUMNS: Final = ("boot", "by_boot", "last_seq", "start_ms", "site")


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


def _tails(engine: Engine, wanted: Collection[int]) -> dict[int, int]:
    """How far later boots say that these had come."""
    tails: dict[int, int] = defaultdict(int)
    for boot, last_seq in engine.match("claims", ("boot",), [(boot,) for boot in wanted], ("boot", "last_seq")):
        tails[boot] = max(tails[boot], last_seq)
    return tails


_HOLES: Final = (
    "SELECT before_seq + 1, seq - 1, site, after_ms, start_ms FROM (SELECT seq, site, start_ms,"
    " LAG(seq, 1, CAST(? AS BIGINT)) OVER (ORDER BY seq) AS before_seq, LAG(start_ms) OVER (ORDER BY seq) AS after_ms"
    " FROM windows WHERE boot = ? AND seq >= ?) AS numbered WHERE seq > before_seq + 1 ORDER BY seq"
)


GAP_COLUMNS: Final = ("boot", "first_seq", "last_seq", "site", "after_ms", "before_ms")


def find_gaps(engine: Engine, boot: int, floor: int, since: int) -> list[tuple[int | None, ...]]:
    """Drop the gaps of a boot beyond `since`, and find them anew: `GAP_COLUMNS`, to be written."""
    found = engine.fetch("SELECT MAX(seq) FROM windows WHERE boot = ? AND seq <= ?", (boot, since))
    since = max(floor, found[0][0] or 0)  # a window that is held: no gap goes across it
    engine.run("DELETE FROM gaps WHERE boot = ? AND first_seq > ?", (boot, since))
    return gaps_of(engine, boot, floor, since)


def gaps_of(engine: Engine, boot: int, floor: int, since: int) -> list[tuple[int | None, ...]]:
    """`GAP_COLUMNS` of the gaps beyond `since`, from its windows and what later boots claim of it."""
    holes = engine.fetch(_HOLES, (since, boot, since))
    last = engine.fetch("SELECT seq, start_ms FROM windows WHERE boot = ? ORDER BY seq DESC LIMIT 1", (boot,))
    top, after_ms = last[0] if last else (floor, None)
    claims = engine.fetch(
        "SELECT last_seq, start_ms, site FROM claims WHERE boot = ? ORDER BY last_seq DESC, start_ms, site LIMIT 1",
        (boot,),
    )
    if claims and claims[0][0] > top:
        last_seq, start_ms, site = claims[0]
        holes.append((top + 1, last_seq, site, after_ms, start_ms))
    return [(boot, *hole) for hole in holes]


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
