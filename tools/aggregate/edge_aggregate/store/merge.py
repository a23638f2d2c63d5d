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
from edge_aggregate.gc_paused import gc_paused
from edge_aggregate.store import boots
from edge_aggregate.store.days import DAY_MS, DayKey, covered_ppm_s, renew_spans, write_days
from edge_aggregate.store.engine import meta
from edge_aggregate.store.ids import TOO_MANY_TERMS, Ids, next_id
from edge_aggregate.store.read import load_cases
from edge_aggregate.store.schema import WINDOW_COLUMNS
from edge_aggregate.store.weigh import Case, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_aggregate.store.boots import Boot
    from edge_aggregate.store.engine import Engine

SEQ_GAP: Final = 1_000_000
"""A device that leaves out more numbers than this, or says it did, is not believed."""

AHEAD_MS: Final = 3_600_000
"""The store's clock goes no further beyond the end of a window, whatever the clock by which that was received."""

DEAD_KEPT: Final = 10_000
"""Dead letters that are kept whole; all are counted."""


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

    def add(self, number: int, found: Row | Dead | None) -> None:
        """Take what the decoder made of a line."""
        if isinstance(found, Row):
            self.rows.append((number, found))
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
    with gc_paused(), engine.writing():
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
    return meta(engine, KEPT_FROM) or 0


def count_merge(engine: Engine) -> None:
    """Note, inside a transaction, that it changes something: readers keep what they have shown until then."""
    engine.run("INSERT INTO meta VALUES ('merges', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1")


