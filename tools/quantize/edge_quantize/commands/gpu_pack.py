"""`edge-quantize gpu-pack`: gather what training on a GPU machine needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_quantize.datasets.fer2013 import data_root
from edge_quantize.training.gpu.pack import MIB, pack

if TYPE_CHECKING:
    import argparse


def _command(args: argparse.Namespace) -> int:
    size, total = pack(data_root(), args.masks, args.out, Path(__file__).resolve().parents[4])
    print(f"{args.out}: {size / MIB:.1f} MiB, with the repository {total / MIB:.1f} MiB")
    print(f"there: python3 tools/quantize/edge_quantize/training/gpu/train_gpu.py check --pack {args.out}")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`edge-quantize gpu-pack`."""
    parser = subparsers.add_parser("gpu-pack", help="gather what training on a GPU machine needs")
    parser.add_argument("--masks", type=Path, default=Path("build/masks"), help="folder of the landmarks")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-pack"), help="folder to fill")
    parser.set_defaults(func=_command)
