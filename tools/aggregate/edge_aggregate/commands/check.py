"""`edge-aggregate check`: whether a log is sound."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("check", help="duplicates, conflicts, gaps and dead letters of an ingest log")
    parser.add_argument(
        "log",
        nargs="+",
        metavar="PATTERN",
        help="its files, read as one: one JSON object a line (topic, received, payload)",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Its findings, dead letters line by line."""
    from edge_aggregate.check import check_log
    from edge_aggregate.ingest import expand

    found = check_log(*expand(args.log))
    if args.json:
        print(json.dumps(asdict(found)))
        return 0
    for name, (number, reason) in zip(found.files, found.dead, strict=True):
        print(f"{name}:{number}: dead letter: {reason}")
    print(
        f"{found.windows} windows, {found.duplicates} duplicates, {found.conflicts} conflicts, "
        f"{found.missing} missing, {len(found.dead)} dead letters"
    )
    return 0
