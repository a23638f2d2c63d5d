"""Rows of the store back to what they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge.contract import decode_counts
from edge_aggregate.decode import Row, Terms, row_of
from edge_aggregate.store.schema import TERMS_COLUMNS, WINDOW_COLUMNS
from edge_aggregate.store.weigh import Case, Payload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_aggregate.store.engine import Engine

_AT = {name: place for place, name in enumerate(WINDOW_COLUMNS)}
_CELLS = _AT["unmasked_angry"]


class Names:
    """Ids of the store to what they stand for, each looked up once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sites: dict[int, str] = {}
        self._boots: dict[int, tuple[str, str]] = {}
        self._terms = read_terms(engine)

    def site(self, number: int) -> str:
        """Its name."""
        if number not in self._sites:
            self._sites[number] = self._engine.fetch("SELECT name FROM sites WHERE id = ?", (number,))[0][0]
        return self._sites[number]

    def boot(self, number: int) -> tuple[str, str]:
        """(device, boot_id)."""
        if number not in self._boots:
            found = self._engine.fetch(
                "SELECT d.name, b.boot_id FROM boots b JOIN devices d ON d.id = b.device WHERE b.id = ?", (number,)
            )
            self._boots[number] = found[0][0], found[0][1]
        return self._boots[number]

    def terms(self, number: int) -> Terms:
        """Privacy statement and models."""
        return self._terms[number]


class _Terms(dict[int, Terms]):
    """By id, each read when it is first asked for."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def __missing__(self, number: int) -> Terms:
        """Look it up. Raises KeyError where it is not there."""
        found = self._engine.fetch(f"SELECT {', '.join(TERMS_COLUMNS)} FROM terms WHERE id = ?", (number,))
        if not found:
            raise KeyError(number)
        (mechanism, epsilon, unit, min_count, exhausted, *models) = found[0]
        self[number] = terms = Terms(mechanism, epsilon, unit, min_count, bool(exhausted), *models)
        return terms


def read_terms(engine: Engine) -> Mapping[int, Terms]:
    """Terms by id. Only those that are asked for are read: how many there are, a stranger may decide."""
    return _Terms(engine)


def find_terms(engine: Engine, terms: Terms) -> int | None:
    """Their id, by an index; None where nobody brought them yet."""
    values = {name: int(value) if isinstance(value, bool) else value for name, value in terms._asdict().items()}
    where = " AND ".join(f"{name} IS NULL" if value is None else f"{name} = ?" for name, value in values.items())
    found = engine.fetch(f"SELECT id FROM terms WHERE {where}", [v for v in values.values() if v is not None])
    return int(found[0][0]) if found else None


def read_row(names: Names, values: Sequence[Any]) -> Row:
    """The row of a window (`WINDOW_COLUMNS`)."""
    device, boot_id = names.boot(values[0])
    prev = values[_AT["prev_boot"]]
    return Row(
        device,
        boot_id,
        values[_AT["seq"]],
        names.site(values[_AT["site"]]),
        values[_AT["start_ms"]],
        values[_AT["seconds"]],
        values[_AT["quality"]],
        values[_AT["coverage"]],
        values[_AT["scene"]],
        bool(values[_AT["flush"]]),
        values[_AT["suppressed"]],
        None if prev is None else names.boot(prev)[1],
        values[_AT["prev_seq"]],
        names.terms(values[_AT["terms"]]),
        tuple(values[_CELLS : _CELLS + 16]),
        tuple(values[_CELLS + 16 : _CELLS + 32]),
        values[_AT["received_ms"]],
    )


def load_cases(engine: Engine, wanted: Sequence[tuple[int, int]]) -> dict[tuple[str, str, int], Case]:
    """Those of the wanted (boot, seq) that the store holds, with every other payload that claimed them."""
    names = Names(engine)
    contested = bool(engine.fetch("SELECT 1 FROM variants LIMIT 1"))
    cases = {}
    for values in engine.match("windows", ("boot", "seq"), wanted, WINDOW_COLUMNS):
        row = read_row(names, values)
        case = Case(row, (values[_AT["segment"]], values[_AT["line"]]), values[_AT["duplicates"]] + 1)
        if contested:
            case.others = {}
            for digest, payload, lines, received_ms, segment, line in engine.fetch(
                "SELECT digest, payload, lines, received_ms, segment, line FROM variants WHERE boot = ? AND seq = ?",
                values[:2],
            ):
                if not digest:
                    case.rest = lines
                    continue
                other = row_of(decode_counts(payload), received_ms)
                case.others[digest] = Payload(other, (segment, line), lines)
        cases[row[:3]] = case
    return cases
