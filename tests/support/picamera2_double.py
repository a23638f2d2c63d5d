"""A double of picamera2 and libcamera that enforces what the real ones do, for machines without a Raspberry Pi camera.

Built from the picamera2 manual and the source of 0.3.38: which calls exist and with which arguments, what is refused
and by which exception, how a request lives. Where the real one would read or write memory that is not its caller's any
more, the double fills it with `SCRIBBLE` or raises. Names and messages are picamera2's own.
"""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.types import U8

SCRIBBLE: Final = 0xEE
"""What is found in a buffer that was given back, and in the padding of its rows."""
YUV: Final = {"NV21", "NV12", "YUV420", "YVU420", "YVYU", "YUYV", "UYVY", "VYUY"}
RGB: Final = {"BGR888", "RGB888", "XBGR8888", "XRGB8888", "RGB161616", "BGR161616"}
CONTROLS: Final[dict[str, tuple[Any, Any]]] = {
    "AeEnable": (False, True),
    "AeExposureMode": (0, 3),
    "AeFlickerMode": (0, 1),
    "AeFlickerPeriod": (100, 1_000_000),
    "AeMeteringMode": (0, 3),
    "AnalogueGain": (1.0, 16.0),
    "ExposureTime": (0, 66_666),
    "ExposureValue": (-8.0, 8.0),
    "FrameDurationLimits": (33_333, 120_000),
    "NoiseReductionMode": (0, 4),
}
"""What an ov5647 advertises on a Pi 4: smallest and largest value."""
ALIGN: Final = 64
"""Rows of a YUV420 buffer are padded to a multiple of this."""


class Transform:
    """libcamera's: flips only, a Pi's image processor cannot transpose."""

    def __init__(self, *, hflip: bool = False, vflip: bool = False) -> None:
        self.hflip, self.vflip = hflip, vflip


class ColorSpace:
    """libcamera's; `Sycc` is full range."""

    def __init__(self, name: str) -> None:
        self.name = name


class Sensor:
    """What the camera sees, and the faults a test can give it. One for the process, as the hardware is."""

    def __init__(self) -> None:
        self.picture: Callable[[int], U8] = lambda index: np.full((720, 1280), index % 200, np.uint8)
        """Grey picture number n; the double scales and flips it for each stream."""
        self.cameras = 1
        self.in_use: set[int] = set()
        self.opened: list[Picamera2] = []
        self.hung = threading.Event()
        """Set: no request completes any more."""
        self.stuck = threading.Event()
        """Set: and the camera does not close either."""
        self.hangs_again = False
        """Whether opening the camera anew does not mend it."""
        self.most_held = 0
        """Most requests that were held outside picamera2 at one time."""


class CompletedRequest:
    """A request with its count of holders. Released by all, its buffers go back to the camera and change."""

    def __init__(self, picam2: Picamera2, buffers: dict[str, U8]) -> None:
        self.request: dict[str, U8] | None = buffers
        self.ref_count = self.own = 1
        """Holders, and how many of them are picamera2 itself."""
        self.picam2 = picam2
        picam2.alive.append(self)
        self.stop_count = picam2.stop_count
        self.config = dict(picam2.camera_config)
        self.mapped = 0

    def acquire(self) -> None:
        with self.picam2.request_lock:
            if self.ref_count == 0:
                msg = "CompletedRequest: acquiring lock with ref_count 0"
                raise RuntimeError(msg)
            self.ref_count += 1
            self.picam2.sensor.most_held = max(self.picam2.sensor.most_held, len(self.picam2.held()))

    def release(self) -> None:
        with self.picam2.request_lock:
            self.ref_count -= 1
            if self.ref_count < 0:
                msg = "CompletedRequest: lock now has negative ref_count"
                raise RuntimeError(msg)
            if self.ref_count == 0:
                assert self.request is not None
                assert not self.mapped, "given back while its buffers are mapped"
                for buffer in self.request.values():
                    buffer.fill(SCRIBBLE)
                if self.picam2.started and self.stop_count == self.picam2.stop_count:
                    self.picam2.free.append(self.request)
                self.request, self.config = None, {}
                self.picam2.alive.remove(self)


