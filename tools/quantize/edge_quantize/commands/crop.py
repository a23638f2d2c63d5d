"""`edge-quantize crop`: which square around a detector's box the models read best."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.vision.detect.choose import KINDS
from edge_quantize.evaluation import in_scene
from edge_quantize.evaluation.crop import SCALES, SHIFTS, sweep

if TYPE_CHECKING:
    import argparse


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize crop`."""
    figure = sweep(args.bundle, args.detector, args.faces)
    if args.json:
        sys.stdout.write(json.dumps(figure) + "\n")
        return 0
    lines = [f"| {figure['detector']}: scale | " + " | ".join(f"dy {dy:+.2f}" for dy in SHIFTS) + " |",
             "|---|" + "---|" * len(SHIFTS)]  # fmt: skip
    for scale in SCALES:
        cells = " | ".join(f"{one['accuracy']:.2%}" for one in figure["grid"] if one["scale"] == scale)
        lines.append(f"| {scale:.2f} | {cells} |")
    recall, shipped, best = (figure[key] for key in ("recall", "shipped", "best"))
    found = f"faces found {recall['accuracy']:.1%} of {recall['n']}"
    lines += ["", f"{found}; shipped: scale {shipped['scale']}, dy {shipped['dy']}: {shipped['accuracy']:.2%}"]
    # The best of many is flattered by chance: Bonferroni.
    p = min(1.0, best["mcnemar_p"] * len(figure["grid"]))
    verdict = "proposed instead" if p < 0.05 and best["loss_points"] < 0 else "no difference beyond chance: keep it"
    lines.append(f"best: scale {best['scale']}, dy {best['dy']}: {-best['loss_points']:+.1f} points against the "
                 f"shipped crop (p {p:.3f} of the best of {len(figure['grid'])}): {verdict}")  # fmt: skip
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `crop`."""
    parser = subparsers.add_parser("crop", help="measure which crop around the detector's box is read best")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle folder, e.g. models/fer-2027.09")
    parser.add_argument("--detector", choices=KINDS, default="haar")
    parser.add_argument("--faces", type=int, default=in_scene.FACES, help="faces of PublicTest half A to set in scenes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=command)
