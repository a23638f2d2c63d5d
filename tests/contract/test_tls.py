"""TLS with client certificates against a real broker: who is let in, and what the others are told."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

from edge.commands.demo.subscriber import Broker
from edge.errors import BrokerRefused, ConfigError, EdgeError
from edge.publisher.session import open_session
from edge.publisher.tls import tls_context, tls_problems
from tests.support.appliance import TlsFiles
from tests.support.broker import Mosquitto, needs_mosquitto
from tests.support.certificates import certificate, mutual_tls


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
        assert "give mqtt.tls.cert" in connect("ca", None)
        assert "mqtt.tls.cert" in connect("ca", "stranger")
        wrong = connect("other", "device")
        assert "signer: " in wrong
        assert BrokerRefused.__name__ in wrong
        assert "TLS failed" in wrong


def openssl(folder: Path, *words: str) -> None:
    """Run it there."""
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def guide_pki(folder: Path) -> None:
    """The certificates of mosquitto-tls(7): a CA without keyUsage, leaves without authorityKeyIdentifier."""
    new = ("req", "-new", "-newkey", "rsa:2048", "-nodes")
    bare = "[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nbasicConstraints=critical,CA:TRUE\n"
    (folder / "ca.cnf").write_text(bare)
    made = ("-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Guide CA", "-config", "ca.cnf")
    openssl(folder, *new, "-x509", "-days", "99", *made)
    (folder / "leaf.ext").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n"
    )
    for name in ("server", "device"):
        openssl(folder, *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=kiosk-07")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "90", "-extfile", "leaf.ext")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)


def test_each_file_that_may_not_be_read_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # and not pytest's own, which nobody else may enter
        folder = Path(name)
        folder.chmod(0o755)
        certificate(folder, "ca", "test CA")
        certificate(folder, "device", "kiosk-07", "ca")
        files = TlsFiles.of(folder, "device")
        assert tls_problems(files) == []
        for file in (files.cert, files.key):
            assert file is not None
            file.chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            problems = tls_problems(files)
            with pytest.raises(ConfigError, match=r"mqtt\.tls\.cert: "):
                tls_context(files)
        finally:
            if root:
                os.seteuid(0)
    mend = "Permission denied: put it where this user may read it, or mend the path"
    assert problems == [f"mqtt.tls.cert: {files.cert}: {mend}", f"mqtt.tls.key: {files.key}: {mend}"]


def test_the_verdict_does_not_depend_on_the_python(tmp_path: Path) -> None:
    """From 3.13 on the default is strict, before it was not."""
    certificate(tmp_path, "ca", "test CA")
    context = tls_context(TlsFiles(tmp_path / "ca.crt", None, None))
    assert context.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@needs_mosquitto
def test_a_ca_as_guides_make_it_is_taken(tmp_path: Path) -> None:
    guide_pki(tmp_path)
    strict = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    with Mosquitto(tmp_path, mutual_tls(tmp_path)) as broker:
        with (
            socket.create_connection(("127.0.0.1", broker.port)) as plain,
            pytest.raises(ssl.SSLCertVerificationError, match=r"key usage|Key Identifier"),
        ):
            strict.wrap_socket(plain, server_hostname="localhost")  # or this test shows nothing
        session = open_session(Broker("127.0.0.1", broker.port, tls=TlsFiles.of(tmp_path, "device")), "kiosk-07")
        session.close()


@needs_mosquitto
def test_what_is_wrong_with_the_broker_is_told_apart(tmp_path: Path) -> None:
    certificate(tmp_path, "ca", "test CA")
    certificate(tmp_path, "ended-ca", "ended CA", days=-1)
    certificate(tmp_path, "other", "another CA")
    certificate(tmp_path, "device", "kiosk-07", "ca")
    for name, ca, days in (("server", "ca", 2), ("late", "ca", -1), ("orphan", "ended-ca", 2)):
        certificate(tmp_path, name, "localhost", ca, days=days)

    def said(server: str, ca: str = "ca", host: str = "127.0.0.1") -> str:
        files = TlsFiles(tmp_path / f"{ca}.crt", None, None)
        lines = mutual_tls(tmp_path).replace("server.", f"{server}.")
        with (
            Mosquitto(tmp_path, lines) as broker,
            pytest.raises(BrokerRefused, match="broker not trusted") as caught,
        ):
            open_session(Broker(host, broker.port, tls=files, insecure=True), "kiosk-07")
        return str(caught.value)

    assert "expiry: certificate has expired: the broker needs a new certificate" in said("late")
    assert "expiry: certificate has expired: the CA in mqtt.tls.ca ended on" in said("orphan", "ended-ca")
    certificate(tmp_path, "named", "somewhere else", "ca", names=("elsewhere.example",))
    assert "name: " in said("named")
    assert "mqtt.host (127.0.0.1) must be an address" in said("named")
    assert "mqtt.host (localhost) must be a name" in said("named", host="localhost")
    assert "signer: " in said("server", "other")
