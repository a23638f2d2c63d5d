"""What the vision service says of itself: `vision.json`, and systemd's status line.

Nothing published may follow the work done for a face. So what tells how fast the service is comes from a timed look at
a blank picture, and frames that were overwritten while a face was read are not counted for anybody but developers.
"""

from __future__ import annotations

import logging
import re
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

import numpy as np

from edge import __version__
from edge.errors import StorageError
from edge.outbox.runtime_files import Development, InvokeMs, Spent, Trouble, VisionFile, write_vision
from edge.process.logs import event
from edge.process.stats import Percentiles, Rate
from edge.types import DropCause, FrameRate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edge.inference.protocol import Backend
    from edge.process.systemd_notify import Notifier
    from edge.types import Frame, Scene, TimeQuality, Track
    from edge.vision.detect import Detector
    from edge.vision.pipeline import Pipeline
    from edge.vision.privacy import Policy
    from edge.vision.recorder import Recorder

log = logging.getLogger("edge.vision")

PROBE: Final = 10.0
"""Seconds between timed looks at a blank picture: published times must not tell whether faces came."""
FRAMELESS: Final = 5.0
"""Seconds without a frame after which health says `frozen`, and rate `none`."""
PACE_S: Final = 2.0
"""Seconds over which a camera's own pace is measured."""
SLOW, FAST_ENOUGH = 1.1, 0.9
"""Share of a frame's time that a look at a blank picture takes: above the one it is slow, below the other no more."""


class Pace:
    """How many frames a second a camera delivers, by its own numbering: the fastest so far.

    Frames that nobody took are numbered too, and the fastest is not slowed by a face.
    """

    def __init__(self) -> None:
        self.fastest = 0.0
        self._from: tuple[int, float] | None = None

    def see(self, frame: Frame) -> None:
        """Take note of a frame."""
        if self._from is None or frame.index <= self._from[0] or frame.t <= self._from[1]:
            self._from = frame.index, frame.t
        elif frame.t - self._from[1] >= PACE_S:
            self.fastest = max(self.fastest, (frame.index - self._from[0]) / (frame.t - self._from[1]))
            self._from = frame.index, frame.t


class Probe:
    """Times a look at a blank picture: one detection, and one invocation of each classifier."""

    def __init__(self, backend: Backend, roles: Sequence[str], detector: Detector) -> None:
        """`detector` is the probe's own: the cameras' remember where they found faces."""
        self.invoke = Percentiles()
        self._backend, self._roles, self._detector = backend, roles, detector
        self._look = Percentiles()
        self._at = -PROBE
        self._level = 64
        self._size: tuple[int, ...] = 240, 320
        self._zoom = 1.0
        self._paces: dict[int, Pace] = {}
        self._slow = False

    def see(self, frame: Frame) -> None:
        """Take note of a frame's size and time, not of what it shows."""
        searched = frame.image if frame.lores is None else frame.lores
        self._size, self._zoom = searched.shape[:2], frame.image.shape[1] / searched.shape[1]
        self._paces.setdefault(frame.camera, Pace()).see(frame)

    def run(self, now: float) -> None:
        """Time it, if it is time. Raises BackendError."""
        if now - self._at < PROBE:
            return
        self._at = now
        began = time.perf_counter()
        # Grey levels by turns: one like the last would hardly be searched, and it is the others that have to fit.
        self._level = 255 - self._level
        self._detector.detect(np.full(self._size, self._level, np.uint8), zoom=self._zoom)
        looked = time.perf_counter() - began
        for role in self._roles:
            began = time.perf_counter()
            self._backend.outputs(role, np.zeros((1, 48, 48), np.uint8))
            took = time.perf_counter() - began
            self.invoke.add(1000 * took)
            looked += took
        self._look.add(1000 * looked)

    @property
    def slow(self) -> bool:
        """Whether a look takes longer than the cameras leave for it."""
        load = (self._look.at(0.5) or 0.0) / 1000 * sum(pace.fastest for pace in self._paces.values())
        self._slow = load > (FAST_ENOUGH if self._slow else SLOW)
        return self._slow


