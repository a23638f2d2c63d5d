"""`edge-aggregate`: from the counts of many kiosks to figures."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

EXTRAS: Final = {"psycopg": "postgres", "pyarrow": "parquet", "pyspark": "spark"}
"""What a package is installed by, where it is not the aggregator's own extra."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Never shows a user a traceback."""
    try:
        from edge.errors import EdgeError
        from edge_aggregate.commands import calibrate, check, demo, export, gaps, index, ingest, replay, serve, upkeep
        from edge_aggregate.simulate.command import add_parser as add_simulate
    except ImportError as error:
        print(f'edge-aggregate: {error.name} is not installed: pip install "edge-fer[aggregate]"', file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="edge-aggregate", description="From the counts of many kiosks to figures.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (ingest, calibrate, index, gaps, replay, export, serve, check, upkeep, demo):
        command.add(commands)
    add_simulate(commands)
    args = parser.parse_args(argv)
    args.main = main
    try:
        return int(args.run(args))
    except EdgeError as error:
        print(f"edge-aggregate: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0], "aggregate")
        print(f'edge-aggregate: {error.name} is not installed: pip install "edge-fer[{extra}]"', file=sys.stderr)
        return 2
    except BrokenPipeError:  # `… | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
