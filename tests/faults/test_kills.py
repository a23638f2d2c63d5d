"""Whoever dies at whatever moment: no committed window is lost, none is counted twice."""

from __future__ import annotations

import random
import secrets
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from tests.faults.kills import kill_at_random
from tests.faults.kiosk import Kiosk
from tests.support.broker import needs_mosquitto

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Done

KILLS = 30


@needs_mosquitto
def test_sigkill_of_each_service_at_random_moments(tmp_path: Path, bundle_folder: Path, done: Done) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    with Kiosk(tmp_path, bundle_folder) as kiosk:
        faults = kill_at_random(kiosk, KILLS, random.Random(seed))  # noqa: S311 - moments, no secrets
        reckoning = kiosk.reckon()
    done(faults, **asdict(reckoning))
    assert reckoning.committed >= KILLS // 3, "vision has counted between its deaths"
    assert reckoning.bad == 0, reckoning


@needs_mosquitto
def test_the_reckoning_can_fail(tmp_path: Path, bundle_folder: Path) -> None:
    """The control: a window taken out of the outbox, one changed on the way, are found."""
    with Kiosk(tmp_path, bundle_folder) as kiosk:
        reckoning = kiosk.reckon()
        assert reckoning.bad == 0, reckoning
        rows = kiosk.rows()
        first = next(m for m in kiosk.ear.heard if m.topic.endswith("/counts"))
        kiosk.ear.heard.append(replace(first, payload=first.payload.replace(b'"ok"', b'"dark"')))
        again = kiosk._compare(rows[1:], 0)
    assert (again.lost_after_commit, again.gaps, again.duplicates) == (1, 1, 1)
