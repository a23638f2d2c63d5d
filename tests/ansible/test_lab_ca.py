"""The lab's certificate authority: what it makes is proper, what it refuses leaves nothing behind."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

SCRIPT = Path(__file__).parents[2] / "ansible" / "lab_ca.sh"


def made(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environ},
    )


def read(folder: Path) -> dict[str, bytes]:
    """What the playbooks want; beside it lie the list of what is revoked and what it is made from."""
    return {path.name: path.read_bytes() for path in folder.glob("*.*") if not path.name.startswith("crl.")}


def test_authority_and_leaves_are_what_strict_verifiers_want(tmp_path: Path) -> None:
    pki = tmp_path / "a folder" / "pki"
    assert made(pki, "localhost", "127.0.0.1").returncode == 0
    assert made(pki, "kiosk-01").returncode == 0
    assert set(read(pki)) == {"ca.crt", "ca.key", "localhost.crt", "localhost.key", "kiosk-01.crt", "kiosk-01.key"}
    authority = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes())
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for name in ("localhost", "kiosk-01"):
        leaf = x509.load_pem_x509_certificate((pki / f"{name}.crt").read_bytes())
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        assert list(purposes) == [server if name == "localhost" else client]
        assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own
        assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert (pki / f"{name}.key").stat().st_mode & 0o077 == 0
        assert (pki / f"{name}.crt").stat().st_mode & 0o777 == 0o644
    shaken_hands(pki)


def shaken_hands(pki: Path) -> None:
    """Both ends verify each other, as strictly as Python 3.13 does by default."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(pki / "localhost.crt", pki / "localhost.key")
    client = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    client.load_cert_chain(pki / "kiosk-01.crt", pki / "kiosk-01.key")
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    here, there = socket.socketpair()
    with here, there:

        def serve() -> None:
            with server.wrap_socket(there, server_side=True) as secure:
                secure.sendall(str(secure.getpeercert()).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        with client.wrap_socket(here, server_hostname="127.0.0.1") as secure:
            assert b"kiosk-01" in secure.recv(65536)
        thread.join()


def test_a_renewal_keeps_the_key_and_the_authority(tmp_path: Path) -> None:
    assert made(tmp_path, "kiosk-01").returncode == 0
    before = read(tmp_path)
    assert made(tmp_path, "kiosk-01", DAYS="30").returncode == 0
    after = read(tmp_path)
    assert after.pop("kiosk-01.crt") != before.pop("kiosk-01.crt")
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["kiosk-01", "10.0.0.256"], "'10.0.0.256' is no IP address"),
        (["kiosk-01", "broker.example"], "'broker.example' is no IP address"),
        (["kiosk-01", "1.2.3.4\nbasicConstraints=critical,CA:TRUE"], "is no IP address"),
        (["kiosk-01", "1.2.3.4,DNS:other"], "is no IP address"),
        (["a/b"], "is no host name"),
        ([".."], "is no host name"),
        (["a,DNS:b"], "is no host name"),
        (["a\nb"], "is no host name"),
        ([""], "is no host name"),
        (["x" * 65], "at most 64 characters"),
        ([], "give DIR NAME"),
    ],
)
@pytest.mark.parametrize("fresh", [True, False])
def test_a_refusal_says_why_and_leaves_nothing_half_made(
    tmp_path: Path, arguments: list[str], says: str, *, fresh: bool
) -> None:
    pki = tmp_path / "pki"
    if not fresh:
        assert made(pki, "broker.example").returncode == 0
    before = read(pki)
    done = made(pki, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert read(pki) == before
    assert pki.exists() is not fresh


def test_days_that_are_no_number(tmp_path: Path) -> None:
    done = made(tmp_path / "pki", "kiosk-01", DAYS="soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert "DAYS=soon" in done.stderr
    assert not (tmp_path / "pki").exists()


def test_two_authorities_have_two_names(tmp_path: Path) -> None:
    """Issuers and their lists are looked for by name, and while a CA is changed there are two."""
    for folder in ("one", "other"):
        assert made(tmp_path / folder, "kiosk-01").returncode == 0
    names = {x509.load_pem_x509_certificate((tmp_path / f / "ca.crt").read_bytes()).subject for f in ("one", "other")}
    assert len(names) == 2
