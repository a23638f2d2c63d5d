"""Clips that benchmarks are run on, and the configuration of a service that replays them."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.commands.demo.clip import place, room

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8

FPS = 8


def portraits() -> list[U8]:
    """The two bare portraits of the demo, uint8 BGR."""
    folder = files("edge.demo_material")
    names = ("astronaut", "hopper")
    data = [np.frombuffer((folder / f"{name}.png").read_bytes(), np.uint8) for name in names]
    return [cv2.imdecode(one, cv2.IMREAD_COLOR).astype(np.uint8, copy=False) for one in data]


def crowd(path: Path, faces: int, size: tuple[int, int] = (480, 360), *, frames: int = 160) -> Path:
    """Write a film of `faces` portraits that sway in a grid, each as large as the grid lets it be; returns `path`."""
    width, height = size
    columns = max(1, math.ceil(math.sqrt(faces * width / height)))
    rows = max(1, math.ceil(faces / columns))
    tall = 0.85 * min(width / columns, height / rows)
    shown, wall = portraits(), room(size)
    # Every frame costs a blend a face, so a second of them is made and shown again and again.
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    made = []
    for index in range(min(frames, 2 * FPS)):
        canvas = wall.copy()
        for face in range(faces):
            turn = 2 * math.pi * (index / (2 * FPS) + face / 7)
            x = width * (face % columns + 0.5) / columns + 0.03 * tall * math.cos(turn)
            y = height * (face // columns + 0.5) / rows + 0.03 * tall * math.sin(turn)
            place(canvas, shown[face % 2], tall, x, y)
        made.append(canvas)
    for index in range(frames):
        writer.write(made[index % len(made)])
    writer.release()
    return path


def configure(
    folder: Path,
    clip: Path | None,
    bundle: Path,
    *,
    camera: str = "",
    loop: bool = False,
    strategy: str = "gate",
    models: str = "",
    window_s: int = 5,
) -> Path:
    """Write a configuration whose files lie in `folder`; returns its path.

    `models`: more lines of that section. `camera`: the lines of that one, instead of a replay of `clip`.
    """
    replay = f"kind = 'replay'\nsource = '{clip}'\nloop = {str(loop).lower()}"
    path = folder / "config.toml"
    path.write_text(
        f"""[device]
id = "bench"
site = "bench"
purpose = "benchmark"
mode = "development"
[camera]
{camera or replay}
[models]
bundle = '{bundle}'
strategy = "{strategy}"
{models}
[window]
seconds = {window_s}
[mqtt]
host = "127.0.0.1"
port = 9
[storage]
outbox = "outbox.db"
runtime = "run"
""",
        encoding="utf-8",
    )
    return path
