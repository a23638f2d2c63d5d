"""The device's certificate ends: the rows are kept, health has said so, and a renewed one needs no restart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge.commands.demo.subscriber import Broker
from edge.errors import BrokerRefused
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import write_vision
from tests.support.appliance import TlsFiles, closing, vision, vision_file
from tests.support.broker import Mosquitto, needs_mosquitto
from tests.support.certificates import certificate, mutual_tls
from tests.support.wire import Ear, Service, wait

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import Done

PATIENCE_S = 120


@needs_mosquitto
def test_a_certificate_ends_and_is_renewed(tmp_path: Path, done: Done) -> None:
    certificate(tmp_path, "ca", "test CA")
    for name, common_name in (("server", "localhost"), ("device", "kiosk-07"), ("subscriber", "subscriber")):
        certificate(tmp_path, name, common_name, "ca")
    write_vision(tmp_path, vision_file())
    with (
        vision(tmp_path) as outbox,
        Mosquitto(tmp_path, mutual_tls(tmp_path)) as broker,
        Ear(Broker("127.0.0.1", broker.port, tls=TlsFiles.of(tmp_path, "subscriber")), "edge/v1/lobby/#") as ear,
    ):
        with Service(tmp_path, broker.port, "--tls", "--retry", "1") as service:
            outbox.commit(closing())
            wait(lambda: len(ear.keys()) == 1, PATIENCE_S, service.lines)
            wait(lambda: any(m.topic.endswith("/health") for m in ear.heard), PATIENCE_S, service.lines)
            health = next(json.loads(m.payload) for m in ear.heard if m.topic.endswith("/health"))
            assert 1 < health["certificate_days"] <= 2
            service.wait_for("event=certificate-ending")
            certificate(tmp_path, "device", "kiosk-07", "ca", days=-1)
            broker.kill()
            broker.start()
            outbox.commit(closing())
            service.wait_for("certificate ended on", PATIENCE_S)
            assert outbox.stats().unsent == 1
            certificate(tmp_path, "device", "kiosk-07", "ca")
            wait(lambda: len(ear.keys()) == 2, PATIENCE_S, service.lines)
            assert service.stop() == 0
        certificate(tmp_path, "device", "kiosk-07", "ca", days=-1)
        outbox.commit(closing())
        with Service(tmp_path, broker.port, "--tls", "--lifeline", "10") as service:
            assert service.process.stdin is not None
            service.process.stdin.close()
            assert service.process.wait(PATIENCE_S) == BrokerRefused.exit_code, service.lines()
    with Outbox(tmp_path / "outbox.db") as outbox:
        assert outbox.stats().unsent == 1
    done({"certificate_ended": 2})
