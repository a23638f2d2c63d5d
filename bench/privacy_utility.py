"""What the noise costs: simulated days, and the error of the happiness share that a subscriber sums up.

    python bench/privacy_utility.py             # the tables of docs/privacy.md
    python bench/privacy_utility.py --plot docs/privacy-utility.png

`release_days` is `edge.vision.privacy.release` over many days at once; a test holds the two against each other. The
error is the released share minus the share of the votes that were cast, in points: noise, threshold and flush,
not the classifier.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    I64 = NDArray[np.int64]

CELLS: Final = 16
HAPPY: Final = (3, 11)
CLASSES: Final = tuple(c for c in range(CELLS) if c % 8 != 7)  # without `uncertain`
OTHERS: Final = (0.06, 0.03, 0.05, 0.0, 0.70, 0.08, 0.08)
"""How votes that are not happy fall on the seven classes: most people look neutral."""


@dataclass(frozen=True, slots=True)
class Day:
    """A kind of day. `rate` is visitors an hour while open; the camera runs round the clock, dark when closed."""

    rate: float = 30.0
    seconds: float = 7200.0
    epsilon: float = 1.0
    min_count: int = 10
    opens: float = 8.0
    closes: float = 20.0
    happy: float = 0.25
    uncertain: float = 0.10
    masked: float = 0.15
    dark_draws: bool = False
    """Whether windows that nobody could be in draw noise too (they do not)."""
    carry: bool = True
    """Whether a held value joins the next window and is flushed at midnight (it is)."""


QUIET: Final = Day()
BUSY: Final = Day(rate=600.0)


def discrete_laplace(rng: np.random.Generator, epsilon: float, shape: tuple[int, ...]) -> I64:
    """Draws with P(x) ∝ exp(-epsilon·|x|), as the difference of two geometric ones; floats do for a simulation."""
    p = 1 - np.exp(-epsilon)
    return rng.geometric(p, shape) - rng.geometric(p, shape)


def release_days(votes: I64, noise: I64, drawn: NDArray[np.bool_], min_count: int, *, carry: bool = True) -> I64:
    """What each window releases, 0 for null: votes and noise int (days, windows, 16), drawn bool (windows,)."""
    released, held = np.zeros_like(votes), np.zeros_like(votes[:, 0])
    last = votes.shape[1] - 1
    for w in range(votes.shape[1]):
        if not carry:
            held = np.zeros_like(held)
        if drawn[w]:
            held = held + votes[:, w] + noise[:, w]
        out = (drawn[w] & (held >= min_count)) | (carry and w == last)
        released[:, w] = np.where(out, held, 0)
        held = np.where(out, 0, held)
    return released


def cast(day: Day, days: int, rng: np.random.Generator) -> tuple[I64, NDArray[np.bool_]]:
    """Votes (days, windows, 16) of Poisson visitors, and which windows saw light."""
    edges = np.linspace(0, 24, round(86400 / day.seconds) + 1)
    hours = np.clip(np.minimum(edges[1:], day.closes) - np.maximum(edges[:-1], day.opens), 0, None)
    shares = np.array([day.happy if c == 3 else (1 - day.happy) * o for c, o in enumerate(OTHERS)])
    row = np.append(shares * (1 - day.uncertain), day.uncertain)
    cells = np.concatenate([row * (1 - day.masked), row * day.masked])
    return rng.poisson(day.rate * hours[None, :, None] * cells, (days, len(hours), CELLS)), hours > 0


def errors(day: Day, days: int = 1000, *, until: float = 24.0, seed: int = 1) -> NDArray[np.float64]:
    """Error of the happiness share in points, one a day, from what was released up to an hour of the day."""
    rng = np.random.default_rng(seed)
    votes, light = cast(day, days, rng)
    drawn = np.ones_like(light) if day.dark_draws else light
    noise = discrete_laplace(rng, day.epsilon, votes.shape)
    end = round(votes.shape[1] * until / 24)
    released = release_days(votes, noise, drawn, day.min_count, carry=day.carry)[:, :end].sum(1)
    true = votes[:, :end].sum(1)
    told = released[:, CLASSES].sum(1)
    share = np.divide(released[:, HAPPY].sum(1), told, out=np.zeros(days), where=told > 0)
    error: NDArray[np.float64] = 100 * (share - true[:, HAPPY].sum(1) / true[:, CLASSES].sum(1))
    return error


def worst(error: NDArray[np.float64]) -> float:
    """The 95 % quantile of the error's size."""
    return float(np.quantile(np.abs(error), 0.95))


