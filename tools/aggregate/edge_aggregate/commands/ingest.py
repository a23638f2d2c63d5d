"""`edge-aggregate ingest`: what came from kiosks into a store, from landing logs or from a broker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import ConfigError, refuse_options
from edge_aggregate.commands import subscribe

if TYPE_CHECKING:
    import argparse

    from edge_aggregate.store import Merged

_OF_FILES = ("quiet", "runner", "master", "follow", "checkpoint")


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("ingest", help="count what came from kiosks: files of a log, or a broker's messages")
    parser.add_argument("--store", required=True, metavar="ADDRESS", help="an SQLite file, or postgresql://…")
    parser.add_argument(
        "--files", nargs="+", metavar="PATTERN", help="landing logs: one JSON object a line (topic, received, payload)"
    )
    parser.add_argument("--quiet", action="store_true", help="only the last line")
    parser.add_argument(
        "--runner", choices=("sqlite", "spark"), default="sqlite", help="who decodes files: this process, or a cluster"
    )
    parser.add_argument("--master", metavar="URL", help="of Spark: spark://host:7077 (default: all cores here)")
    parser.add_argument("--follow", action="store_true", help="Spark goes on with segments that come, until Ctrl-C")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="where Spark notes what it has read")
    subscribe.add_arguments(parser)
    parser.set_defaults(run=run, default_of=parser.get_default)


def run(args: argparse.Namespace) -> int:
    """Read the files to their ends. Dead letters do not fail it."""
    if args.broker:
        if args.files:
            msg = "give --files or --broker, not both"
            raise ConfigError(msg)
        refuse_options(args, _OF_FILES, "only of --files: leave out with --broker, which subscribes")
        return subscribe.run(args)
    from edge_aggregate.ingest import expand, ingest_files
    from edge_aggregate.store import open_store

    if not args.files:
        msg = "give --files 'DIR/*.jsonl', or --broker HOST and --landing FOLDER"
        raise ConfigError(msg)
    refuse_options(
        args, subscribe.OPTIONS, "only of a subscriber: leave out with --files, or give --broker instead of --files"
    )
    if args.runner != "spark" and (args.master or args.follow or args.checkpoint):
        msg = "--master, --follow and --checkpoint are of --runner spark"
        raise ConfigError(msg)

    def each(path: Path, lines: int, merged: Merged) -> None:
        print(f"{path.name}: {lines} lines, {merged.windows} windows more", file=sys.stderr)

    def quiet(*_: object) -> None:
        pass

    with open_store(args.store, create=True) as store:
        progress = quiet if args.quiet else each
        if args.runner == "spark":
            from edge_aggregate.run.spark import run_spark

            done = run_spark(
                store, args.files, master=args.master, follow=args.follow, checkpoint=args.checkpoint, progress=progress
            )
        else:
            done = ingest_files(store, expand(args.files), progress=progress)
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
