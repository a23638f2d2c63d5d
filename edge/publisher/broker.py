"""Where the broker is and what is shown to it: the `mqtt` section as a connection sees it."""

from __future__ import annotations

import ssl
from datetime import UTC
from typing import TYPE_CHECKING, Protocol

from edge.config.text import first_line
from edge.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime
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


class BrokerSettings(Protocol):
    """The `mqtt` section, as far as a connection needs it."""

    @property
    def host(self) -> str:
        """Name or address."""
        ...

    @property
    def port(self) -> int:
        """TCP port."""
        ...

    @property
    def tls(self) -> TlsFiles | None:
        """None: plain."""
        ...

    @property
    def username(self) -> str | None:
        """None: no login."""
        ...

    @property
    def password_file(self) -> Path | None:
        """Its first line is the password."""
        ...

    @property
    def insecure(self) -> bool:
        """Whether plain is allowed beyond loopback."""
        ...


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that verifies the broker and shows this device's certificate. Raises ConfigError.

    Read afresh for every connection, so that a renewed certificate needs no restart.
    """
    for name in ("ca", "cert", "key"):
        path = getattr(files, name)
        if path is not None and not path.is_file():
            msg = f"mqtt.tls.{name}: {path} does not exist: put it there, or mend the path"
            raise ConfigError(msg)
    try:
        context = ssl.create_default_context(cafile=str(files.ca))
    except OSError as error:  # ssl.SSLError is one
        msg = f"mqtt.tls.ca: {files.ca} cannot be used ({error}): it must be a PEM certificate, and readable"
        raise ConfigError(msg) from error
    if files.cert is not None:
        try:  # a password of our own, or an encrypted key would ask for one at a terminal
            context.load_cert_chain(str(files.cert), None if files.key is None else str(files.key), password="")
        except OSError as error:
            msg = (
                f"mqtt.tls.cert: {files.cert} and its key cannot be used ({error}): "
                "both must be PEM, belong together, be readable and need no password"
            )
            raise ConfigError(msg) from error
    return context


def certificate_end(files: TlsFiles | None) -> datetime | None:
    """When this device's certificate, as it lies on disk, ends to be valid; None without one that can be read."""
    if files is None or files.cert is None:
        return None
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(files.cert.read_bytes()).not_valid_after_utc.astimezone(UTC)
    except (OSError, ValueError):  # the next connection says what is wrong with it
        return None


def certificate_days(files: TlsFiles | None, now: datetime) -> float | None:
    """Days until this device's certificate ends, negative once it has; None without one that can be read."""
    end = certificate_end(files)
    return None if end is None else round((end - now).total_seconds() / 86400, 1)


def password(path: Path | None) -> str | None:
    """The first line of the password file, None without one. Raises ConfigError."""
    return None if path is None else first_line(path, "mqtt.password_file")
