"""The Raspberry Pi camera against a double of picamera2 that enforces its rules."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.config.camera import CameraSection
from edge.errors import SourceError
from edge.outbox.outbox import Outbox
from edge.vision.camera import open_camera, open_cameras, reconnecting, repeats
from edge.vision.camera import picamera2 as module
from edge.vision.service import Vision
from tests.conftest import MATERIAL
from tests.support import picamera2_double as double
from tests.support.processes import on_one_day

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edge.config import Config
    from edge.types import U8, Frame, Track
    from edge.vision.camera import Camera

RAMP = (np.add.outer(np.arange(720) // 8, np.arange(1280) // 8) % 220).astype(np.uint8)


@pytest.fixture
def sensor(monkeypatch: pytest.MonkeyPatch) -> Iterator[double.Sensor]:
    made = double.install(monkeypatch)
    yield made
    made.stuck.clear()
    for camera in made.opened:
        camera.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HUNG", 3.0)
    monkeypatch.setattr(module, "CLOSING", 1.5)


def opened(**keys: object) -> Camera:
    return open_camera(CameraSection.model_validate({"kind": "picamera2"} | keys))


def next_frame(camera: Camera) -> Frame:
    end = time.monotonic() + 60
    while (frame := camera.read(0.1)) is None:
        assert time.monotonic() < end
    return frame


def freed(frame: Frame) -> None:
    assert frame.release is not None
    frame.release()


def drain(camera: Camera) -> None:
    """Read until the camera says what is wrong with it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (frame := camera.read(0.05)) is not None:
            freed(frame)


def test_both_streams_are_grey_views_of_one_request(sensor: double.Sensor) -> None:
    """Each picture is flat in its own number, so that a mixture would show; 1,000 wide, so that rows are padded."""
    camera = opened(size=[1000, 750])
    for _ in range(20):
        frame = next_frame(camera)
        assert frame.lores is not None
        assert (frame.image.shape, frame.lores.shape) == ((750, 1000), (480, 640))
        assert {int(v) for v in np.unique(frame.image)} == {int(v) for v in np.unique(frame.lores)}
        assert len(np.unique(frame.image)) == 1
        assert frame.image.base is not None  # a view: nothing was copied
        freed(frame)
    camera.close()
    (config,) = [c.camera_config for c in sensor.opened]
    assert (config["main"]["format"], config["lores"]["format"]) == ("YUV420", "YUV420")
    assert config["main"]["stride"] == 1024
    assert config["colour_space"].name == "sYCC"
    assert not config["queue"]


def test_a_released_frame_is_the_cameras_again(sensor: double.Sensor) -> None:
    sensor.picture = lambda _: RAMP
    camera = opened()
    frame = next_frame(camera)
    before = frame.image.copy()
    assert (before == RAMP).all()
    sensor.hung.set()
    time.sleep(0.05)
    freed(frame)
    assert (frame.image == double.SCRIBBLE).all()
    camera.close()


def test_never_more_than_two_requests_are_held_and_the_newest_is_handed_over(sensor: double.Sensor) -> None:
    camera = opened()
    first = next_frame(camera)
    end, enough = time.monotonic() + 60, camera.drops["overwritten"] + 30
    while camera.drops["overwritten"] < enough:  # far more than there are buffers: the camera never stalls
        assert time.monotonic() < end
        time.sleep(0.005)
    freed(first)
    second = next_frame(camera)
    assert second.t - first.t > 29 / 15, "the thirty-first of fifteen a second, or a later one"
    assert second.index - first.index >= 30, "those that nobody took are numbered too: the pace is read off them"
    freed(second)
    camera.close()
    assert sensor.most_held == 2
    assert not sensor.opened[0].held()
    assert sensor.in_use == set()


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [(0, RAMP), (90, np.rot90(RAMP, -1)), (180, np.rot90(RAMP, 2)), (270, np.rot90(RAMP))],
)
def test_the_picture_is_turned_clockwise(sensor: double.Sensor, rotation: int, expected: U8) -> None:
    sensor.picture = lambda _: RAMP
    camera = opened(rotation=rotation)
    frame = next_frame(camera)
    assert (frame.image == expected).all()
    assert frame.lores is not None
    assert frame.lores.shape == ((360, 640) if rotation % 180 == 0 else (640, 360))
    freed(frame)
    camera.close()


