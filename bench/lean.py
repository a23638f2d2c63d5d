"""From the start of the vision service to its first frame, and its memory, as a device has it.

    .venv/bin/python bench/lean.py [--python PYTHON] [--rounds N] [TREE ...]

PYTHON is that of an environment made from `requirements/device-bookworm.txt` and this project's wheel (default: the one
that runs this); with TREEs, folders that hold an `edge`, theirs is run instead, in turn. Where modules are not compiled
yet, the first round does it, and is left out. On a busy machine processor time is the fairer one; the clock's is an
idle machine's only with a core to itself: `chrt -r 1 taskset -c 1`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from material import configure, crowd, median_range

from edge import config as settings

FRAMES = 40


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    trees = args.trees or [None]
    found: dict[str, list[list[float]]] = {}
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = crowd(folder / "two.mp4", 2)
        config = configure(folder, clip, settings.development("clip").models.bundle.resolve())
        for number in range(args.rounds + 1):
            for at, tree in enumerate(trees):
                done = subprocess.run(
                    [args.python, Path(__file__).with_name("drive.py"), config, str(FRAMES), str(time.monotonic())],
                    env=env if tree is None else env | {"PYTHONPATH": str(tree.resolve())},
                    check=True,
                    capture_output=True,
                    text=True,
                )
                for figure, value in json.loads(done.stdout.splitlines()[-1]).items() if number else ():
                    if figure.startswith(("start", "import", "vision")):
                        found.setdefault(figure, [[] for _ in trees])[at].append(value)
    print(
        f"| two faces, 480×360 | {' | '.join(map(str, args.trees)) or 'median (range)'} |\n|---|{'---|' * len(trees)}"
    )
    for figure, columns in found.items():
        print(f"| {figure} | {' | '.join(map(median_range, columns))} |")
    print(f"\nLoad {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
