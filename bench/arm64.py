"""The appliance on emulated Raspberry Pis: whether its answers are those of x86, and the instructions a frame costs.

    .venv/bin/python bench/arm64.py FOLDER [--bundle BUNDLE] [--faces N] [--frames N] [--only bookworm-litert]

FOLDER keeps what was measured, the two arm64 root filesystems (Debian 12 and 13, 280 MB each) and the device pin sets,
which the first run makes as root with mmdebstrap and pip. Needs qemu-user (its dynamic build: the static one takes no
plugins) and a C compiler. Prints `arm64.md`'s tables. Instructions are the emulator's own count, so they do not depend
on this machine or on what else it does; milliseconds are an estimate from them, see `BOARDS`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import cv2
import numpy as np
from material import ROLES, configure

from edge import config as settings
from edge.bundle.golden import golden_answers
from edge.bundle.manifest import load_bundle
from edge.commands.demo.clip import FPS, SIZE, compose
from edge.errors import ConfigError
from edge.inference.cpu import CpuBackend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.bundle.manifest import Bundle
    from edge.types import U8

    Answers = dict[str, NDArray[np.int8]]

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
START_S: Final = 3.5
"""Where the part of the demo's clip begins: one face, from 4 s on two."""


class Board(NamedTuple):
    """A Raspberry Pi as a program sees it, and what an estimate assumes of it."""

    cpu: str
    features: str
    part: str
    caches: tuple[str, ...]
    mhz: int
    ipc: tuple[float, float]
    """Instructions a cycle, from and to."""


BOARDS: Final = {
    "Pi 4": Board(
        "cortex-a72", "fp asimd evtstrm crc32 cpuid", "0x0 0xd08 3", ("32K", "48K", "1024K"), 1800, (1.0, 1.7)
    ),
    "Pi 5": Board(
        "cortex-a76",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        "0x4 0xd0b 1",
        ("64K", "64K", "512K", "2048K"),
        2400,
        (1.6, 2.8),
    ),
}  # fmt: skip
_KINDS: Final = ("Data", "Instruction", "Unified", "Unified")
SETS: Final = {"bookworm": "3.11", "trixie": "3.13"}


def prepare(folder: Path, suite: str) -> None:
    """Root filesystem and packages of a pin set, each made once."""
    root, site = folder / f"root-{suite}", folder / f"site-{suite}"
    if not (root / "usr/bin/python3").is_symlink():
        t64 = "t64" if suite == "trixie" else ""
        packages = f"python3,libstdc++6,libglib2.0-0{t64}"
        order = ["mmdebstrap", "--architectures=arm64", "--variant=extract", f"--include={packages}", suite, str(root)]
        subprocess.run(order, check=True)
        if not (root / "lib").exists():  # Debian 13 makes these links in a maintainer script, which nothing runs here
            (root / "lib").symlink_to("usr/lib")
    if not (site / "numpy").is_dir():
        glibc = {"bookworm": range(17, 37), "trixie": range(17, 42)}[suite]
        tags = [f"--platform=manylinux_2_{n}_aarch64" for n in glibc] + ["--platform=manylinux2014_aarch64"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", *tags,
               f"--python-version={SETS[suite]}", f"--target={site}"]  # fmt: skip
        locked = ["--require-hashes", "-r", str(ROOT / f"requirements/device-{suite}.txt")]
        subprocess.run([*pip, *locked], check=True)
        if suite == "bookworm":
            subprocess.run([*pip, "tflite-runtime==2.14.0"], check=True)


def become(root: Path, board: Board) -> None:
    """Show the board in /proc and /sys of the root filesystem: runtimes choose kernels by it, and crash on x86's."""
    variant, part, revision = board.part.split()
    cpu = f"Features\t: {board.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: {variant}\n"
    cpu += f"CPU part\t: {part}\nCPU revision\t: {revision}\n"
    files = {"proc/cpuinfo": "\n".join(f"processor\t: {n}\nBogoMIPS\t: 108.00\n{cpu}" for n in range(4))}
    base = "sys/devices/system/cpu"
    files |= {f"{base}/{name}": "0-3" for name in ("possible", "present", "online")} | {f"{base}/kernel_max": "255"}
    for n in range(4):
        at = f"{base}/cpu{n}"
        files |= {f"{at}/topology/physical_package_id": "0", f"{at}/topology/cluster_id": "0"}
        files |= {f"{at}/topology/core_id": f"{n}", f"{at}/topology/thread_siblings_list": f"{n}"}
        files |= {f"{at}/topology/{name}_list": "0-3" for name in ("cluster_cpus", "core_siblings", "package_cpus")}
        files |= {f"{at}/cpufreq/cpuinfo_max_freq": f"{board.mhz}000", f"{at}/cpufreq/cpuinfo_min_freq": "600000"}
        for level, (size, kind) in enumerate(zip(board.caches, _KINDS, strict=False)):
            cache = f"{at}/cache/index{level}"
            files |= {f"{cache}/level": f"{max(level, 1)}", f"{cache}/type": kind, f"{cache}/size": size}
            files |= {f"{cache}/coherency_line_size": "64", f"{cache}/ways_of_associativity": "4"}
            shared = "0-3" if level == len(board.caches) - 1 else f"{n}"
            files |= {f"{cache}/number_of_sets": "256", f"{cache}/shared_cpu_list": shared}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n", encoding="utf-8")