def test_exposure_gain_and_flicker_are_set_as_configured(sensor: double.Sensor) -> None:
    opened(exposure_us=8000, gain=2, ev=-0.5, flicker_hz=50).close()
    opened(flicker_hz=60).close()
    opened(max_fps=8).close()
    first, second, third = (c.camera_config["controls"] for c in sensor.opened)
    assert first["ExposureTime"] == 8000
    assert (first["AnalogueGain"], first["ExposureValue"]) == (2.0, -0.5)
    assert (first["AeFlickerMode"], first["AeFlickerPeriod"]) == (1, 10_000)
    assert second["AeFlickerPeriod"] == 8333
    assert second["FrameDurationLimits"] == (66_667, 100_000)  # 15 frames a second at most
    assert third["FrameDurationLimits"] == (100_000, 100_000)  # what comes beyond eight a second is let go
    assert not {"ExposureTime", "AnalogueGain", "ExposureValue", "AeFlickerMode"} & set(third)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"source": "3"}, "No camera number 3"),
        ({"size": [4000, 3000]}, "Invalid camera configuration"),
    ],
)
def test_what_the_camera_does_not_like_is_said_and_the_camera_let_go(
    sensor: double.Sensor, keys: dict[str, object], says: str
) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        opened(**keys)
    assert caught.value.exit_code == 66
    assert not sensor.in_use


def test_a_camera_in_use_elsewhere_is_refused_with_its_cause(sensor: double.Sensor) -> None:
    first = opened()
    with pytest.raises(SourceError, match="Device or resource busy"):
        opened()
    first.close()
    assert len(sensor.opened) == 1