class _Merge:
    """The work of one batch, inside the transaction."""

    def __init__(self, engine: Engine, batch: Batch) -> None:
        self._engine, self._batch = engine, batch
        self._segment, self._done = self._mark()
        self._kept_from = kept_from(engine)
        self._newest_ms = 0
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
        self._runs: dict[tuple[str, str], list[tuple[int, Row]]] = defaultdict(list)
        for found in self._rows:
            self._runs[found[1][:2]].append(found)
        self._ids = Ids(self._engine, [row for _, row in self._rows])
        self._boots = self._ids.boots
        self._fetch_held()
        before = self._sums()
        self._weigh()
        self._write()
        self._bury()
        self._engine.run(
            f"INSERT INTO meta VALUES ('newest_ms', ?) ON CONFLICT (key)"
            f" DO UPDATE SET value = {self._engine.greatest}(meta.value, excluded.value)",
            (self._newest_ms,),
        )
        now = self._sums()
        windows, repeated, contradicting = (after - was for after, was in zip(now, before, strict=True))
        return Merged(windows, repeated, contradicting, len(self._dead))

    def _fetch_held(self) -> None:
        """What the store has of the batch's keys. A number beyond a boot's greatest cannot be there."""
        wanted: set[tuple[int, int]] = set()
        for run, found in self._runs.items():
            boot = self._boots[run]
            if boot.top_seq:
                wanted |= {(boot.id, row.seq) for _, row in found if row.seq <= boot.top_seq}
        if not wanted:
            return
        cases = load_cases(self._engine, sorted(wanted))
        payloads = (payload for case in cases.values() for payload in (case, *(case.others or {}).values()))
        self._ids.add([payload.row for payload in payloads], held=True)
        for (device, boot_id, seq), case in cases.items():
            boot = self._boots[device, boot_id]
            boot.cases[seq], boot.held[seq] = case, case.row

    def _weigh(self) -> None:
        """Each key of the batch gets its case, those that are there carried on.

        What claims that the boot before left out more than `SEQ_GAP` numbers is a dead letter, also where it would have
        taken the place of a window that is held.
        """
        segment = self._segment
        tops = {run: boot.top_seq for run, boot in self._boots.items()}
        for run, found in self._runs.items():
            self._runs[run], tops[run] = self._believed(self._boots[run], found)
        for run, found in self._runs.items():
            boot = self._boots[run]
            cases, held = boot.cases, boot.held
            for number, row in found:
                seq = row.seq
                if row.prev_boot is not None and row.prev_seq is not None:
                    top = tops[row.device, row.prev_boot]
                    if row.prev_seq - top > SEQ_GAP and not (seq in held and row[:-1] == held[seq][:-1]):
                        reason = f"prev.last_seq {row.prev_seq} follows {top}: a gap over {SEQ_GAP}"
                        self._dead.append((number, _refused("gap", reason, row)))
                        continue
                if seq in cases:
                    cases[seq].add(row, (segment, number))
                else:
                    cases[seq] = Case(row, (segment, number))

    def _believed(self, boot: Boot, found: list[tuple[int, Row]]) -> tuple[list[tuple[int, Row]], int]:
        """Rows of a run by their numbers, and the greatest; what is retired or absurd is a dead letter."""
        kept_from_ms, floor_seq, top = self._kept_from, boot.floor_seq, boot.top_seq
        refused, newest_ms = self._ids.refused, self._newest_ms
        believed = []
        for number, row in sorted(found, key=_seq):
            seq = row.seq
            if refused and row.terms in refused:
                self._dead.append((number, _refused("terms", TOO_MANY_TERMS, row)))
            elif row.start_ms < kept_from_ms or seq <= floor_seq:
                self._dead.append((number, _refused("retired", "older than what is kept", row)))
            elif seq - top - 1 > SEQ_GAP:
                reason = f"seq {seq} follows {top}: a gap over {SEQ_GAP}"
                self._dead.append((number, _refused("gap", reason, row)))
            else:
                top = max(top, seq)
                if row.received_ms > newest_ms:
                    newest_ms = max(newest_ms, min(row.received_ms, row.end_ms + AHEAD_MS))
                believed.append((number, row))
        self._newest_ms = newest_ms
        return believed, top

    def _write(self) -> None:
        sites = self._ids.sites
        fresh: list[tuple[Any, ...]] = []
        others: list[tuple[Any, ...]] = []
        days: dict[DayKey, list[tuple[Any, ...]]] = defaultdict(list)
        again: set[tuple[int, int]] = set()
        claims: dict[tuple[int, int], boots.Claim] = {}
        touched = sorted((boot for boot in self._boots.values() if boot.cases), key=lambda boot: boot.id)
        for boot in touched:  # and its numbers one after the other, as they will lie in the table
            named: tuple[Any, ...] = (None, None)
            for seq in sorted(boot.cases):
                case = boot.cases[seq]
                row = case.row
                if (row.terms, row.prev_boot) != named:  # nearly all of a run have the same
                    named = (row.terms, row.prev_boot)
                    terms = self._ids.terms[row.terms]
                    prev = None if row.prev_boot is None else self._boots[row.device, row.prev_boot].id
                site = sites[row.site]
                values = _columns(case, boot.id, site, terms, prev)
                was = boot.held.get(seq)
                if was is None:
                    fresh.append(values)
                    days[site, row.start_ms // DAY_MS, boot.device, terms, row.quality].append(values)
                else:
                    self._rewrite(values)
                    again |= {(sites[r.site], r.start_ms // DAY_MS) for r in (was, row)}
                    boot.recount = boot.recount or was != row
                if case.others:
                    others += self._others(case, boot)
                if prev is not None and row.prev_seq is not None:
                    claim = (-row.prev_seq, row.start_ms, site)
                    if claims.get((prev, boot.id), claim) >= claim:
                        claims[prev, boot.id] = claim
            boot.note([case.row for case in boot.cases.values()])
        self._engine.load("windows", WINDOW_COLUMNS, fresh)
        self._engine.load("variants", VARIANT_COLUMNS, others)
        boots.renew(self._engine, self._boots.values(), claims)
        again = {(site, day) for site, day in again if day * DAY_MS >= self._kept_from}
        write_days(self._engine, days, again)
        self.touched = again | {key[:2] for key in days}

    def _sums(self) -> tuple[int, int, int]:
        """Windows, lines that repeat them, and lines that contradict them, of the batch's keys."""
        windows = repeated = contradicting = 0
        for boot in self._boots.values():
            windows += len(boot.cases)
            for case in boot.cases.values():
                repeated += case.lines - 1
                if case.others:
                    contradicting += case.rest + sum(other.lines for other in case.others.values())
        return windows, repeated, contradicting

    def _rewrite(self, values: tuple[Any, ...]) -> None:
        self._engine.run("DELETE FROM windows WHERE boot = ? AND seq = ?", values[:2])
        self._engine.load("windows", WINDOW_COLUMNS, [values])

    def _others(self, case: Case, boot: Boot) -> list[tuple[Any, ...]]:
        """`VARIANT_COLUMNS` of the payloads that lost a key; what was written of them before is dropped.

        A row without a digest counts the lines of those that are not kept.
        """
        seq = case.row.seq
        self._engine.run("DELETE FROM variants WHERE boot = ? AND seq = ?", (boot.id, seq))
        rest = [(boot.id, seq, "", "", case.rest, case.row.received_ms, *case.origin)] if case.rest else []
        return rest + [
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


def _seq(found: tuple[int, Row]) -> int:
    return found[1].seq


def _refused(kind: str, reason: str, row: Row) -> Dead:
    return Dead(kind, reason, None, row.received_ms, canonical(row).decode()[:1000])


def _columns(case: Case, boot: int, site: int, terms: int, prev: int | None) -> tuple[Any, ...]:
    """`WINDOW_COLUMNS`."""
    row, (segment, line) = case.row, case.origin
    milliseconds = round(row.seconds * 1000)
    return (
        boot,
        row.seq,
        site,
        terms,
        row.start_ms,
        row.seconds,
        milliseconds,
        row.quality,
        row.coverage,
        covered_ppm_s(row.coverage, milliseconds),
        row.scene,
        1 if row.flush else 0,
        row.suppressed,
        prev,
        row.prev_seq,
        row.received_ms,
        case.lines - 1,
        segment,
        line,
        *row.cells,
        *row.draws,
    )
