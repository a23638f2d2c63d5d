"""The example flow in Node-RED itself: a real publisher, a real Mosquitto, the sums as its debug node shows them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from edge.types import Vote
from tests.support.appliance import closing, vision
from tests.support.broker import Mosquitto, free_port, needs_mosquitto
from tests.support.subscriber import Devices

if TYPE_CHECKING:
    from collections.abc import Callable

REPO = Path(__file__).resolve().parents[2]
FLOW = REPO / "examples" / "node-red.json"
NODE_RED = os.environ.get("EDGE_NODE_RED") or shutil.which("node-red")
PATIENCE_S = 120
CONFIG = """[device]
id = "kiosk-07"
site = "{site}"
purpose = "audience-statistics"
signage_acknowledged = true
mode = "development"
[camera]
kind = "replay"
source = "clip.mp4"
[models]
bundle = '{bundle}'
[privacy]
noise = "off"
min_count = 1
[mqtt]
host = "127.0.0.1"
port = {port}
[storage]
outbox = "outbox.db"
runtime = "run"
"""

pytestmark = [
    needs_mosquitto,
    pytest.mark.skipif(
        NODE_RED is None,
        reason="no Node-RED: npm install --prefix FOLDER node-red@4, EDGE_NODE_RED=FOLDER/node_modules/.bin/node-red",
    ),
]


def until(what: Callable[[], object], said: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, said()
        time.sleep(0.1)


class NodeRed:
    """Node-RED with the flow, its broker's port apart as the repository has it, headless on loopback."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        nodes = json.loads(FLOW.read_text())
        for node in nodes:
            if node["type"] == "mqtt-broker":
                node["broker"], node["port"] = "127.0.0.1", str(broker.port)
        self._folder, self._broker, self._log = folder, broker, folder / "node-red.log"
        (folder / "flow.json").write_text(json.dumps(nodes))

    def __enter__(self) -> Self:
        """Start it, until the broker has its subscription."""
        before = self._broker.log.count("node-red-counts 1 edge/v1/+/+/counts")
        options = ["--userDir", self._folder, "--port", free_port(), "-D", "uiHost=127.0.0.1"]
        command = [str(NODE_RED), *map(str, options), str(self._folder / "flow.json")]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        until(lambda: self._broker.log.count("node-red-counts 1 edge/v1/+/+/counts") > before, lambda: self.text)
        return self

    def __exit__(self, *_: object) -> None:
        """SIGTERM: the order in which a service manager ends it."""
        self._process.terminate()
        try:
            assert self._process.wait(60) == 0, self.text
        finally:
            self._process.kill()

    @property
    def text(self) -> str:
        """What it has said since its start."""
        return self._log.read_text()

    def shown(self) -> list[dict[str, str]]:
        """What its debug node has shown, each message's fields."""
        return [
            dict(re.findall(r"(\w+): '?([\w.-]+)", one))
            for one in re.findall(r"shown\] \n\{(.*?)\n\}", self.text, re.DOTALL)
        ]


@pytest.mark.parametrize("site", ["lobby", "constructor"])
def test_it_counts_what_a_kiosk_publishes(tmp_path: Path, bundle_folder: Path, site: str) -> None:
    """Each window once, whatever else comes; what comes while it is stopped waits. Any name is a name."""
    windows = [[Vote("unmasked", "happy")] * 14 + [Vote("masked", "neutral")] * 6, [Vote("unmasked", "sad")] * 20]
    with vision(tmp_path) as outbox, Mosquitto(tmp_path, "log_type all") as broker:
        (tmp_path / "config.toml").write_text(CONFIG.format(site=site, port=broker.port, bundle=bundle_folder))
        publisher = None
        try:
            with NodeRed(tmp_path, broker) as red:
                for votes in windows:
                    outbox.commit(closing(votes))
                command = [sys.executable, "-m", "edge", "publish", "--config", str(tmp_path / "config.toml")]
                publisher = subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL)
                until(lambda: len(red.shown()) == len(windows), lambda: broker.log + red.text)
                with Devices(broker.port) as stranger:
                    for payload in (b"{", b"null", b"\xff", b"{}"):
                        stranger.send(f"edge/v1/{site}/kiosk-07/counts", payload)
                expected = [
                    {"site": site, "happy": "14", "n": "20", "windows": "1", "duplicates": "0", "index": "70"},
                    {"site": site, "happy": "14", "n": "40", "windows": "2", "duplicates": "0", "index": "35"},
                ]
                assert red.shown() == expected, "each message says what was so when it came"
                assert "[function:" not in red.text, "a stranger's message is no error of the function"
            outbox.commit(closing([Vote("unmasked", "happy")] * 3))
            until(lambda: not outbox.unsent(), lambda: broker.log)
            with NodeRed(tmp_path, broker) as again:
                until(again.shown, lambda: again.text)
                late = {"site": site, "happy": "3", "n": "3", "windows": "1", "duplicates": "0", "index": "100"}
                assert again.shown() == [late], "what waited, and a restart forgets its sums"
        finally:
            if publisher is not None:
                publisher.terminate()
                publisher.wait(60)
