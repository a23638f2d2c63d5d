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
    from edge_aggregate.store.replays import numbers, read_gaps

    with open_store(args.store, read_only=True) as store:
        found = sorted(read_gaps(store.engine), key=lambda gap: (gap.site, gap.device, gap.before_ms, gap.first_seq))
    rows: list[dict[str, Any]] = [
        {
            "site": gap.site,
            "device": gap.device,
            "boot_id": gap.boot_id,
            "from": gap.first_seq,
            "to": gap.last_seq,
            "after": None if gap.after_ms is None else utc_text(instant(gap.after_ms)),
            "before": utc_text(instant(gap.before_ms)),
            "lost": gap.lost,
        }
        for gap in found
    ]
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        count = row["to"] - row["from"] + 1
        print(
            f"{row['site']}/{row['device']}: {count} {'lost for good' if row['lost'] else 'missing'}, "
            f"{row['boot_id'][:8]}…/{numbers(row['from'], row['to'])}, "
            f"between {row['after'] or 'the start'} and {row['before']}"
        )
    print(f"{sum(row['to'] - row['from'] + 1 for row in rows)} windows missing in {len(rows)} gaps")
    return 0
