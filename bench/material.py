"""Clips that benchmarks are run on, the configuration of a service that replays them, and how figures are told."""

from __future__ import annotations

import math
from importlib.resources import files
from statistics import median
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.commands.demo.clip import place, room

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8

FPS = 8
ROLES = ("detector", "gate", "fer_unmasked", "fer_masked")
"""Of a bundle's models, in the order of a frame."""


def median_range(values: list[float], digits: int = 3) -> str:
    """Median and range, as the tables have them."""
    return f"{median(values):.{digits}g} ({min(values):.{digits}g} to {max(values):.{digits}g})"


def portraits() -> list[U8]:
    """The two bare portraits of the demo, uint8 BGR."""
    folder = files("edge.demo_material")
    names = ("astronaut", "hopper")
    data = [np.frombuffer((folder / f"{name}.png").read_bytes(), np.uint8) for name in names]
    return [cv2.imdecode(one, cv2.IMREAD_COLOR).astype(np.uint8, copy=False) for one in data]


def add_crowd(canvas: U8, shown: list[U8], faces: int, index: int, share: float, most: float = math.inf) -> U8:
    """Frame `index` of `faces` pictures that sway in a grid, each as high as `share` of its cell, at most `most`."""
    height, width = canvas.shape[:2]
    columns = max(1, math.ceil(math.sqrt(faces * width / height)))
    rows = max(1, math.ceil(faces / columns))
    tall = min(most, share * min(width / columns, height / rows))
    for face in range(faces):
        turn = 2 * math.pi * (index / (2 * FPS) + face / 7)
        x = width * (face % columns + 0.5) / columns + 0.03 * tall * math.cos(turn)
        y = height * (face // columns + 0.5) / rows + 0.03 * tall * math.sin(turn)
        place(canvas, shown[face % 2], tall, x, y)
    return canvas


def crowd(path: Path, faces: int, size: tuple[int, int] = (480, 360), *, frames: int = 160) -> Path:
    """Write a film of `faces` portraits that sway in a grid, each as large as the grid lets it be; returns `path`."""
    shown, wall = portraits(), room(size)
    # Every frame costs a blend a face, so a second of them is made and shown again and again.
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    made = [add_crowd(wall.copy(), shown, faces, index, 0.85) for index in range(min(frames, 2 * FPS))]
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
strategy = "gate"
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