def material(folder: Path, bundle: Bundle, golden: int, faces: int, frames: int) -> dict[str, U8]:
    """Write the inputs and the clip that a run reads; returns the inputs by role, golden ones first."""
    inputs = {role: chips[:golden] for role, (chips, _) in golden_answers(bundle, ROLES).items()}
    if faces:
        from edge_quantize.datasets.fer2013 import load_fer2013

        fer = load_fer2013()
        some = fer.images[fer.public][:: len(fer.images[fer.public]) // faces][:faces]
        inputs |= {role: np.concatenate([inputs[role], some]) for role in ROLES[1:]}
    np.savez(folder / "inputs.npz", **inputs)
    (folder / "clip.mp4").unlink(missing_ok=True)
    if not frames:
        return inputs
    compose(folder / "whole.mp4")
    capture = cv2.VideoCapture(str(folder / "whole.mp4"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, START_S * FPS)
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), FPS, SIZE)
    for _ in range(frames):
        writer.write(capture.read()[1])
    writer.release()
    return inputs


def emulate(folder: Path, bundle: Path, suite: str, runtime: str, name: str) -> None:
    """One run; `told.json` says what ran and the instructions (all, SIMD, memory) of each step.

    Of a model's invocations the median, of frames the mean: most search little, every sixth much.
    """
    root, own, board = folder / f"root-{suite}", folder / _place(suite, runtime, name), BOARDS[name]
    become(root, board)
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    asked = f'accelerator = "cpu"\nruntime = "{runtime}"'
    configure(own, own.parent / "clip.mp4", bundle, models=asked, window_s=3600)
    inside = {"PYTHONPATH": f"{ROOT}:{folder / f'site-{suite}'}", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1",
              "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    order = ["qemu-aarch64", "-cpu", board.cpu, "-plugin", str(folder / "count.so"), "-L", str(root)]
    order += [part for key, text in inside.items() for part in ("-E", f"{key}={text}")]
    order += [str(root / f"usr/bin/python{SETS[suite]}"), str(HERE / "arm64_guest.py"), runtime, str(own)]
    done = subprocess.run(order, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    if done.returncode:
        sys.exit(f"{suite}, {runtime}, {name}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    told = json.loads((own / "steps.json").read_text(encoding="utf-8"))
    marks = [np.array(line.split()[2:], np.int64) for line in done.stderr.splitlines() if line.startswith("mark ")]
    steps: dict[str, list[NDArray[np.int64]]] = {}
    for (before, after), step in zip(pairwise(marks), told["steps"][1:], strict=True):
        steps.setdefault(step, []).append(after - before)
    empty = steps.pop("mark")[0]
    steps.pop("", None)
    told["steps"] = {
        step: ((np.mean if step.startswith("chain") else np.median)(each, axis=0) - empty).tolist()
        for step, each in steps.items()
    }
    told["counted"], told["bundle"] = {step: len(each) for step, each in steps.items()}, bundle.name
    (own / "told.json").write_text(json.dumps(told), encoding="utf-8")


def _place(suite: str, runtime: str, name: str) -> str:
    return f"{suite}-{runtime}-{name.replace(' ', '').lower()}"


def compared(got: Answers, expected: Answers) -> str:
    """Table cells: outputs that differ from those expected, the largest difference in LSB, argmaxes that changed.

    Of each role as many answers are compared as are expected.
    """
    cells = []
    for role in ROLES:
        wanted = expected[role].astype(int)
        came = got[role][: len(wanted)].astype(int)
        off = np.abs(came - wanted)
        cell = f"{(off > 0).sum()} of {off.size}, ≤ {off.max()} LSB"
        if role != "detector" and (flips := int((came.argmax(1) != wanted.argmax(1)).sum())):
            cell += f", {flips} of {len(off)} with another argmax"
        cells.append(cell if off.any() else f"same bits ({off.size})")
    return " | ".join(cells)


def report(folder: Path, bundle: Bundle, inputs: dict[str, U8], golden: int) -> None:
    """Print the tables of all runs of this bundle that the folder has."""
    wanted = {role: outputs[:golden] for role, (_, outputs) in golden_answers(bundle, ROLES).items()}
    answers, costs, to_golden = [], [], []
    for runtime in ("litert", "tflite"):
        with contextlib.suppress(ConfigError):  # the other of the two may not be installed here
            here = CpuBackend(bundle, ROLES, 1, runtime)
            own_answers = {role: here.outputs(role, inputs[role]) for role in ROLES}
            to_golden.append(f"| x86-64, {here.runtime} | {compared(own_answers, wanted)} |")
    for suite, runtime, name in RUNS:
        own, board = folder / _place(suite, runtime, name), BOARDS[name]
        if not (own / "told.json").exists():
            continue
        told = json.loads((own / "told.json").read_text(encoding="utf-8"))
        if told["bundle"] != bundle.folder.name:
            continue
        here = CpuBackend(bundle, ROLES, 1, runtime)
        expected = {role: here.outputs(role, inputs[role]) for role in ROLES}
        with np.load(own / "answers.npz") as npz:
            got = dict(npz)
        first = f"| {name}, Python {SETS[suite]}, {told['runtime']} | "
        answers.append(f"{first}{compared(got, expected)} |")
        to_golden.append(f"{first}{compared(got, wanted)} |")
        steps = {step: np.array(three) / 1e6 for step, three in told["steps"].items()}
        for step in sorted(steps, key=_order):
            spent, vectors, memory = steps[step] - (steps["decode"] if step.startswith("chain") else 0)
            low, high = (spent / (board.mhz * ipc) * 1000 for ipc in reversed(board.ipc))
            costs.append(f"{first}{step} ({told['counted'][step]}) | {spent:.2f} | {vectors / spent:.0%} "
                         f"| {memory / spent:.0%} | {low:.1f} to {high:.1f} |")  # fmt: skip
    for against, lines in (("the same runtime on x86", answers), ("the golden answers", to_golden)):
        print(
            "\n".join(
                [f"| against {against} | detector | gate | unmasked | masked |", "|---|---|---|---|---|", *lines, ""]
            )
        )
    print("| | step | million instructions | SIMD | memory | ms, estimate |\n|---|---|---|---|---|---|")
    print("\n".join(costs))


RUNS: Final[list[tuple[str, Literal["litert", "tflite"], str]]] = [
    *(("bookworm", "litert", name) for name in BOARDS),
    *(("bookworm", "tflite", name) for name in BOARDS),
    *(("trixie", "litert", name) for name in BOARDS),
]


def main() -> int:
    """Run every pair of pin set and runtime on every board, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bundle", type=Path, help="instead of the newest in models/")
    parser.add_argument("--golden", type=int, default=35, help="golden inputs of each model, at most")
    parser.add_argument(
        "--faces", type=int, default=0, help="compare as many faces of PublicTest too (needs EDGE_DATA)"
    )
    parser.add_argument("--frames", type=int, default=28, help="of the clip, the first four uncounted; 0: answers only")
    parser.add_argument("--only", default="", help="runs whose name begins so; none of them: only print")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for program in ("qemu-aarch64", "mmdebstrap", "cc"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: apt-get install qemu-user mmdebstrap gcc")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
    subprocess.run(["cc", *flags, "-o", str(folder / "count.so"), str(HERE / "arm64.c")], check=True)  # noqa: S607
    where = (args.bundle or settings.development("clip").models.bundle).resolve()
    bundle = load_bundle(where)
    inputs = material(folder, bundle, args.golden, args.faces, args.frames)
    for suite, runtime, name in RUNS:
        if _place(suite, runtime, name).startswith(args.only):
            print(f"{suite}, {runtime}, {name} …", file=sys.stderr, flush=True)
            prepare(folder, suite)
            emulate(folder, where, suite, runtime, name)
    report(folder, bundle, inputs, args.golden)
    return 0


def _order(step: str) -> tuple[int, str]:
    return ((*ROLES, "decode").index(step) if step in (*ROLES, "decode") else 9), step


if __name__ == "__main__":
    sys.exit(main())
