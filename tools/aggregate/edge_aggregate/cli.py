"""`edge-aggregate`: from the counts of many kiosks to figures."""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from edge.errors import EdgeError, install

if TYPE_CHECKING:
    from collections.abc import Sequence

EXTRAS: Final = {"psycopg": "postgres", "py4j": "spark", "pyarrow": "parquet", "pyspark": "spark"}
"""What a package is installed by, where it is not the aggregator's own extra."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Never shows a user a traceback."""
    try:
        from edge_aggregate.commands import calibrate, check, demo, export, gaps, index, ingest, replay, serve, upkeep
        from edge_aggregate.simulate.command import add_parser as add_simulate
    except ImportError as error:
        print(f"edge-aggregate: {error.name} is not installed: {install('aggregate')}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="edge-aggregate", description="From the counts of many kiosks to figures.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (ingest, calibrate, index, gaps, replay, export, serve, check, upkeep, demo):
        command.add(commands)
    add_simulate(commands)
    args = parser.parse_args(argv)
    args.main = main
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that has no dash still shows the figures
        sys.stdout.reconfigure(errors="replace")
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    """The exit code; whatever went wrong is told in a line."""
    trouble = None
    try:
        code = int(args.run(args))
        if sys.stdout is not None:  # closed by who called
            sys.stdout.flush()  # here, where a full disk can be told
    except EdgeError as error:
        trouble, code = str(error), error.exit_code
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0], "aggregate")
        trouble, code = f"{error.name} is not installed: {install(extra)}", 2
    except ImportError as error:  # two packages that do not fit each other
        trouble, code = str(error), 2
    except BrokenPipeError:  # `… | head`: who reads has seen enough
        _discard()
        code = 0
    except OSError as error:
        where = "output" if error.filename is None else ascii(error.filename)[1:-1]
        trouble, code = f"{where}: {error.strerror or error}", 74
        _discard()
    except KeyboardInterrupt:
        code = 130
    if trouble is not None:
        print(f"edge-aggregate: {trouble}", file=sys.stderr)
    return code


def _discard() -> None:
    """What is still to be written goes nowhere: the interpreter would try once more, and complain."""
    with suppress(AttributeError, OSError, ValueError):  # closed, or no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
