"""The fault suite for hours: `make soak`, or `python -m tests.faults.soak --minutes 60`.

Adds sittings to bench/soak.jsonl until the targets are met, summed over all sittings there, or the time is up. Stopping
it loses the sitting in hand, nothing else. Exits with 1 at the first window that is lost or doubled, and notes it.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge.bundle.newest import newest_bundle
from tests.faults.kills import VICTIMS, kill_at_random
from tests.faults.kiosk import REPO, Kiosk
from tests.faults.ledger import SOAK, note, totals
from tests.faults.power import UML, cut_power
from tests.faults.steady import watch

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLS, CUTS = 30, 10
"""In one sitting: a file system or an outbox is not older than that."""


def _moments(chance: random.Random) -> Iterator[float]:
    while True:
        yield chance.uniform(0.2, 2.0)


def _kills(folder: Path, bundle: Path, chance: random.Random, kiosks: int) -> int:
    """A sitting each of `kiosks` side by side: most of it is waiting for services that start."""
    cores = sorted(os.sched_getaffinity(0))

    def one(number: int, seed: int) -> int:
        (home := folder / str(number)).mkdir()
        os.sched_setaffinity(0, {cores[number % len(cores)]})  # its services inherit it: more starts a minute
        began = time.monotonic()
        with Kiosk(home, bundle) as kiosk:
            faults = kill_at_random(kiosk, KILLS, random.Random(seed))  # noqa: S311 - moments, no secrets
            reckoning = kiosk.reckon()
        note(SOAK, faults, time.monotonic() - began, **asdict(reckoning))
        return reckoning.bad

    with ThreadPoolExecutor(kiosks) as pool:
        return sum(pool.map(one, range(kiosks), [chance.getrandbits(32) for _ in range(kiosks)]))


def _cuts(folder: Path, chance: random.Random) -> int:
    began = time.monotonic()
    committed, lost = cut_power(folder, CUTS, _moments(chance), "FULL")
    note(SOAK, {"power_cut": CUTS}, time.monotonic() - began, committed=committed, lost_after_commit=lost)
    return lost


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this long (default: never)")
    parser.add_argument("--kills", type=int, default=1000, help="SIGKILLs in all sittings (%(default)s)")
    parser.add_argument("--kiosks", type=int, default=4, help="that are killed side by side (%(default)s)")
    parser.add_argument("--cuts", type=int, default=200, help="power cuts in all sittings (%(default)s)")
    parser.add_argument("--steady", type=float, default=30, help="minutes of watching memory, once (%(default)s)")
    arguments = parser.parse_args()
    bundle = newest_bundle(REPO / "models")
    if bundle is None:
        sys.exit("no model bundle under models/")
    until = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < until:
        done = totals(SOAK)
        kills = sum(done[f"sigkill_{victim}"] for victim in VICTIMS)
        print(f"kills {kills}/{arguments.kills}, power cuts {done['power_cut']}/{arguments.cuts}", flush=True)
        seed = secrets.randbits(32)
        chance = random.Random(seed)  # noqa: S311 - moments, no secrets
        with tempfile.TemporaryDirectory() as name:
            if done["steady_minutes"] < arguments.steady:
                bad = watch(Path(name), bundle, arguments.steady - done["steady_minutes"])
            elif UML is not None and done["power_cut"] * arguments.kills < kills * arguments.cuts:
                bad = _cuts(Path(name), chance)
            elif kills < arguments.kills:
                bad = _kills(Path(name), bundle, chance, arguments.kiosks)
            else:
                return 0
        if bad:
            print(f"seed {seed}: see the last line of {SOAK}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
