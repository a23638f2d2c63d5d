"""`edge-quantize evaluate`: score a bundle as shipped and write the report."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import SourceError
from edge_quantize.evaluation.report import RUNS, looks, to_markdown, write

if TYPE_CHECKING:
    import argparse


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize evaluate`."""
    from edge_quantize.evaluation.evaluate import evaluate

    if args.runs is not None and not args.runs.is_dir():
        msg = f"{args.runs}: no folder of training runs: give the parent of the run folders, or leave --runs out"
        raise SourceError(msg)
    runs = args.runs or (RUNS if RUNS.is_dir() else None)
    done = evaluate(args.bundle)
    if runs is not None:
        done.report["public_test_scored"] = looks(runs)
    write(done, args.out, runs)
    text = json.dumps(done.report) if args.json else f"{to_markdown(done.report)}\nreport: {args.out}"
    sys.stdout.write(text + "\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `evaluate`."""
    parser = subparsers.add_parser("evaluate", help="score a bundle's int8 files and write a report")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle folder, e.g. models/fer-2027.09")
    parser.add_argument("--out", type=Path, default=Path("build/report"))
    parser.add_argument("--runs", type=Path, help=f"folder of training runs, for their curves; {RUNS} if it is there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.set_defaults(func=command)