class MappedArray:
    """A view of a stream's buffer, valid inside `with`; YUV420 comes as (3/2 height, stride)."""

    def __init__(self, request: CompletedRequest, stream: str, reshape: bool = True, write: bool = True) -> None:  # noqa: FBT001, FBT002, ARG002 - the real signature
        assert request.request is not None
        self._request, self._stream = request, stream
        self._buffer = request.request[stream]

    def __enter__(self) -> Self:
        self._request.mapped += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._request.mapped -= 1
        del self._buffer

    @property
    def array(self) -> U8:
        config = self._request.config[self._stream]
        return self._buffer.reshape(config["size"][1] * 3 // 2, config["stride"])


class Picamera2:
    """The part of picamera2 that an appliance uses."""

    sensor: Sensor

    def __init__(self, camera_num: int = 0) -> None:
        self.is_open = self.started = False
        self.post_callback: Callable[[CompletedRequest], None] | None = None
        if camera_num >= self.sensor.cameras:
            msg = f'No camera number {camera_num} found - use "rpicam-hello --list-cameras" to check connected cameras'
            raise RuntimeError(msg)
        if camera_num in self.sensor.in_use:
            cause = RuntimeError("Failed to acquire camera: Device or resource busy")
            msg = "Camera __init__ sequence did not complete."
            raise RuntimeError(msg) from cause
        self.camera_num = camera_num
        self.sensor.in_use.add(camera_num)
        self.sensor.opened.append(self)
        if not self.sensor.hangs_again:
            self.sensor.hung.clear()
        self.is_open = True
        self.lock, self.request_lock = threading.Lock(), threading.Lock()
        self.camera_config: dict[str, Any] = {}
        self.stop_count = 0
        self.alive: list[CompletedRequest] = []
        self.free: list[dict[str, U8]] = []
        self._loop: threading.Thread | None = None
        self._abort = threading.Event()
        self._index = 0

    def held(self) -> list[CompletedRequest]:
        """Requests that somebody but picamera2 holds."""
        return [request for request in self.alive if request.ref_count > request.own]

    def create_preview_configuration(  # noqa: PLR0913, PLR0917 - the real signature
        self, main: Any = {}, lores: Any = None, raw: Any = {}, transform: Any = Transform(),  # noqa: ANN401, B006, B008
        colour_space: Any = ColorSpace("sYCC"), buffer_count: int = 4, controls: Any = {}, display: Any = "main",  # noqa: ANN401, B006, B008
        encode: Any = "main", queue: bool = True, sensor: Any = {}, use_case: str = "preview",  # noqa: ANN401, B006, FBT001, FBT002
    ) -> dict[str, Any]:  # fmt: skip
        if not self.is_open:
            msg = "Camera not opened"
            raise RuntimeError(msg)
        streams = {"main": self._stream({"format": "XBGR8888", "size": (640, 480)}, main)}
        streams["lores"] = self._stream({"format": "YUV420", "size": streams["main"]["size"]}, lores)
        for name in (display, encode):
            if name is not None and streams.get(name) is None:
                msg = f"Display stream {name} was not defined"
                raise RuntimeError(msg)
        return {
            "use_case": use_case, "transform": transform, "colour_space": colour_space, "buffer_count": buffer_count,
            "queue": queue, **streams, "raw": raw, "sensor": sensor, "display": display, "encode": encode,
            "controls": {"NoiseReductionMode": 3, "FrameDurationLimits": (33_333, 83_333)} | controls,
        }  # fmt: skip

    @staticmethod
    def _stream(start: dict[str, Any], updates: dict[str, Any] | None) -> Any:  # noqa: ANN401
        if updates is None:
            return None
        for key in updates:
            if key not in {"format", "size", "stride", "preserve_ar"}:
                msg = (
                    f"Bad key {key!r}: valid stream configuration keys are ('format', 'size', 'stride', 'preserve_ar')"
                )
                raise ValueError(msg)
        return start | updates

    def configure(self, camera_config: dict[str, Any]) -> None:
        """Refuse what the real one refuses, each with its words."""
        if self.started:
            msg = "Camera must be stopped before configuring"
            raise RuntimeError(msg)
        if not isinstance(camera_config["transform"], Transform):
            msg = "Transform has incorrect type"
            raise RuntimeError(msg)  # noqa: TRY004 - as the real one
        main, lores = camera_config["main"], camera_config["lores"]
        self._check_stream("main", main)
        if lores is not None:
            self._check_stream("lores", lores)
            if lores["size"][0] > main["size"][0] or lores["size"][1] > main["size"][1]:
                msg = "lores stream dimensions may not exceed main stream"
                raise RuntimeError(msg)
            if lores["format"] not in YUV:  # a Pi 4 and older
                msg = "lores stream must be YUV"
                raise RuntimeError(msg)
        if main["size"][0] > 2592 or main["size"][1] > 1944:
            msg = f"Invalid camera configuration: {camera_config}"
            raise RuntimeError(msg)
        for name, value in camera_config["controls"].items():
            if name not in CONTROLS:
                msg = f"Control {name} is not advertised by libcamera"
                raise RuntimeError(msg)
            low, high = CONTROLS[name]
            for one in value if isinstance(value, tuple) else (value,):
                assert type(one) is type(low), f"{name} is a {type(low).__name__}"
                assert low <= one <= high, f"{name} = {one} is not within {low} to {high}"
        self.camera_config = {
            name: value | {"stride": -(-value["size"][0] // ALIGN) * ALIGN}
            if name in {"main", "lores"} and value
            else value
            for name, value in camera_config.items()
        }

    @staticmethod
    def _check_stream(name: str, stream: dict[str, Any]) -> None:
        if stream["format"] not in YUV | RGB:
            msg = f"Bad format {stream['format']} in stream {name}"
            raise RuntimeError(msg)
        size = stream["size"]
        if type(size) is not tuple or len(size) != 2:
            msg = f"size in {name} stream should be (width, height)"
            raise RuntimeError(msg)
        if size[0] % 2 or size[1] % 2:
            msg = "width and height should be even"
            raise RuntimeError(msg)

    def start(self) -> None:
        if not self.camera_config:
            msg = "Camera has not been configured"
            raise RuntimeError(msg)
        self.free = [
            {
                name: np.full(
                    self.camera_config[name]["stride"] * self.camera_config[name]["size"][1] * 3 // 2,
                    SCRIBBLE,
                    np.uint8,
                )
                for name in ("main", "lores")
                if self.camera_config[name]
            }
            for _ in range(self.camera_config["buffer_count"])
        ]
        self.started = True
        self._loop = threading.Thread(target=self._run, daemon=True)
        self._loop.start()

    def close(self) -> None:
        if not self.is_open:
            return
        if self.sensor.stuck.is_set():
            threading.Event().wait()
        self._abort.set()
        if self._loop is not None:
            self._loop.join()
        self.started, self.stop_count = False, self.stop_count + 1
        self.sensor.in_use.discard(self.camera_num)
        self.is_open = False

    def _run(self) -> None:
        """The event loop: completes requests as long as there are free ones. An exception in a callback ends it."""
        while not self._abort.wait(0.002):
            if self.sensor.hung.is_set() or not self.free:  # every buffer held: the camera stalls
                continue
            with self.request_lock:
                buffers = self.free.pop(0)
            picture = self.sensor.picture(self._index)
            for name, buffer in buffers.items():
                self._expose(picture, buffer, self.camera_config[name])
            self._index += 1
            with self.lock:
                request = CompletedRequest(self, buffers)
                if self.post_callback:
                    self.post_callback(request)
                request.own = 0
                request.release()

    def _expose(self, picture: U8, buffer: U8, config: dict[str, Any]) -> None:
        (width, height), rows = config["size"], buffer.reshape(-1, config["stride"])
        y = np.arange(height) * picture.shape[0] // height
        x = np.arange(width) * picture.shape[1] // width
        transform = self.camera_config["transform"]
        plane = picture[y[:: -1 if transform.vflip else 1]][:, x[:: -1 if transform.hflip else 1]]
        rows[:height, :width] = plane
        rows[height:] = 77  # colour


def install(monkeypatch: Any) -> Sensor:  # noqa: ANN401 - pytest's
    """Let `import picamera2` and `import libcamera` find the double; returns the sensor behind it."""
    picamera2, libcamera = ModuleType("picamera2"), ModuleType("libcamera")
    sensor = Sensor()
    fresh = type("Picamera2", (Picamera2,), {"sensor": sensor})
    picamera2.__dict__.update(Picamera2=fresh, MappedArray=MappedArray)
    libcamera.__dict__.update(Transform=Transform, ColorSpace=ColorSpace)
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    return sensor