def table(days: int) -> None:
    """Print the figures of docs/privacy.md."""
    schemes = {
        "each window alone, 1 h": {"seconds": 3600.0, "dark_draws": True, "carry": False},
        "carried over, 1 h, noise in the dark too": {"seconds": 3600.0, "dark_draws": True},
        "carried over, 1 h": {"seconds": 3600.0},
        "carried over, 2 h (default)": {},
    }
    print("| scheme | quiet: 95 % | mean | busy: 95 % | mean |\n|---|---|---|---|---|")
    for name, change in schemes.items():
        cells = [errors(replace(kind, **change), days) for kind in (QUIET, BUSY)]  # type: ignore[arg-type]
        print(f"| {name} | " + " | ".join(f"{worst(e):.2f} | {e.mean():+.2f}" for e in cells) + " |")
    print("\n| open | happy 15 % | 25 % | 50 % |\n|---|---|---|---|")
    for opens, closes in ((10, 18), (8, 18), (8, 20), (0, 24)):
        days_of = [
            [replace(QUIET, opens=opens, closes=closes, happy=p, seconds=s) for s in (3600.0, 7200.0)]
            for p in (0.15, 0.25, 0.5)
        ]
        cells_of = [" → ".join(f"{worst(errors(d, days)):.1f}" for d in pair) for pair in days_of]
        print(f"| {closes - opens} h | " + " | ".join(cells_of) + " |")


def plot(path: Path, days: int) -> None:
    """Error against window, epsilon, threshold and traffic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    panels = (
        ("seconds", (600, 900, 1800, 3600, 7200, 14400, 28800, 86400), "window in seconds"),
        ("epsilon", (0.1, 0.2, 0.5, 1.0, 2.0, 4.0), "epsilon per window"),
        ("min_count", (1, 3, 5, 10, 20, 50, 100), "threshold; asked at 16 h, before the flush"),
        ("rate", (10, 20, 30, 60, 120, 300, 600, 1000), "visitors an hour"),
    )
    for axis, (name, values, label) in zip(axes.flat, panels, strict=True):
        kinds = (("15 % happy", replace(QUIET, happy=0.15)), ("50 % happy", replace(QUIET, happy=0.5)))
        if name != "rate":
            kinds = (("quiet, 30 an hour", QUIET), ("busy, 600 an hour", BUSY))
        for (kind, day), colour in zip(kinds, ("tab:blue", "tab:orange"), strict=True):
            until = 16.0 if name == "min_count" else 24.0
            changes: list[dict[str, Any]] = [{name: v} for v in values]
            found = [worst(errors(replace(day, **change), days, until=until)) for change in changes]
            axis.plot(values, found, "o-", color=colour, label=kind)
        for limit in (4, 1):
            axis.axhline(limit, color="grey", linewidth=0.8, linestyle=":")
        default = getattr(QUIET, name)
        axis.axvline(default, color="grey", linewidth=0.8, linestyle="--" if name != "rate" else "")
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="error, points (95 % of days)")
        axis.set_xticks(values, [f"{v:g}" for v in values], rotation=45, fontsize=8)
        axis.minorticks_off()
        axis.set_yticks((0.1, 0.2, 0.5, 1, 2, 4, 10, 20), ("0.1", "0.2", "0.5", "1", "2", "4", "10", "20"))
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Print the tables, or draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=5000)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    if args.plot:
        plot(args.plot, args.days)
    else:
        table(args.days)


if __name__ == "__main__":
    main()
