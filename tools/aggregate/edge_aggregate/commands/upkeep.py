"""`edge-aggregate backup`, `restore` and `retain`: keeping a store for years."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Their arguments."""
    where = {"required": True, "metavar": "ADDRESS", "help": "an SQLite file, or postgresql://…"}
    backup = commands.add_parser("backup", help="a copy of a store in a file, while it is written")
    backup.add_argument("--store", **where)
    backup.add_argument("file", type=Path, help="an SQLite file that is not there yet")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser("restore", help="a backup into a new store, of either kind")
    restore.add_argument("--store", **where)
    restore.add_argument("file", type=Path, help="the backup")
    restore.set_defaults(run=_restore)
    retain = commands.add_parser("retain", help="drop windows older than so many days; figures of whole days stay")
    retain.add_argument("--store", **where)
    retain.add_argument("--days", type=int, required=True, metavar="N", help="days kept (65 at least)")
    retain.add_argument("--days-too", action="store_true", help="drop the sums of those days too: no figure stays")
    retain.set_defaults(run=_retain)


def _backup(args: argparse.Namespace) -> int:
    from edge_aggregate.store import open_store
    from edge_aggregate.store.upkeep import backup

    with open_store(args.store) as store:
        backup(store, args.file)
    print(f"{args.file}: {args.file.stat().st_size:,} bytes")
    return 0


def _restore(args: argparse.Namespace) -> int:
    from edge_aggregate.store import open_store
    from edge_aggregate.store.upkeep import restore

    open_store(str(args.file), read_only=True).close()  # before a store is made that nothing fills
    with open_store(args.store, create=True) as store:
        restore(args.file, store)
        ((windows,),) = store.engine.fetch("SELECT COUNT(*) FROM windows")
    print(f"{windows} windows restored")
    return 0


def _retain(args: argparse.Namespace) -> int:
    from edge_aggregate.decode import instant
    from edge_aggregate.store import open_store
    from edge_aggregate.store.upkeep import retain

    with open_store(args.store) as store:
        done = retain(store, args.days, days_too=args.days_too)
    print(
        f"dropped what began before {instant(done.before_ms).date()}: {done.windows} windows, {done.gaps} gaps, "
        f"{done.days} sums of days, {done.variants} contradicting payloads, {done.dead} dead letters, "
        f"{done.fleet} devices not heard of since"
    )
    return 0
