"""Kernel threads of each model on one core and on two, and what opening the models takes.

    .venv/bin/python bench/threads.py [--rounds N] [--runtime litert|tflite]

Prints two Markdown tables: ms an invocation, the variants in turn, round after round in one process, so that a busy
machine troubles all alike (median, and the fastest tenth: nearer to an idle machine; `burnt` is the processor time of
two threads over one's), and the whole chain's frames a second on the demo's clip with the expression nets on either.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from material import ROLES, configure

from edge import config as settings
from edge.bundle.golden import golden_answers
from edge.bundle.manifest import load_bundle
from edge.bundle.model_check import check_model
from edge.commands.demo.clip import compose
from edge.inference import cpu
from edge.inference.tflite import open_interpreter, runtime, runtime_name, to_int8
from edge.vision.service import Vision

THREADS: Final = (1, 2, 4)
FRAMES: Final = 120


def once(interpreter: Any) -> tuple[float, float]:  # noqa: ANN401 - the runtime ships no types
    """(ms by the clock, ms of processor time of all threads) of one invocation."""
    wall, spent = time.perf_counter(), time.process_time()
    interpreter.invoke()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - spent)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--chains", type=int, default=5)
    parser.add_argument("--runtime", choices=("auto", "litert", "tflite"), default="auto")
    args = parser.parse_args()
    bundle = load_bundle(settings.development("clip").models.bundle)
    chosen = runtime(args.runtime)
    cores = sorted(os.sched_getaffinity(0))
    golden = golden_answers(bundle, ROLES)
    print(f"{runtime_name(chosen)}; load average {os.getloadavg()[0]:.1f}\n")
    print("| cores | model | " + " | ".join(f"{n} threads" for n in THREADS) + " | burnt | check, ms | open, ms |")
    print("|---|---|" + "---|" * (len(THREADS) + 3))
    for count in (1, 2):
        if count > len(cores):
            continue
        os.sched_setaffinity(0, cores[:count])  # threads that are made from here on
        for role in ROLES:
            content, chip = bundle.read(role), to_int8(golden[role][0][:1])
            opened, opening, checking = {}, [], []
            for n in THREADS:
                began = time.perf_counter()
                check_model(content)
                checked = time.perf_counter()
                opened[n] = open_interpreter(chosen, content, threads=n)
                opening.append(1000 * (time.perf_counter() - checked))
                checking.append(1000 * (checked - began))
                opened[n].set_tensor(opened[n].get_input_details()[0]["index"], chip)
                opened[n].invoke()
            walls: dict[int, list[float]] = {n: [] for n in THREADS}
            spent: dict[int, list[float]] = {n: [] for n in THREADS}
            for _ in range(args.rounds):
                for n, interpreter in opened.items():
                    wall, burn = once(interpreter)
                    walls[n].append(wall)
                    spent[n].append(burn)
            cells = " | ".join(f"{median(w):.2f} ({quantiles(w, n=10)[0]:.2f})" for w in walls.values())
            burnt = f"{median(spent[2]) / median(spent[1]):.2f}"
            print(
                f"| {count} | {role} | {cells} | {burnt} | {median(checking):.1f} | {median(opening):.1f} |", flush=True
            )
    print("\n| cores | 1 thread | 2 threads | 2 over 1, each round |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        compose(Path(name) / "clip.mp4")
        for count in (1, 2):
            os.sched_setaffinity(0, cores[:count])
            rates: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(args.chains):
                for n, each in rates.items():
                    each.append(chain(Path(name), n))
            ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
            cells = " | ".join(f"{median(each):.1f}" for each in rates.values())
            print(f"| {count} | {cells} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)
    return 0


def chain(folder: Path, threads: int) -> float:
    """Frames a second of the vision service on the clip, its expression nets with `threads`."""
    bundle = settings.development("clip").models.bundle.resolve()
    path = configure(folder, folder / "clip.mp4", bundle, models='accelerator = "cpu"', window_s=3600)
    seen: list[float] = []

    def count(*_: object) -> None:
        seen.append(time.perf_counter())
        if len(seen) == FRAMES:
            service.stop()

    cpu.THREADS |= dict.fromkeys(ROLES[2:], threads)
    service = Vision(settings.load(path), on_frame=count)
    service.run()
    return (len(seen) - 1) / (seen[-1] - seen[0])


if __name__ == "__main__":
    raise SystemExit(main())
