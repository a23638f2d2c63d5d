"""Why a share is not corrected: models whose confusion table is not registered, and the devices they run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edge.types import CELLS, ROUTES
from edge_aggregate.calibration import ROLES
from edge_aggregate.decode import UNSYNCED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_aggregate.store import Store

_DIGITS = len("sha256:") + 12
"""Of a digest: enough to find it in a manifest."""
_MOST = 5
"""Devices named of a model."""


class Without(NamedTuple):
    """A model on a device at a site; `digest` is empty where the device counted by a model that it does not name."""

    site: str
    device: str
    role: str
    digest: str


def without_table(store: Store, days: range, sites: Iterable[str]) -> list[Without]:
    """Models without a table that were in use at these sites on these UTC days, in order. Raises StorageError."""
    numbers = dict(store.engine.fetch("SELECT name, id FROM sites")) if (names := set(sites)) else {}
    ids = [str(numbers[name]) for name in sorted(names & numbers.keys())]
    if not ids:
        return []
    known = {table.key for table in store.tables()}
    found: set[Without] = set()
    for route, role in zip(ROUTES, ROLES, strict=True):
        counted = " OR ".join(f"d.{route}_{cell} <> 0" for cell in CELLS)
        for site, device, digest in store.engine.fetch(
            f"SELECT DISTINCT s.name, v.name, t.{role} FROM days d JOIN terms t ON t.id = d.terms"
            " JOIN sites s ON s.id = d.site JOIN devices v ON v.id = d.device"
            f" WHERE d.site IN ({', '.join(ids)}) AND d.day >= ? AND d.day < ? AND d.quality <> {UNSYNCED}"
            # A row whose model was not asked holds noise alone, and hinders nobody.
            f" AND (t.{role} IS NOT NULL OR (t.epsilon IS NULL AND ({counted})))",
            (days.start, days.stop),
        ):
            if (role, digest) not in known:
                found.add(Without(site, device, role, digest or ""))
    return sorted(found)


def named(found: Iterable[Without]) -> list[str]:
    """A text for each model: its role, its digest shortened, and its devices."""
    devices: dict[tuple[str, str], set[str]] = {}
    for one in found:
        devices.setdefault((one.role, one.digest), set()).add(one.device)
    texts = []
    for (role, digest), names in sorted(devices.items()):
        first = sorted(names)[:_MOST]
        more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
        model = f"{digest[:_DIGITS]}…" if digest else "(a model that is not named)"
        texts.append(f"{role} {model} on {', '.join(first)}{more}")
    return texts
