"""A broker that speaks 3.1.1 only and does not even refuse MQTT 5: amqtt, which the demo may start."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from edge.types import Vote
from tests.support.appliance import closing, vision
from tests.support.broker import free_port, wait_for_port
from tests.support.wire import Ear, Service, wait

if TYPE_CHECKING:
    from pathlib import Path

AMQTT = textwrap.dedent("""
    import asyncio, sys
    from amqtt.broker import Broker
    async def main():
        broker = Broker({
            "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        })
        await broker.start()
        await asyncio.Event().wait()
    asyncio.run(main())
""")


def test_windows_arrive_by_3_1_1(tmp_path: Path) -> None:
    pytest.importorskip("amqtt", reason="comes with the extra: .venv/bin/pip install -e '.[demo]'")
    port = free_port()
    with (tmp_path / "amqtt.log").open("wb") as log:
        broker = subprocess.Popen([sys.executable, "-c", AMQTT, str(port)], stdout=log, stderr=log)
    try:
        wait_for_port(port, 30)
        with vision(tmp_path) as outbox:
            for _ in range(3):
                outbox.commit(closing([Vote("masked", "happy")]))
        with (
            Ear(port, "edge/v1/lobby/kiosk-07/#") as ear,
            Service(tmp_path, port, "--lifeline", "60") as service,
        ):
            service.wait_for("event=mqtt-3.1.1", 60)
            wait(lambda: len(ear.keys()) == 3, 30, service.lines)
            assert service.process.stdin is not None
            service.process.stdin.close()
            assert service.process.wait(30) == 0
            wait(lambda: any(b'"stopped"' in m.payload for m in ear.heard))
        assert {m.topic.rsplit("/", 1)[1] for m in ear.heard} == {"status", "counts", "live"}
        assert ear.counts()[0].counts.masked.happy == 1
    finally:
        broker.kill()
        broker.wait(10)
