"""Live, with a camera faster than the pipeline: whether a visitor stands there is in no published field."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge.contract import counts_payload, encode
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import read_vision
from edge.process.clock import SystemClock
from edge.publisher.health import Sampler
from edge.types import Frame
from edge.vision import figures as figures_module
from edge.vision import service as vision_module
from edge.vision.camera.mailbox import Mailbox
from edge.vision.route import Router
from edge.vision.service import Vision
from tests.support.processes import on_one_day
from tests.vision.test_privacy_fields import NOISED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edge.config import Config
    from edge.types import U8

SLOW_FACE_S = 1.3
"""What a face costs in the second test: longer than a frame stands for."""


class Metronome:
    """A camera with a beat of its own; frames that nobody takes are overwritten."""

    live = True

    def __init__(self, image: U8, step: float) -> None:
        self.ended = False
        self._index, self._mailbox, self._stop = 0, Mailbox[Frame](), threading.Event()
        self._image, self._step = image, step
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        began, noise = time.monotonic(), np.random.default_rng(1)
        while not self._stop.wait(max(0.0, began + self._index * self._step - time.monotonic())):
            image = self._image.copy()
            image[0, 0] = noise.integers(0, 255)  # a sensor's frames differ
            self._mailbox.put(Frame(image, time.monotonic(), self._index))
            self._index += 1

    @property
    def turns(self) -> tuple[int, ...]:
        return (self._index,)

    @property
    def drops(self) -> dict[str, int]:
        return {"overwritten": self._mailbox.overwritten}

    def read(self, timeout: float) -> Frame | None:
        return self._mailbox.take(timeout)

    def close(self) -> None:
        self._stop.set()


def told(config: Config, seconds: float) -> tuple[dict[str, Any], list[dict[str, Any]], int, dict[str, int]]:
    """Health in the middle of the run, windows, and what only developers see: faces and drops."""
    service = Vision(config)
    # A start takes as long as the disk does, and is not what is asked here.
    service._window = service._fresh(service._clock.monotonic())
    middle: list[Any] = []

    def look() -> None:
        middle.append(read_vision(config.storage.runtime))
        service.stop()

    timer = threading.Timer(seconds, look)
    timer.start()
    service.run()
    timer.join()
    (figures,) = middle
    clock = SystemClock()
    with Outbox(config.storage.outbox) as outbox:
        stats = outbox.stats()
        windows = [
            json.loads(
                encode(counts_payload(r.report(), site="s", device="d", boot_id=r.boot_id, seq=r.seq, prev=None))
            )
            for r in outbox.unsent()
        ]
    health = json.loads(encode(Sampler(clock)(figures, stats, None)))
    for name in ("boot_id", "soc_c", "outbox"):
        del health[name]
    took = health.pop("invoke_ms")
    assert took["p50"] > 0, "null until the first face would tell of it"
    for window in windows:
        for name in (*NOISED, "boot_id", "window"):
            del window[name]
    return health, windows, figures.development.faces, figures.development.drops


@pytest.fixture
def room(portraits: dict[str, U8]) -> tuple[U8, U8]:
    """A view of a room, without and with somebody in it."""
    noise = np.random.default_rng(3).integers(60, 180, (60, 80, 3), np.uint8)
    empty = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    visited = empty.copy()
    visited[:, :240] = cv2.resize(portraits["astronaut"], (240, 240))
    return empty, visited


def run(
    settings: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    view: U8,
    *,
    step: float,
    seconds: float,
) -> tuple[dict[str, Any], list[dict[str, Any]], int, dict[str, int]]:
    monkeypatch.setattr(vision_module, "open_cameras", lambda *_, **__: Metronome(view, step))
    on_one_day()
    folder = tmp_path / f"{view.sum()}"
    folder.mkdir()
    config = settings(
        tmp_path / "none",
        camera={"kind": "v4l2", "source": "/dev/video0"},
        detector={"rotations": (0.0,), "min_face": 20},
        window={"seconds": 86400.0},
        storage={"outbox": folder / "outbox.db", "runtime": folder},
    )
    return told(config, seconds)


def test_a_camera_faster_than_the_pipeline(
    settings: Callable[..., Config],
    room: tuple[U8, U8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frames are overwritten in both runs, more of them while a face is read."""
    monkeypatch.setattr(figures_module, "PACE_S", 0.5)
    for attempt in range(3):  # on a crowded machine a run may lose a tenth of a second to others, visited or not
        folder = tmp_path / str(attempt)
        folder.mkdir()
        empty, visited = (run(settings, folder, monkeypatch, view, step=0.001, seconds=4.0) for view in room)
        if visited[:2] == empty[:2]:
            break
    assert (empty[2], visited[2] > 0) == (0, True), "somebody was seen"
    assert min(empty[3]["overwritten"], visited[3]["overwritten"]) > 0
    assert visited[:2] == empty[:2]
    assert visited[0]["rate"] == "slow"
    assert visited[0]["drops"] == {}


def test_a_face_that_takes_longer_than_a_frame_stands_for(
    settings: Callable[..., Config],
    room: tuple[U8, U8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a slow device: it costs neither coverage nor the scene, and the rate is that of a blank picture."""
    expressions = Router.expressions

    def slowly(self: Router, chips: U8, routes: Any) -> NDArray[Any]:  # noqa: ANN401 - handed on
        time.sleep(SLOW_FACE_S)
        return expressions(self, chips, routes)  # type: ignore[return-value]

    monkeypatch.setattr(Router, "expressions", slowly)
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        empty, visited = (run(settings, folder, monkeypatch, view, step=0.5, seconds=6.0) for view in room)
        if visited[:2] == empty[:2] and visited[0]["rate"] == "ok":
            break
    assert (empty[2], visited[2] > 0) == (0, True), "somebody was seen"
    assert visited[3]["overwritten"] > 0
    assert visited[:2] == empty[:2]
    assert visited[0]["rate"] == "ok"
    assert [window["coverage"] for window in visited[1]] == [1.0]
