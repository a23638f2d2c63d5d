"""Where the broker is and what is shown to it: the `mqtt` section as a connection sees it."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final, Protocol

from edge.config.text import first_line
from edge.errors import BrokerRefused, BrokerUnavailable
from edge.publisher.tls import broker_distrusted, refused_by_broker, tls_context

if TYPE_CHECKING:
    from pathlib import Path

    from edge.publisher.tls import TlsFiles


ALERT_S: Final = 2.0
"""Longest wait for what a broker may say after the handshake."""


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


def no_connection(error: OSError | UnicodeError, broker: BrokerSettings) -> BrokerRefused | BrokerUnavailable:
    """What it means that TCP or TLS failed: BrokerUnavailable where waiting helps, else BrokerRefused."""
    where = f"broker {broker.host}:{broker.port}"
    if isinstance(error, ssl.SSLCertVerificationError) and broker.tls is not None:
        what, mend = broker_distrusted(error, broker.tls, broker.host)
        return BrokerRefused(f"{where}: TLS failed: broker not trusted, {what}: {mend}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        mend = refused_by_broker(reason) or "check mqtt.tls and its certificate"
        return BrokerRefused(f"{where}: TLS failed ({reason}): {mend}")
    # A name that cannot be one (UnicodeError) is a broker that nobody reaches.
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return BrokerUnavailable(f"{where} cannot be reached ({reason}): retrying, the rows are kept")


def alert(broker: BrokerSettings) -> str:
    """What the broker says to a TLS handshake with nothing after it, "" when it says nothing. Raises ConfigError.

    Under TLS 1.3 a client's certificate is judged after the handshake. With a CONNECT under way the broker hangs up on
    unread bytes, and the kernel throws its alert away; with nothing under way the alert arrives.
    """
    if broker.tls is None:
        return ""
    context = tls_context(broker.tls)
    try:
        with (
            socket.create_connection((broker.host, broker.port), ALERT_S) as plain,
            context.wrap_socket(plain, server_hostname=broker.host) as secure,
        ):
            secure.recv(1)
    except ssl.SSLError as error:
        return error.reason or str(error)
    except (OSError, UnicodeError):
        pass
    return ""


def password(path: Path | None) -> str | None:
    """The first line of the password file, None without one. Raises ConfigError."""
    return None if path is None else first_line(path, "mqtt.password_file")
