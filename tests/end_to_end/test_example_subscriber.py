"""`examples/subscriber.py` against a real Mosquitto: its sums are what the simulated fleet's truth says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from edge_aggregate.cli import main

from tests.support.broker import Mosquitto, needs_mosquitto

REPO = Path(__file__).resolve().parents[2]
FLEET = (
    *("--devices", "6", "--sites", "2", "--minutes", "2880", "--start", "2026-11-01", "--seed", "11"),
    *("--restarts", "2", "--hostile", ".2", "--conflicts", ".05", "--lost", ".1", "--duplicates", ".05"),
    *("--clock-errors", ".05"),
)  # fmt: skip
PATIENCE_S = 120


def _until(lines: int, log: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_S
    while len(log.read_text().splitlines()) < lines:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@needs_mosquitto
def test_it_counts_each_window_once_and_sees_what_is_missing(tmp_path: Path) -> None:
    truth, log = tmp_path / "truth.json", tmp_path / "said"
    with Mosquitto(tmp_path) as broker, log.open("wb") as said:
        address = f"127.0.0.1:{broker.port}"
        command = [sys.executable, str(REPO / "examples" / "subscriber.py"), address]
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=tmp_path)
        try:
            _until(2, log, process)
            assert main(["simulate", *FLEET, "--broker", address, "--truth", str(truth)]) == 0
            told = json.loads(truth.read_text())
            _until(2 + told["lines"], log, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()
    lines = log.read_text().splitlines()
    whole = told["whole"]
    assert all(whole[name] > 0 for name in ("duplicates", "conflicts", "missing", "unsynced"))
    assert len([line for line in lines if line.startswith("refused: ")]) == told["dead_letters"]["lines"] > 0
    assert lines[-2:] == [
        f"{site}: {row['happy']} happy of {row['n']}, {row['windows']} windows, {row['missing']} missing, "
        f"{row['duplicates']} came twice, {row['conflicts']} conflicts"
        for site, row in sorted(told["sites"].items())
    ]
