"""`edge-aggregate replay`: ask devices for the windows that never came."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from edge.errors import BrokerUnavailable, ConfigError
from edge_aggregate import broker as brokers
from edge_aggregate.commands import subscribe
from edge_aggregate.connection import Connection

if TYPE_CHECKING:
    import argparse

    from paho.mqtt.client import MQTTMessage

    from edge_aggregate.broker import Broker
    from edge_aggregate.store.replays import Gap


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("replay", help="ask devices for windows that never came; a subscriber gets the rows")
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--store", required=True, metavar="ADDRESS", help="an SQLite file, or postgresql://…")
    brokers.add_arguments(parser)
    parser.add_argument("--client-id", metavar="ID", help="with a certificate, its name; .replay and more is added")
    parser.add_argument("--dry-run", action="store_true", help="say what would be asked for, and whom")
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="for answers, after the last question (60)"
    )


def run(args: argparse.Namespace) -> int:
    """One round. Devices that do not answer are no failure: they are asked again later."""
    from edge_aggregate.store import open_store
    from edge_aggregate.store.replays import numbers, read_gaps

    root = subscribe.root_of(args)
    with open_store(args.store, read_only=True) as store:
        gaps = read_gaps(store.engine)
    now_ms = time.time_ns() // 1_000_000
    due = [gap for gap in gaps if gap.due(now_ms)]
    if args.dry_run:
        for gap in due:
            what = f"{gap.boot_id[:8]}…/{numbers(gap.first_seq, gap.last_seq)}, {gap.missing} windows"
            print(f"{gap.site}/{gap.device}: {what}")
    print(_summary(gaps, due))
    if args.dry_run or not due:
        return 0
    if not args.broker:
        msg = "give --broker HOST[:PORT]"
        raise ConfigError(msg)
    broker = brokers.broker_of(args)
    return _ask(broker, f"{subscribe.client_id(args)}.replay-{secrets.token_hex(4)}", root, args)


def _summary(gaps: list[Gap], due: list[Gap]) -> str:
    lost = [gap for gap in gaps if gap.lost]
    later = len(gaps) - len(due) - len(lost)
    return (
        f"{sum(gap.missing for gap in gaps)} windows missing in {len(gaps)} gaps: {len(due)} to ask for, "
        f"{len(lost)} lost for good, {later} not now (asked a while ago, or the device is away)"
    )


def _ask(broker: Broker, client_id: str, root: str, args: argparse.Namespace) -> int:
    from edge_aggregate.replay import Asker, summary
    from edge_aggregate.store import open_store

    stopping = subscribe.stopped_by_signal()
    subscribe.talk()
    asker = Asker(root, None)

    def receive(message: MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        asker.take(message.topic, bytes(message.payload), correlation)

    connection = Connection(broker, client_id, keep_s=0, receive=100, on_message=receive)
    with open_store(args.store) as store:
        connection.open(stopping)
        number = connection.subscribe(*asker.topics())
        last, asked = time.monotonic(), 0
        try:
            while not (stopping() or asker.done):
                connection.step(0.1)
                if number in connection.granted:
                    asker.tend(connection, store)
                if asker.answers.asked > asked:
                    last, asked = time.monotonic(), asker.answers.asked
                if time.monotonic() > last + args.wait:
                    break
        finally:  # a broker that goes in the middle of a round must not keep the next one waiting
            asker.leave(store)
    connection.close()
    if asker.held_by_another:
        print("another one is asking just now: nothing was asked")
        return 0
    if asker.denied:
        return 77
    print(summary(asker.answers))
    if number not in connection.granted:
        msg = f"{broker.name} did not answer the subscription"
        raise BrokerUnavailable(msg)
    return 0
