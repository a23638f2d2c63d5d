"""The working tree against the last release, in turn, in one run: `make bench-quick`.

    .venv/bin/python bench/quick.py [CLIP ...] [--rounds N] [--frames N] [--all]

The release is the commit that `bench/BASELINE` names; its tree is laid out under `build/`, and runs its own model
bundle in the same environment. Each round runs both, on the demo's clip, on one with two faces and on each CLIP, the
order turning from round to round, and each run is a process of its own. A figure moved when every round says so, and by
more than the rounds of one tree differ among themselves; `--all` prints the others too. Ratios are working tree ÷
release.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from material import configure, crowd, median_range

from edge.bundle.newest import newest_bundle
from edge.commands.demo.clip import compose

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 48
"""Of each clip; the releases before LiteRT do some ten a second."""
Figures = dict[str, list[float]]
"""Figures by name, a value a round."""


def released(commit: str) -> Path:
    """The tree of a commit under `build/`, laid out once."""
    tree = ROOT / "build" / "baseline" / commit[:12]
    if not (tree / "models").is_dir():
        asked = ["git", "archive", commit, "edge", "models"]
        packed = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True).stdout
        tree.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(tree, filter="data")
    return tree


def run(tree: Path, clip: Path, frames: int) -> dict[str, float]:
    """Figures of one run of a tree's vision service and bundle on the first frames of a clip."""
    bundle = newest_bundle(tree / "models")
    if bundle is None:
        msg = f"{tree}: no model bundle"
        raise RuntimeError(msg)
    with tempfile.TemporaryDirectory() as name:
        config = configure(Path(name), clip, bundle)
        env = os.environ | {"PYTHONPATH": str(tree)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled: a start does not compile
        done = subprocess.run(
            [sys.executable, ROOT / "bench" / "drive.py", config, str(frames), str(time.monotonic())],
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    ran = figures.pop("tree")
    if str(ran) != str(tree):
        msg = f"{ran} ran instead of {tree}"
        raise RuntimeError(msg)
    return figures


def moved(here: list[float], there: list[float]) -> bool:
    """Whether every round says the same, and the medians differ by more than the middle half of either's rounds."""
    one_way = {a > b for a, b in zip(here, there, strict=True)}
    apart = abs(statistics.median(here) - statistics.median(there))
    return len(one_way) == 1 and here != there and apart > max(_spread(here), _spread(there))


def _spread(values: list[float]) -> float:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (0.0, 0.0, 0.0)
    return high - low


def row(name: str, here: list[float], there: list[float]) -> str:
    """One figure as a row of a Markdown table: medians, ranges, ratio."""
    ratios = [a / b for a, b in zip(here, there, strict=True) if b]
    ratio = median_range(ratios) if ratios else "–"
    return f"| {name} | {median_range(there, 4)} | {median_range(here, 4)} | {ratio} |"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, help="further films")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each clip")
    parser.add_argument("--all", action="store_true", help="also what moved by no more than the noise")
    args = parser.parse_args()
    commit = (ROOT / "bench" / "BASELINE").read_text().split()[0]
    release = released(commit)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compose(folder / "demo.mp4")
        clips = {"demo": folder / "demo.mp4", "two faces": crowd(folder / "two.mp4", 2)}
        clips |= {clip.name: clip.resolve() for clip in args.clips}
        found: dict[Path, dict[str, Figures]] = {tree: {clip: {} for clip in clips} for tree in (ROOT, release)}
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds} …", file=sys.stderr)
            for clip, path in clips.items():
                for tree in (ROOT, release)[:: 1 if number % 2 else -1]:
                    for figure, value in run(tree, path, args.frames).items():
                        found[tree][clip].setdefault(figure, []).append(value)
    print(f"Release {commit[:12]}, {args.rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n")
    print("| figure | release, median (range) | working tree | ratio |\n|---|---|---|---|")
    still = 0
    for clip in clips:
        for figure, here in found[ROOT][clip].items():
            there = found[release][clip][figure]
            if args.all or moved(here, there):
                print(row(f"{clip}: {figure}", here, there))
            else:
                still += 1
    print(f"\n{still} figures moved by no more than the noise." if still else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
