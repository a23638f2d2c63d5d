"""What the vision service does with one camera's frames: mask → scene → detect → preprocess → route → track."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from edge.types import FaceBox
from edge.vision import scene
from edge.vision.preprocess import CHIP, MIN_FACE, chip
from edge.vision.track import SIGHTINGS, SPACING, Tracker, chip_weight
from edge.vision.window import MAX_GAP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge.types import CropSpec, Frame, Route, Scene, Track, Vote
    from edge.vision.detect import Detector
    from edge.vision.route import Router
    from edge.vision.window import Window


class Pipeline:
    """One camera's visitors. Places are its own: a visitor whom two cameras see is two visitors."""

    def __init__(
        self,
        detector: Detector,
        router: Router,
        crop: CropSpec,
        uncertain_below: Mapping[Route, float],
        masks: Sequence[scene.Polygon] = (),
    ) -> None:
        self.drops: dict[str, int] = {}
        self.span: tuple[float, float, Scene] | None = None
        """From when to when (window time) the last frame stands for what is there, less what was counted; its scene."""
        self.spent: dict[str, float] = {}
        """Seconds per stage."""
        self.vote_possible = False
        """Whether a face that stood there all the time would have voted, in any window that was closed."""
        self.scenes: dict[Scene, int] = {}
        """Frames by scene, of the whole run."""
        self._looks, self._looked_at = 0, -math.inf
        self._held = 0
        self._detector, self._router, self._crop = detector, router, crop
        self._tracker = Tracker(uncertain_below)
        self._watch = scene.Watch(masks)

    def see(self, frame: Frame) -> list[Track]:
        """Tracks seen in a frame, whose privacy masks are black afterwards. Raises BackendError.

        Only in a scene that is `ok` are faces looked for: what `coverage` calls unseen holds no votes, and who
        stood there when a picture froze was counted then.
        """
        began = time.perf_counter()
        small = frame.image if frame.lores is None else frame.lores
        seen = self._watch.judge(small, frame.t, still=frame.still)
        self._watch.black_out(*(i for i in (frame.image, frame.lores) if i is not None))
        self.scenes[seen] = self.scenes.get(seen, 0) + 1
        boxes: list[FaceBox] = []
        if seen == "ok":
            self._look(frame)
            zoom = frame.image.shape[1] / small.shape[1]
            found = self._detector.detect(small, thorough=frame.still, zoom=zoom)
            boxes = [zoomed(b, zoom) if zoom != 1 else b for b in found]
        large = [b for b in boxes if b.w >= MIN_FACE]
        if len(large) < len(boxes):
            self.drops["too_small"] = self.drops.get("too_small", 0) + 1
        began = self._lap("detect", began)
        if seen == "ok":
            numbers = self._tracker.associate(large, frame.t, still=frame.still)
        else:
            numbers = self._tracker.pass_over(frame.t, still=frame.still)
        due = [i for i, number in enumerate(numbers) if self._tracker.due(number, frame.t)]
        chips = np.empty((len(due), CHIP, CHIP), np.uint8)
        for row, i in enumerate(due):
            chips[row] = chip(frame.image, large[i], self._crop)
        began = self._lap("preprocess", began)
        tracks = [self._tracker.keep(n, frame.t) if i not in due else None for i, n in enumerate(numbers)]
        if due:
            masked = self._router.masked(chips)
            routes = [self._tracker.gate(numbers[i], m, frame.t) for i, m in zip(due, masked, strict=True)]
            for i, one, answer in zip(due, chips, self._router.expressions(chips, routes), strict=True):
                tracks[i] = self._tracker.express(numbers[i], answer, chip_weight(one, large[i].w), frame.t)
        self._lap("classify", began)
        self.span, self._held = (frame.t, frame.t + (frame.duration or MAX_GAP), seen), 0
        return [track for track in tracks if track is not None]

    def hold(self, since: float, until: float, most: int) -> None:
        """Extend the last frame's validity to `until` if it was still valid at `since`.

        The pipelines, not the camera, were late. At most `most` (number of cameras) extensions per frame, since cameras
        are polled in turn.
        """
        if self.span is not None and self.span[1] >= since and self._held < most:
            self.span, self._held = (self.span[0], max(self.span[1], until), self.span[2]), self._held + 1

    def votes(self) -> list[Vote]:
        """The window's votes; starts the next window."""
        self.vote_possible |= self._looks >= SIGHTINGS
        self._looks, self._looked_at = 0, -math.inf
        return self._tracker.votes()

    def _look(self, frame: Frame) -> None:
        """Count the frames of this window that the tracker would take for a sighting each."""
        if frame.still:
            self._looks = SIGHTINGS
        elif frame.t - self._looked_at >= SPACING - 1e-6:
            self._looks, self._looked_at = self._looks + 1, frame.t

    def credit(self, window: Window, until: float) -> None:
        """Count what is left of the last frame's time, up to `until`, as watched in `window`; it counts once."""
        if self.span is not None:
            start, end, seen = self.span
            upto = max(start, min(end, until))
            window.watch(start, upto, seen)
            self.span = upto, end, seen

    def forget(self) -> None:
        """Keep the votes of those who have left, and nothing of who is in view or of what was there."""
        self._tracker.drop()
        self._detector.forget()

    def _lap(self, stage: str, began: float) -> float:
        now = time.perf_counter()
        self.spent[stage] = self.spent.get(stage, 0.0) + now - began
        return now


def zoomed(box: FaceBox, zoom: float) -> FaceBox:
    """The box in a picture that many times as large."""
    return FaceBox(box.x * zoom, box.y * zoom, box.w * zoom, box.h * zoom, box.angle, box.score)
