"""The books of a simulation: who came, how they were read, and what a subscriber must have counted in the end.

The file is one JSON object, written as days end, so that years fit into little memory:

    {"simulation": {…}, "orders": {"emotions": […], "cells": […], "routes": […]},
     "days": {"2026-11-21": {"site-0001": ROW, …}, …}, "sites": {"site-0001": ROW, …}, "whole": ROW,
     "dead_letters": {"lines": 17, "by_kind": {"payload": 12, …}, "by_fault": {"nan": 1, …}},
     "lines": 1234, "last_received": "2026-12-21T00:00:00Z"}

A ROW belongs to the UTC day that holds the windows' `start` as labelled, as figures do; `came`, `counted` and `read` to
the true day. It has

- `came`: 14 numbers, visitors by what their faces showed, seen or not: unmasked's 7 in the order of `emotions`, then
  masked's;
- `counted`: the same of those whose votes were drawn into a window;
- `read`: 16 numbers, the same votes as the classifier read them: 8 of each route in the order of `cells`;
- `released`, `draws`: the sums of cells and of noise draws over the windows that came and are not `unsynced`;
- `happy`, `n`: of `released`, `uncertain` left out; what `edge-aggregate index --json` must say;
- `windows` (all keys that came), `unsynced` (of them), `duplicates`, `conflicts` (lines), `missing` (numbers that never
  came, filed by the window that shows it), `gone` (of those: on the device too);
- `seconds`, `covered_ppm_s`: of all windows that came, their length and what of it was looked at, in millionths;
- `last_received`: when the last of its windows came for the first time, by the log's clock: over 30 days after the day
  its figures are restated (null: none came);
- `after_replay`: `released`, `draws`, `happy`, `n`, `windows`, `unsynced`, `missing` once all was replayed that can be,
  and what was late at the end has come.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any, Final

from edge.types import CELLS, EMOTIONS, ROUTES
from edge_aggregate.simulate.plan import DAY_MS
from edge_aggregate.simulate.wire import stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edge_aggregate.simulate.device import Counted
    from edge_aggregate.simulate.faults import Delivery
    from edge_aggregate.simulate.hostile import Hostile
    from edge_aggregate.simulate.plan import Plan
    from edge_aggregate.simulate.traffic import Drawn
    from edge_aggregate.simulate.wire import Window

_HAPPY: Final = CELLS.index("happy")
_CLASSES: Final = [route * len(CELLS) + place for route in range(len(ROUTES)) for place in range(len(EMOTIONS))]
_OPEN_DAYS: Final = 3
"""A day's row can change so long after its beginning: by a long window, or a clock that is behind."""

_FIGURES: Final = ("windows", "unsynced", "duplicates", "conflicts", "missing", "gone", "milliseconds", "covered_ppm_s")
_WINDOWS, _UNSYNCED, _DUPLICATES, _CONFLICTS, _MISSING, _GONE, _LENGTH, _COVERED = range(len(_FIGURES))


class Row:
    """Sums of a site and day, of a site, or of all."""

    __slots__ = ("again", "came", "counted", "draws", "figures", "last_ms", "read", "released")

    def __init__(self) -> None:
        self.came, self.counted, self.read = [0] * 14, [0] * 14, [0] * 16
        self.released, self.draws = [0] * 16, [0] * 16
        self.figures = [0] * len(_FIGURES)
        self.last_ms = 0
        self.again: Row | None = None
        """What replays of all that can be replayed would add; its `missing` is how many numbers fewer are missing."""

    def add(self, other: Row) -> None:
        """Add another's sums."""
        for name in ("came", "counted", "read", "released", "draws", "figures"):
            mine, its = getattr(self, name), getattr(other, name)
            setattr(self, name, [a + b for a, b in zip(mine, its, strict=True)])
        self.last_ms = max(self.last_ms, other.last_ms)
        if other.again is not None:
            self.replays().add(other.again)

    def replays(self) -> Row:
        """`again`, made when first needed."""
        if self.again is None:
            self.again = Row()
        return self.again

    def meet(self, found: Counted) -> None:
        """Visitors of a window."""
        if not any(found.came.true):
            return
        self.came = [a + b for a, b in zip(self.came, found.came.true, strict=True)]
        if found.counted:
            self.counted = [a + b for a, b in zip(self.counted, found.came.true, strict=True)]
            self.read = [a + b for a, b in zip(self.read, found.came.read, strict=True)]

    def take(self, window: Window, cells: Sequence[int | None]) -> None:
        """A window that comes."""
        figures = self.figures
        figures[_WINDOWS] += 1
        figures[_LENGTH] += window.length_ms
        figures[_COVERED] += round(window.coverage * 1_000_000) * window.length_ms // 1000
        if window.quality == "unsynced":
            figures[_UNSYNCED] += 1
            return
        if cells.count(None) == len(cells):
            return
        released, draws = self.released, self.draws
        for place, cell in enumerate(cells):
            if cell is not None:
                released[place] += cell
                draws[place] += window.draws[place]

    def json(self) -> dict[str, Any]:
        """As the module says."""
        figures = dict(zip(_FIGURES, self.figures, strict=True))
        length = figures.pop("milliseconds")
        after = Row()
        after.add(self)
        if self.again is not None:
            after.add(self.again)
        shown = "windows", "unsynced", "missing"
        return {
            "came": self.came,
            "counted": self.counted,
            "read": self.read,
            **self._sums(),
            **figures,
            "seconds": length / 1000,
            "last_received": stamp(self.last_ms) if self.last_ms else None,
            "after_replay": {
                **after._sums(),
                **{name: after.figures[_FIGURES.index(name)] for name in shown},
            },
        }

    def _sums(self) -> dict[str, Any]:
        return {
            "released": self.released,
            "draws": self.draws,
            "happy": sum(self.released[route * len(CELLS) + _HAPPY] for route in range(len(ROUTES))),
            "n": sum(self.released[place] for place in _CLASSES),
        }


