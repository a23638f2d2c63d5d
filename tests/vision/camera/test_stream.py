"""Cameras through OpenCV: a real RTSP camera on loopback, a V4L2 one by its boundary."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from edge.config.camera import CameraSection
from edge.errors import ConfigError, SourceError
from edge.vision.camera import open_camera, open_cameras, reconnecting, repeats, stream
from edge.vision.camera.cadence import Cadence
from edge.vision.camera.rotation import turned
from edge.vision.camera.rtsp import address, with_credentials
from edge.vision.camera.stream import Stream
from tests.support.certificates import certificate
from tests.support.rtsp_server import RtspCamera
from tests.support.tls_front import TlsFront

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.types import U8, Frame
    from edge.vision.camera import Camera

REPO = Path(__file__).resolve().parents[3]
SECRET = "s3cret/:@ü"  # noqa: S105 - of a camera that this file plays
PICTURE = cv2.GaussianBlur(np.random.default_rng(5).integers(0, 256, (96, 128, 3), np.uint8), (0, 0), 8).astype(
    np.uint8
)


def next_frame(camera: Camera, seconds: float = 60) -> Frame:
    """The next frame; a generous limit, since nothing here is about speed."""
    end = time.monotonic() + seconds
    while (frame := camera.read(0.25)) is None:
        assert time.monotonic() < end, "no frame came"
    return frame


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without long pauses."""
    for module in (stream, reconnecting):
        monkeypatch.setattr(module, "FIRST_RETRY", 0.05)
        monkeypatch.setattr(module, "LAST_RETRY", 0.2)


def test_an_rtsp_camera_gives_its_pictures_turned_as_told(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET + "\n", encoding="utf-8")
    with RtspCamera([PICTURE], user="kiosk", password=SECRET) as server:
        section = CameraSection(
            kind="rtsp", source=server.url, username="kiosk", password_file=tmp_path / "password", rotation=90
        )
        camera = open_camera(section)
        frame = next_frame(camera)
        assert np.abs(frame.image.astype(int) - turned(PICTURE, 90)).mean() < 8  # it came through a JPEG
        assert camera.live
        assert next_frame(camera).t > frame.t
        camera.close()
        camera.close()
        assert camera.ended


@pytest.mark.usefixtures("soon")
def test_an_rtsp_camera_that_hangs_up_or_goes_away_is_watched_again() -> None:
    with RtspCamera([PICTURE]) as server:
        camera = open_camera(CameraSection(kind="rtsp", source=server.url))
        index = next_frame(camera).index
        server.hang_up()
        while server.plays < 2:
            next_frame(camera)
        for _ in range(2):  # the first may still be one of the connection before
            next_frame(camera)
        server.stop()
        while camera.read(0.25) is not None:
            pass
        server.start()
        frame = next_frame(camera)
        assert server.plays == 3
        assert frame.index > index
        assert camera.drops["camera_lost"] == 2
        camera.close()


@pytest.mark.usefixtures("soon")
def test_an_rtsp_camera_that_falls_silent_is_opened_anew() -> None:
    with RtspCamera([PICTURE]) as server:
        camera = open_camera(CameraSection(kind="rtsp", source=server.url))
        next_frame(camera)
        server.silent = True
        end = time.monotonic() + 60
        while server.plays < 2:
            assert time.monotonic() < end
            camera.read(0.25)
        server.silent = False
        next_frame(camera)
        camera.close()


@pytest.mark.usefixtures("soon")
def test_one_of_several_that_is_not_there_yet_is_waited_for() -> None:
    late = RtspCamera([PICTURE])
    late.stop()
    with RtspCamera([PICTURE]) as early:
        sections = [CameraSection(kind="rtsp", source=server.url) for server in (late, early)]
        with pytest.raises(SourceError, match="cannot be opened"):
            open_camera(sections[0])
        camera = open_cameras(sections)
        assert next_frame(camera).camera == 1
        late.start()
        while next_frame(camera).camera != 0:
            pass
        camera.close()
    late.stop()


WATCH = """
import logging, sys
from edge.vision.camera import open_camera
from edge.config.schema import CameraSection
logging.basicConfig(level=logging.DEBUG)
try:
    camera = open_camera(CameraSection(kind="rtsp", source=sys.stdin.readline().strip()))
except Exception as error:
    print(repr(error))
else:
    while camera.read(1) is None: pass
    print("seen", flush=True)
    while "camera_lost" not in camera.drops: camera.read(1)
    camera.close()
"""


