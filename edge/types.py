"""What flows between the stages: frozen, slotted values. Imports nothing of `edge`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - dataclass fields are read at run time by the outbox
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:  # not at run time: the aggregator reads the contract without numpy
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]
    F32 = NDArray[np.float32]

EMOTIONS: Final = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
"""Label order of every FER model and of every confusion matrix: alphabetical, not that of FER2013's CSV."""

PREPROCESS_ID: Final = "gray48/1"
"""The one preprocessing, `edge.vision.preprocess`: what bundles are made for."""

CELLS: Final = (*EMOTIONS, "uncertain")
"""Columns of a count, in wire order."""

ROUTES: Final = ("unmasked", "masked")
"""Rows of a count, and the gate's label order."""

Route = Literal["unmasked", "masked"]
Cell = Literal["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise", "uncertain"]
Strategy = Literal["gate", "highest-probability", "single"]
Scene = Literal["ok", "dark", "covered", "frozen", "paused"]
TimeQuality = Literal["synced", "holdover", "unsynced"]
FrameRate = Literal["ok", "slow", "none"]
"""Frames come and a look at a blank picture keeps up with them; it does not; none come."""
DropCause = Literal["camera_lost", "undecodable", "truncated", "windows"]
"""Causes of loss that are published: none of them is a face's doing."""
Unit = Literal["one class per track per window"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture from a camera. The only holder of pixels of people; it never leaves RAM.

    `image` is uint8, (H, W) grey or (H, W, 3) BGR. `t` is window time in seconds: the monotonic clock at
    capture for a camera, clip time for a replay. `duration` is how many seconds the frame stands for, 0.0
    where only the next frame will tell. A `still` shares no visitor with the frames around it.

    `lores` is the same picture, smaller, where the camera makes one: uint8 (h, w) grey, faces are looked for in
    it. `camera` is the place in the configuration. Where `release` is given, the pixels are the camera's own
    buffers: call it once, and do not touch them after.
    """

    image: U8
    t: float
    index: int
    duration: float = 0.0
    still: bool = False
    lores: U8 | None = None
    camera: int = 0
    release: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A face in frame pixels: top-left corner and size of the box before rotation.

    `angle` in degrees is how far the head leans clockwise as the viewer sees it; the box is to be turned
    by it about its own centre. `score` grows with certainty and is comparable within one detector only.
    """

    x: float
    y: float
    w: float
    h: float
    angle: float = 0.0
    score: float = 1.0

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (x, y) in frame pixels."""
        return self.x + self.w / 2, self.y + self.h / 2


@dataclass(frozen=True, slots=True)
class CropSpec:
    """How a detector's box becomes the model's square crop (manifest: `preprocess.crop`)."""

    scale: float = 1.0
    dy: float = 0.0


@dataclass(frozen=True, slots=True)
class Track:
    """A visitor as seen at one frame; lives in RAM only and `number` is never stored or sent."""

    number: int
    box: FaceBox
    route: Route
    cell: Cell
    probabilities: F32
    frames: int


@dataclass(frozen=True, slots=True)
class Vote:
    """The one contribution of one visitor to one window."""

    route: Route
    cell: Cell


Counts = dict[str, dict[str, int]]
"""Route → cell → votes. Raw: it stays in the process that counted."""

ReleasedCounts = dict[str, dict[str, int | None]]
"""Route → cell → released integer, or None: not released."""


@dataclass(frozen=True, slots=True)
class PrivacyStatement:
    """What was done to the counts, as every payload says it; `exhausted`: the day's budget was spent before."""

    mechanism: Literal["discrete-laplace", "none"]
    epsilon: float | None
    min_count: int
    unit: Unit = "one class per track per window"
    exhausted: bool = False


@dataclass(frozen=True, slots=True)
class ModelsStatement:
    """Which models counted: `sha256:<64 hex>` per role, and the routing strategy."""

    gate: str | None
    fer_unmasked: str | None
    fer_masked: str | None
    route: Strategy


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One window after privacy: outside development mode all that vision tells the publisher of visitors.

    `mono_start` / `mono_end` are kernel-monotonic seconds (a replay: the run's start plus clip time), kept
    so that a window counted before the clock was set can be labelled later. `start` is UTC, by the clock
    at close. `noise_draws` says how many noise draws a released cell holds (same shape as `counts`).
    """

    start: datetime
    seconds: float
    time_quality: TimeQuality
    mono_start: float
    mono_end: float
    counts: ReleasedCounts
    noise_draws: dict[str, dict[str, int]]
    flush: bool
    coverage: float
    scene: Scene
    privacy: PrivacyStatement
    models: ModelsStatement
