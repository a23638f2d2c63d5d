"""What the bands of `edge_aggregate.statistics` cover: simulated kiosks, and confusion tables drawn anew each time.

    python -m bench.coverage                    # build/coverage.jsonl, a line a scenario; goes on where it stopped
    python -m bench.coverage_page               # bench/coverage.md and its plot from that

The share that is to be covered is that of the crowd the visitors come from: as the classifier reads it, or as it is.
How the kiosks are simulated: `bench.coverage_simulation`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from edge_aggregate.statistics import Band, Part, as_read, changed, city, corrected, discoveries

from bench.coverage_simulation import ROOT, SADDER, WINDOWS, Crowd, Days, Redraws, simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RATES: Final = (10, 30, 600)
HAPPY: Final = (0.05, 0.15, 0.25, 0.50, 0.75)
MASKED: Final = (0.10, 0.40)
SITES: Final = 50
ZONES: Final = {"−6": 3, "+8": -4}
"""Local days: how many windows after UTC's they begin."""
Kind = Literal["day and week", "two hours", "local day", "city", "new model", "change"]
KINDS: Final[tuple[Kind, ...]] = ("day and week", "two hours", "local day", "city", "new model", "change")


class Tally:
    """Counts how often a band holds what it should, and how far its index is off."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * 5)

    def add(self, name: str, band: Band | None, share: float, truth: float) -> None:
        """Add a band that should hold `share`; the index's error is against `truth`."""
        row = self.sums[name]
        if band is None:
            row[4] += 1
            return
        row[0] += 1
        row[1] += band.low <= share <= band.high
        row[2] += 100 * (band.index - truth)
        row[3] += 100 * (band.high - band.low)

    def told(self) -> dict[str, Any]:
        """Per name: bands, coverage, mean error and mean width in points, how many had none."""
        return {
            name: {
                "bands": int(n),
                "coverage": round(held / max(n, 1), 4),
                "error": round(off / max(n, 1), 3),
                "width": round(wide / max(n, 1), 2),
                "none": int(none),
            }
            for name, (n, held, off, wide, none) in self.sums.items()
        }


def both(
    tally: Tally, name: str, crowd: Crowd, draws: Redraws, parts: list[Part], held: tuple[int, ...], run: int
) -> None:
    """A figure as read and corrected."""
    tally.add(f"{name}, as read", as_read(parts, held), crowd.read(draws.truth), crowd.happy)
    tally.add(f"{name}, corrected", corrected(parts, draws.corrections[run], held), crowd.happy, crowd.happy)


def whole_days(crowd: Crowd, draws: Redraws, rng: np.random.Generator) -> dict[str, Any]:
    """Whole UTC days, seven to a redraw, and the week of them."""
    tally, runs = Tally(), len(draws.corrections)
    days = simulate(crowd, draws.truth, runs, 7, rng)
    for run in range(runs):
        parts = [days.part(run, WINDOWS * d, WINDOWS * (d + 1), draws.models) for d in range(7)]
        for part in parts:
            both(tally, "day", crowd, draws, [part], (), run)
        both(tally, "week", crowd, draws, parts, (), run)
    return tally.told()


def two_hours(crowd: Crowd, draws: Redraws, rng: np.random.Generator) -> dict[str, Any]:
    """Each open window of a day, and four hours; the day before has left nothing."""
    tally, runs = Tally(), len(draws.corrections)
    days = simulate(crowd, draws.truth, runs, 1, rng)
    for name, length in (("2 h", 1), ("4 h", 2)):
        for start in range(4, 10, length):
            held = days.held(start, start + length)
            for run in range(runs):
                part = days.part(run, start, start + length, draws.models)
                both(tally, name, crowd, draws, [part], held[run], run)
    return tally.told()


def local_days(crowd: Crowd, draws: Redraws, rng: np.random.Generator) -> dict[str, Any]:
    """The second local day of three, west and east of Greenwich."""
    tally, runs = Tally(), len(draws.corrections)
    for zone, shift in ZONES.items():
        days = simulate(crowd, draws.truth, runs, 3, rng, shift % WINDOWS)
        start = WINDOWS + shift % WINDOWS
        held = days.held(start, start + WINDOWS)
        for run in range(runs):
            part = days.part(run, start, start + WINDOWS, draws.models)
            both(tally, f"local day UTC{zone}", crowd, draws, [part], held[run], run)
    return tally.told()