def test_credentials_are_in_no_log_whatever_happens() -> None:
    """Neither ours nor OpenCV's nor FFmpeg's: right and wrong password, hung up, nobody there."""
    with RtspCamera([PICTURE], user="kiosk", password="hunter2") as server:  # noqa: S106

        def watch(url: str) -> subprocess.Popen[str]:
            child = subprocess.Popen(
                [sys.executable, "-c", WATCH],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPO,
            )  # fmt: skip
            assert child.stdin is not None
            child.stdin.write(url + "\n")
            child.stdin.close()
            child.stdin = None
            return child

        right, wrong = (server.url.replace("://", f"://kiosk:{p}@") for p in ("hunter2", "hunter3"))
        seen = watch(right)
        while not server.plays:
            time.sleep(0.1)
        refused, _ = watch(wrong).communicate(timeout=120)
        assert seen.stdout is not None
        lost = ""
        while not lost.rstrip().endswith("seen"):
            line = seen.stdout.readline()
            assert line, lost
            lost += line
        server.hang_up()
        lost += seen.stdout.read()
        assert seen.wait(120) == 0
    absent, _ = watch(right).communicate(timeout=120)
    assert "seen" in lost
    assert "camera_lost" in lost
    assert "SourceError" in refused
    assert "SourceError" in absent
    for text in (lost, refused, absent):
        assert f"rtsp://127.0.0.1:{server.port}" in text
        assert "hunter" not in text
        assert "kiosk" not in text


def test_rtsps_tells_a_stranger_the_password_so_it_must_be_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What OpenCV does on this pin set, TLS options or none: the day it refuses a stranger, the key can go."""
    certificate(tmp_path, "ca", "the camera's authority")
    certificate(tmp_path, "stranger", "stranger")
    with RtspCamera([PICTURE], user="kiosk", password="hunter2") as server:  # noqa: S106
        with TlsFront(server.port, tmp_path, "stranger") as front:
            url = f"rtsps://kiosk:hunter2@127.0.0.1:{front.port}/live"
            with pytest.raises(ValidationError, match="does not verify which camera answers") as caught:
                CameraSection(kind="rtsp", source=url)
            assert "hunter2" not in str(caught.value.errors()[0]["msg"])
            with pytest.raises(ValidationError, match="goes with such an address only"):
                CameraSection(kind="rtsp", source=server.url, unverified_tls=True)
            camera = open_camera(CameraSection(kind="rtsp", source=url, unverified_tls=True))
            next_frame(camera)
            camera.close()
        assert b"Authorization: Basic" in front.heard
    (said,) = (r.getMessage() for r in caplog.records if "camera_unverified" in r.getMessage())
    assert f"rtsps://127.0.0.1:{front.port}" in said
    assert "hunter2" not in said


def test_a_url_is_named_by_its_host_only() -> None:
    assert address("rtsp://u:p@192.0.2.1:554/path?password=x") == "rtsp://192.0.2.1:554"
    assert address("rtsps://cam/") == "rtsps://cam"


def test_a_password_that_cannot_be_read_is_named_by_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        with_credentials("rtsp://192.0.2.1/", "u", tmp_path / "none")
    assert str(tmp_path / "none") in str(caught.value)


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(SourceError, match="/dev/video99 cannot be opened: is it plugged in") as caught:
        open_camera(CameraSection(kind="v4l2", source="/dev/video99", size=(640, 480)))
    assert caught.value.exit_code == 66


class Plug:
    """A capture by OpenCV's protocol that a test can unplug: then `grab` fails, as on a V4L2 device that went."""

    def __init__(self, *, plugged: Callable[[], bool]) -> None:
        self._plugged, self.released = plugged, False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self._plugged()

    def grab(self) -> bool:
        time.sleep(0.005)
        assert not self.released
        return self._plugged()

    def retrieve(self) -> tuple[bool, U8 | None]:
        return True, PICTURE

    def release(self) -> None:
        self.released = True


@pytest.mark.usefixtures("soon")
def test_a_garbled_frame_is_a_lost_camera_and_not_the_end_of_its_thread() -> None:
    opened: list[Plug] = []

    class Garbling(Plug):
        def grab(self) -> bool:
            if len(opened) == 1:
                raise cv2.error
            return super().grab()

        def retrieve(self) -> tuple[bool, U8 | None]:
            match len(opened):
                case 2:
                    raise cv2.error
                case 3:
                    return True, np.empty((0, 0, 3), np.uint8)
            return super().retrieve()

    def open_it() -> cv2.VideoCapture:
        opened.append(Garbling(plugged=lambda: True))
        return cast("cv2.VideoCapture", opened[-1])

    camera = Stream("/dev/video0", open_it, max_fps=120)
    next_frame(camera)
    camera.close()
    assert len(opened) == 4
    assert camera.drops["camera_lost"] == 1


@pytest.mark.usefixtures("soon")
def test_an_unplugged_camera_is_let_go_and_found_again_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    there = True
    opened: list[Plug] = []

    def open_it() -> cv2.VideoCapture:
        opened.append(Plug(plugged=lambda: there))
        return cast("cv2.VideoCapture", opened[-1])

    camera = Stream("/dev/video0", open_it, max_fps=120)
    next_frame(camera)
    there = False
    end = time.monotonic() + 60
    while len(opened) < 4:  # it is tried again and again
        assert time.monotonic() < end
        camera.read(0.05)
    there = True
    next_frame(camera)
    camera.close()
    assert all(capture.released for capture in opened)
    assert camera.drops["camera_lost"] == 1
    assert sum("camera_lost" in r.message for r in caplog.records) == 1


