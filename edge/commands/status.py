"""`edge status`: what the services say of themselves, in a few lines."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import read_vision
from edge.outbox.sqlite import explained
from edge.process.privileges import as_owner_of
from edge.process.shown import shown
from edge.publisher.health import runs

if TYPE_CHECKING:
    from edge.config import StorageSection


def _say(line: str) -> None:
    """What the services wrote is theirs: fit for a terminal before it is printed."""
    print(shown(line))


def run_status(storage: StorageSection, *, as_json: bool = False) -> int:
    """Print it; returns 0 whatever it is (`edge doctor` judges). Raises StorageError."""
    figures, outbox = read_vision(storage.runtime), None
    with as_owner_of(storage.outbox.parent), explained(storage.outbox):
        if storage.outbox.exists():
            with Outbox(storage.outbox) as box:
                stats = box.stats()
            outbox = {"unsent": stats.unsent, "oldest_s": round(stats.oldest_s, 1)}
    running = runs(figures, time.monotonic())
    if as_json:
        vision = None if figures is None else figures.model_dump(mode="json")
        print(json.dumps({"running": running, "vision": vision, "outbox": outbox}))
        return 0
    if figures is None:
        _say(f"vision   has not run since boot ({storage.runtime})")
    elif not running:
        how = "ended" if figures.state == "ended" else "does not run"
        age = time.monotonic() - figures.updated
        _say(f"vision   {how}, last heard of {f'{age:.0f} s ago' if age >= 0 else 'before this boot'}")
    else:
        seen = "paused" if figures.paused else f"scene {figures.scene}"
        _say(f"vision   running, rate {figures.rate} on {figures.backend}, {seen}")
        _say(f"detector {figures.detector or 'unknown'}")
    if figures is not None:
        _say(f"drops    {', '.join(f'{k} {v}' for k, v in figures.drops.items()) or 'none'}")
        _say(f"clock    {figures.time_quality}")
        if figures.privacy is not None and figures.privacy.epsilon:
            _say(f"privacy  epsilon {figures.privacy.spent_today:g} of {figures.privacy.day_bound:g} spent today")
    print("outbox   none yet" if outbox is None else "outbox   {unsent} unsent, oldest {oldest_s} s".format(**outbox))
    return 0