def cities(crowd: Crowd, draws: Redraws, rng: np.random.Generator) -> dict[str, Any]:
    """Fifty places with a share and a weight of their own, under one table."""
    tally, runs = Tally(), len(draws.corrections) // 2
    weights = rng.integers(1, 10, SITES)
    shares = np.clip(crowd.happy * rng.uniform(0.6, 1.4, SITES), 0.01, 0.99)
    crowds = [replace(crowd, happy=float(h)) for h in shares]
    whole = weights / weights.sum()
    truth = float(whole @ shares)
    read = float(whole @ np.array([c.read(draws.truth) for c in crowds]))
    for name, length in (("day", 1), ("week", 7)):
        places = [simulate(c, draws.truth, runs, length, rng) for c in crowds]
        for run in range(runs):
            parts = [[p.part(run, 0, WINDOWS * length, draws.models)] for p in places]
            found = city(list(zip(weights.tolist(), parts, strict=True)), draws.corrections[run])
            tally.add(f"city {name}, as read", found.read, read, truth)
            tally.add(f"city {name}, corrected", found.corrected, truth, truth)
    return tally.told()


def again(crowd: Crowd, days: int) -> float:
    """Coverage of a city's day as read, which no table has a part in: many more days than `cities` has for it."""
    draws, rng, held = Redraws(0, 0), np.random.default_rng(2), 0
    weights = rng.integers(1, 10, SITES)
    crowds = [replace(crowd, happy=float(h)) for h in crowd.happy * rng.uniform(0.6, 1.4, SITES)]
    read = float(weights / weights.sum() @ np.array([c.read(draws.truth) for c in crowds]))
    places = [simulate(c, draws.truth, days, 1, rng) for c in crowds]
    for run in range(days):
        parts = [[p.part(run, 0, WINDOWS, draws.models)] for p in places]
        band = city(list(zip(weights.tolist(), parts, strict=True)), {}).read
        held += band is not None and band.low <= read <= band.high
    return held / days


def new_model(crowd: Crowd, draws: Redraws, rng: np.random.Generator) -> dict[str, Any]:
    """A week in whose middle other models came, as good as the old ones and with tables of their own."""
    tally, runs = Tally(), len(draws.corrections)
    days = simulate(crowd, draws.truth, runs, 7, rng)
    later = "sha256:" + "1" * 64
    for run in range(runs):
        parts = [
            days.part(run, 0, 3 * WINDOWS, draws.models),
            days.part(run, 3 * WINDOWS, 7 * WINDOWS, (later, later)),
        ]
        other = {(role, later): c for (role, _), c in draws.corrections[run - 1].items()}
        band = corrected(parts, {**draws.corrections[run], **other})
        tally.add("week of two models, corrected", band, crowd.happy, crowd.happy)
    return tally.told()


def changes(crowd: Crowd, draws: Redraws, rng: np.random.Generator) -> dict[str, Any]:
    """A week against the one before: nothing has changed, or the mix of the others, or two or five points have."""
    runs = len(draws.corrections)
    up = crowd.happy < 0.5
    weeks = {
        "nothing": crowd,
        "the others": replace(crowd, others=SADDER),
        "2 points": replace(crowd, happy=crowd.happy + (0.02 if up else -0.02)),
        "5 points": replace(crowd, happy=crowd.happy + (0.05 if up else -0.05)),
    }
    before = simulate(crowd, draws.truth, runs, 7, rng)
    told: dict[str, Any] = {}
    pool: dict[str, Days] = {}
    for name, after in weeks.items():
        week, turns = simulate(after, draws.truth, runs, 7, rng), 2 if name == "nothing" else 1
        alarms = [0, 0]
        for turn in range(turns):
            for run in range(runs):
                # The second turn pairs the same weeks with other tables and other weeks.
                pair = [days.part(k, 0, 7 * WINDOWS, draws.models) for days, k in ((before, run), (week, run - turn))]
                found = changed([pair[0]], [pair[1]], draws.corrections[run])
                if found is not None and found.corrected is not None:
                    alarms[0] += found.read.p < 0.05
                    alarms[1] += found.corrected.p < 0.05
        told[name] = {
            "pairs": turns * runs,
            "as read": round(alarms[0] / turns / runs, 4),
            "corrected": round(alarms[1] / turns / runs, 4),
        }
        if name in ("nothing", "5 points"):
            pool[name] = week
    told["fifty places, ten of them by 5 points"] = many(before, pool["nothing"], pool["5 points"], draws)
    return told


