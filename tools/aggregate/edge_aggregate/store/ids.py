"""What a batch mentions by name, and the numbers that stand for it in the store: looked up and given in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_aggregate.store.boots import BOOT_COLUMNS, Boot
from edge_aggregate.store.read import find_terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_aggregate.decode import Row, Terms
    from edge_aggregate.store.engine import Engine


TERMS_MOST: Final = 64
"""Terms that a device may bring which nobody had before: an honest one does at an update, or a change of settings."""
TOO_MANY_TERMS: Final = f"its device has brought {TERMS_MOST} other privacy statements and models before"


class Ids:
    """Sites, terms and runs of devices that the rows of a batch mention; those that are new are written.

    Inside the transaction of the only writer: a new one's number follows the greatest. `refused`: terms that only
    devices say which have brought too many.
    """

    def __init__(self, engine: Engine, rows: Sequence[Row]) -> None:
        self._engine = engine
        self.sites: dict[str, int] = {}
        self.terms: dict[Terms, int] = {}
        self.boots: dict[tuple[str, str], Boot] = {}
        self.refused: set[Terms] = set()
        self._devices: dict[str, int] = {}
        self._brought: dict[str, int] = {}
        self.add(rows)

    def add(self, rows: Sequence[Row], *, held: bool = False) -> None:
        """Take what these rows mention too; `held`: the store's own, which a payload of the batch contradicts."""
        self.sites |= self._named("sites", {row.site for row in rows} - self.sites.keys())
        runs = {row[:2] for row in rows} | {(row.device, row.prev_boot) for row in rows if row.prev_boot}
        self.boots |= self._boots(runs - self.boots.keys())
        said: dict[int, Row] = {}  # few, and often the same object: none is hashed twice
        for row in rows:
            said.setdefault(id(row.terms), row)
        for row in said.values():
            if row.terms not in self.terms:
                self._add_terms(row.terms, row.device, held=held)
        if self.refused:  # by the first device that says them: another one may
            for row in rows:
                if row.terms in self.refused and self._may_bring(row.device):
                    self._add_terms(row.terms, row.device, held=held)

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

    def _add_terms(self, terms: Terms, device: str, *, held: bool) -> None:
        """Find them, or write them as this device's."""
        number = find_terms(self._engine, terms)
        if number is None:
            if not (self._may_bring(device) or held):
                self.refused.add(terms)
                return
            self._brought[device] += 1
            (number,) = self._free("terms", [terms])
            values = [int(value) if isinstance(value, bool) else value for value in terms]
            self._engine.run(
                f"INSERT INTO terms VALUES ({', '.join('?' * 11)})", (number, *values, self._devices[device])
            )
        self.terms[terms] = number
        self.refused.discard(terms)

    def _may_bring(self, device: str) -> bool:
        if device not in self._brought:
            ((brought,),) = self._engine.fetch("SELECT COUNT(*) FROM terms WHERE device = ?", (self._devices[device],))
            self._brought[device] = int(brought)
        return self._brought[device] < TERMS_MOST

    def _boots(self, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], Boot]:
        self._devices |= self._named("devices", {device for device, _ in wanted} - self._devices.keys())
        devices = {device: self._devices[device] for device, _ in wanted}
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
