"""`edge-aggregate check`: whether a log, or a store, is sound."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("check", help="what is wrong with an ingest log, or with a store")
    parser.add_argument(
        "log",
        nargs="*",
        metavar="PATTERN",
        help="its files, read as one: one JSON object a line (topic, received, payload)",
    )
    parser.add_argument("--store", metavar="ADDRESS", help="a store instead: damage, days that are no sums, wrong gaps")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Its findings, dead letters and conflicts line by line; of a store 1 when something is wrong."""
    from edge_aggregate.check import check_log
    from edge_aggregate.ingest import expand

    if bool(args.log) == (args.store is not None):
        msg = "give a log, or --store ADDRESS"
        raise ConfigError(msg)
    if args.store is not None:
        return _store(args.store, as_json=args.json)
    found = check_log(*expand(args.log))
    if args.json:
        print(json.dumps(asdict(found)))
        return 0
    listed = [
        (name, number, f"dead letter: {why}") for name, (number, why) in zip(found.files, found.dead, strict=True)
    ]
    listed += [(name, number, f"conflict: another payload for {window}") for name, number, window in found.conflicting]
    for name, number, what in sorted(listed):
        print(f"{name}:{number}: {what}")
    unlisted = f", the first {found.unlisted} of them not listed" if found.unlisted else ""
    print(
        f"{found.windows} windows, {found.duplicates} duplicates, {found.conflicts} conflicts, "
        f"{found.missing} missing, {len(found.dead) + found.unlisted} dead letters{unlisted}"
    )
    return 0


def _store(address: str, *, as_json: bool) -> int:
    from edge_aggregate.store import open_store
    from edge_aggregate.store.upkeep import check_store

    with open_store(address, read_only=True) as store:
        found = check_store(store)
    if as_json:
        print(json.dumps(found))
    else:
        print("\n".join(found) or "sound: days and gaps are what the windows say")
    return 1 if found else 0
