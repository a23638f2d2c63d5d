"""What a user would take instead, on the same frames and the same labelled faces, in turn, in one run.

    .venv/bin/python bench/peers.py FOLDER [--rounds N] [--frames N] [--faces N]

`FOLDER` holds a virtual environment each: `fer`, `facex`, `kit` (face-analysis-kit), `recognition`
(facial-emotion-recognition), `edge`, of which the size alone is told, and `human`, npm's; `peers.md` says how they are
made. Those that are missing are left out. Prints Markdown tables. Decoding is in nobody's time; of each film the first
frame warms up. EDGE_DATA is the data's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from edge_quantize.datasets.fer2013 import data_root
from edge_quantize.evaluation import metrics
from edge_quantize.evaluation.chips import fer2013
from material import median_range

from edge.commands.demo.clip import FPS, compose
from edge.types import EMOTIONS

if TYPE_CHECKING:
    from edge.types import F32, U8

PROGRAMS = {
    "fer-haar": "fer",
    "fer-mtcnn": "fer",
    "facex": "facex",
    "kit-haar": "kit",
    "kit-retinaface": "kit",
    "recognition": "recognition",
    "human": "human",
    "human-every": "human",
}
"""Environment of each."""
START = {"demo": 17.0, "two faces": 1.0}
"""Seconds of a film before its first frame: in the demo's a masked face leaves, two bare ones come."""
SPARSE = {"fer-mtcnn": 4, "kit-retinaface": 4, "recognition": 4}
"""Slow ones, which see each frame for itself, are shown every fourth."""
SEED = 20261121
SIZE, SIDE = (480, 360), 4 * 48
OVERLAP, LARGER = 0.5, 6.0
"""Two boxes are of one face where so much of the smaller lies in the larger, which has at most so many times its area:
some cut the chin off, Human's reach round the whole head."""


class Program:
    """One program, in a process of its own."""

    def __init__(self, name: str, command: list[str]) -> None:
        self._name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def give(self, frames: Path) -> None:
        """Let it begin on a file of frames."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{frames}\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Answer about what was given."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            msg = f"{self._name} ended without an answer: run {shlex.join(map(str, self._process.args))} to see why"
            raise SystemExit(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def ours(name: str) -> list[str]:
    """Command that asks a program of this environment."""
    return [sys.executable, str(Path(__file__).with_name("peers_one.py")), name]


def commands(folder: Path) -> dict[str, list[str]]:
    """Commands that ask what else is installed under `folder`, by program."""
    found = {}
    for name, environment in PROGRAMS.items():
        python = folder / environment / "bin" / "python"
        if python.exists():
            found[name] = [str(python), str(Path(__file__).with_name("peers_one.py")), name]
        elif environment == "human" and (folder / environment / "node_modules").is_dir():
            every = ["every"] if name == "human-every" else []
            found[name] = ["node", str(Path(__file__).with_name("peers_human.js")), str(folder / environment), *every]
    return found


def sizes(folder: Path) -> None:
    """Print what each environment takes on the disk."""
    print("\n| environment | MB |\n|---|--:|")
    for environment in sorted({"edge", *PROGRAMS.values()}):
        taken = sum(file.stat().st_size for file in (folder / environment).rglob("*") if not file.is_symlink())
        if taken:
            print(f"| {environment} | {taken / 1e6:.0f} |", flush=True)


def film(path: Path, start: float, count: int) -> U8:
    """Frames (count + 1, H, W, 3) of a film from `start` seconds on, one each 1/8 s, the film's clock."""
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS) or FPS
    step, frames = max(1, round(fps / FPS)), []
    index = -round(start * fps)
    while len(frames) <= count:
        read, image = capture.read()
        if not read:
            break
        if index >= 0 and index % step == 0:
            frames.append(image)
        index += 1
    return np.stack(frames).astype(np.uint8, copy=False)


