"""`edge-aggregate demo`: every window that the appliance's demo sent stands in its figures."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from edge_aggregate.cli import main

from tests.support.windows import window

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_windows_of_a_replay_that_ran_ahead_of_the_clock_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    lines = [
        window(
            n,
            start=hour + timedelta(hours=n),
            cells={"unmasked_happy": 30},
            site="desk",
            device="demo",
            quality=quality,
        )
        for n, quality in ((1, "synced"), (2, "holdover"), (3, "unsynced"))
    ]
    log = tmp_path / "demo.jsonl"
    log.write_text("".join(json.dumps(line["payload"]) + "\n" for line in lines), encoding="utf-8")
    assert main(["demo", str(log)]) == 0
    (desk,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("desk ")]
    assert desk[desk.index("provisional") - 1] == "3"
    assert desk[1:4] == ["90", "of", "90"], "a machine whose clock nobody has set shows its own demo"