class Figures:
    """Puts `vision.json` together, at most once a second."""

    def __init__(self, folder: Path, notifier: Notifier, probe: Probe, *, bundle: str, development: bool) -> None:
        self.probe = probe
        self._folder, self._notifier, self._development = folder, notifier, development
        self._versions: dict[Literal["edge", "bundle"], str] = {"edge": word(__version__), "bundle": word(bundle)}
        self._written = -1.0
        self._rate = Rate()
        self._frames = self._faces = 0
        self._routes: dict[str, int] = {}

    def see(self, frame: Frame, tracks: Sequence[Track], *, live: bool) -> None:
        """Count a frame that was processed."""
        self._rate.tick()
        if live:
            self.probe.see(frame)
        self._frames += 1
        self._faces += len(tracks)
        for track in tracks:
            self._routes[track.route] = self._routes.get(track.route, 0) + 1

    def due(self) -> bool:
        """Whether the last ones are a second old."""
        return time.monotonic() - self._written >= 1.0

    def tell(  # noqa: PLR0913 - the file's parts, by name
        self,
        *,
        ended: bool,
        updated: float,
        backend: Backend,
        detector: str,
        recorder: Recorder,
        scene: Scene,
        frames_come: bool,
        time_quality: TimeQuality,
        paused: bool,
        privacy: Spent,
        drops: Mapping[str, int],
        pipelines: Sequence[Pipeline],
    ) -> None:
        """Replace the file. Raises BackendError (of the probe); a folder that cannot be written is logged."""
        self._written = time.monotonic()
        if not ended:
            self.probe.run(self._written)
        rate: FrameRate = "none" if not frames_come else "slow" if self.probe.slow else "ok"
        trouble = recorder.trouble
        told = VisionFile(
            boot_id=recorder.boot_id,
            state="ended" if ended else "running",
            updated=updated,
            backend=backend.name,
            detector=detector,
            rate=rate,
            invoke_ms=InvokeMs(**{f"p{n}": self.probe.invoke.at(n / 100) for n in (50, 95, 99)}),
            drops={cause: n for cause in get_args(DropCause) if (n := drops.get(cause))},
            restarts=backend.restarts,
            scene=scene,
            time_quality=time_quality,
            paused=paused,
            versions=self._versions,
            privacy=privacy,
            waiting=recorder.waiting,
            trouble=cast("Trouble | None", trouble if trouble is None or trouble in get_args(Trouble) else "unusable"),
            development=self._verbose(drops, pipelines) if self._development else None,
        )
        self._notifier.status(f"rate {rate} on {told.backend}, scene {scene}")
        try:
            write_vision(self._folder, told)
        except StorageError as error:
            log.warning(event("figures_unwritten", why=error))

    def _verbose(self, drops: Mapping[str, int], pipelines: Sequence[Pipeline]) -> Development:
        n = max(1, self._frames)
        stages = {stage for pipeline in pipelines for stage in pipeline.spent}
        spent = {stage: sum(pipeline.spent.get(stage, 0.0) for pipeline in pipelines) for stage in stages}
        return Development(
            frames=self._frames,
            faces=self._faces,
            routes=dict(self._routes),
            stage_ms={stage: round(1000 * seconds / n, 3) for stage, seconds in spent.items()},
            drops=dict(drops),
            fps=round(self._rate.value, 1),
        )


def budget(policy: Policy, spent: Fraction, seconds: float) -> Spent:
    """What a window costs, what the day has cost and can cost."""
    return Spent(
        epsilon=float(policy.cost),
        spent_today=float(min(spent, Fraction(10**9))),
        day_bound=float(policy.day_bound(seconds)),
        exhausted=not policy.affords(spent),
    )


def word(text: str) -> str:
    """A name as the wall lets it through."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", text)[:64] or "-"