def test_a_control_the_camera_does_not_have_is_named(sensor: double.Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(double.CONTROLS, "AeFlickerMode")
    with pytest.raises(SourceError, match="AeFlickerMode is not advertised"):
        opened(flicker_hz=50)
    assert not sensor.in_use


def test_without_picamera2_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libcamera", None)
    with pytest.raises(SourceError, match="apt install python3-picamera2"):
        opened()


@pytest.mark.usefixtures("impatient")
def test_a_hung_camera_is_opened_once_more(sensor: double.Sensor) -> None:
    camera = opened()
    freed(next_frame(camera))
    sensor.hung.set()
    end = time.monotonic() + 60
    while len(sensor.opened) == 1:
        assert time.monotonic() < end
        if (frame := camera.read(0.05)) is not None:
            freed(frame)
    freed(next_frame(camera))
    assert camera.drops["camera_lost"] == 1
    sensor.hung.set()
    with pytest.raises(SourceError, match="hangs again"):
        drain(camera)
    camera.close()
    assert not sensor.in_use


@pytest.mark.usefixtures("impatient")
def test_after_minutes_of_frames_a_camera_that_hangs_is_opened_once_more_again(
    sensor: double.Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = opened()
    for hung in (1, 2, 3):
        freed(next_frame(camera))
        monkeypatch.setattr(module, "STEADY", 0.0)  # as if they had gone by
        sensor.hung.set()
        end = time.monotonic() + 60
        while len(sensor.opened) == hung:
            assert time.monotonic() < end
            if (frame := camera.read(0.05)) is not None:
                freed(frame)
        assert camera.drops["camera_lost"] == hung
    camera.close()


@pytest.mark.parametrize("still", [True, False])
def test_a_camera_that_shows_one_picture_for_ever_is_opened_again_and_never_ends_the_service(
    sensor: double.Sensor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, still: bool
) -> None:

    def picture(index: int) -> U8:
        shown = RAMP.copy()
        shown[0, :3] = (0, 0, 0) if still else (index % 256, index // 256 % 256, index // 65536)
        return shown

    sensor.picture = picture
    monkeypatch.setattr(repeats, "STUCK", 1e-9)  # any two pictures in a row
    monkeypatch.setattr(repeats, "LONGEST", 1e-9)
    monkeypatch.setattr(repeats, "EVERY", 0.0)
    camera = opened()
    end, looked = time.monotonic() + 60, 0
    while len(sensor.opened) < 4 if still else looked < 30:
        assert time.monotonic() < end
        if (frame := camera.read(0.05)) is not None:
            freed(frame)
            looked += 1
    camera.close()
    assert len(sensor.opened) == (4 if still else 1)
    assert caplog.text.count("camera_frozen") == still, "said once"
    assert "camera_lost" not in camera.drops
    assert not sensor.in_use


@pytest.mark.usefixtures("impatient")
def test_a_camera_that_hangs_in_its_closing_too_ends_the_service(sensor: double.Sensor) -> None:
    camera = opened()
    freed(next_frame(camera))
    sensor.hung.set()
    sensor.stuck.set()
    with pytest.raises(SourceError, match="cannot be closed"):
        drain(camera)
    camera.close()
    assert camera.ended


def two() -> Camera:
    return open_cameras([CameraSection(kind="picamera2", source=str(number)) for number in range(2)])


def frame_of(camera: Camera, number: int) -> None:
    """Wait until a frame of camera `number` comes."""
    came = -1
    while came != number:
        frame = next_frame(camera)
        freed(frame)
        came = frame.camera


def test_one_of_several_that_is_absent_is_waited_for(
    sensor: double.Sensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconnecting, "FIRST_RETRY", 0.1)
    camera = two()
    assert 'camera_absent name="picamera2 1"' in caplog.text
    assert "No camera number 1" in caplog.text
    assert camera.drops["camera_lost"] == 1
    frame_of(camera, 0)
    sensor.cameras = 2
    frame_of(camera, 1)
    camera.close()
    assert not sensor.in_use


def test_without_any_of_several_the_service_ends(sensor: double.Sensor) -> None:
    sensor.cameras = 0
    with pytest.raises(SourceError, match=r"number 0 .*; .*number 1 "):
        two()
    assert not sensor.in_use


@pytest.mark.parametrize(("side", "narrow", "wide"), [(480, 120, 480), (170, 36, 71)])
def test_faces_are_found_in_lores_and_read_from_main(
    sensor: double.Sensor, settings: Callable[..., Config], portraits: dict[str, U8], side: int, narrow: int, wide: int
) -> None:
    """The whole service on the double: one person in front of the camera is one vote, and every buffer comes back.

    The smallest face is one of the frame: one that is narrower in `lores` than that is found there too.
    """
    on_one_day()
    scene = np.full((720, 1280), 120, np.uint8)
    face = cv2.cvtColor(cv2.resize(portraits["astronaut"], (side, side)), cv2.COLOR_BGR2GRAY)
    scene[120 : 120 + side, 940 - side // 2 : 940 - side // 2 + side] = face
    sensor.picture = lambda _: scene
    config = settings(
        MATERIAL / "astronaut.png",
        privacy={"noise": "off", "min_count": 1},
        window={"seconds": 86400.0},
        detector={"rotations": (0.0,)},
    )
    corner = (((0.0, 0.0), (0.1, 0.0), (0.1, 0.2), (0.0, 0.2)),)
    section = CameraSection(kind="picamera2", flicker_hz=50, privacy_masks=corner)
    seen: list[float] = []
    end = time.monotonic() + 60

    def watch(frame: Frame, tracks: Sequence[Track]) -> None:
        assert not frame.image[:140, :120].any()
        assert frame.t < end, "nobody was found"
        there = [track for track in tracks if 800 < track.box.centre[0] < 1080 and narrow < track.box.w < wide]
        if there and (not seen or frame.t - seen[-1] > 0.21):
            seen.append(frame.t)
        if len(seen) == 4:
            service.stop()

    service = Vision(config.model_copy(update={"camera": (section,)}), on_frame=watch)
    service.run()
    with Outbox(config.storage.outbox) as outbox:
        (row,) = outbox.unsent()
    assert sum(cell or 0 for cells in row.report().counts.values() for cell in cells.values()) == 1
    assert 1 <= sensor.most_held <= 2  # whether the next one came while this was worked on depends on speed
    assert not sensor.opened[0].held()
    assert not sensor.in_use
