"""A SQLite file shared by two processes: how it is opened, what a transaction is, what its errors mean.

WAL and `synchronous=FULL`: what COMMIT has answered survives a power cut.

The other process may be in an enemy's hands, and a database file can hold programs. So a file with anything in it but
our own tables (a trigger, a view, another CHECK) counts as damaged, when it is opened and whenever its schema has
changed since, and no statement of ours runs a trigger.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal

from edge.errors import StorageError
from edge.outbox.runtime_files import write_generation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import NoReturn, Self

Why = Literal["damaged", "moved"]
"""Why a file was put aside: it cannot be read, or it is another device's or site's."""

BUSY_S: Final = 5
ASIDE_KEPT: Final = 10
_JOURNAL_BYTES: Final = 1024 * 1024

_FULL: Final = "full", "the disk is full: make room, or lower storage.max_bytes"
_READ_ONLY: Final = "read-only", "it cannot be written: see `dmesg`, repair and remount the filesystem, or give access"
_FAILING: Final = "failing", "the disk fails: check the SD card and `dmesg`"
_BUSY: Final = "busy", "another process has held it for over 5 s: stop that process"
_DENIED: Final = "denied", "it cannot be opened: create the folder and give this service write access"
_DAMAGED: Final = "damaged", "move it away, or restart `edge vision`, which puts it aside"

_BY_SQLITE: Final = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_AUTH: _DAMAGED,
    sqlite3.SQLITE_SCHEMA: _DAMAGED,
    sqlite3.SQLITE_CONSTRAINT: _DAMAGED,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_CANTOPEN: _DENIED,
    sqlite3.SQLITE_IOERR: _FAILING,
    sqlite3.SQLITE_PERM: _DENIED,
}
_BY_SYSTEM: Final = {errno.ENOSPC: _FULL, errno.EROFS: _READ_ONLY, errno.EIO: _FAILING}


def is_damage(error: BaseException | None) -> bool:
    """Whether the file is damaged, no database at all, or changed by somebody else."""
    return _BY_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF) is _DAMAGED


def report_damage(what: str) -> NoReturn:
    """Raise what satisfies `is_damage`, inside `explained`."""
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into a StorageError with advice."""
    try:
        yield
    except sqlite3.Error as error:
        known = _BY_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, ("unusable", "see the message"))
        if known is _DENIED and _read_only(path.parent):  # SQLite could not make the files beside it
            known = _READ_ONLY
        raise _storage_error(path, str(error), known) from error
    except OSError as error:
        raise _storage_error(path, str(error.strerror), _BY_SYSTEM.get(error.errno or 0, _DENIED)) from error


def _read_only(folder: Path) -> bool:
    with suppress(OSError):
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    return False


def _storage_error(path: Path, what: str, known: tuple[str, str]) -> StorageError:
    error = StorageError(f"outbox {path}: {what}; {known[1]}")
    error.trouble = known[0]
    return error


