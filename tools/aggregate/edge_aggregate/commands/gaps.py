"""`edge-aggregate gaps`: which windows never came."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("gaps", help="windows that never came, by device and run")
    parser.add_argument("--store", required=True, metavar="ADDRESS", help="an SQLite file, or postgresql://…")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """A row per gap."""
    from edge.contract import utc_text
    from edge_aggregate.decode import instant
    from edge_aggregate.store import open_store

    with open_store(args.store, read_only=True) as store:
        found = store.engine.fetch(
            "SELECT s.name, d.name, b.boot_id, g.first_seq, g.last_seq, g.after_ms, g.before_ms FROM gaps g"
            " JOIN boots b ON b.id = g.boot JOIN devices d ON d.id = b.device JOIN sites s ON s.id = g.site"
            " ORDER BY s.name, d.name, g.before_ms, g.first_seq"
        )
    rows = [
        {
            "site": site,
            "device": device,
            "boot_id": boot_id,
            "from": first,
            "to": last,
            "after": None if after_ms is None else utc_text(instant(after_ms)),
            "before": utc_text(instant(before_ms)),
        }
        for site, device, boot_id, first, last, after_ms, before_ms in found
    ]
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        count = row["to"] - row["from"] + 1
        print(
            f"{row['site']}/{row['device']}: {count} missing, {row['boot_id'][:8]}…/{row['from']} to {row['to']}, "
            f"between {row['after'] or 'the start'} and {row['before']}"
        )
    print(f"{sum(row['to'] - row['from'] + 1 for row in rows)} windows missing in {len(rows)} gaps")
    return 0
