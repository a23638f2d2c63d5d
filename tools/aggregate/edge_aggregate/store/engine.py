"""What a database must offer for a store to live in it: the few things in which SQLite and PostgreSQL differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    Value = int | float | str | None

BUSY_S: Final = 30.0
"""How long a writer waits for another, unless told otherwise."""


class Engine(Protocol):
    """A connection. SQL is written with `?`; errors of the database come out as `StorageError`, in one line."""

    name: str
    """For people: the path, or the address without a password."""

    least: str
    greatest: str
    """Names of the scalar functions (`min`, `max` in SQLite, `LEAST`, `GREATEST` in PostgreSQL)."""

    def writing(self) -> AbstractContextManager[None]:
        """One transaction of the only writer there is: others wait. Rolled back when left by an exception."""

    def reading(self) -> AbstractContextManager[None]:
        """One snapshot for several queries."""

    def fetch(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query."""

    def run(self, sql: str, values: Sequence[Value] = ()) -> int:
        """One statement; the rows it touched."""

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """One statement with many rows of values, in their order."""

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        """Insert rows none of which is there, as fast as the engine can."""

    def upsert(
        self,
        table: str,
        columns: Sequence[str],
        key: Sequence[str],
        changes: Mapping[str, str],
        rows: Sequence[Sequence[Value]],
    ) -> None:
        """Insert rows; of those whose key is there, change these columns to what is said of `TABLE.x` and `excluded.x`.

        No two of the rows have the same key.
        """

    def match(
        self, table: str, on: Sequence[str], wanted: Sequence[Sequence[int | str]], columns: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        """These columns of the rows of a table whose `on` columns are among the wanted; none is wanted twice."""

    def version(self) -> int | None:
        """The schema's, or None where there are no tables of a store."""

    def sound(self) -> list[str]:
        """What the database itself finds wrong with its files; nothing when they are sound."""

    def close(self) -> None:
        """Let go of it; twice is fine."""


def meta(engine: Engine, key: str) -> int | None:
    """What the store notes of itself under this key; None where it never did."""
    found = engine.fetch("SELECT value FROM meta WHERE key = ?", (key,))
    value: int | None = found[0][0] if found else None
    return value
