"""`edge-aggregate demo`: what the appliance's demo counted, beside a few simulated kiosks, as figures and pages."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.errors import SourceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

DAYS: Final = 35
"""A week, the one 28 days before it, and what the two need around them."""
KIOSKS: Final = 6
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Its arguments."""
    parser = commands.add_parser("demo", help="a demo's counts beside simulated kiosks, in a store of its own")
    parser.add_argument("counts", type=Path, help="what `edge demo` printed: a payload a line")
    parser.add_argument(
        "--manifest", type=Path, metavar="FILE", help="of the bundle that counted: for corrected shares"
    )
    parser.add_argument("--open", action="store_true", help="keep the pages open until Ctrl-C")
    parser.add_argument("--listen", default="127.0.0.1:8400", metavar="HOST:PORT", help="default: 127.0.0.1:8400")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate, ingest both, show. `args.main` runs other commands."""
    main: Callable[[list[str]], int] = args.main
    from edge_aggregate.figures import figures, local_series
    from edge_aggregate.ingest import ingest_files
    from edge_aggregate.periods import last
    from edge_aggregate.sites import read_sites
    from edge_aggregate.store import open_store

    with _folder() as folder:
        log = folder / "demo.jsonl"
        log.write_text("".join(_lines(args.counts)), encoding="utf-8")
        store, places = str(folder / "store.db"), folder / "sites.toml"
        simulate = ["simulate", f"--devices={KIOSKS}", f"--minutes={DAYS * 1440}", "--seed=7"]
        simulate += ["--out", str(folder / "log"), "--places", str(places)]
        simulate += ["--manifest", str(args.manifest)] if args.manifest is not None else []
        print(f"\n{KIOSKS} simulated kiosks beside it, {DAYS} days:")
        if code := main(simulate):
            return code
        with open_store(store, create=True) as opened:
            ingest_files(opened, [*sorted((folder / "log").glob("*.jsonl")), log])
        if args.manifest is not None:
            main(["calibrate", "--store", store, str(args.manifest)])
        print()
        main(["index", "--store", store, "--last", "7d", "--sites", str(places)])
        with open_store(store, read_only=True) as opened:
            period = last("28d", opened.newest_ms)
            sites = read_sites(places)
            print("\nhappy by day, as read, over 28 days; the last of them will still change")
            for site in sorted({figure.site for figure in figures(opened, period)}):
                days = local_series(opened, period, sites[site].place, [site])
                print(f"  {site:12} {_spark([day.index for day in days])}")
        if not args.open:
            print(f"\npages of these figures: make demo DASHBOARD=1, then http://{args.listen}/")
            return 0
        return main(["serve", "--store", store, "--sites", str(places), "--listen", args.listen])


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edge-aggregate-demo-") as name:
        yield Path(name)


def _lines(path: Path) -> Iterator[str]:
    """Lines of a landing log from payloads, received as their windows ended. Raises SourceError.

    A replay is faster than its clip: its last windows end after now, and figures up to now would leave them out. One
    clock labels them and receives them here, so that it does not matter to their figures whether anybody has set it.
    """
    from edge.contract import ContractError, decode_counts, encode, utc_text

    try:
        payloads = [decode_counts(line) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        msg = f"{path}: {error.strerror}: give what `edge demo` printed"
        raise SourceError(msg) from error
    except ContractError as error:
        msg = f"{path}: {error}: give what `edge demo` printed"
        raise SourceError(msg) from error
    for payload in payloads:
        received = payload.window.start + timedelta(seconds=payload.window.seconds)
        body = json.loads(encode(payload))
        if body["window"]["time_quality"] == "unsynced":
            body["window"]["time_quality"] = "holdover"
        yield (
            json.dumps(
                {
                    "topic": f"edge/v1/{payload.site}/{payload.device}/counts",
                    "received": utc_text(received),
                    "payload": body,
                }
            )
            + "\n"
        )


def _spark(shares: list[float | None]) -> str:
    """A character a day, from 0 to the greatest; a gap where nothing was released."""
    most = max((share for share in shares if share is not None), default=0.0) or 1.0
    return "".join("·" if share is None else _BLOCKS[round(8 * max(0.0, share) / most)] for share in shares)
