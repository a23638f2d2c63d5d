"""`edge-aggregate serve`: the pages of a store."""

from __future__ import annotations

import getpass
import ipaddress
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.errors import ConfigError, StorageError, refuse_options

if TYPE_CHECKING:
    import argparse

_OF_PAGES: Final = ("store", "sites", "listen", "passwords", "tls_cert", "tls_key", "behind_proxy")
STOP_S: Final = 3
"""How long open streams are given when the server is told to stop."""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("serve", help="pages: sites, cities, fleet, data quality")
    parser.add_argument("--store", metavar="ADDRESS", help="an SQLite file, or postgresql://…")
    parser.add_argument("--sites", type=Path, metavar="FILE", help="the sites file: names, zones, cities, places")
    parser.add_argument("--listen", default="127.0.0.1:8400", metavar="HOST:PORT", help="default: 127.0.0.1:8400")
    parser.add_argument("--passwords", type=Path, metavar="FILE", help="who may look: needed where others can reach it")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="a certificate, with --tls-key")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--behind-proxy", action="store_true", help="a proxy in front has TLS")
    parser.add_argument(
        "--hash-password", metavar="NAME", help="ask for a password, print NAME's line of a password file"
    )
    parser.set_defaults(run=run, default_of=parser.get_default)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    import uvicorn

    from edge_aggregate.sites import read_sites
    from edge_aggregate.web.app import make_app
    from edge_aggregate.web.auth import hash_password, read_passwords

    if args.hash_password is not None:
        name = args.hash_password
        refuse_options(args, _OF_PAGES, "leave out with --hash-password, which prints a line and serves nothing")
        if ":" in name or name != name.strip() or not name.isprintable() or not name or name.startswith("#"):
            msg = "--hash-password: a name is printable, has no colon, and begins with no #"
            raise ConfigError(msg)
        try:
            password = getpass.getpass("password: ")
        except EOFError:
            password = ""
        if not password:
            msg = "--hash-password: no password was typed"
            raise ConfigError(msg)
        print(f"{name}:{hash_password(password)}")
        return 0
    if args.store is None:
        msg = "give --store ADDRESS"
        raise ConfigError(msg)
    host, port = _listen(args)
    passwords = None if args.passwords is None else read_passwords(args.passwords)
    app = make_app(args.store, read_sites(args.sites), passwords)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        log_config=None,  # its own would close the handlers of whoever runs it in a process of theirs
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=args.tls_cert,
        ssl_keyfile=args.tls_key,
    )
    try:
        config.load()
    except (OSError, ValueError) as error:  # ssl.SSLError is one
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        msg = f"--tls-cert {args.tls_cert}, --tls-key {args.tls_key}: {why}: give a PEM certificate and its key"
        raise ConfigError(msg) from error
    listener = _bound(args.listen, host, port)
    scheme = "https" if args.tls_cert else "http"
    shown = f"[{host}]" if ":" in host else host
    print(f"{scheme}://{shown}:{listener.getsockname()[1]}/", flush=True)
    _look(args.store)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _bound(listen: str, host: str, port: int) -> socket.socket:
    """A socket that listens, so that whoever reads the address finds somebody there. Raises ConfigError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:  # Python adds the address to the system's words
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        msg = f"--listen {listen}: cannot be used ({why}): name another address or port"
        raise ConfigError(msg) from error


def _look(address: str) -> None:
    """Say on standard error why there is nothing to show yet: a store may come later, a misspelt one never does."""
    from edge_aggregate.store import open_store

    try:
        open_store(address, read_only=True).close()
    except StorageError as error:
        print(f"nothing to show yet: {error}", file=sys.stderr)


def _listen(args: argparse.Namespace) -> tuple[str, int]:
    """Where to listen. Raises ConfigError where strangers could look, or listen in on a password."""
    host, _, port = args.listen.rpartition(":")
    host = host.strip("[]")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        msg = f"--listen {args.listen:.200}: give HOST:PORT, as in 127.0.0.1:8400"
        raise ConfigError(msg)
    if (args.tls_cert is None) != (args.tls_key is None):
        msg = "--tls-cert and --tls-key go together"
        raise ConfigError(msg)
    for path in (args.tls_cert, args.tls_key):
        if path is not None and not path.is_file():
            msg = f"{path}: no such file"
            raise ConfigError(msg)
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and args.passwords is None:
        msg = f"--listen {args.listen}: others can reach that: give --passwords FILE"
        raise ConfigError(msg)
    if not local and args.tls_cert is None and not args.behind_proxy:
        msg = f"--listen {args.listen}: passwords would be readable: give --tls-cert and --tls-key, or --behind-proxy"
        raise ConfigError(msg)
    if local and args.passwords is not None and args.tls_cert is None:
        print("passwords are asked for without TLS, on loopback only", file=sys.stderr)
    return host, int(port)