class SqliteFile:
    """An existing SQLite file, open. Raises StorageError, here and in every method."""

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        self._schema, self._version, self._known = schema, version, -1
        with explained(path):
            if path.exists() and not stat.S_ISREG(path.lstat().st_mode):
                report_damage("it is no regular file")
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None
            )
        try:
            with explained(path):
                self._db.text_factory = _text
                self._db.execute("PRAGMA trusted_schema=OFF")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")
                self._prepare()
                self._db.set_authorizer(_no_programs)
                self._inode = path.stat().st_ino
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with self._transaction():
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _statements(self._schema):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={self._version}")
            elif found == 0:
                report_damage("it holds tables and no version of ours")
            elif found != self._version:
                msg = (
                    f"outbox {self.path} has schema {found}, this version reads {self._version}: "
                    "install the version that wrote it, or move the file away"
                )
                raise StorageError(msg)
            self._refuse_programs()

    def _refuse_programs(self) -> None:
        """Raise damage unless the file holds our tables and indexes, to the letter, and nothing else."""
        now = self._db.execute("PRAGMA schema_version").fetchone()[0]
        if now == self._known:
            return
        found = self._db.execute(
            "SELECT sql FROM sqlite_master WHERE NOT (type = 'index' AND sql IS NULL)"
            " AND NOT (type = 'table' AND name = 'sqlite_sequence')"
        ).fetchall()
        if sorted(_plain(str(sql)) for (sql,) in found) != sorted(map(_plain, _statements(self._schema))):
            report_damage("it holds other tables, triggers or views than ours")
        self._known = now

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if self._known != -1:
                    self._refuse_programs()
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # some errors, a full disk say, have rolled back already
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the database; what is committed is on disk already."""
        self._db.close()

    def __enter__(self) -> Self:
        """Use as a context manager that closes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def replaced(self) -> bool:
        """Whether the file at the path is no longer the one open here (vision put a damaged one aside)."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError as error:
            raise _storage_error(self.path, str(error.strerror), _BY_SYSTEM.get(error.errno or 0, _DENIED)) from error

    def check(self) -> None:
        """Read the whole file for damage (`PRAGMA quick_check`); the error satisfies `is_damage`."""
        with explained(self.path):
            verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                report_damage(verdict)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _statements(schema: str) -> list[str]:
    return [statement.strip() for statement in schema.split(";") if statement.strip()]


def _plain(statement: str) -> str:
    return " ".join(statement.split())


def _no_programs(_action: int, _one: str | None, _two: str | None, _base: str | None, program: str | None) -> int:
    """Deny whatever a trigger or a view would do on our behalf (`program` is its name)."""
    return sqlite3.SQLITE_OK if program is None else sqlite3.SQLITE_DENY


def create(path: Path) -> None:
    """Make an empty file with rights for owner and group, or leave what is there."""
    with explained(path):
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o660)
        except OSError as error:
            if error.errno == errno.ELOOP:
                report_damage("it is a link")
            raise
        try:
            with suppress(PermissionError):  # not the owner: the group bits were set by whoever is
                os.fchmod(file, 0o660)
        finally:
            os.close(file)


def _aside(path: Path, why: Why, generation: int, suffix: str = "") -> Path:
    return path.with_name(f"{path.name}.{why}-{generation}{suffix}")


def _generations(path: Path, why: Why) -> Iterator[int]:
    """Those that lie beside an outbox."""
    for other in path.parent.glob(f"*.{why}-*"):
        found = re.fullmatch(rf"\.{why}-([1-9][0-9]{{0,8}})", other.name.removeprefix(path.name))
        if found is not None:
            yield int(found[1])


def moved(path: Path) -> list[Path]:
    """Outboxes put aside because they were another device's or site's, the newest first."""
    return [_aside(path, "moved", generation) for generation in sorted(_generations(path, "moved"), reverse=True)]


def bring_back(aside: Path, path: Path) -> None:
    """Rename one that was put aside to where it lay; nothing may lie there."""
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            aside.with_name(aside.name + suffix).rename(path.with_name(path.name + suffix))


def put_aside(path: Path, runtime: Path | None, why: Why = "damaged") -> int:
    """Rename database, -wal and -shm together; returns the generation and notes it in the runtime folder.

    Of those put aside the newest `ASIDE_KEPT` stay: a card that goes on failing must not be filled by them.
    """
    before = sorted(_generations(path, why))
    generation = before[-1] + 1 if before else 1
    aside = _aside(path, why, generation)
    for old in before[: max(0, len(before) + 1 - ASIDE_KEPT)]:
        for suffix in ("-wal", "-shm", ""):
            with suppress(OSError):
                _aside(path, why, old, suffix).unlink(missing_ok=True)
    # The database last: as long as it is there, a crash in between leads here again.
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    if runtime is not None:
        with suppress(OSError):
            write_generation(runtime, generation)
    return generation
