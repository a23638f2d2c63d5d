"""TLS with client certificates against a real broker: who is let in, and what the others are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.commands.demo.subscriber import Broker
from edge.errors import BrokerRefused, EdgeError
from edge.publisher.session import open_session
from tests.support.appliance import TlsFiles
from tests.support.broker import Mosquitto, needs_mosquitto
from tests.support.certificates import certificate, mutual_tls

if TYPE_CHECKING:
    from pathlib import Path


@needs_mosquitto
def test_client_certificates(tmp_path: Path) -> None:
    certificate(tmp_path, "ca", "test CA")
    certificate(tmp_path, "other", "another CA")
    certificate(tmp_path, "server", "localhost", "ca")
    certificate(tmp_path, "device", "kiosk-07", "ca")
    certificate(tmp_path, "stranger", "kiosk-07", "other")
    with Mosquitto(tmp_path, mutual_tls(tmp_path)) as broker:

        def connect(ca: str, name: str | None) -> str:
            files = TlsFiles(tmp_path / "ca.crt", None, None) if name is None else TlsFiles.of(tmp_path, name)
            files.ca = tmp_path / f"{ca}.crt"
            try:
                session = open_session(Broker("127.0.0.1", broker.port, tls=files), "kiosk-07")
            except EdgeError as error:
                return f"{type(error).__name__} {error}"
            session.publish("t", b"x")
            while not session.acks:
                session.step(0.1)
            session.close()
            return "in"

        assert connect("ca", "device") == "in"
        assert "certificate" in connect("ca", None)
        assert "certificate" in connect("ca", "stranger")
        wrong = connect("other", "device")
        assert BrokerRefused.__name__ in wrong
        assert "TLS failed" in wrong