def portraits(count: int) -> tuple[U8, list[str], list[Any]]:
    """Grey frames with a PublicTest face each, the first one twice; their labels; where the face lies."""
    fer = fer2013()
    rows = np.random.default_rng(SEED).permutation(fer.public_rows())[:count]
    frames = np.full((count + 1, SIZE[1], SIZE[0], 3), 128, np.uint8)
    x, y = (SIZE[0] - SIDE) // 2, (SIZE[1] - SIDE) // 2
    for at, row in enumerate((rows[0], *rows)):
        face = cv2.resize(fer.images[row], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        frames[at, y : y + SIDE, x : x + SIDE] = face[..., None]
    return frames, [EMOTIONS[fer.labels[row]] for row in rows], [x, y, SIDE, SIDE]


def overlaps(face: list[Any], others: list[Any]) -> F32:
    """How much of the smaller box lies in the other (N,), of one face with others; 0 where sizes differ too much."""
    one, many = np.array([face[:4]], float), np.array([other[:4] for other in others], float).reshape(-1, 4)
    low, high = np.maximum(one[:, :2], many[:, :2]), np.minimum(one[:, :2] + one[:, 2:], many[:, :2] + many[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    areas = np.stack([np.broadcast_to(one[:, 2:].prod(axis=1), len(many)), many[:, 2:].prod(axis=1)])
    small, large = areas.min(axis=0), areas.max(axis=0)
    return np.where(large <= LARGER * small, both / small, 0).astype(np.float32)


def shared(faces: list[list[Any]], ours: list[list[Any]]) -> float:
    """Share of our boxes, over all frames, that one of theirs overlaps."""
    hit = [
        bool(overlaps(mine, frame).max(initial=0.0) >= OVERLAP)
        for frame, mines in zip(faces, ours, strict=True)
        for mine in mines
    ]
    return sum(hit) / len(hit) if hit else float("nan")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the environments")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=40, help="of each clip")
    parser.add_argument("--faces", type=int, default=200)
    args = parser.parse_args()
    there = commands(args.folder)
    sizes(args.folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.rounds:
            compose(folder / "demo.mp4")
            two = data_root() / "clips/head-pose-face-detection-female-and-male.gif"
            here = {name: ours(name) for name in ("edge", "edge-camera")}
            programs = {name: Program(name, command) for name, command in (here | there).items()}
            for title, path in {"demo": folder / "demo.mp4", "two faces": two}.items():
                clip(title, film(path, START[title], args.frames), folder, programs, args.rounds)
            for program in programs.values():
                program.close()
        if args.faces:
            labelled(args.faces, folder / "faces.npy", {"edge-still": ours("edge-still")} | there)
    print(f"\nLoad {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    return 0


def clip(title: str, frames: U8, folder: Path, programs: dict[str, Program], rounds: int) -> None:
    """Print the table of a clip."""
    count, shown = len(frames) - 1, {}
    for name in programs:
        shown[name] = np.r_[0, 1 : count + 1 : SPARSE.get(name, 1)]
        np.save(folder / f"{name}.npy", frames[shown[name]])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for number in range(rounds):
        for name in list(programs)[:: -1 if number % 2 else 1]:
            programs[name].give(folder / f"{name}.npy")
            found[name].append(programs[name].answer())
            print(f"{title}, round {number + 1}: {name}", file=sys.stderr, flush=True)
    print(f"\n{title}, {count} frames, {rounds} rounds\n")
    print(
        "| program | processor ms a frame | frames a second | processor ÷ edge's | edge's frames a second ÷ its | ",
        end="",
    )
    print("faces a frame | of edge's | peak MB |\n|---|---|---|---|---|--:|--:|--:|", flush=True)
    ours = found["edge"]
    for name, runs in found.items():
        faces, looked = runs[-1]["faces"], len(shown[name]) - 1
        mine = [run["processor"] / count for run in ours]
        ratio = median_range([run["processor"] / looked / m for m, run in zip(mine, runs, strict=True)])
        each = median_range([1000 * run["processor"] / looked for run in runs])
        rates = [looked / run["seconds"] for run in runs]
        fps = median_range(rates)
        slower = median_range([count / our["seconds"] / rate for our, rate in zip(ours, rates, strict=True)])
        same = shared(faces, [ours[-1]["faces"][at] for at in shown[name]])
        many = sum(map(len, faces)) / len(faces)
        cells = (name, each, fps, ratio, slower, f"{many:.2f}", f"{same:.0%}", f"{runs[-1]['peak']:.0f}")
        print(f"| {' | '.join(cells)} |", flush=True)


def labelled(count: int, path: Path, asked: dict[str, list[str]]) -> None:
    """Print the table of the labelled faces, all programs at once: nobody's time is taken."""
    frames, labels, place = portraits(count)
    np.save(path, frames)
    print(f"\n{count} labelled faces, {SIDE} pixels each\n")
    print("| program | found | right, of those found | right, of all |\n|---|--:|--:|--:|", flush=True)
    programs = {name: Program(name, command) for name, command in asked.items() if name != "human"}
    for program in programs.values():
        program.give(path)
    for name, program in programs.items():
        right, found = np.zeros(count, bool), np.zeros(count, bool)
        for at, faces in enumerate(program.answer()["faces"][1:]):
            if faces:
                overlap = overlaps(place, faces)
                found[at] = overlap.max() >= OVERLAP
                right[at] = found[at] and faces[int(overlap.argmax())][4] == labels[at]
        shares = (metrics.share(hits) for hits in (found, right[found], right) if len(hits))
        cells = " | ".join(f"{s['accuracy']:.1%} ({s['low']:.1%} to {s['high']:.1%})" for s in shares)
        print(f"| {name} | {cells} |", flush=True)
        program.close()


if __name__ == "__main__":
    sys.exit(main())
