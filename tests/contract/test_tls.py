"""TLS with client certificates against a real broker: who is let in, and what the others are told."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from edge.errors import BrokerRefused, EdgeError
from edge.publish import open_session
from edge.subscribe import Broker
from tests.broker import Mosquitto, needs_mosquitto

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    needs_mosquitto,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl; apt-get install openssl"),
]


@dataclass
class Files:
    """`mqtt.tls`."""

    ca: Path
    cert: Path | None
    key: Path | None


def certificate(folder: Path, name: str, common_name: str, ca: str | None = None) -> None:
    """Make NAME.key and NAME.crt, signed by `ca` or by itself."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = (
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        f"/CN={common_name}",
    )
    if ca is None:
        openssl(*new, "-x509", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.crt")
        return
    openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signed = ("-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-extfile", "san")
    openssl("x509", "-req", "-days", "2", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)


def test_client_certificates(tmp_path: Path) -> None:
    certificate(tmp_path, "ca", "test CA")
    certificate(tmp_path, "other", "another CA")
    certificate(tmp_path, "server", "localhost", "ca")
    certificate(tmp_path, "device", "kiosk-07", "ca")
    certificate(tmp_path, "stranger", "kiosk-07", "other")
    lines = "\n".join(
        f"{k} {tmp_path / v}" for k, v in (("cafile", "ca.crt"), ("certfile", "server.crt"), ("keyfile", "server.key"))
    )
    with Mosquitto(tmp_path, f"{lines}\nrequire_certificate true\nuse_identity_as_username true") as broker:

        def connect(ca: str, name: str | None) -> str:
            cert, key = (None, None) if name is None else (tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
            try:
                session = open_session(
                    Broker("127.0.0.1", broker.port, tls=Files(tmp_path / f"{ca}.crt", cert, key)), "kiosk-07"
                )
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
