"""`edge-aggregate calibrate`: how well the models read, from the manifests of their bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("calibrate", help="register how well models read, for the corrected index")
    parser.add_argument("--store", required=True, metavar="ADDRESS", help="an SQLite file, or postgresql://…")
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST", help="a bundle's manifest.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """All manifests are read before one is kept."""
    from edge_aggregate.calibration import read_manifest
    from edge_aggregate.store import open_store

    tables = [table for path in args.manifests for table in read_manifest(path)]
    with open_store(args.store, create=True) as store:
        new = store.register(tables)
    for table in tables:
        faces = sum(map(sum, table.counts))
        print(f"{table.bundle}: {table.role} {table.digest[:19]}…, {faces} labelled faces")
    print(f"{len(tables)} confusion tables, {new} of them new")
    return 0
