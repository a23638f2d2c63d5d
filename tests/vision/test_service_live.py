"""A run of the vision service with live cameras: what they do and fail to do, and the windows that follow."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.config.camera import CameraSection
from edge.errors import SourceError
from edge.outbox.runtime_files import read_vision, write_command
from edge.types import Frame
from edge.vision import service as vision_module
from edge.vision.camera.mailbox import Mailbox
from edge.vision.service import Vision
from tests.conftest import MATERIAL
from tests.support.processes import on_one_day
from tests.support.rtsp_server import RtspCamera
from tests.vision.test_service import EXACT, reports, total

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge.config import Config
    from edge.types import U8, Track

STILL = MATERIAL / "astronaut.png"
"""Named in configurations whose camera is a false one."""


class FalseCamera:
    """A live camera by the protocol: a thread puts pictures into the mailbox, faster than anyone takes them."""

    live = True

    def __init__(self, image: U8, *, fails_after: int | None = None) -> None:
        self.ended = False
        self.drops: dict[str, int] = {}
        self.closed = self._index = 0
        self._image, self._fails_after = image, fails_after
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        while not self._stop.wait(0.001) and self._index != self._fails_after:
            self._mailbox.put(Frame(self._image, time.monotonic(), self._index))
            self._index += 1

    @property
    def turns(self) -> tuple[int, ...]:
        return (self._index,)

    def read(self, timeout: float) -> Frame | None:
        frame = self._mailbox.take(timeout)
        self.drops["overwritten"] = self._mailbox.overwritten
        if frame is None and self._fails_after is not None:
            self.ended = True
            msg = "camera unplugged"
            raise SourceError(msg)
        return frame

    def close(self) -> None:
        self._stop.set()
        self.closed += 1


def test_a_live_camera_gives_its_newest_frames_and_counts_the_overwritten(
    settings: Callable[..., Config],
    portraits: dict[str, U8],
    monkeypatch: pytest.MonkeyPatch,
    heard: Callable[[], list[str]],
) -> None:
    camera = FalseCamera(cv2.resize(portraits["astronaut"], (256, 256)).astype(np.uint8))
    monkeypatch.setattr(vision_module, "open_cameras", lambda *_, **__: camera)
    seen: list[Frame] = []

    def watch(frame: Frame, _: Sequence[Track]) -> None:
        seen.append(frame)
        if len(seen) == 40 or frame.t - seen[0].t > 1.0:
            service.stop()

    config = settings(STILL, privacy=EXACT, detector={"rotations": (0.0,)})
    service = Vision(config, on_frame=watch)
    service.run()
    assert camera.closed == 1
    said = heard()
    assert said[0].startswith("READY=1\n")
    assert {"WATCHDOG=1", "STOPPING=1"} < set(said)
    skipped = seen[-1].index + 1 - len(seen)
    assert skipped > 0
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.development is not None
    assert figures.development.drops["overwritten"] >= skipped
    assert figures.drops == {}, "published, they would tell when somebody stood there"
    assert sum(r.seconds for r in reports(config)) >= seen[-1].t - seen[0].t


def test_a_camera_that_dies_leaves_its_window_committed(
    settings: Callable[..., Config], portraits: dict[str, U8], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = cv2.resize(portraits["astronaut"], (128, 128)).astype(np.uint8)
    monkeypatch.setattr(vision_module, "open_cameras", lambda *_, **__: FalseCamera(image, fails_after=50))
    config = settings(STILL, privacy=EXACT, detector={"rotations": (0.0,)})
    with pytest.raises(SourceError, match="unplugged"):
        Vision(config).run()
    assert reports(config)


def test_a_camera_that_does_not_let_go_costs_no_window(
    settings: Callable[..., Config], portraits: dict[str, U8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several take seconds each, after which whoever stops the service has killed it."""
    committed: list[int] = []

    class Stuck(FalseCamera):
        def close(self) -> None:
            super().close()
            committed.append(len(reports(config)))
            figures = read_vision(config.storage.runtime)
            assert figures is not None
            assert figures.state == "ended"

    image = cv2.resize(portraits["astronaut"], (128, 128)).astype(np.uint8)
    monkeypatch.setattr(vision_module, "open_cameras", lambda *_, **__: Stuck(image))
    config = settings(STILL, privacy=EXACT, detector={"rotations": (0.0,)})
    service = Vision(config, on_frame=lambda *_: service.stop())
    service.run()
    assert committed == [1]


