"""The examples: `subscriber.py` against a real Mosquitto, the flow in Node.js; both sum what the truth file says."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
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


RUN_FLOW = """
const nodes = JSON.parse(require("fs").readFileSync(process.argv[1])), kept = {}, shared = {}, sent = [];
const keep = where => ({get: name => where[name], set: (name, value) => { where[name] = value; }});
const body = nodes.find(node => node.type === "function").func;
const step = new Function("msg", "context", "flow", "node", body);
for (const line of require("fs").readFileSync(0, "utf8").split("\\n").filter(Boolean)) {
    const {topic, payload} = JSON.parse(line);
    const told = step({topic, payload}, keep(kept), keep(shared), {status: () => {}});
    if (told) sent.push(told);
}
console.log(JSON.stringify({sites: shared.sites, sent}));
"""
"""What Node-RED does with a function node, one message after the other."""


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js on PATH")
def test_the_flow_sums_what_the_truth_says(tmp_path: Path) -> None:
    flow, log, truth = REPO / "examples" / "node-red.json", tmp_path / "log", tmp_path / "truth.json"
    kind = {node["type"]: node for node in json.loads(flow.read_text())}
    assert kind["mqtt in"]["topic"] == "edge/v1/+/+/counts"
    broker = kind["mqtt-broker"]
    assert (broker["protocolVersion"], broker["cleansession"], kind["mqtt in"]["qos"]) == ("5", False, "1")
    assert broker["clientid"], "without a name there is no session to come back to"
    assert int(broker["sessionExpiry"]) > 0
    assert not broker["autoUnsubscribe"], "or what comes while it is stopped, or deployed anew, is not kept for it"
    fleet = [*FLEET, "--hostile", "0", "--conflicts", "0"]  # which it does not tell from devices: the docs say so
    assert main(["simulate", *fleet, "--out", str(log), "--truth", str(truth)]) == 0
    lines = b"".join(path.read_bytes() for path in sorted(log.glob("*.jsonl")))
    command = [str(shutil.which("node")), "-e", RUN_FLOW, str(flow)]
    done = subprocess.run(command, input=lines, capture_output=True, check=True, timeout=PATIENCE_S)
    answer = json.loads(done.stdout)
    for site, row in json.loads(truth.read_text())["sites"].items():
        found = answer["sites"][site]
        came = [
            one["payload"]["windows"] + one["payload"]["duplicates"] for one in answer["sent"] if one["topic"] == site
        ]
        assert came == list(range(1, 1 + len(came))), "a message is of its own moment, whatever comes after it"
        assert row["duplicates"] > 0
        assert {name: found[name] for name in ("happy", "n", "windows", "duplicates")} == {
            name: row[name] for name in ("happy", "n", "windows", "duplicates")
        }
