"""`edge-aggregate ingest --broker`: from a broker into a landing log and a store, until it is told to end."""

from __future__ import annotations

import logging
import re
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ConfigError
from edge_aggregate import broker as brokers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

OPTIONS = (
    *brokers.OPTIONS,
    *("root", "landing", "client_id", "share", "batch", "every", "replay_every", "metrics_port"),
)
"""All but `--store` and `--broker`."""
REPLAY_S = 900.0
"""Between two rounds of asking. A device keeps what it sent for 30 days: who never asks has lost it then."""
BATCH_MOST = 20_000
"""As many lines as a batch of `ingest --files` has: a segment is counted whole or not at all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments, less `--store`."""
    brokers.add_arguments(parser)
    parser.add_argument("--landing", type=Path, metavar="FOLDER", help="where the landing log is written")
    parser.add_argument(
        "--client-id", metavar="ID", help="under which the broker keeps the session; with a certificate, its name"
    )
    parser.add_argument(
        "--share", metavar="GROUP", help="one of several subscribers with one store: each gets a part of the messages"
    )
    parser.add_argument("--batch", type=int, default=5000, metavar="N", help="messages of a commit, at most (5000)")
    parser.add_argument(
        "--every", type=float, default=0.2, metavar="SECONDS", help="that a message waits for its commit (0.2)"
    )
    parser.add_argument(
        "--replay-every",
        type=duration,
        default=REPLAY_S,
        metavar="TIME",
        help="ask devices for what never came, so often: 15m (if not said), 1h, off; of several subscribers one does",
    )
    parser.add_argument(
        "--metrics-port", type=int, metavar="PORT", help="figures for Prometheus on 127.0.0.1:PORT/metrics"
    )


def duration(text: str) -> float:
    """Seconds of `90s`, `15m`, `1h`, a minute or more; 0 of `off`."""
    import argparse

    if text == "off":
        return 0.0
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0
    if not 60 <= seconds <= 7 * 86_400:
        msg = f"{text!r} is no time between a minute and a week: 15m, 1h, or off"
        raise argparse.ArgumentTypeError(msg)
    return float(seconds)


def run(args: argparse.Namespace) -> int:
    """Subscribe until SIGTERM or SIGINT; the last batch is committed and acknowledged before it ends."""
    from edge_aggregate.batches import BUSY_S
    from edge_aggregate.metrics import served
    from edge_aggregate.replay import Asker
    from edge_aggregate.store import open_store
    from edge_aggregate.subscribe import Options, Subscriber

    if not args.broker or args.landing is None:
        msg = "give --broker HOST[:PORT] and --landing FOLDER"
        raise ConfigError(msg)
    broker = brokers.broker_of(args)
    name = client_id(args)
    if args.share:  # several may be given one name, each keeps its connection
        name += f".{secrets.token_hex(4)}"
    options = Options(args.store, args.landing, name, root_of(args), group_of(args.share), args.batch, args.every)
    if not 1 <= options.batch <= BATCH_MOST or not 0 < options.every <= 60:
        msg = f"--batch is 1 to {BATCH_MOST}, --every over 0 and up to 60 s"
        raise ConfigError(msg)
    if args.metrics_port is not None and not 0 < args.metrics_port < 65_536:
        msg = "--metrics-port: 1 to 65535"
        raise ConfigError(msg)
    talk()
    subscriber = Subscriber(
        broker,
        options,
        lambda: open_store(args.store, create=True, busy_s=BUSY_S),
        stopped_by_signal(),
        Asker(options.root, args.replay_every) if args.replay_every else None,
    )
    with served(subscriber, args.metrics_port):
        subscriber.run()
    figures = subscriber.figures
    logging.getLogger("edge.aggregate").info(
        "ended: %d messages, %d windows, %d commits", figures.messages, figures.windows, figures.commits
    )
    return 0


def talk() -> None:
    """One line an event to standard error, without a time: whoever keeps it has one."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")


def stopped_by_signal() -> Callable[[], bool]:
    """What is true once SIGTERM or SIGINT has come."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    return ending.is_set


def client_id(args: argparse.Namespace) -> str:
    """The one named, or this machine's. Raises ConfigError."""
    named: str | None = args.client_id
    if named is None and args.tls_cert is not None:
        msg = "--tls-cert: give --client-id too, the name (CN) in the certificate: brokers may let in no other"
        raise ConfigError(msg)
    if named is not None and not re.fullmatch(r"[^\s/+#\x00-\x1f\x7f]{1,100}", named):
        msg = "--client-id: up to 100 characters, without spaces, /, + and #"
        raise ConfigError(msg)
    return named or "edge-aggregate-" + re.sub("[^a-z0-9-]", "-", socket.gethostname().lower())[:64]


def root_of(args: argparse.Namespace) -> str:
    """The first levels of the topics. Raises ConfigError."""
    from edge.contract import ContractError, Topics

    try:
        return Topics(args.root, "site", "device").root
    except ContractError as error:
        msg = f"--root: {error}"
        raise ConfigError(msg) from error


def group_of(share: str | None) -> str | None:
    """The name of the group. Raises ConfigError."""
    if share is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", share):
        msg = "--share: up to 64 letters, digits, _, . and -"
        raise ConfigError(msg)
    return share