@pytest.mark.usefixtures("soon")
def test_a_camera_that_shows_one_picture_for_ever_is_opened_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two captures have stuck on the same picture; what the third shows has noise for a while."""
    caplog.set_level(logging.INFO)
    opened: list[Plug] = []
    grabbed = [0]

    class Stuck(Plug):
        def grab(self) -> bool:
            grabbed.append(grabbed[-1] + 1)  # seconds
            return super().grab()

        def retrieve(self) -> tuple[bool, U8 | None]:
            picture = PICTURE.copy()
            picture[0, 0] = grabbed[-1] % 2 if len(opened) > 2 and grabbed[-1] < 500 else 0
            return True, picture

    def open_it() -> cv2.VideoCapture:
        opened.append(Stuck(plugged=lambda: True))
        at.append(grabbed[-1])
        return cast("cv2.VideoCapture", opened[-1])

    at: list[int] = []
    monkeypatch.setattr(stream, "time", SimpleNamespace(monotonic=lambda: grabbed[-1]))
    camera = Stream("/dev/video0", open_it, max_fps=120)
    while grabbed[-1] < 1000:
        next_frame(camera)
    camera.close()
    assert at[:3] == [0, 61, 61 + 121], "after a minute, then after two"
    assert 500 < at[3] < 600, "no more while pictures differ"
    assert all(capture.released for capture in opened)
    said = [r.getMessage() for r in caplog.records]
    assert [s.split()[0] for s in said] == ["event=camera_frozen"], "a line each time would tell when somebody came"
    assert set(camera.drops) == {"overwritten"}, "it is published, and says nothing of who ended it"


@pytest.mark.usefixtures("soon")
def test_a_frozen_camera_that_then_is_lost_is_said_to_be(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "STUCK", 1e-9)
    monkeypatch.setattr(repeats, "EVERY", 0.0)
    opened: list[Plug] = []

    def open_it() -> cv2.VideoCapture:
        number = len(opened)
        opened.append(Plug(plugged=lambda: number != 1))
        return cast("cv2.VideoCapture", opened[-1])

    camera = Stream("/dev/video0", open_it, max_fps=120)
    while len(opened) < 3:
        camera.read(0.01)
    camera.close()
    assert camera.drops["camera_lost"] == 1
    said = [r.getMessage().split()[0] for r in caplog.records]
    assert said[:2] == ["event=camera_frozen", "event=camera_lost"]


def test_a_picture_that_comes_when_the_camera_is_closed_is_not_looked_at(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STOP", 0.05)
    waits, comes = threading.Event(), threading.Event()

    class Stalled(Plug):
        decoded = 0

        def grab(self) -> bool:
            if self.decoded:
                waits.set()
                assert comes.wait(60)
            return True

        def retrieve(self) -> tuple[bool, U8 | None]:
            self.decoded += 1
            return super().retrieve()

    capture = Stalled(plugged=lambda: True)
    camera = Stream("/dev/video0", lambda: cast("cv2.VideoCapture", capture), max_fps=120)
    next_frame(camera)
    assert waits.wait(60)
    camera.close()
    assert "camera_stuck" in caplog.text
    comes.set()
    camera._thread.join(60)
    assert (capture.decoded, capture.released) == (1, True)
    assert camera.read(0.0) is None


def test_frames_beyond_the_most_are_neither_decoded_nor_counted_as_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    at: list[float] = []

    class Counting(Plug):
        decoded = 0

        def grab(self) -> bool:
            at.append(len(at) / 30)
            return super().grab()

        def retrieve(self) -> tuple[bool, U8 | None]:
            self.decoded += 1
            return super().retrieve()

    monkeypatch.setattr(stream, "time", SimpleNamespace(monotonic=lambda: at[-1]))
    capture = Counting(plugged=lambda: True)
    camera = Stream("/dev/video0", lambda: cast("cv2.VideoCapture", capture), max_fps=10)
    while next_frame(camera).index < 4:
        pass
    camera.close()
    # Every third of thirty a second, the first among them; the one that came while it was closed is not looked at.
    assert -(-(len(at) - 1) // 3) <= capture.decoded <= -(-len(at) // 3)
    assert camera.turns == (len(at),)
    assert camera.drops["overwritten"] <= capture.decoded


@pytest.mark.parametrize(("comes", "looked"), [(30, 15), (25, 15), (20, 15), (15, 15), (10, 10), (60, 15), (7.5, 7.5)])
def test_frames_are_taken_evenly_whatever_a_camera_sends(comes: float, looked: float) -> None:
    jitter = np.random.default_rng(3).uniform(-0.003, 0.003, 60 * 60)
    cadence = Cadence(15)
    taken = [t for k, late in enumerate(jitter[: int(60 * comes)]) if cadence.takes(t := 1000 + k / comes + late)]
    assert len(taken) / 60 == pytest.approx(looked, rel=0.02)
    assert max(np.diff(taken)) < 1 / looked + 1 / comes + 0.01
    assert cadence.takes(2000.0)  # after a pause at once, and not as many as came short
    assert not cadence.takes(2000.0 + 1 / 30)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turn_is_clockwise(degrees: int) -> None:
    assert (turned(PICTURE, degrees) == np.rot90(PICTURE, -degrees // 90)).all()
