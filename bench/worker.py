"""What a worker's hop adds to an invocation, what the gate saves, how far invocations are from the core's limit.

    .venv/bin/python bench/worker.py [--asks N] [--macs-a-cycle N]

Three Markdown tables: median (fastest and slowest tenth). The hop: asking an Edge TPU's worker process whose model
answers at once. Routing: gate and one net against both nets, of eight faces. The floor: a model's multiply-accumulates
over what one core can do, with the clock measured in this run by a C program. Of `--macs-a-cycle`: with AVX2 and no
VNNI the kernels multiply int16 pairs (`vpmaddwd`), 16 to an instruction, two instructions a cycle.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from edge import config as settings
from edge.bundle.golden import golden_answers
from edge.bundle.manifest import load_bundle
from edge.inference.coral import Device
from edge.inference.cpu import CpuBackend
from edge.inference.shared_memory import Store
from edge.inference.tflite import open_interpreter, runtime, runtime_name, stated, to_int8
from edge.inference.worker_process import WorkerProcess
from edge.vision.route import ROLES, Router

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.bundle.manifest import Bundle
    from edge.types import Route

NO_TIME = """
import numpy as np
from edge.inference import worker
def open_model(_file, _content, _device, tensors, _choice):
    answer = np.zeros(tensors[1].shape[1:], np.int8)
    return lambda _one: answer
worker.open_model = open_model
worker.main()
"""
"""A worker as it ships, but for the model."""
CHAIN = """#include <stdio.h>
#include <time.h>
int main(void) {
  double best = 0;
  for (int turn = 0; turn < 40; turn++) {
    struct timespec a, b; unsigned long x = 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    for (long i = 0; i < 1000000; i++)
      __asm__ volatile("add $1,%0;add $1,%0;add $1,%0;add $1,%0;add $1,%0;add $1,%0;add $1,%0;add $1,%0" : "+r"(x));
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    double rate = 8e6 / ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec);
    if (rate > best) best = rate;
  }
  printf("%f", best);
}
"""
"""Additions that wait for each other, one a cycle: their rate is the core's clock in GHz."""


def told(values: list[float]) -> str:
    """Median, fastest and slowest tenth."""
    tenths = quantiles(values, n=10)
    return f"{median(values):.3f} ({tenths[0]:.3f} to {tenths[-1]:.3f})"


def timed(work: Callable[[], object]) -> float:
    """Milliseconds by the clock."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def hop(source: Bundle, asks: int) -> None:
    """Print what a worker takes whose model takes no time: copies, two packets, two changes of process."""
    roles = ("detector", "gate", "fer_unmasked")
    golden = {role: to_int8(golden_answers(source, (role,))[role][0]) for role in roles}
    models = [(e.file, stated(e.input), stated(e.output), b"", golden[e.role]) for e in map(source.entry, roles)]
    store, plain = Store(models), subprocess.Popen

    def instead(command: list[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - whatever it takes
        return plain([command[0], "-c", NO_TIME, command[-1]], **options)

    with mock.patch.object(subprocess, "Popen", instead):
        worker = WorkerProcess(Device("none", "usb", "none"), 0, store, 60.0)
    while worker.started() is None:
        time.sleep(0.01)
    print("| model | input, output, bytes | the hop, one input, ms | of 8 at once, ms each |\n|---|---|---|---|")
    for number, role in enumerate(roles):

        def ask(count: int, number: int = number, role: str = role) -> None:
            worker.ask(number, np.concatenate([golden[role]] * 8)[:count])
            for row in range(count):
                worker.answer(number, row, 60.0).copy()

        one, eight = [], []
        for _ in range(asks):
            one.append(timed(partial(ask, 1)))
            eight.append(timed(partial(ask, 8)) / 8)
        given, asked = golden[role][0].nbytes, math.prod(source.entry(role).output.shape)
        print(f"| {role} | {given:,}, {asked:,} | {told(one)} | {told(eight)} |", flush=True)
    worker.hang_up()
    store.close()


def routing(bundle: Bundle, rounds: int) -> list[list[float]]:
    """Of eight faces, half of them masked, round by round: processor ms by the gate, by both nets, gate ÷ both."""
    backend = CpuBackend(bundle, ROLES["gate"])
    chips = np.random.default_rng(1).integers(0, 256, (8, 48, 48), np.uint8)
    routes: list[Route] = ["masked", "unmasked"] * 4
    spent: dict[str, list[float]] = {"gate": [], "highest-probability": []}
    routers = {strategy: Router(backend, strategy) for strategy in ("gate", "highest-probability")}  # type: ignore[arg-type]
    for number in range(rounds):
        for strategy, router in list(routers.items())[:: 1 if number % 2 else -1]:
            began = time.process_time()
            router.masked(chips)
            router.expressions(chips, routes)
            spent[strategy].append(1000 * (time.process_time() - began))
    ratios = [a / b for a, b in zip(spent["gate"], spent["highest-probability"], strict=True)]
    return [*spent.values(), ratios]


def floor(bundle: Bundle, folder: Path, asks: int, macs_a_cycle: int) -> None:
    """Print the invocations' times against multiply-accumulates over the core's peak."""
    (folder / "chain.c").write_text(CHAIN)
    subprocess.run(["cc", "-O2", "-o", folder / "chain", folder / "chain.c"], check=True)  # noqa: S607 - cc on PATH
    ghz = float(subprocess.run([folder / "chain"], check=True, capture_output=True, text=True).stdout)
    print(f"\nOne core, {ghz:.2f} GHz, {macs_a_cycle} MACs a cycle: {ghz * macs_a_cycle:.0f} G a second.\n")
    print(
        "| model | MACs | floor, ms | invocation, processor ms, one thread | times the floor |\n|---|--:|--:|---|---|"
    )
    for role in ("detector", "gate", "fer_unmasked"):
        interpreter = open_interpreter(runtime(), bundle.read(role), threads=1)
        chip = to_int8(golden_answers(bundle, (role,))[role][0][:1])
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], chip)
        macs, times = bundle.entry(role).macs or 0, []
        for _ in range(asks):
            began = time.process_time()
            interpreter.invoke()
            times.append(1000 * (time.process_time() - began))
        least = macs / (ghz * macs_a_cycle * 1e6)
        ratio = told([one / least for one in times])
        print(f"| {role} | {macs:,} | {least:.3f} | {told(times)} | {ratio} |", flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asks", type=int, default=300)
    parser.add_argument("--macs-a-cycle", type=int, default=32)
    args = parser.parse_args()
    bundle = load_bundle(settings.development("clip").models.bundle)
    hop(bundle, args.asks)
    print("\n| eight faces, processor ms by the gate | by both nets | gate ÷ both |\n|---|---|---|")
    print(f"| {' | '.join(map(told, routing(bundle, max(2, args.asks // 10))))} |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        floor(bundle, Path(name), args.asks, args.macs_a_cycle)
    print(f"\n{runtime_name(runtime())}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