def test_a_pause_is_noted_where_a_damaged_outbox_does_not_take_it_along(
    settings: Callable[..., Config], portraits: dict[str, U8], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FalseCamera] = []

    def opening(*_: object, **__: object) -> FalseCamera:
        opened.append(FalseCamera(cv2.resize(portraits["astronaut"], (128, 128)).astype(np.uint8)))
        return opened[-1]

    monkeypatch.setattr(vision_module, "open_cameras", opening)
    config = settings(STILL, camera={"kind": "v4l2", "source": "/dev/video0"}, detector={"rotations": (0.0,)})

    def watch(*_: object) -> None:
        write_command(config.storage.runtime, "pause")

    service = Vision(config, on_frame=watch)
    monkeypatch.setattr(service, "_rest", service.stop)
    service.run()
    assert len(opened) == 1
    (config.storage.runtime / "command.json").unlink()  # the power goes
    for suffix in ("-wal", "-shm", ""):
        config.storage.outbox.with_name(f"outbox.db{suffix}").unlink(missing_ok=True)
    config.storage.outbox.write_bytes(b"no database" * 1000)
    again = Vision(config)
    assert again._switch.cause() == "command"
    assert len(opened) == 1, "it is not opened"
    again._finish()


def test_a_camera_that_sees_nothing_makes_unknown_not_zero(
    settings: Callable[..., Config],
    portraits: dict[str, U8],
    monkeypatch: pytest.MonkeyPatch,
    heard: Callable[[], list[str]],
) -> None:
    camera = FalseCamera(portraits["astronaut"], fails_after=0)
    camera._thread.join()
    camera._fails_after = None  # hangs: open, and not one frame
    monkeypatch.setenv("WATCHDOG_USEC", "0")
    monkeypatch.setattr(vision_module, "open_cameras", lambda *_, **__: camera)
    config = settings(STILL, privacy=EXACT, window={"seconds": 1.0})
    service = Vision(config)
    threading.Timer(1.5, service.stop).start()
    service.run()
    assert {(r.coverage, total(r)) for r in reports(config)} == {(0.0, 0)}
    assert heard().count("WATCHDOG=1") == 1  # the first; then none comes, and systemd restarts the service


