"""What the vision service allocates for a frame, and where: docs/decisions/0027.

    .venv/bin/pip install memray
    .venv/bin/python bench/allocations.py [--faces N] [--frames N] [--lines N]

A film of N portraits is replayed; memray counts what is asked of every allocator, Python's and those of the libraries,
between two of its frames in which the tracks are old. Counts do not depend on the machine's speed. Where: the innermost
line of this project's code, most bytes first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

from material import configure, crowd

import edge
from edge import config as settings
from edge.vision.service import Vision

SETTLED: Final = 40
"""Frames before the first that counts."""
PACKAGE: Final = f"{Path(edge.__file__).parent}/"
FREED: Final = ("free", "munmap", "pymalloc_free")


def record(film: Path, folder: Path, frames: int) -> Path:
    """Replay the film and record the allocations of so many of its frames."""
    import memray

    found, number = folder / "allocations", count(1)
    service: Vision

    def on_frame(*_: Any) -> None:  # noqa: ANN401 - what a frame showed is of no interest here
        at = next(number)
        if at == SETTLED:
            open_.enter_context(memray.Tracker(found, trace_python_allocators=True))
        elif at == SETTLED + frames:
            open_.close()
            service.stop()

    config = settings.load(configure(folder, film, settings.development("clip").models.bundle.resolve()))
    with ExitStack() as open_:
        service = Vision(config, on_frame=on_frame)
        service.run()
    return found


def tables(found: Path, frames: int, lines: int) -> str:
    """Markdown: asked of whom, then where."""
    import memray

    whom: dict[str, Counter[str]] = {}
    places: dict[str, Counter[str]] = {}
    for one in memray.FileReader(found).get_allocation_records():
        kind = memray.AllocatorType(one.allocator).name.lower()
        if kind in FREED:
            continue
        stack = one.stack_trace()
        where = next((f"`{Path(f).name}` {line}, `{name}`" for name, f, line in stack if PACKAGE in f), "elsewhere")
        asked = "Python's small objects" if kind.startswith("pymalloc") else "the C library"
        for counted in (whom.setdefault(asked, Counter()), places.setdefault(where, Counter())):
            counted.update(n=one.n_allocations, bytes=one.size)
    out = []
    for title, by, most in (("asked of", whom, len(whom)), ("where", places, lines)):
        out += [f"| {title} | allocations a frame | KB a frame |", "|---|--:|--:|"]
        for name, one in sorted(by.items(), key=lambda item: -item[1]["bytes"])[:most]:
            out.append(f"| {name} | {one['n'] / frames:.1f} | {one['bytes'] / frames / 1024:.1f} |")
        out.append("")
    return "\n".join(out)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=2)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--lines", type=int, default=12)
    args = parser.parse_args()
    if find_spec("memray") is None:
        parser.error("memray is not installed: .venv/bin/pip install memray")
    with tempfile.TemporaryDirectory() as name:
        film = crowd(Path(name) / "film.mp4", args.faces, frames=SETTLED + args.frames + 8)
        print(tables(record(film, Path(name), args.frames), args.frames, args.lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
