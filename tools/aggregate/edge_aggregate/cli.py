"""`edge-aggregate`: what comes from many kiosks. In this version: the soundness of an ingest log."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Never shows a user a traceback."""
    parser = argparse.ArgumentParser(prog="edge-aggregate", description="Counts of many kiosks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="duplicates, conflicts, gaps and dead letters of an ingest log")
    check.add_argument("log", type=Path, help="one JSON object a line: topic, received, payload")
    check.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args(argv)
    try:
        from edge.errors import EdgeError
        from edge_aggregate.check import check_log
    except ImportError as error:
        print(f'edge-aggregate: {error.name} is not installed: pip install "edge-fer[aggregate]"', file=sys.stderr)
        return 2
    try:
        found = check_log(args.log)
    except EdgeError as error:
        print(f"edge-aggregate: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(asdict(found)))
        return 0
    for number, reason in found.dead:
        print(f"{args.log}:{number}: dead letter: {reason}")
    print(
        f"{found.windows} windows, {found.duplicates} duplicates, {found.conflicts} conflicts, "
        f"{found.missing} missing, {len(found.dead)} dead letters"
    )
    return 0
