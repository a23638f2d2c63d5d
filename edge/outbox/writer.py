"""Vision's side of the outbox: windows are committed, a damaged file is put aside.

A commit is one transaction under WAL and `synchronous=FULL`: the window and its identity are on disk, or neither is.
Nothing that vision needs for itself lies in this file, since the publisher can write to it: what was noised and not
released, and what was spent, are in `edge.vision.ledger`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.errors import StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.rows import REPORT, Key
from edge.outbox.sqlite import create, explained, is_damage, put_aside, report_damage

if TYPE_CHECKING:
    from pathlib import Path

    from edge.process.clock import Clock
    from edge.types import WindowReport

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024

_DELETE_DONE: Final = "DELETE FROM rows WHERE n IN (SELECT n FROM rows WHERE state <> 0 AND n < ? ORDER BY n LIMIT 20)"
_DELETE_UNSENT: Final = "DELETE FROM rows WHERE n IN (SELECT n FROM rows WHERE state = 0 AND n < ? ORDER BY n LIMIT 20)"
_BOOT: Final = (
    "typeof(last_seq) = 'integer' AND last_seq BETWEEN 0 AND 9007199254740991"
    " AND typeof(boot_id) = 'text' AND length(boot_id) = 32 AND boot_id NOT GLOB '*[^0-9a-f]*'"
)
_LAST_SEQ: Final = "SELECT last_seq FROM boots WHERE boot_id = ? AND " + _BOOT  # noqa: S608 - a constant
_OF_BOOT: Final = "SELECT kernel_boot_id, prev_boot_id, prev_last_seq, last_seq FROM boots WHERE boot_id = ?"
BOOTS: Final = 1000
"""Runs that are remembered: a service that is started again and again, for months, must not fill the file with them."""
_FORGET_BOOTS: Final = "DELETE FROM boots WHERE ordinal <= (SELECT max(ordinal) FROM boots) - ? AND boot_id IS NOT ?"
_LAST_BOOT: Final = "SELECT boot_id, last_seq FROM boots WHERE last_seq > 0 AND {} ORDER BY ordinal DESC LIMIT 1"


class OutboxWriter(Outbox):
    """`max_bytes` bounds the file by dropping sent rows first, the oldest unsent ones only when there is nothing else.

    Raises StorageError, as `Outbox` does.
    """

    def __init__(self, path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, clock: Clock | None = None) -> None:
        super().__init__(path, clock=clock)
        self._max_bytes = max_bytes
        self._boot_id: str | None = None

    def begin_boot(self, boot_id: str, kernel_boot_id: str, *, prev: Key | None = None) -> None:
        """Open the run `boot_id` (random, 32 hex digits), whose rows count from seq 1.

        `prev` is the run before it where the file does not know: the old one was put aside.
        """
        with self._transaction():
            last = self.last_run()
            self._db.execute(_FORGET_BOOTS, (BOOTS, last and last[0]))
            self._db.execute(
                "INSERT INTO boots (boot_id, kernel_boot_id, prev_boot_id, prev_last_seq) VALUES (?, ?, ?, ?)",
                (boot_id, kernel_boot_id, *(last or prev or (None, None))),
            )
        self._boot_id = boot_id

    def last_run(self) -> Key | None:
        """The latest run that recorded anything, and its last seq."""
        with explained(self.path):
            found = self._db.execute(_LAST_BOOT.format(_BOOT)).fetchone()
        return None if found is None else (str(found[0]), int(found[1]))

    def belong(self, owner: str) -> None:
        """Note whose windows these are, `site/device`."""
        with self._transaction():
            self._set_meta("owner", owner)

    def settle(self) -> None:
        """Bring what lies in the -wal into the file: a power cut while it is put aside may part the two."""
        with explained(self.path):
            self._db.execute("PRAGMA wal_checkpoint(FULL)")

    def resume_boot(self, boot_id: str) -> int | None:
        """Go on with a run that this file knows, and return its last seq; None when it does not."""
        with explained(self.path):
            found = self._db.execute(_LAST_SEQ, (boot_id,)).fetchone()
        if found is None:
            return None
        self._boot_id = boot_id
        return int(found[0])

    def commit(self, report: WindowReport, kernel_boot_id: str | None = None) -> int:
        """Record one window and return its seq; when this returns, the window is on disk.

        `kernel_boot_id` is that of the window's monotonic times, where it was not closed in this run. On any error
        nothing has changed and the same window may be committed again.
        """
        if self._boot_id is None:
            msg = "begin_boot comes before commit"
            raise RuntimeError(msg)
        with self._transaction():
            found = self._db.execute(
                f"{_OF_BOOT} AND {_BOOT}",
                (self._boot_id,),
            ).fetchone()
            if found is None:
                report_damage("this run is no longer in it")
            kernel, prev_boot, prev_seq, last_seq = found
            seq = int(last_seq) + 1
            now, mono = self._clock.utcnow().timestamp(), self._clock.monotonic()
            self._db.execute(
                "INSERT INTO rows (boot_id, seq, prev_boot_id, prev_last_seq, kernel_boot_id, report,"
                " committed, committed_mono) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (self._boot_id, seq, prev_boot, prev_seq, kernel_boot_id or kernel, written(report), now, mono),
            )
            self._db.execute("UPDATE boots SET last_seq = ? WHERE boot_id = ?", (seq, self._boot_id))
            self._bound()
        return seq

    def holds(self, report: WindowReport) -> bool:
        """Whether this very window is recorded, under whatever number."""
        with explained(self.path):
            return bool(self._db.execute("SELECT 1 FROM rows WHERE report = ? LIMIT 1", (written(report),)).fetchone())

    def inherited(self) -> dict[str, str]:
        """What version 0.1 kept here for vision: `accumulators`, `policy`, `flush_day`, `spent`."""
        with explained(self.path):
            names = ("accumulators", "policy", "flush_day", "spent")
            return {name: value for name in names if (value := self._meta(name)) is not None}

    def disinherit(self) -> None:
        """Forget it, once vision has it elsewhere: a version that goes back must not release it a second time."""
        with self._transaction():
            self._db.execute("DELETE FROM meta WHERE name IN ('accumulators', 'policy', 'flush_day', 'spent')")

    def _bound(self) -> None:
        """Drop the oldest sent rows, then the oldest unsent ones, until the live pages fit `max_bytes`."""
        for _ in range(1000):
            pages, free, size = (
                self._db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            if (pages - free) * size <= self._max_bytes:
                return
            newest = self._db.execute("SELECT max(n) FROM rows").fetchone()[0]
            if self._db.execute(_DELETE_DONE, (newest,)).rowcount:
                continue
            lost = self._db.execute(_DELETE_UNSENT, (newest,)).rowcount
            if not lost:
                return
            self._set_meta("dropped", str(self._whole_meta("dropped") + lost))


def written(report: WindowReport) -> str:
    """A window as the outbox keeps it."""
    return REPORT.dump_json(report).decode()


def open_for_vision(
    path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, runtime: Path | None = None, clock: Clock | None = None
) -> tuple[OutboxWriter, int | None]:
    """Open or create the outbox, putting a damaged one aside first.

    Returns the outbox and, when one was put aside, the number of its generation (`outbox.db.damaged-<n>`).
    A folder that cannot be written, a full disk, or a schema of another version is a StorageError and
    leaves every file where it is.
    """

    def opened() -> OutboxWriter:
        create(path)
        outbox = OutboxWriter(path, max_bytes=max_bytes, clock=clock)
        try:
            outbox.check()
        except BaseException:
            outbox.close()
            raise
        return outbox

    try:
        return opened(), None
    except StorageError as error:
        if not is_damage(error.__cause__):
            raise
    generation = put_aside(path, runtime)
    return opened(), generation
