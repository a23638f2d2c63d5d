"""Certificates of a small authority of our own, for any span of time."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def certificate(
    folder: Path, name: str, common_name: str, ca: str | None = None, *, days: float = 2, names: Sequence[str] = ()
) -> None:
    """Make NAME.key and NAME.crt, signed by `ca` or by itself; it ends in `days`, which may be negative.

    It is for localhost and its address, or for the host `names` given.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signer = key
    if ca is not None:
        issuer = x509.load_pem_x509_certificate((folder / f"{ca}.crt").read_bytes()).subject
        loaded = serialization.load_pem_private_key((folder / f"{ca}.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [*map(x509.DNSName, names)]
                or [x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def mutual_tls(folder: Path) -> str:
    """Lines of a Mosquitto that shows server.crt and lets in who has a certificate of ca.crt, as its CN."""
    files = (("cafile", "ca.crt"), ("certfile", "server.crt"), ("keyfile", "server.key"))
    lines = "\n".join(f"{option} {folder / name}" for option, name in files)
    return f"{lines}\nrequire_certificate true\nuse_identity_as_username true"
