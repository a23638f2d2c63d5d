"""TLS to the broker: one verdict on every Python, and in plain words what either side does not like.

Strictness is decided here and not by `ssl.create_default_context`, which follows RFC 5280 to the letter from Python
3.13 on and did not before: docs/decisions/0022-brokers.md.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class TlsFiles(Protocol):
    """`mqtt.tls`: the CA, and this device's certificate and key."""

    @property
    def ca(self) -> Path:
        """CA that signed the broker's certificate."""
        ...

    @property
    def cert(self) -> Path | None:
        """The device's certificate, or None."""
        ...

    @property
    def key(self) -> Path | None:
        """Its key; None where it is in the certificate file."""
        ...


VERIFY: Final = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
"""Signatures, spans of time, names, purposes: always. What `mqtt.tls.ca` holds is trusted, an intermediate CA too.

Not `VERIFY_X509_STRICT`: it refuses a CA without keyUsage, as guides make them, and stops nobody who has no CA's key.
"""


class Distrust(NamedTuple):
    """Why a side does not trust the other: `what` it is, and how to `mend` it."""

    what: str
    mend: str


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that verifies the broker and shows this device's certificate. Raises ConfigError.

    Read afresh for every connection, so that a renewed certificate needs no restart.
    """
    context, problems = _read(files)
    if problems:
        raise ConfigError(problems[0])
    return context


def tls_problems(files: TlsFiles) -> list[str]:
    """What is wrong with each of the files, a line each that begins with its key; empty where all can be used."""
    return _read(files)[1]


def _read(files: TlsFiles) -> tuple[ssl.SSLContext, list[str]]:
    """The context, of use only when the list of problems is empty."""
    problems = {name: told for name in ("ca", "cert", "key") if (told := _unreadable(name, getattr(files, name)))}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "ca" not in problems:
        try:
            context = ssl.create_default_context(cafile=str(files.ca))
        except OSError as error:  # ssl.SSLError is one
            problems["ca"] = f"mqtt.tls.ca: {files.ca} cannot be used ({error}): it must be a PEM certificate"
    context.verify_flags = VERIFY
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.cert is not None and not {"cert", "key"} & set(problems):
        try:  # a password of our own, or an encrypted key would ask for one at a terminal
            context.load_cert_chain(str(files.cert), None if files.key is None else str(files.key), password="")
        except OSError as error:
            problems["cert"] = (
                f"mqtt.tls.cert: {files.cert} and its key cannot be used ({error}): "
                "both must be PEM, belong together and need no password"
            )
    return context, [problems[name] for name in ("ca", "cert", "key") if name in problems]


def _unreadable(name: str, path: Path | None) -> str | None:
    try:
        if path is None:
            return None
        if not path.is_file():
            return f"mqtt.tls.{name}: {path} does not exist: put it there, or mend the path"
        path.open("rb").close()
    except OSError as error:  # also of a folder on the way that this user may not enter
        return f"mqtt.tls.{name}: {path}: {error.strerror}: put it where this user may read it, or mend the path"
    return None


_NO_CHAIN: Final = frozenset({2, 18, 19, 20, 21})
_WRONG_NAME: Final = frozenset({62, 64})
_NOT_YET, _ENDED = 9, 10


def broker_distrusted(error: ssl.SSLCertVerificationError, files: TlsFiles, host: str) -> Distrust:
    """What this device does not like about the broker's certificate: expiry, name, signer or make."""
    said, code = error.verify_message, error.verify_code
    if code in _WRONG_NAME:
        kind = "an address" if code == 64 else "a name"
        return Distrust(
            f"name: {said}", f"mqtt.host ({host}) must be {kind} in the broker's certificate, as subjectAltName"
        )
    if code == _ENDED:
        ended = _end(files.ca)
        if ended is not None and ended < datetime.now(UTC):
            return Distrust(f"expiry: {said}", f"the CA in mqtt.tls.ca ended on {ended.date()}: install its new one")
        return Distrust(f"expiry: {said}", "the broker needs a new certificate; or the clock is wrong")
    if code == _NOT_YET:
        return Distrust(f"expiry: {said}", "the clock is behind, or the certificate is of tomorrow")
    if code in _NO_CHAIN:
        return Distrust(f"signer: {said}", "mqtt.tls.ca must be the CA that signed the broker's certificate")
    return Distrust(f"make: {said}", "the broker's certificate or its CA's must be made anew without that fault")


_ALERTS: Final = {
    "CERTIFICATE_EXPIRED": "this device's certificate has ended: renew mqtt.tls.cert",
    "CERTIFICATE_REVOKED": "this device's certificate is revoked: it needs a new key and certificate",
    "UNKNOWN_CA": "the broker's CA did not sign mqtt.tls.cert: give this device a certificate of that CA",
    "CERTIFICATE_REQUIRED": "the broker wants a certificate: give mqtt.tls.cert and key",
    "UNSUPPORTED_CERTIFICATE": "mqtt.tls.cert is not for clients: its extendedKeyUsage must name clientAuth",
    "BAD_CERTIFICATE": "the broker does not like mqtt.tls.cert: see the broker's log",
    "CERTIFICATE_UNKNOWN": "the broker does not like mqtt.tls.cert: see the broker's log",
    "DECRYPT_ERROR": "mqtt.tls.cert is another CA's of the same name: give this device one of the broker's CA",
    "HANDSHAKE_FAILURE": "the broker wants a certificate, or shares no cipher: give mqtt.tls.cert and key",
    "PROTOCOL_VERSION": "the broker speaks an old TLS: it must speak 1.2 or 1.3",
    "WRONG_VERSION_NUMBER": "is this the TLS port?",
    "UNEXPECTED_EOF": "is this the TLS port? see the broker's log",
}


def refused_by_broker(reason: str) -> str:
    """What a TLS alert of the broker's means for this device, "" where it says nothing about the certificate."""
    return next((text for name, text in _ALERTS.items() if name in reason), "")


def certificate_end(files: TlsFiles | None) -> datetime | None:
    """When this device's certificate, as it lies on disk, ends to be valid; None without one that can be read."""
    return None if files is None or files.cert is None else _end(files.cert)


def _end(path: Path) -> datetime | None:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.astimezone(UTC)
    except (OSError, ValueError):  # the next connection says what is wrong with it
        return None


def certificate_days(files: TlsFiles | None, now: datetime) -> float | None:
    """Days until this device's certificate ends, negative once it has; None without one that can be read."""
    end = certificate_end(files)
    return None if end is None else round((end - now).total_seconds() / 86400, 1)
