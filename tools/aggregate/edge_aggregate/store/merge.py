"""One batch into a store, in one transaction: what is new, what was there, what it changes.

The result does not depend on how a log is cut into batches, nor on the order of its lines, nor on a batch being tried
twice: `segments` remembers how far each log was read, `weigh` decides between payloads, and whatever is not a plain
addition is summed anew from `windows`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edge_aggregate.decode import Dead, Row
from edge_aggregate.store import boots
from edge_aggregate.store.days import DAY_MS, DayKey, covered_ppm_s, renew_spans, write_days
from edge_aggregate.store.ids import Ids, next_id
from edge_aggregate.store.read import load_cases
from edge_aggregate.store.schema import WINDOW_COLUMNS
from edge_aggregate.store.weigh import Case, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_aggregate.store.engine import Engine

SEQ_GAP: Final = 1_000_000
"""A device that leaves out more numbers than this, or says it did, is not believed."""

DEAD_KEPT: Final = 10_000
"""Dead letters that are kept whole; all are counted."""

Key = tuple[str, str, int]


class Progress(NamedTuple):
    """How far a segment of the log is read: lines, bytes, and the digest of those bytes."""

    name: str
    lines: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class Batch:
    """Lines of one segment, each with its number from 1, up to `progress.lines`."""

    progress: Progress
    rows: list[tuple[int, Row]] = field(default_factory=list)
    dead: list[tuple[int, Dead]] = field(default_factory=list)
    newest_ms: int = 0

    def add(self, number: int, found: Row | Dead | None) -> None:
        """Take what the decoder made of a line."""
        if isinstance(found, Row):
            self.rows.append((number, found))
            self.newest_ms = max(self.newest_ms, found.received_ms)
        elif found is not None:
            self.dead.append((number, found))


class Merged(NamedTuple):
    """What a batch added: windows, lines that repeat one, lines that contradict one, and dead letters."""

    windows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    dead: int = 0

    def plus(self, other: Merged) -> Merged:
        """Both."""
        return Merged(*(a + b for a, b in zip(self, other, strict=True)))


def merge(engine: Engine, batches: Iterable[Batch]) -> Merged:
    """Commit batches, all or none. What was committed before changes nothing. Raises StorageError."""
    total = Merged()
    with engine.writing():
        touched: set[tuple[int, int]] = set()
        for batch in batches:
            one = _Merge(engine, batch)
            total = total.plus(one.all())
            touched |= one.touched
        renew_spans(engine, touched)
        count_merge(engine)
    return total


VARIANT_COLUMNS: Final = ("boot", "seq", "digest", "payload", "lines", "received_ms", "segment", "line")
KEPT_FROM: Final = "kept_from_ms"


def kept_from(engine: Engine) -> int:
    """Windows that began before were dropped (`upkeep.retain`), and none is taken any more; 0: none was."""
    found = engine.fetch("SELECT value FROM meta WHERE key = ?", (KEPT_FROM,))
    return int(found[0][0]) if found else 0


def count_merge(engine: Engine) -> None:
    """Note, inside a transaction, that it changes something: readers keep what they have shown until then."""
    engine.run("INSERT INTO meta VALUES ('merges', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1")


class _Merge:
    """The work of one batch, inside the transaction."""

    def __init__(self, engine: Engine, batch: Batch) -> None:
        self._engine, self._batch = engine, batch
        self._segment, self._done = self._mark()
        self._kept_from = kept_from(engine)
        self.touched: set[tuple[int, int]] = set()
        self._rows = [found for found in batch.rows if found[0] > self._done]
        self._dead = [found for found in batch.dead if found[0] > self._done]

    def _mark(self) -> tuple[int, int]:
        """The segment's id and how many of its lines are in already; its new mark is written."""
        progress, engine = self._batch.progress, self._engine
        found = engine.fetch("SELECT id, lines FROM segments WHERE name = ?", (progress.name,))
        if not found:
            segment = next_id(engine, "segments")
            engine.run("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", (segment, *progress))
            return segment, 0
        segment, done = found[0]
        if done < progress.lines:
            engine.run(
                "UPDATE segments SET lines = ?, bytes = ?, sha256 = ? WHERE id = ?",
                (progress.lines, progress.bytes, progress.sha256, segment),
            )
        return segment, done

    def all(self) -> Merged:
        """What it added."""
        if self._done >= self._batch.progress.lines:
            return Merged()
        self._ids = Ids(self._engine, self._rows)
        cases = self._stored()
        stored = {key: case.row for key, case in cases.items()}
        before = _lines(cases)
        self._weigh(cases)
        self._refuse_absurd(cases, stored)
        self._write(cases, stored)
        self._bury()
        self._engine.run(
            f"INSERT INTO meta VALUES ('newest_ms', ?) ON CONFLICT (key)"
            f" DO UPDATE SET value = {self._engine.greatest}(meta.value, excluded.value)",
            (self._batch.newest_ms,),
        )
        now = _lines(cases)
        return Merged(len(cases) - len(stored), now[0] - before[0], now[1] - before[1], len(self._dead))

    def _stored(self) -> dict[Key, Case]:
        """What the store has of the batch's keys. A number beyond a boot's greatest cannot be there."""
        boots = self._ids.boots
        wanted = {
            (boot.id, row.seq) for _, row in self._rows if row.seq <= (boot := boots[row.device, row.boot_id]).top_seq
        }
        cases = load_cases(self._engine, sorted(wanted)) if wanted else {}
        payloads = (payload for case in cases.values() for payload in (case, *(case.others or {}).values()))
        self._ids.add([payload.row for payload in payloads])
        return cases

    def _weigh(self, cases: dict[Key, Case]) -> None:
        """Each key of the batch gets its case, those that are there carried on."""
        boots, segment, kept_from_ms = self._ids.boots, self._segment, self._kept_from
        for number, row in self._rows:
            key = row[:3]
            if row.start_ms < kept_from_ms or key[2] <= boots[key[:2]].floor_seq:
                self._dead.append((number, _refused("retired", "older than what is kept", row)))
                continue
            case = cases.get(key)
            if case is not None:
                case.add(row, (segment, number))
            else:
                cases[key] = Case(row, (segment, number))
                boots[key[:2]].fresh.append(key[2])

    def _refuse_absurd(self, cases: dict[Key, Case], stored: dict[Key, Row]) -> None:
        """Numbers that leave out more than `SEQ_GAP`, or claim so of the boot before, are dead letters."""
        boots = self._ids.boots
        tops: dict[tuple[str, str], int] = {}
        for name, boot in boots.items():
            top = boot.top_seq
            for seq in sorted(boot.fresh):
                if seq - top - 1 > SEQ_GAP:
                    self._refuse(cases, (*name, seq), f"seq {seq} follows {top}: a gap over {SEQ_GAP}")
                else:
                    top = max(top, seq)
            tops[name] = top
        for key, case in list(cases.items()):
            row = case.row
            if row.prev_seq is not None and row.prev_boot is not None and key not in stored:
                top = tops[row.device, row.prev_boot]
                if row.prev_seq - top > SEQ_GAP:
                    self._refuse(cases, key, f"prev.last_seq {row.prev_seq} follows {top}: a gap over {SEQ_GAP}")

    def _refuse(self, cases: dict[Key, Case], key: Key, reason: str) -> None:
        case = cases.pop(key)
        self._ids.boots[key[:2]].fresh.remove(key[2])
        for payload in (case, *(case.others or {}).values()):
            self._dead += [(payload.origin[1], _refused("gap", reason, payload.row))] * payload.lines

    def _write(self, cases: dict[Key, Case], stored: dict[Key, Row]) -> None:
        ids = self._ids
        fresh: list[tuple[Any, ...]] = []
        others: list[tuple[Any, ...]] = []
        days: dict[DayKey, list[tuple[Any, ...]]] = defaultdict(list)
        again: set[tuple[int, int]] = set()
        claims: dict[tuple[int, int], boots.Claim] = {}
        for key, case in cases.items():
            row, boot = case.row, ids.boots[key[:2]]
            site, terms = ids.sites[row.site], ids.terms[row.terms]
            prev = None if row.prev_boot is None else ids.boots[row.device, row.prev_boot].id
            values = _columns(case, boot.id, site, terms, prev)
            was = stored.get(key) if stored else None
            if was is None:
                fresh.append(values)
                days[site, row.start_ms // DAY_MS, boot.device, terms, row.quality].append(values)
            else:
                self._rewrite(values)
                again |= {(ids.sites[r.site], r.start_ms // DAY_MS) for r in (was, row)}
                boot.recount = boot.recount or was != row
            if case.others:
                others += self._others(case, boot)
            if prev is not None and row.prev_seq is not None:
                claim = (-row.prev_seq, row.start_ms, site)
                if claims.get((prev, boot.id), claim) >= claim:
                    claims[prev, boot.id] = claim
            boot.note(row)
        fresh.sort()  # neighbours in the table, and boot and number are no two's
        self._engine.load("windows", WINDOW_COLUMNS, fresh)
        self._engine.load("variants", VARIANT_COLUMNS, others)
        boots.renew(self._engine, ids.boots.values(), claims)
        again = {(site, day) for site, day in again if day * DAY_MS >= self._kept_from}
        write_days(self._engine, days, again)
        self.touched = again | {key[:2] for key in days}

    def _rewrite(self, values: tuple[Any, ...]) -> None:
        self._engine.run("DELETE FROM windows WHERE boot = ? AND seq = ?", values[:2])
        self._engine.load("windows", WINDOW_COLUMNS, [values])

    def _others(self, case: Case, boot: boots.Boot) -> list[tuple[Any, ...]]:
        """`VARIANT_COLUMNS` of the payloads that lost a key; what was written of them before is dropped."""
        seq = case.row.seq
        self._engine.run("DELETE FROM variants WHERE boot = ? AND seq = ?", (boot.id, seq))
        return [
            (boot.id, seq, digest, canonical(p.row).decode(), p.lines, p.row.received_ms, *p.origin)
            for digest, p in sorted((case.others or {}).items())
        ]

    def _bury(self) -> None:
        """Count every dead letter; keep the newest `DEAD_KEPT`."""
        kinds: dict[str, int] = defaultdict(int)
        for _, dead in self._dead:
            kinds[dead.kind] += 1
        if not kinds:
            return
        self._engine.upsert(
            "dead_kinds", ("kind", "lines"), ("kind",), {"lines": "dead_kinds.lines + excluded.lines"}, [*kinds.items()]
        )
        first = next_id(self._engine, "dead")
        newest = self._dead[-DEAD_KEPT:]
        self._engine.load(
            "dead",
            ("id", "kind", "reason", "topic", "received_ms", "segment", "line", "excerpt"),
            [
                (first + i, d.kind, d.reason, d.topic, d.received_ms, self._segment, number, d.excerpt)
                for i, (number, d) in enumerate(newest)
            ],
        )
        self._engine.run("DELETE FROM dead WHERE id <= ?", (first + len(newest) - 1 - DEAD_KEPT,))


def _lines(cases: dict[Key, Case]) -> tuple[int, int]:
    """Lines that repeat what counts, and lines that contradict it."""
    others = (other.lines for case in cases.values() if case.others for other in case.others.values())
    return sum([case.lines - 1 for case in cases.values()]), sum(others)


def _refused(kind: str, reason: str, row: Row) -> Dead:
    return Dead(kind, reason, None, row.received_ms, canonical(row).decode()[:1000])


def _columns(case: Case, boot: int, site: int, terms: int, prev: int | None) -> tuple[Any, ...]:
    """`WINDOW_COLUMNS`."""
    row = case.row
    _, _, seq, _, start_ms, seconds, quality, coverage, scene, flush, suppressed, _, prev_seq, *_ = row
    milliseconds, covered = round(seconds * 1000), covered_ppm_s(coverage, seconds)
    return (
        *(boot, seq, site, terms, start_ms, seconds, milliseconds, quality, coverage, covered),
        *(scene, int(flush), suppressed, prev, prev_seq, row.received_ms, case.lines - 1, *case.origin),
        *row.cells,
        *row.draws,
    )
