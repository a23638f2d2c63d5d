"""One batch into a store, in one transaction: what is new, what was there, what it changes.

The result does not depend on how a log is cut into batches, nor on the order of its lines, nor on a batch being tried
twice: `segments` remembers how far each log was read, `weigh` decides between payloads, and whatever is not a plain
addition is summed anew from `windows`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edge_aggregate.decode import Dead, Row, Terms
from edge_aggregate.store import boots
from edge_aggregate.store.days import DAY_MS, DayKey, add_day, covered_ppm_s, write_days
from edge_aggregate.store.read import load_cases, read_terms
from edge_aggregate.store.schema import WINDOW_COLUMNS
from edge_aggregate.store.weigh import Case, Origin, Payload, canonical

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


def merge(engine: Engine, batches: Iterable[Batch]) -> Merged:
    """Commit batches, all or none. What was committed before changes nothing. Raises StorageError."""
    with engine.writing():
        done = [_Merge(engine, batch).all() for batch in batches]
        count_merge(engine)
    return Merged(*(sum(part) for part in zip(*done, strict=True))) if done else Merged()


def count_merge(engine: Engine) -> None:
    """Note, inside a transaction, that it changes something: readers keep what they have shown until then."""
    engine.run("INSERT INTO meta VALUES ('merges', 1) ON CONFLICT (key) DO UPDATE SET value = meta.value + 1")


class _Merge:
    """The work of one batch, inside the transaction."""

    def __init__(self, engine: Engine, batch: Batch) -> None:
        self._engine, self._batch = engine, batch
        self._boots: dict[tuple[str, str], boots.Boot] = {}
        self._site_ids: dict[str, int] = {}
        self._device_ids: dict[str, int] = {}
        self._terms: dict[Terms, int] = {}
        self._dead: list[tuple[int, Dead]] = []

    def all(self) -> Merged:
        engine, batch = self._engine, self._batch
        segment, done = self._segment()
        if done >= batch.progress.lines:
            return Merged()
        batch.rows = [found for found in batch.rows if found[0] > done]
        self._dead = [found for found in batch.dead if found[0] > done]
        for _, row in batch.rows:
            self._boot(row.device, row.boot_id)
        stored = self._stored()
        before = {key: _lines(case) for key, case in stored.items()}
        kept = {key: case.kept.row for key, case in stored.items()}
        cases = self._weigh(stored, segment)
        self._refuse_absurd(cases, kept)
        self._write(cases, kept)
        self._bury(segment)
        engine.run(
            f"INSERT INTO meta VALUES ('newest_ms', ?) ON CONFLICT (key)"
            f" DO UPDATE SET value = {engine.greatest}(meta.value, excluded.value)",
            (batch.newest_ms,),
        )
        lines = [(_lines(case), before.get(key, (0, 0))) for key, case in cases.items()]
        return Merged(
            windows=len(cases) - len(kept),
            duplicates=sum(now[0] - was[0] for now, was in lines),
            conflicts=sum(now[1] - was[1] for now, was in lines),
            dead=len(self._dead),
        )

    def _segment(self) -> tuple[int, int]:
        """The segment's id and how many of its lines are in already; its new mark is written."""
        progress, engine = self._batch.progress, self._engine
        found = engine.fetch("SELECT id, lines FROM segments WHERE name = ?", (progress.name,))
        if not found:
            segment = self._next("segments")
            engine.run("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", (segment, *progress))
            return segment, 0
        segment, done = found[0]
        if done < progress.lines:
            engine.run(
                "UPDATE segments SET lines = ?, bytes = ?, sha256 = ? WHERE id = ?",
                (progress.lines, progress.bytes, progress.sha256, segment),
            )
        return segment, done

    def _next(self, table: str) -> int:
        return int(self._engine.fetch(f"SELECT COALESCE(MAX(id), 0) + 1 FROM {table}")[0][0])

    def _named(self, table: str, ids: dict[str, int], name: str) -> int:
        if name not in ids:
            found = self._engine.fetch(f"SELECT id FROM {table} WHERE name = ?", (name,))
            ids[name] = int(found[0][0]) if found else self._next(table)
            if not found:
                self._engine.run(f"INSERT INTO {table} VALUES (?, ?)", (ids[name], name))
        return ids[name]

    def _site(self, name: str) -> int:
        return self._named("sites", self._site_ids, name)

    def _terms_id(self, terms: Terms) -> int:
        if terms not in self._terms:
            if not self._terms:
                self._terms = {known: number for number, known in read_terms(self._engine).items()}
            if terms not in self._terms:
                self._terms[terms] = self._next("terms")
                self._engine.run(
                    f"INSERT INTO terms VALUES ({', '.join('?' * 10)})",
                    (self._terms[terms], *(int(v) if isinstance(v, bool) else v for v in terms)),
                )
        return self._terms[terms]

    def _boot(self, device: str, boot_id: str) -> boots.Boot:
        key = device, boot_id
        if key not in self._boots:
            number = self._named("devices", self._device_ids, device)
            found = self._engine.fetch(
                "SELECT id, device, top_seq, floor_seq, closed_ms, last_start_ms, first_received_ms FROM boots"
                " WHERE device = ? AND boot_id = ?",
                (number, boot_id),
            )
            if found:
                self._boots[key] = boots.Boot(*found[0])
            else:
                self._boots[key] = boot = boots.Boot(self._next("boots"), number)
                self._engine.run(
                    "INSERT INTO boots (id, device, boot_id, top_seq, floor_seq) VALUES (?, ?, ?, 0, 0)",
                    (boot.id, number, boot_id),
                )
        return self._boots[key]

    def _stored(self) -> dict[Key, Case]:
        """What the store has of the batch's keys. A number beyond a boot's greatest cannot be there."""
        boots = self._boots
        wanted = {
            (boot.id, row.seq)
            for _, row in self._batch.rows
            if row.seq <= (boot := boots[row.device, row.boot_id]).top_seq
        }
        return load_cases(self._engine, sorted(wanted)) if wanted else {}

    def _weigh(self, cases: dict[Key, Case], segment: int) -> dict[Key, Case]:
        """Each key of the batch with its case, those in `cases` carried on."""
        for number, row in self._batch.rows:
            key = row[:3]
            case = cases.get(key)
            if case is not None:
                case.add(row, Origin(segment, number))
            elif row.seq > self._boots[key[:2]].floor_seq:
                cases[key] = Case(Payload(row, Origin(segment, number)))
            else:
                self._dead.append((number, _refused("retired", "older than what is kept", row)))
        return cases

    def _refuse_absurd(self, cases: dict[Key, Case], stored: dict[Key, Row]) -> None:
        """Numbers that leave out more than `SEQ_GAP`, or claim so of the boot before, are dead letters."""
        seqs: dict[tuple[str, str], list[int]] = defaultdict(list)
        for key in cases:
            if key not in stored:
                seqs[key[:2]].append(key[2])
        tops: dict[tuple[str, str], int] = {}
        for name, wanted in seqs.items():
            top = self._boots[name].top_seq
            for seq in sorted(wanted):
                if seq - top - 1 > SEQ_GAP:
                    self._refuse(cases, (*name, seq), f"seq {seq} follows {top}: a gap over {SEQ_GAP}")
                else:
                    top = max(top, seq)
            tops[name] = top
        for key, case in list(cases.items()):
            row = case.kept.row
            if key in stored or row.prev_boot is None or row.prev_seq is None:
                continue
            before = row.device, row.prev_boot
            top = tops.get(before) or self._boot(*before).top_seq
            if row.prev_seq - top > SEQ_GAP:
                self._refuse(cases, key, f"prev.last_seq {row.prev_seq} follows {top}: a gap over {SEQ_GAP}")

    def _refuse(self, cases: dict[Key, Case], key: Key, reason: str) -> None:
        case = cases.pop(key)
        for payload in (case.kept, *case.others.values()):
            self._dead += [(payload.origin.line, _refused("gap", reason, payload.row))] * payload.lines

    def _write(self, cases: dict[Key, Case], stored: dict[Key, Row]) -> None:
        engine = self._engine
        fresh: list[tuple[Any, ...]] = []
        days: dict[DayKey, list[int]] = {}
        again: set[tuple[int, int]] = set()
        claims: dict[tuple[int, int], tuple[int, int, int]] = {}
        for key, case in cases.items():
            row = case.kept.row
            boot, site, terms = self._boots[key[:2]], self._site(row.site), self._terms_id(row.terms)
            prev = None if row.prev_boot is None else self._boot(row.device, row.prev_boot).id
            values = _columns(row, case.kept, boot.id, site, terms, prev)
            was = stored.get(key)
            if was is None:
                fresh.append(values)
                boot.fresh.append(row.seq)
                add_day(days, (site, row.start_ms // DAY_MS, boot.device, terms, row.quality), row, case.kept.lines - 1)
            else:
                self._rewrite(case, values, boot)
                again |= {(self._site(r.site), r.start_ms // DAY_MS) for r in (was, row)}
                boot.recount = boot.recount or was != row
            if case.others:
                self._others(case, boot)
            if prev is not None and row.prev_seq is not None:
                claim = (-row.prev_seq, row.start_ms, site)
                claims[prev, boot.id] = min(claims.get((prev, boot.id), claim), claim)
            boot.note(row)
        engine.load("windows", WINDOW_COLUMNS, fresh)
        write_days(engine, days, again)
        boots.renew(engine, self._boots.values(), claims)

    def _rewrite(self, case: Case, values: tuple[Any, ...], boot: boots.Boot) -> None:
        marks = ", ".join("?" * len(WINDOW_COLUMNS))
        self._engine.run("DELETE FROM windows WHERE boot = ? AND seq = ?", (boot.id, case.kept.row.seq))
        self._engine.run(f"INSERT INTO windows ({', '.join(WINDOW_COLUMNS)}) VALUES ({marks})", values)

    def _others(self, case: Case, boot: boots.Boot) -> None:
        seq = case.kept.row.seq
        self._engine.run("DELETE FROM variants WHERE boot = ? AND seq = ?", (boot.id, seq))
        self._engine.load(
            "variants",
            ("boot", "seq", "digest", "payload", "lines", "received_ms", "segment", "line"),
            [
                (boot.id, seq, digest, canonical(p.row).decode(), p.lines, p.row.received_ms, *p.origin)
                for digest, p in sorted(case.others.items())
            ],
        )

    def _bury(self, segment: int) -> None:
        """Count every dead letter; keep the newest `DEAD_KEPT`."""
        kinds: dict[str, int] = defaultdict(int)
        for _, dead in self._dead:
            kinds[dead.kind] += 1
        if not kinds:
            return
        self._engine.many(
            "INSERT INTO dead_kinds VALUES (?, ?)"
            " ON CONFLICT (kind) DO UPDATE SET lines = dead_kinds.lines + excluded.lines",
            sorted(kinds.items()),
        )
        first = self._next("dead")
        newest = self._dead[-DEAD_KEPT:]
        self._engine.load(
            "dead",
            ("id", "kind", "reason", "topic", "received_ms", "segment", "line", "excerpt"),
            [
                (first + i, d.kind, d.reason, d.topic, d.received_ms, segment, number, d.excerpt)
                for i, (number, d) in enumerate(newest)
            ],
        )
        self._engine.run("DELETE FROM dead WHERE id <= ?", (first + len(newest) - 1 - DEAD_KEPT,))


def _lines(case: Case) -> tuple[int, int]:
    """Lines that repeat what is kept, and lines that contradict it."""
    return case.kept.lines - 1, sum(payload.lines for payload in case.others.values())


def _refused(kind: str, reason: str, row: Row) -> Dead:
    return Dead(kind, reason, None, row.received_ms, canonical(row).decode()[:1000])


def _columns(row: Row, payload: Payload, boot: int, site: int, terms: int, prev: int | None) -> tuple[Any, ...]:
    return (
        boot,
        row.seq,
        site,
        terms,
        row.start_ms,
        row.seconds,
        round(row.seconds * 1000),
        row.quality,
        row.coverage,
        covered_ppm_s(row.coverage, row.seconds),
        row.scene,
        int(row.flush),
        row.suppressed,
        prev,
        row.prev_seq,
        row.received_ms,
        payload.lines - 1,
        *payload.origin,
        *row.cells,
        *row.draws,
    )
