"""`edge-aggregate simulate`: a fleet's traffic into a landing log or to a broker, and the truth about it."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from edge.contract import parse_utc
from edge.errors import ConfigError, StorageError, refuse_options
from edge_aggregate.broker import OPTIONS, add_arguments, broker_of
from edge_aggregate.simulate.plan import Classifier, Faults, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_aggregate.simulate.fleet import Fleet

_FAULTS: Final = {
    "outages": "windows that come late and in bursts, after an outage",
    "duplicates": "windows that are sent once more",
    "late": "windows that come late one by one",
    "lost": "windows that never come; half of them can be replayed",
    "clock_errors": "windows counted in holdover, or by a clock that is not set",
    "hostile": "messages of strangers, per window",
    "conflicts": "windows whose key another payload claims too",
}


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("simulate", help="a fleet that is not there: its messages, and the truth about them")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a landing log there")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="what there was to count, as JSON")
    parser.add_argument("--places", type=Path, metavar="FILE", help="write the sites file of the fleet's towns")
    fleet = parser.add_argument_group("the fleet")
    fleet.add_argument("--devices", type=_whole, required=True, metavar="N")
    fleet.add_argument("--minutes", type=_number, required=True, metavar="M", help="of the fleet's time")
    fleet.add_argument("--sites", type=_whole, default=0, metavar="K", help="(default: a third of the devices)")
    fleet.add_argument("--windows", type=_whole, default=3600, metavar="SECONDS", help="a window's length (3600)")
    fleet.add_argument("--start", type=_instant, metavar="TIME", help="when it begins (default: so that it ends now)")
    fleet.add_argument("--seed", type=_whole, default=0, help="the same seed and arguments: the same bytes (0)")
    fleet.add_argument("--epsilon", type=_epsilon, default=1.0, metavar="E|off", help="of a window's noise (1)")
    fleet.add_argument("--min-count", type=_whole, default=10, metavar="N", help="a cell is released from here on (10)")
    fleet.add_argument("--visitors", type=_number, default=30.0, metavar="N", help="per kiosk and opened hour (30)")
    fleet.add_argument("--happy", type=_number, default=0.25, metavar="SHARE", help="of them, on average (.25)")
    fleet.add_argument("--restarts", type=_number, metavar="N", help="per kiosk and day (.1)")
    fleet.add_argument(
        "--manifest", type=Path, metavar="FILE", help="read faces as this bundle does (default: rightly)"
    )
    wrong = parser.add_argument_group("what goes wrong, each 0 to 1 of the windows")
    for field in fields(Faults):
        wrong.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=_share,
            metavar="P",
            help=f"{_FAULTS[field.name]} ({field.default:g})",
        )
    wrong.add_argument("--faultless", action="store_true", help="nothing goes wrong, unless it is asked for by name")
    broker = parser.add_argument_group("to a broker, instead of --out")
    add_arguments(broker)
    pace = broker.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=_above, metavar="N", help="windows a second at most (default: what it takes)")
    pace.add_argument("--speed", type=_speed, metavar="X|max", help="the fleet's seconds in one of ours (max)")
    broker.add_argument("--live", action="store_true", help="then go on in real time, until it is interrupted")
    broker.add_argument("--stay", type=_number, default=0.0, metavar="SECONDS", help="then answer replays so long (0)")
    parser.set_defaults(run=run, default_of=parser.get_default)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        msg = f"{text!r:.40} is no number from 0 on"
        raise argparse.ArgumentTypeError(msg)
    return value


def _above(text: str) -> float:
    value = _number(text)
    if value <= 0:
        msg = f"{text!r:.40} is not above 0"
        raise argparse.ArgumentTypeError(msg)
    return value


def _speed(text: str) -> float | None:
    return None if text == "max" else _above(text)


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        msg = f"{text!r:.40} is no whole number"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _share(text: str) -> float:
    value = _number(text)
    if value > 1:
        msg = f"{text!r:.40}: is a share of the windows, give 0 to 1"
        raise argparse.ArgumentTypeError(msg)
    return value


def _epsilon(text: str) -> float | None:
    return None if text == "off" else _number(text)


def _instant(text: str) -> datetime:
    try:
        return parse_utc(f"{text}T00:00:00Z" if len(text) == len("2026-11-21") else text)
    except ValueError as error:
        msg = f"{text!r:.40}: {error}; give a date (UTC), or an instant with its offset"
        raise argparse.ArgumentTypeError(msg) from error


def read_plan(args: argparse.Namespace) -> Plan:
    """What was asked for. Raises ConfigError, and SourceError or ContractError for a manifest."""
    faults: dict[str, float] = dict.fromkeys(asdict(Faults()), 0.0) if args.faultless else asdict(Faults())
    faults |= {name: getattr(args, name) for name in faults if getattr(args, name) is not None}
    restarts = (0.0 if args.faultless else 0.1) if args.restarts is None else args.restarts
    if args.minutes > 60 * 24 * 3660:
        msg = f"--minutes {args.minutes:g}: is over ten years"
        raise ConfigError(msg)
    start = args.start or datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=args.minutes)
    return Plan(
        devices=args.devices,
        minutes=args.minutes,
        start=start,
        seconds=args.windows,
        sites=args.sites,
        seed=args.seed,
        epsilon=args.epsilon,
        min_count=args.min_count,
        visitors=args.visitors,
        happy=args.happy,
        restarts=restarts,
        faults=Faults(**faults),
        root=args.root,
        lines=args.broker is None,
        classifier=Classifier() if args.manifest is None else _classifier(args.manifest),
    )


def _classifier(path: Path) -> Classifier:
    """Of a bundle's manifest; a role it has no table for reads rightly."""
    from edge_aggregate.calibration import read_manifest

    found: dict[str, Any] = {}
    for table in read_manifest(path):
        found[table.role] = table.digest
        found[table.role.removeprefix("fer_")] = table.counts
    return Classifier(**found)


