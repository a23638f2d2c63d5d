"""What a batch mentions by name, and the numbers that stand for it in the store: looked up and given in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_aggregate.store.boots import BOOT_COLUMNS, Boot
from edge_aggregate.store.read import read_terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_aggregate.decode import Row, Terms
    from edge_aggregate.store.engine import Engine


class Ids:
    """Sites, terms and runs of devices that the rows of a batch mention; those that are new are written.

    Inside the transaction of the only writer: a new one's number follows the greatest.
    """

    def __init__(self, engine: Engine, rows: Sequence[Row]) -> None:
        self._engine = engine
        self.sites: dict[str, int] = {}
        self.terms: dict[Terms, int] = {}
        self.boots: dict[tuple[str, str], Boot] = {}
        self.add(rows)

    def add(self, rows: Sequence[Row]) -> None:
        """Take what these rows mention too: the store's own, which a payload of the batch contradicts."""
        self.sites |= self._named("sites", {row.site for row in rows} - self.sites.keys())
        said = {id(row.terms): row.terms for row in rows}  # few, and often the same object: none is hashed twice
        if terms := set(said.values()) - self.terms.keys():
            self.terms |= self._terms(terms)
        runs = {row[:2] for row in rows} | {(row.device, row.prev_boot) for row in rows if row.prev_boot}
        self.boots |= self._boots(runs - self.boots.keys())

    def _named(self, table: str, names: Iterable[str]) -> dict[str, int]:
        wanted = sorted(names)
        ids = dict(self._engine.match(table, ("name",), [(name,) for name in wanted], ("name", "id")))
        new = [name for name in wanted if name not in ids]
        ids.update(zip(new, self._free(table, new), strict=True))
        self._engine.load(table, ("id", "name"), [(ids[name], name) for name in new])
        return ids

    def _free(self, table: str, new: Sequence[object]) -> range:
        """As many numbers as are asked for."""
        if not new:
            return range(0)
        first = next_id(self._engine, table)
        if table == "boots":  # which are written at the end of a batch
            first = max([first, *(boot.id + 1 for boot in self.boots.values())])
        return range(first, first + len(new))

    def _terms(self, wanted: set[Terms]) -> dict[Terms, int]:
        ids = {known: number for number, known in read_terms(self._engine).items()}
        new = sorted((terms for terms in wanted if terms not in ids), key=repr)
        for number, terms in zip(self._free("terms", new), new, strict=True):
            ids[terms] = number
            self._engine.run(
                f"INSERT INTO terms VALUES ({', '.join('?' * 10)})",
                (number, *(int(value) if isinstance(value, bool) else value for value in terms)),
            )
        return ids

    def _boots(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], Boot]:
        devices = self._named("devices", {device for device, _ in wanted})
        names = {number: device for device, number in devices.items()}
        boots = {}
        asked = sorted((devices[device], boot_id) for device, boot_id in wanted)
        for found in self._engine.match("boots", ("device", "boot_id"), asked, BOOT_COLUMNS):
            boot = Boot(*found)
            boots[names[boot.device], boot.boot_id] = boot
        new = [key for key in asked if (names[key[0]], key[1]) not in boots]
        for number, (device, boot_id) in zip(self._free("boots", new), new, strict=True):
            boots[names[device], boot_id] = Boot(number, device, boot_id, changed=True)
        return boots


def next_id(engine: Engine, table: str) -> int:
    """The number after the greatest."""
    return int(engine.fetch(f"SELECT COALESCE(MAX(id), 0) + 1 FROM {table}")[0][0])
