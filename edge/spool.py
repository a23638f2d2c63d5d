"""A SQLite file shared by two processes: how it is opened, what a transaction is, what its errors mean.

WAL and `synchronous=FULL`: what COMMIT has answered survives a power cut.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from edge.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

BUSY_S: Final = 5
_JOURNAL_BYTES: Final = 1024 * 1024

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: make room, or lower storage.max_bytes",
    sqlite3.SQLITE_READONLY: "it cannot be written: remount the filesystem, or give write access",
    sqlite3.SQLITE_NOTADB: "move it away, or restart `edge vision`, which puts it aside",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restart `edge vision`, which puts it aside",
    sqlite3.SQLITE_BUSY: "another process has held it for over 5 s: stop that process",
    sqlite3.SQLITE_LOCKED: "another process has held it for over 5 s: stop that process",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: create the folder and give this service access",
    sqlite3.SQLITE_IOERR: "the disk fails: check the SD card and `dmesg`",
    sqlite3.SQLITE_PERM: "access is denied: give this service access to file and folder",
}


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite says that the file is damaged or no database at all."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into a StorageError with advice."""
    try:
        yield
    except sqlite3.Error as error:
        advice = _ADVICE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "see the message")
        msg = f"outbox {path}: {error}; {advice}"
        raise StorageError(msg) from error
    except OSError as error:
        msg = f"outbox {path}: {error.strerror}; create the folder and give this service write access"
        raise StorageError(msg) from error


class Spool:
    """An existing SQLite file, open. Raises StorageError, here and in every method."""

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        with explained(path):
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None
            )
        try:
            with explained(path):
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")
                self._prepare(schema, version)
                self._inode = path.stat().st_ino
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, schema: str, version: int) -> None:
        with self._transaction():
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in filter(str.strip, schema.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={version}")
            elif found != version:
                msg = (
                    f"outbox {self.path} has schema {found}, this version reads {version}: "
                    "install the version that wrote it, or move the file away"
                )
                raise StorageError(msg)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
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
            msg = f"outbox {self.path}: {error.strerror}; give this service access to the folder"
            raise StorageError(msg) from error

    def check(self) -> None:
        """Read the whole file for damage (`PRAGMA quick_check`); the error satisfies `is_damage`."""
        with explained(self.path):
            verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                damage = sqlite3.DatabaseError(verdict)
                damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damage


def create(path: Path) -> None:
    """Make an empty file with rights for owner and group, or leave what is there."""
    with explained(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o660))
        with suppress(PermissionError):  # not the owner: the group bits were set by whoever is
            path.chmod(0o660)


def put_aside(path: Path, runtime: Path | None) -> int:
    """Rename database, -wal and -shm together; returns the generation and notes it in the runtime folder."""
    generation = 1
    while (aside := path.with_name(f"{path.name}.damaged-{generation}")).exists():
        generation += 1
    # The database last: as long as it is there, a crash in between leads here again.
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    if runtime is not None:
        with suppress(OSError):
            (runtime / "outbox.generation").write_text(f"{generation}\n", encoding="ascii")
    return generation