class _Run:
    """What came of a device's run so far: `top` is the greatest number that did, `before` that of the run before."""

    __slots__ = ("before", "boot_id", "lost", "top")

    def __init__(self) -> None:
        self.boot_id = ""
        self.top = 0
        self.before: dict[str, int] = {}

    def gap(self, window: Window) -> int:
        """How many numbers this window, which comes, shows to be missing."""
        found = 0
        if window.boot_id != self.boot_id:
            if self.boot_id:
                self.before = {self.boot_id: self.top}
            self.boot_id, self.top = window.boot_id, 0
            if window.prev is not None:
                boot_id, last_seq = window.prev
                found = max(0, last_seq - self.before.get(boot_id, 0))
        found += window.seq - self.top - 1
        self.top = window.seq
        return found


class Truth:
    """Keeps the books, and writes them to `file` as days end (None: only sums are kept)."""

    def __init__(self, plan: Plan, described: dict[str, Any], file: IO[str] | None = None) -> None:
        self._plan, self._file = plan, file
        self._days: dict[int, dict[str, Row]] = {}
        self._sites: dict[str, Row] = {}
        self._runs: dict[str, tuple[_Run, _Run]] = {}
        self._first_day = self._over = plan.start_ms // DAY_MS
        self._written = False
        self._kinds: dict[str, int] = {}
        self._faults: dict[str, int] = {}
        self.lines = self._last_ms = 0
        if file is not None:
            orders = {"emotions": EMOTIONS, "cells": CELLS, "routes": ROUTES}
            file.write(f'{{"simulation":{json.dumps(described)},\n"orders":{json.dumps(orders)},\n"days":{{')

    def _row(self, ms: int, site: str) -> Row:
        day = ms // DAY_MS
        rows = self._days.get(day)
        if rows is None:
            rows = self._days[day] = {}
        row = rows.get(site)
        if row is None:
            row = rows[site] = Row()
        return row

    def missed(self, site: str, at_ms: int, came: Drawn) -> None:
        """Visitors in front of a kiosk that did not run."""
        row = self._row(at_ms, site)
        for place, number in enumerate(came.true):
            row.came[place] += number

    def window(
        self,
        found: Counted,
        delivery: Delivery,
        kept: Sequence[int | None],
        *,
        received_ms: int,
        duplicates: int,
        conflicts: int,
    ) -> None:
        """A window, whether it comes, when first and with which cells; `duplicates` and `conflicts` are lines."""
        window = found.window
        row = self._row(window.start_ms, window.site)
        true = row if window.quality != "unsynced" else self._row(window.closed_ms - window.length_ms, window.site)
        true.meet(found)
        runs = self._runs.get(window.device)
        if runs is None:
            runs = self._runs[window.device] = _Run(), _Run()
        came, could = runs
        if delivery.loss == "gone":
            row.figures[_GONE] += 1
            return
        left = could.gap(window)
        if left:
            row.replays().figures[_MISSING] += left
        if delivery.loss:
            row.replays().take(window, window.cells)
            return
        if missing := came.gap(window):
            row.figures[_MISSING] += missing
            row.replays().figures[_MISSING] -= missing
        row.figures[_DUPLICATES] += duplicates
        row.figures[_CONFLICTS] += conflicts
        row.last_ms = max(row.last_ms, received_ms)
        row.take(window, kept)

    def hostile(self, one: Hostile) -> None:
        """A dead letter."""
        self._kinds[one.kind] = self._kinds.get(one.kind, 0) + 1
        self._faults[one.fault] = self._faults.get(one.fault, 0) + 1

    def received(self, ms: int) -> None:
        """A message went out, or a line was written."""
        self.lines += 1
        self._last_ms = max(self._last_ms, ms)

    def reach(self, ms: int) -> None:
        """The simulation is here: days long over are written."""
        over = ms // DAY_MS - _OPEN_DAYS
        if over > self._over:
            self._over = over
            self._put(sorted(day for day in self._days if self._first_day <= day < over))

    def _put(self, days: Iterable[int]) -> None:
        for day in days:
            rows = self._days.pop(day)
            for site, row in rows.items():
                self._sites.setdefault(site, Row()).add(row)
            if self._file is None:
                continue
            self._file.write(",\n" if self._written else "\n")
            self._written = True
            shown = {site: row.json() for site, row in sorted(rows.items())}
            self._file.write(f'"{stamp(day * DAY_MS)[:10]}":{json.dumps(shown, separators=(",", ":"))}')

    def end(self) -> dict[str, Any]:
        """Write what is left; the totals: `whole`, `dead_letters`, `lines`, `last_received`."""
        self._put(sorted(self._days))
        whole = Row()
        for row in self._sites.values():
            whole.add(row)
        totals = {
            "whole": whole.json(),
            "dead_letters": {
                "lines": sum(self._kinds.values()),
                "by_kind": dict(sorted(self._kinds.items())),
                "by_fault": dict(sorted(self._faults.items())),
            },
            "lines": self.lines,
            "last_received": stamp(self._last_ms),
        }
        if self._file is not None:
            sites = {site: row.json() for site, row in sorted(self._sites.items())}
            self._file.write(f'\n}},\n"sites":{json.dumps(sites, separators=(",", ":"))},\n')
            self._file.write(",\n".join(f'"{key}":{json.dumps(value)}' for key, value in totals.items()) + "}\n")
        return totals