def many(before: Days, same: Days, other: Days, draws: Redraws) -> dict[str, Any]:
    """Fifty places under one table: of the changes that are shown, which were none, and of ten how many are shown."""
    false, found, rounds = 0.0, 0, len(draws.corrections) // SITES
    for turn in range(rounds):
        tables, ps = draws.corrections[turn], []
        for k in range(SITES * turn, SITES * (turn + 1)):
            after = other if k % 5 == 0 else same
            pair = [days.part(k, 0, 7 * WINDOWS, draws.models) for days in (before, after)]
            change = changed([pair[0]], [pair[1]], tables)
            ps.append(change.corrected.p if change is not None and change.corrected is not None else None)
        shown = discoveries(ps)
        found += sum(shown[::5])
        false += (sum(shown) - sum(shown[::5])) / max(sum(shown), 1)
    return {"rounds": rounds, "false": round(false / rounds, 4), "found": round(found / rounds / (SITES // 5), 4)}


DONE_BY: Final[dict[Kind, Callable[[Crowd, Redraws, np.random.Generator], dict[str, Any]]]] = {
    "day and week": whole_days,
    "two hours": two_hours,
    "local day": local_days,
    "city": cities,
    "new model": new_model,
    "change": changes,
}


def scenarios() -> Iterator[tuple[Kind, Crowd]]:
    """All of them, in the order of the work."""
    for kind in KINDS:
        for rate in RATES:
            for happy in HAPPY:
                for masked in MASKED:
                    yield kind, Crowd(rate, happy, masked)


def main() -> None:
    """Run what the ledger does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redraws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ledger", type=Path, default=ROOT / "build/coverage.jsonl")
    parser.add_argument("--again", type=int, metavar="DAYS", help="a city at 30 an hour, 25 %% happy, 40 %% masked")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these")
    args = parser.parse_args()
    if args.redraws < SITES:
        parser.error(f"--redraws {args.redraws}: at least {SITES} are needed")
    if args.again:
        print(f"city day, as read: {again(Crowd(30, 0.25, 0.40), args.again):.4f} of {args.again} days")
        return
    args.ledger.parent.mkdir(exist_ok=True)
    lines = args.ledger.read_text().splitlines() if args.ledger.exists() else []
    done = {
        json.dumps([(row := json.loads(line))["kind"], row["crowd"], row["redraws"], row["seed"]]) for line in lines
    }
    began = time.monotonic()
    draws = Redraws(args.redraws, args.seed)
    print(f"{args.redraws} pairs of tables in {time.monotonic() - began:.0f} s", flush=True)
    todo = list(scenarios())
    for number, (kind, crowd) in enumerate(todo):
        about = asdict(crowd)
        about["others"] = list(crowd.others)
        if kind not in (args.kind or KINDS) or json.dumps([kind, about, args.redraws, args.seed]) in done:
            continue
        started = time.monotonic()
        told = DONE_BY[kind](crowd, draws, np.random.default_rng([args.seed, number]))
        row = {"kind": kind, "crowd": about, "redraws": args.redraws, "seed": args.seed, "told": told}
        with args.ledger.open("a") as file:
            file.write(json.dumps(row) + "\n")
        took = time.monotonic() - started
        print(f"{number + 1}/{len(todo)} {kind}, {crowd.rate} an hour, {crowd.happy:.0%}: {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
