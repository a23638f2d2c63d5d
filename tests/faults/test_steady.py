"""What the services write to the card, and that they hold on to no files."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.faults.kiosk import PATIENCE_S, Kiosk
from tests.faults.steady import A_DAY, BUDGET_MB, descriptors, written
from tests.support.broker import needs_mosquitto
from tests.support.wire import wait

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Done

WINDOWS = 50


@needs_mosquitto
def test_writes_a_day_and_open_files(tmp_path: Path, bundle_folder: Path, done: Done) -> None:
    """Per window, counted by the kernel: between windows nothing is written but the runtime folder, a tmpfs."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True)
    if kind.stdout == "tmpfs\n":
        pytest.skip("writes to a tmpfs are not counted: set --basetemp")
    with Kiosk(tmp_path, bundle_folder) as kiosk:
        assert kiosk.vision is not None
        assert kiosk.publisher is not None
        services = (kiosk.vision, kiosk.publisher)

        def passes(windows: int) -> None:
            goal = len(kiosk.acknowledged()) + windows
            wait(lambda: len(kiosk.acknowledged()) >= goal and kiosk.unsent() <= 1, PATIENCE_S)

        passes(5)
        began, first = [written(p) for p in services], len(kiosk.acknowledged())
        files = [descriptors(p) for p in services]
        passes(WINDOWS)
        per_window = [
            (written(p) - before) / (len(kiosk.acknowledged()) - first)
            for p, before in zip(services, began, strict=True)
        ]
        # A connection of SQLite's own for a checkpoint may be open at one of the two moments.
        assert all(abs(descriptors(p) - n) <= 1 for p, n in zip(services, files, strict=True))
        reckoning = kiosk.reckon()
    assert reckoning.bad == 0, reckoning
    a_window = sum(per_window)
    a_day = a_window * A_DAY / 1e6
    done({"windows_written": reckoning.committed}, bytes_a_window=round(a_window), megabytes_a_day=round(a_day, 2))
    assert 0 < a_day <= BUDGET_MB
