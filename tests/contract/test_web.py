"""Page and metrics of a publisher that runs, with a real broker and without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.request import urlopen

from edge.outbox.runtime_files import write_vision
from edge.types import Vote
from tests.support.appliance import closing, vision, vision_file
from tests.support.broker import Mosquitto, free_port, needs_mosquitto
from tests.support.processes import on_one_day
from tests.support.wire import Ear, Service, wait

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_mosquitto


def test_the_publisher_shows_what_it_does(mosquitto: Mosquitto, tmp_path: Path) -> None:
    on_one_day()
    write_vision(tmp_path, vision_file())
    with vision(tmp_path) as outbox:
        outbox.commit(closing([Vote("unmasked", "happy")] * 12, seconds=1))
    port = free_port()

    def got(path: str) -> str:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return str(answer.read().decode())

    with Ear(mosquitto.port, "edge/#"), Service(tmp_path, mosquitto.port, "--web", str(port)) as service:
        service.wait_for("event=web ")
        service.wait_for("event=connected")
        wait(lambda: '"seq": 1' in got("/status.json"))
        told = json.loads(got("/status.json"))
        assert told["connected"] is True
        assert told["today"]["cells"]["happy"] == 12
        assert told["outbox"]["unsent"] == 0
        metrics = got("/metrics")
        assert "edge_broker_connected 1.0" in metrics
        assert 'edge_puback_seconds{quantile="0.99"}' in metrics
        mosquitto.kill()
        wait(lambda: "edge_broker_connected 0.0" in got("/metrics"))
        assert service.stop() == 0
