"""A run of the vision service, in process: the windows it commits, however it ends."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge import vision as vision_module
from edge.camera.mailbox import Mailbox
from edge.config_camera import CameraSection
from edge.detect.haar import Haar
from edge.errors import SourceError, StorageError
from edge.outbox import Outbox
from edge.runtime import read_command, read_vision, write_command
from edge.types import Frame
from edge.vision import Vision
from tests.appliance import vision
from tests.conftest import MATERIAL
from tests.rtsp_server import RtspCamera

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge.config import Config
    from edge.types import U8, Track, WindowReport

EXACT: dict[str, object] = {"noise": "off", "min_count": 1}
STILL = MATERIAL / "astronaut.png"
"""Named in configurations whose camera is a false one."""


@pytest.fixture
def stills(tmp_path: Path, portraits: dict[str, U8]) -> Path:
    """Six pictures: four portraits, then darkness twice."""
    folder = tmp_path / "stills"
    folder.mkdir()
    for i, who in enumerate(("astronaut", "hopper", "astronaut", "hopper")):
        cv2.imwrite(str(folder / f"{i}.png"), portraits[who])
    for i in (4, 5):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((64, 64, 3), np.uint8))
    return folder


def reports(config: Config) -> list[WindowReport]:
    with Outbox(config.storage.outbox) as outbox:
        return [row.report() for row in outbox.unsent()]


def total(report: WindowReport) -> int:
    return sum(cell or 0 for row in report.counts.values() for cell in row.values())


def test_a_run_commits_the_windows_of_its_clip(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, window={"seconds": 2.0}, privacy=EXACT)
    Vision(config).run()
    seen = reports(config)
    assert [r.seconds for r in seen] == [2.0, 2.0, 2.0]
    assert [total(r) for r in seen] == [2, 2, 0]
    assert set(seen[2].counts["unmasked"].values()) == {None}, "unknown, not zero"
    assert [(r.coverage, r.scene) for r in seen] == [(1.0, "ok"), (1.0, "ok"), (0.0, "dark")]
    assert seen[0].counts == seen[1].counts  # the same people, the same answers
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.state == "ended"


def test_a_spent_budget_sends_windows_out_empty_and_outlives_a_restart(
    settings: Callable[..., Config], stills: Path
) -> None:
    config = settings(stills, window={"seconds": 2.0}, privacy={"daily_epsilon": 1.5, "min_count": 1})
    Vision(config).run()
    first, second, dark = reports(config)
    assert [r.privacy.exhausted for r in (first, second, dark)] == [False, True, True]
    assert {v for row in second.counts.values() for v in row.values()} == {None}
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.privacy is not None
    assert figures.privacy.model_dump() == {"epsilon": 1, "spent_today": 1, "day_bound": 1, "exhausted": True}
    Vision(config).run()
    assert [r.privacy.exhausted for r in reports(config)[3:]] == [True] * 3


def test_stop_commits_the_partial_window(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, camera={"loop": True}, privacy=EXACT)

    def seen(frame: Frame, _: Sequence[Track]) -> None:
        if frame.index == 2:
            service.stop()

    service = Vision(config, on_frame=seen)
    service.run()
    (only,) = reports(config)
    assert (only.seconds, total(only), only.coverage) == (3.0, 3, 1.0)


def test_an_outbox_that_cannot_be_written_keeps_the_windows_and_says_so(
    settings: Callable[..., Config], stills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(stills, window={"seconds": 2.0})

    def full(*_: object) -> int:
        msg = "disk full"
        raise StorageError(msg)

    service = Vision(config)
    monkeypatch.setattr(Outbox, "commit", full)
    with pytest.raises(StorageError, match="3 windows could not be recorded") as caught:
        service.run()
    assert caught.value.exit_code == 74


def test_a_disk_that_is_mended_takes_every_window_in_order(
    settings: Callable[..., Config], stills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(stills, window={"seconds": 2.0}, privacy=EXACT)
    service = Vision(config)
    commit, calls = Outbox.commit, []

    def once(outbox: Outbox, close: Any) -> int:  # noqa: ANN401 - handed on
        calls.append(close)
        if len(calls) == 1:
            msg = "disk full"
            raise StorageError(msg)
        return commit(outbox, close)

    monkeypatch.setattr(Outbox, "commit", once)
    service.run()
    assert [total(r) for r in reports(config)] == [2, 2, 0]


def test_a_pause_holds_the_replay_and_a_resume_goes_on(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, privacy=EXACT)
    config.storage.runtime.mkdir()
    write_command(config.storage.runtime, "pause")
    indices: list[int] = []
    service = Vision(config, on_frame=lambda frame, _: indices.append(frame.index))
    rest, rests = service._rest, []

    def resting() -> None:
        assert not indices  # nothing is seen while paused
        rests.append(1)
        if len(rests) == 1:
            write_command(config.storage.runtime, "resume")
        rest()

    service._rest = resting  # type: ignore[method-assign]
    service.run()
    assert rests
    assert indices == list(range(6))
    (only,) = reports(config)
    assert (only.seconds, total(only)) == (6.0, 4)


def test_a_pause_from_before_a_power_cut_holds(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills)
    with vision(config.storage.outbox.parent) as outbox:
        outbox.paused = True
    seen: list[int] = []
    service = Vision(config, on_frame=lambda frame, _: seen.append(frame.index))
    rest = service._rest

    def resting() -> None:
        assert not seen
        write_command(config.storage.runtime, "resume")
        rest()

    service._rest = resting  # type: ignore[method-assign]
    service.run()
    assert seen == list(range(6))
    assert read_command(config.storage.runtime), "it has rested"


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
        if windows == [0]:
            switch.unlink()
        elif windows[-1] and switch.exists():
            closed_by_switch.append(opened[-1].closed)
            service.stop()
        elif windows[-1]:
            switch.touch()

    monkeypatch.setattr(service, "_close", counted)
    service.run()
    paused, *_ = reports(config)
    assert (paused.scene, paused.coverage, total(paused)) == ("paused", 0.0, 0)
    assert {v for row in paused.counts.values() for v in row.values()} == {None}
    assert seen
    assert closed_by_switch[0] == 1
    assert len(opened) == 1
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.paused


def crowd(portrait: U8, columns: int, rows: int, cell: int) -> U8:
    """A picture of one person many times over, each head filling most of its cell."""
    (box,) = Haar(rotations=(0.0,)).detect(portrait, thorough=True)
    (x, y), reach = (round(c) for c in box.centre), round(box.w)
    head = portrait[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach]
    face = cv2.resize(head, (cell, cell), interpolation=cv2.INTER_AREA)
    return np.tile(face, (rows, columns, 1)).astype(np.uint8)


def test_forty_faces_at_once_are_forty_votes(
    settings: Callable[..., Config], portraits: dict[str, U8], tmp_path: Path
) -> None:
    source = tmp_path / "crowd.png"
    cv2.imwrite(str(source), crowd(portraits["astronaut"], 8, 5, 160))
    config = settings(source, privacy=EXACT, detector={"rotations": (0.0,)})
    tracks: list[int] = []
    Vision(config, on_frame=lambda _, seen: tracks.append(len(seen))).run()
    assert tracks == [40]
    (only,) = reports(config)
    assert total(only) == 40
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.drops == {}


def test_faces_too_small_to_read_are_counted_not_classified(
    settings: Callable[..., Config], portraits: dict[str, U8], tmp_path: Path
) -> None:
    source = tmp_path / "far.png"
    cv2.imwrite(str(source), crowd(portraits["astronaut"], 2, 1, 60))
    config = settings(source, privacy=EXACT, detector={"rotations": (0.0,), "min_face": 20})
    Vision(config).run()
    (only,) = reports(config)
    assert total(only) == 0
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    assert figures.development is not None
    assert figures.development.drops == {"too_small": 1}
    assert figures.drops == {}, "published, it would tell that somebody was there"


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
        threading.Thread(target=self._pump, daemon=True).start()

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
    late = figures.drops["overwritten"]
    assert late.bit_count() == 1
    assert late <= figures.development.drops["overwritten"] < 2 * late
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


def test_a_camera_that_sees_nothing_makes_unknown_not_zero(
    settings: Callable[..., Config],
    portraits: dict[str, U8],
    monkeypatch: pytest.MonkeyPatch,
    heard: Callable[[], list[str]],
) -> None:
    camera = FalseCamera(portraits["astronaut"], fails_after=0)
    camera._fails_after = None
    camera._stop.set()  # hangs: open, and not one frame
    monkeypatch.setenv("WATCHDOG_USEC", "0")
    monkeypatch.setattr(vision_module, "open_cameras", lambda *_, **__: camera)
    config = settings(STILL, privacy=EXACT, window={"seconds": 1.0})
    service = Vision(config)
    threading.Timer(1.5, service.stop).start()
    service.run()
    assert {(r.coverage, total(r)) for r in reports(config)} == {(0.0, 0)}
    assert heard().count("WATCHDOG=1") == 1  # the first; then none comes, and systemd restarts the service


def test_two_cameras_count_apart_and_a_masked_face_is_nobody(settings: Callable[..., Config], stills: Path) -> None:
    config = settings(stills, privacy=EXACT, detector={"rotations": (0.0,)})
    everywhere = (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),)
    (camera,) = config.camera
    config = config.model_copy(update={"camera": (camera, camera.model_copy(update={"privacy_masks": everywhere}))})
    pictures: list[tuple[int, int, int]] = []
    Vision(config, on_frame=lambda f, tracks: pictures.append((f.camera, len(tracks), int(f.image.max())))).run()
    (only,) = reports(config)
    assert total(only) == 4
    assert {n for camera, n, _ in pictures if camera == 1} == {0}
    assert {top for camera, _, top in pictures if camera == 1} == {0}
    # Four of six pictures of one camera are ok, and a camera that may see nothing covers nothing.
    assert (only.seconds, only.scene) == (6.0, "covered")
    assert only.coverage == pytest.approx(4 / 12)


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