def test_what_was_lost_before_a_pause_is_not_forgotten(
    settings: Callable[..., Config], portraits: dict[str, U8], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    switch = tmp_path / "pause"
    opened: list[FalseCamera] = []

    class Losing(FalseCamera):
        def close(self) -> None:
            super().close()
            switch.unlink(missing_ok=True)

    def opening(*_: object, **__: object) -> FalseCamera:
        opened.append(Losing(cv2.resize(portraits["astronaut"], (128, 128)).astype(np.uint8)))
        opened[-1].drops["camera_lost"] = 2
        return opened[-1]

    def watch(*_: object) -> None:
        if len(opened) == 1:
            switch.touch()
        else:
            service.stop()

    monkeypatch.setattr(vision_module, "open_cameras", opening)
    config = settings(
        STILL,
        camera={"kind": "v4l2", "source": "/dev/video0"},
        detector={"rotations": (0.0,)},
        kill_switch={"file": switch},
    )
    service = Vision(config, on_frame=watch)
    service.run()
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.drops == {"camera_lost": 4}
    assert [camera.closed for camera in opened] == [1, 1]


def test_a_thrown_switch_keeps_the_camera_closed_and_the_window_unknown(
    settings: Callable[..., Config], portraits: dict[str, U8], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image = cv2.resize(portraits["astronaut"], (128, 128)).astype(np.uint8)
    opened: list[FalseCamera] = []

    def opening(*_: object, **__: object) -> FalseCamera:
        opened.append(FalseCamera(image))
        return opened[-1]

    monkeypatch.setattr(vision_module, "open_cameras", opening)
    switch = tmp_path / "pause"
    switch.touch()
    config = settings(
        STILL,
        camera={"kind": "v4l2", "source": "/dev/video0"},
        privacy=EXACT,
        detector={"rotations": (0.0,)},
        window={"seconds": 1.0},
        kill_switch={"file": switch},
    )
    seen: list[float] = []
    service = Vision(config, on_frame=lambda frame, _: seen.append(frame.t))
    assert not opened, "thrown at the start: not even opened"
    close, windows = service._close, []
    closed_by_switch: list[int] = []

    def counted(end: float) -> None:
        close(end)
        windows.append(len(seen))
        if windows == [0, 0]:  # the second lay wholly in the pause
            switch.unlink()
        elif windows[-1] and service._paused:
            closed_by_switch.append(opened[-1].closed)
            service.stop()
        elif windows[-1]:
            switch.touch()

    monkeypatch.setattr(service, "_close", counted)
    service.run()
    _, paused, *_ = reports(config)
    assert (paused.scene, paused.coverage, total(paused)) == ("paused", 0.0, 0)
    assert {v for row in paused.counts.values() for v in row.values()} == {None}
    assert seen
    assert closed_by_switch[0] == 1
    assert len(opened) == 1
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.paused


def test_a_picture_that_froze_with_somebody_in_it_counts_them_once_and_then_nobody(
    settings: Callable[..., Config], portraits: dict[str, U8], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = cv2.resize(portraits["astronaut"], (128, 128)).astype(np.uint8)

    class Frozen:
        live = False

        def __init__(self) -> None:
            self.drops: dict[str, int] = {}
            self._left = list(range(60))

        @property
        def ended(self) -> bool:
            return not self._left

        def read(self, _: float) -> Frame | None:
            if not self._left:
                return None
            i = self._left.pop(0)
            return Frame(image, i / 2, i, 0.5)

        def close(self) -> None:
            self._left.clear()

    monkeypatch.setattr(vision_module, "open_cameras", lambda *_: Frozen())
    config = settings(STILL, privacy=EXACT, window={"seconds": 10.0}, detector={"rotations": (0.0,)})
    Vision(config).run()
    assert [(r.coverage, r.scene, total(r)) for r in reports(config)] == [
        (1.0, "ok", 1),
        (0.0, "frozen", 0),
        (0.0, "frozen", 0),
    ]


def test_a_networked_camera_is_counted(settings: Callable[..., Config], portraits: dict[str, U8]) -> None:
    on_one_day()
    image = cv2.resize(portraits["astronaut"], (256, 256)).astype(np.uint8)
    with RtspCamera([image]) as server:
        config = settings(STILL, privacy=EXACT, window={"seconds": 86400.0}, detector={"rotations": (0.0,)})
        turned = RtspCamera([np.rot90(image, 2).copy()])
        camera = CameraSection(kind="rtsp", source=turned.url, rotation=180)
        config = config.model_copy(update={"camera": (CameraSection(kind="rtsp", source=server.url), camera)})
        looks: dict[int, list[float]] = {0: [], 1: []}

        def watch(frame: Frame, tracks: Sequence[Track]) -> None:
            mine = looks[frame.camera]
            if tracks and (not mine or frame.t - mine[-1] > 0.21):
                mine.append(frame.t)
            if all(len(times) >= 4 for times in looks.values()):
                service.stop()

        service = Vision(config, on_frame=watch)
        service.run()
        turned.stop()
    assert sum(map(total, reports(config))) == 2  # one person before each camera
