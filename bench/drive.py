"""One run of the vision service of whichever tree stands first on PYTHONPATH; prints a JSON object of figures.

    PYTHONPATH=TREE python bench/drive.py CONFIG FRAMES FROM

It stops after `FRAMES` frames. `FROM` is the monotonic clock when the process was started. Where a commit's layout
differs, its modules go into `PLACES`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from importlib import import_module
from pathlib import Path

PLACES = (("edge.config", "edge.vision.service"), ("edge.core.config", "edge.vision.service"))
"""Modules with `load` and with `Vision`, newest layout first."""


def main() -> int:
    """Run it once."""
    most, started = int(sys.argv[2]), float(sys.argv[3])
    began = time.monotonic()
    for config, service in PLACES:
        try:
            load, vision = import_module(config).load, import_module(service).Vision
            break
        except ModuleNotFoundError:
            continue
    imported = time.monotonic() - began
    logging.disable(logging.CRITICAL)
    seen: list[float] = []
    busy: list[float] = []
    faces = 0

    def note(_: object, tracks: list[object]) -> None:
        nonlocal faces
        faces += len(tracks)
        seen.append(time.monotonic())
        busy.append(time.process_time())
        if len(seen) == most:
            run.stop()

    run = vision(load(Path(sys.argv[1])), on_frame=note)
    run.run()
    frames = len(seen) - 1
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    found = {
        "tree": str(Path(import_module("edge").__file__ or "").parents[1]),
        "frames a second": frames / (seen[-1] - seen[0]),
        "processor ms a frame": 1000 * (busy[-1] - busy[0]) / frames,
        "faces a frame": faces / len(seen),
        "vision, peak resident MB": peak,
        "start to first frame, s": seen[0] - started,
        "start to first frame, processor s": busy[0],
        "import, s": imported,
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
