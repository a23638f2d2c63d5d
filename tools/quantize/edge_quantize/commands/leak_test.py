"""`edge-quantize leak-test`: whether the synthetic masks tell the expression."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_quantize.evaluation.leak_test import CHANCE, FACES, MOST_BALANCED, MOST_OF_ONE, leak
from edge_quantize.masks import synthesis as masks

if TYPE_CHECKING:
    import argparse


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize leak-test`: 0 when the masks tell nothing, 1 when they do."""
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    lots = masks.Lots(neutral=0.0, jitter=0.0) if args.control else masks.Lots()
    figure = leak(lots, args.faces)
    if args.out is not None:
        args.out.write_text(json.dumps(figure, indent=1) + "\n", encoding="utf-8")
    if args.json:
        sys.stdout.write(json.dumps(figure) + "\n")
    else:
        classes = ", ".join(f"{name} {recall:.1%}" for name, recall in figure["by_class"].items())
        sys.stdout.write(
            f"balanced recall from the mask alone {figure['balanced_mean']:.1%} (chance {CHANCE:.1%}, allowed "
            f"{MOST_BALANCED:.1%}); by class: {classes} (allowed {MOST_OF_ONE:.0%}); n {figure['n']}: "
            f"{'passed' if figure['passed'] else 'LEAKS'}\n"
        )
    return 0 if figure["passed"] else 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `leak-test`."""
    parser = subparsers.add_parser("leak-test", help="measure whether the synthetic masks tell the expression")
    parser.add_argument("--faces", type=int, default=FACES, help="faces of the training split that get a mask")
    parser.add_argument("--control", action="store_true", help="without jitter and neutral chins: this must leak")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=command)
