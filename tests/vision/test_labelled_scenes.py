"""People counted as people: labelled scenes of real faces through the whole service (docs/tracking.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.scenes import exact, play, scenes, strangers

if TYPE_CHECKING:
    from pathlib import Path

ERROR = 0.1
"""Votes per person and window are 1 within this, all scenes together."""


def test_votes_per_person_and_window_stay_within_the_stated_error(
    data: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    outcomes = {o.name: o for o in play(exact(bundle_folder, tmp_path), scenes(strangers(10, 0, data)))}
    windows = sum(o.person_windows for o in outcomes.values())
    votes = sum(o.votes for o in outcomes.values())
    assert abs(votes / windows - 1) <= ERROR, outcomes
    assert max(o.most for o in outcomes.values()) <= 2
    assert sum(o.nobodys for o in outcomes.values()) <= 1
    assert sum(o.switches for o in outcomes.values()) <= 4, outcomes
    for name in ("one stands", "two cross, side by side", "one leaves, is back after 2 s", "ten stand and sway"):
        assert outcomes[name].switches == 0, outcomes[name]
    masked = outcomes["mask on, mask off"]
    assert masked.votes <= masked.person_windows + 1
