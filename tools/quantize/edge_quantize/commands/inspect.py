"""`edge-quantize inspect`: what a compiled file holds."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge_quantize.edgetpu.executable import read_compiled
from edge_quantize.edgetpu.graph import open_model

if TYPE_CHECKING:
    import argparse


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize inspect`."""
    found = open_model(args.file, read_compiled)
    if args.json:
        said = {"subgraphs": [asdict(part) for part in found.subgraphs], "cpu_ops": list(found.cpu_ops)}
        sys.stdout.write(json.dumps(said, indent=1) + "\n")
        return 0
    if not found.subgraphs:
        sys.stdout.write(f"{args.file}: not compiled for the Edge TPU\n")
    for number, part in enumerate(found.subgraphs):
        sys.stdout.write(
            f"{args.file}: subgraph {number}: {part.on_chip_bytes:,} bytes of parameters on the chip, "
            f"{part.streamed_bytes:,} streamed, caching token {part.caching_token or 'none'}, "
            f"runtime {part.min_runtime} or newer\n"
        )
    sys.stdout.write(f"on the CPU: {', '.join(found.cpu_ops) or 'nothing'}\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `inspect`."""
    parser = subparsers.add_parser("inspect", help="what a file compiled for the Edge TPU holds")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(func=command)