def describe(plan: Plan) -> dict[str, Any]:
    """The plan, for the truth file."""
    body = asdict(plan)
    body["start"] = plan.start.isoformat()
    body["sites"] = plan.site_count
    return body


@contextmanager
def _written(path: Path | None, option: str) -> Iterator[IO[str] | None]:
    """A file that is there as a whole or not at all."""
    if path is None:
        yield None
        return
    part = path.with_name(f".{path.name}.tmp")
    try:
        try:
            with part.open("w", encoding="utf-8") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        msg = f"{option} {path}: {error.strerror}: give a file in a folder that can be written, with room"
        raise StorageError(msg) from error


def run(args: argparse.Namespace) -> int:
    """Simulate, and say what was made."""
    from edge_aggregate.simulate.fleet import Fleet
    from edge_aggregate.simulate.truth import Truth

    if (args.out is None) == (args.broker is None):
        msg = "give --out FOLDER for a log, or --broker HOST:PORT, and not both"
        raise ConfigError(msg)
    for option in ("rate", "speed", "live", "stay"):
        if getattr(args, option) and args.broker is None:
            msg = f"--{option} needs --broker: a log is written as fast as it goes"
            raise ConfigError(msg)
    if args.broker is None:
        refuse_options(args, OPTIONS, "of a broker: leave out with --out, which writes a log")
    if args.live:
        refuse_options(args, ("stay",), "leave out with --live, which answers replays until it is interrupted")
    plan = read_plan(args)
    send = _to_broker if args.out is None else _to_folder
    begun = time.monotonic()
    with _written(args.truth, "--truth") as file:
        truth = Truth(plan, describe(plan), file)
        fleet = Fleet(plan, truth)
        if args.places is not None:
            with _written(args.places, "--places") as places:
                assert places is not None  # noqa: S101 - a path was given
                places.write(fleet.places())
        where = send(args, plan, fleet)
        totals = truth.end()
    whole, seconds = totals["whole"], max(time.monotonic() - begun, 1e-3)
    print(
        f"{totals['lines']} messages {where}: {whole['windows']} windows of {plan.devices} kiosks "
        f"at {plan.site_count} sites, {whole['duplicates']} duplicates, {whole['conflicts']} conflicts, "
        f"{whole['missing']} missing, {totals['dead_letters']['lines']} dead letters"
    )
    print(f"{whole['windows'] / seconds:,.0f} windows/s", file=sys.stderr)
    return 0


def _to_folder(args: argparse.Namespace, _: Plan, fleet: Fleet) -> str:
    from edge_aggregate.simulate.segments import Segments, line

    with Segments(args.out) as segments:
        for message in fleet.messages():
            segments.write(line(message))
    return f"in {len(segments.names)} segment{'s' * (len(segments.names) != 1)}"


def _to_broker(args: argparse.Namespace, plan: Plan, fleet: Fleet) -> str:
    from edge_aggregate.simulate.publish import Pace, Publisher

    stop = threading.Event()
    broker = broker_of(args)
    publisher = Publisher(plan, fleet, broker, Pace(args.rate, args.speed, args.live, args.stay))
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        publisher.run(stop.is_set)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return f"sent to {broker.name}, {publisher.replayed} of them again"
