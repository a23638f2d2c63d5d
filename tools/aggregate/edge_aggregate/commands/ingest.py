"""`edge-aggregate ingest`: what came from kiosks into a store, from landing logs or from a broker."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError
from edge_aggregate.commands import subscribe

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edge_aggregate.store import Merged


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("ingest", help="count what came from kiosks: files of a log, or a broker's messages")
    parser.add_argument("--store", required=True, metavar="ADDRESS", help="an SQLite file, or postgresql://…")
    parser.add_argument(
        "--files", nargs="+", metavar="PATTERN", help="landing logs: one JSON object a line (topic, received, payload)"
    )
    parser.add_argument("--quiet", action="store_true", help="only the last line")
    subscribe.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the files to their ends. Dead letters do not fail it."""
    if args.broker:
        if args.files:
            msg = "give --files or --broker, not both"
            raise ConfigError(msg)
        return subscribe.run(args)
    from edge_aggregate.ingest import expand, ingest_files
    from edge_aggregate.store import open_store

    if not args.files:
        msg = "give --files 'DIR/*.jsonl', or --broker HOST and --landing FOLDER"
        raise ConfigError(msg)
    files = expand(args.files)

    def told(path: Path, lines: int, merged: Merged) -> None:
        print(f"{path.name}: {lines} lines, {merged.windows} windows more", file=sys.stderr)

    def quiet(*_: object) -> None:
        pass

    with open_store(args.store, create=True) as store:
        done = ingest_files(store, files, told=quiet if args.quiet else told)
    m = done.merged
    skipped = f" ({done.skipped} were in already)" if done.skipped else ""
    print(
        f"{done.files} files{skipped}, {done.lines} lines: {m.windows} windows, {m.duplicates} duplicates, "
        f"{m.conflicts} conflicts, {m.dead} dead letters"
    )
    if m.conflicts:
        print(
            "conflicts: two payloads claim one window: `edge-aggregate export --dead-letters` lists them",
            file=sys.stderr,
        )
    return 0
