"""The broker as the command line names it: its address, the login and the certificates that are shown to it."""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

OPTIONS: Final = ("tls_ca", "tls_cert", "tls_key", "username", "password_file", "insecure")
"""How a broker is reached, besides its address and the topics' root."""


class Broker(NamedTuple):
    """Where it is, and what is shown to it."""

    host: str
    port: int
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    insecure: bool = False

    @property
    def name(self) -> str:
        """As it is said in lines to a reader."""
        return f"broker {self.host}:{self.port}"


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """What names a broker on a command line; `broker_of` reads it."""
    from pathlib import Path

    parser.add_argument(
        "--broker", metavar="HOST[:PORT]", help="an MQTT 5 broker; port 1883, or 8883 with --tls-ca, where none is said"
    )
    parser.add_argument("--root", default="edge", help="first level of the topics (edge)")
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help="the CA that signed the broker's certificate")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="this program's certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, where it is not in the same file")
    parser.add_argument("--username", metavar="NAME")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is the password")
    parser.add_argument("--insecure", action="store_true", help="without TLS beyond this machine")


def broker_of(args: argparse.Namespace) -> Broker:
    """The broker of a command line. Raises ConfigError."""
    host, port = _address(args.broker, 8883 if args.tls_ca else 1883)
    if (args.tls_cert or args.tls_key) and not args.tls_ca:
        msg = "--tls-cert without --tls-ca: give the CA that signed the broker's certificate"
        raise ConfigError(msg)
    if args.tls_key and not args.tls_cert:
        msg = "--tls-key without --tls-cert: give the certificate that it belongs to"
        raise ConfigError(msg)
    if args.insecure and args.tls_ca:
        msg = "--insecure is for brokers without TLS: leave it out with --tls-ca, by which the broker is checked"
        raise ConfigError(msg)
    if args.password_file and not args.username:
        msg = "--password-file without --username: give both"
        raise ConfigError(msg)
    broker = Broker(
        host, port, args.tls_ca, args.tls_cert, args.tls_key, args.username, args.password_file, args.insecure
    )
    if broker.ca is None and not (broker.insecure or _is_loopback(host)):
        msg = f"plain MQTT to {host} is refused: give --tls-ca, or say --insecure"
        raise ConfigError(msg)
    tls_context(broker)
    password_of(broker)
    return broker


def _address(text: str, port: int) -> tuple[str, int]:
    if "://" in text or "/" in text or "@" in text:
        msg = "--broker: is a URL: give HOST:PORT alone; logins go into --username and --password-file"
        raise ConfigError(msg)
    host, said = text, ""
    if text.startswith("["):
        host, _, said = text[1:].partition("]")
        said = said.removeprefix(":")
    elif text.count(":") == 1:
        host, _, said = text.partition(":")
    if not host or not ((said.isascii() and said.isdigit()) or not said) or not 0 < int(said or port) < 65_536:
        msg = f"--broker {text!r}: give HOST or HOST:PORT, an IPv6 address in brackets"
        raise ConfigError(msg)
    return host, int(said or port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def tls_context(broker: Broker) -> ssl.SSLContext | None:
    """What verifies the broker and shows our certificate; None without a CA. Raises ConfigError.

    Made afresh for each connection, so that a renewed certificate needs no restart. Strict checks of RFC 5280 are off
    on every Python: they refuse CAs as guides make them, and stop nobody who has no CA's key.
    """
    if broker.ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(broker.ca))
    except OSError as error:  # ssl.SSLError is one
        msg = f"--tls-ca {broker.ca}: cannot be used ({reason_of(error)}): it must be a PEM certificate, and readable"
        raise ConfigError(msg) from error
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert is not None:
        try:  # a password of our own, or an encrypted key would ask for one at a terminal
            context.load_cert_chain(str(broker.cert), None if broker.key is None else str(broker.key), password="")
        except OSError as error:
            msg = (
                f"--tls-cert {broker.cert}: it and its key cannot be used ({reason_of(error)}): "
                "both must be PEM, belong together, be readable and need no password"
            )
            raise ConfigError(msg) from error
    return context


def reason_of(error: Exception) -> str:
    """What an error of a socket or a file says, as short as it says it."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error or type(error).__name__)


def password_of(broker: Broker) -> str | None:
    """The password file's first line; None without one. Raises ConfigError."""
    if broker.password_file is None:
        return None
    try:
        return (broker.password_file.read_text("utf-8").splitlines() or [""])[0]
    except (OSError, UnicodeError) as error:
        msg = f"--password-file {broker.password_file}: cannot be read ({reason_of(error)})"
        raise ConfigError(msg) from error
