"""Who is who from frame to frame, and one vote per visitor and window. RAM only.

Boxes are joined to tracks greedily by overlap, then by nearness. A track's route is the running mean of the
gate's probability with hysteresis; its vote is the mean of its log-probabilities in the window, weighted by
chip sharpness and size.

Not every frame is a look: what a face shows changes slower than a camera's frames follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from edge.types import EMOTIONS, Cell, FaceBox, Route, Track, Vote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edge.types import F32, U8

DORMANT: Final = 3.0
"""Seconds a lost track keeps its place before a face there is a new visitor."""
STALL, STALL_MOST = 1.0, 15.0
"""Without a frame in which one could see, nobody is seen to leave: of a camera's silence or darkness so many seconds
count towards `DORMANT`, and as many more as the second says do not, in which a lost one is noticed (5 s) and opened."""
SIGHTINGS: Final = 3
SPACING: Final = 0.2
"""A vote needs this many sightings, each at least so many seconds after the one before."""
TO_MASKED: Final = 0.6
TO_UNMASKED: Final = 0.4
GATE_MEMORY: Final = 1.0
"""Time constant in seconds of the mean gate probability."""
LOOK_S, SETTLED_LOOK_S = 0.1, 0.5
"""Seconds from look to look at a visitor, and at one whose vote and mask are settled."""
LOOKS: Final = 6
LEAD: Final = 2.0
DOUBT: Final = 0.2
"""A vote is settled after so many looks in the window, when the best class has this many times
the second's probability, and the gate's mean is no further from a certain answer."""
IOU: Final = 0.2
NEAR: Final = 0.8
"""Without overlap a box joins a track whose centre is within this many box widths."""
SIZE_RATIO: Final = 1.8


@dataclass(slots=True)
class _Sum:
    """Weighted log-probabilities of one route in one window."""

    logs: F32 = field(default_factory=lambda: np.zeros(len(EMOTIONS), np.float32))
    weight: float = 0.0


@dataclass(slots=True)
class _State:
    number: int
    box: FaceBox
    seen: float
    route: Route = "unmasked"
    mean_gate: float | None = None
    frames: int = 0
    sightings: int = 0
    counted_at: float = -math.inf
    still: bool = False
    gated_at: float = -math.inf
    looks: int = 0
    looked_at: float = -math.inf
    passed: int = 0
    """Frames since the last look."""
    sums: dict[Route, _Sum] = field(default_factory=dict)

    def new_window(self) -> None:
        self.sums, self.sightings, self.counted_at = {}, 0, -math.inf
        self.looks, self.looked_at, self.passed = 0, -math.inf, 0

    def seen_at(self, t: float) -> None:
        self.seen = t
        self.frames += 1
        if t - self.counted_at >= SPACING - 1e-6:
            self.sightings += 1
            self.counted_at = t


def chip_weight(chip: U8, width: float) -> float:
    """How much one look counts: sharpness (variance of the Laplacian, saturating) times size (to 96 px)."""
    sharpness = float(cv2.Laplacian(chip, cv2.CV_32F).var())
    return (0.1 + sharpness / (sharpness + 100.0)) * min(1.0, width / 96.0)


class Tracker:
    """Call `associate`, then per track of the frame `gate` and `express` when `due`, else `keep`; then `votes`."""

    def __init__(self, uncertain_below: Mapping[Route, float]) -> None:
        self._uncertain_below = dict(uncertain_below)
        self._tracks: dict[int, _State] = {}
        self._ended: list[Vote] = []
        self._next = 1
        self._frame_at = math.inf

    def associate(self, boxes: Sequence[FaceBox], t: float, *, still: bool = False) -> list[int]:
        """Track numbers of this frame's boxes, in order. A still shares no track with other frames."""
        self._forgive(min(t - self._frame_at - STALL, STALL_MOST))
        self._frame_at = t
        self.forget(math.inf if still else t - DORMANT)
        numbers = list(self._tracks)
        affinity = _affinities(list(self._tracks.values()), boxes, t)
        pairs = sorted((-affinity[k, i], numbers[k], int(i)) for k, i in zip(*np.nonzero(affinity > 0), strict=True))
        joined: dict[int, int] = {}
        taken: set[int] = set()
        for _, number, i in pairs:
            if i not in joined and number not in taken:
                joined[i] = number
                taken.add(number)
        for i, box in enumerate(boxes):
            if i not in joined:
                joined[i] = self._next
                self._tracks[self._next] = _State(self._next, box, t, still=still)
                self._next += 1
            state = self._tracks[joined[i]]
            if t - state.seen > GATE_MEMORY:
                state.mean_gate = None  # what was known of the mask is too old
            state.box = box
        return [joined[i] for i in range(len(boxes))]

    def due(self, number: int, t: float) -> bool:
        """Whether this frame is to be a look at the track; the first of a window always is."""
        state = self._tracks[number]
        every = SETTLED_LOOK_S if self._settled(state) else LOOK_S
        return not state.sums or t - state.looked_at >= every - 1e-6

    def keep(self, number: int, t: float) -> Track:
        """Note that a track is there, without a look. Returns the track as it stands."""
        state = self._tracks[number]
        state.seen_at(t)
        state.passed += 1
        return self._track(state)

    def gate(self, number: int, masked: float | None, t: float) -> Route:
        """Take the gate's answer for a track; returns the route to ask: hysteresis around the running mean."""
        state = self._tracks[number]
        if masked is None:
            return state.route
        if state.mean_gate is None:
            state.mean_gate = masked
            state.route = "masked" if masked >= 0.5 else "unmasked"
            state.gated_at = t
            return state.route
        # One answer speaks for a fifth of a second at most, however seldom it is asked for.
        keep = math.exp(-min(SPACING, max(0.0, t - state.gated_at)) / GATE_MEMORY)
        state.gated_at = t
        state.mean_gate = keep * state.mean_gate + (1 - keep) * masked
        if state.mean_gate > TO_MASKED:
            state.route = "masked"
        elif state.mean_gate < TO_UNMASKED:
            state.route = "unmasked"
        return state.route

    def express(self, number: int, answers: Mapping[Route, F32], weight: float, t: float) -> Track:
        """Add a look at a track: probabilities (7,) per route asked. Returns the track as it now stands.

        A look stands for the frames since the one before too, so that the vote stays the mean over time.
        """
        state = self._tracks[number]
        state.seen_at(t)
        weight *= 1 + state.passed
        state.looks, state.looked_at, state.passed = state.looks + 1, t, 0
        for route, probabilities in answers.items():
            total = state.sums.setdefault(route, _Sum())
            total.logs = total.logs + weight * np.log(np.maximum(probabilities, 1 / 512))
            total.weight += weight
        return self._track(state)

    def votes(self) -> list[Vote]:
        """The window's votes, one per track that was seen enough; starts the next window."""
        votes = self._ended
        self._ended = []
        for state in self._tracks.values():
            votes += self._vote(state)
            state.new_window()
        return votes

    def forget(self, before: float) -> None:
        """End the tracks last seen before `before`; they vote."""
        for number, state in list(self._tracks.items()):
            if state.seen < before:
                self._ended += self._vote(state)
                del self._tracks[number]

    def pass_over(self, t: float, *, still: bool = False) -> list[int]:
        """Of a frame in which nobody could be seen: for who is in view it is a camera's silence. No track numbers."""
        self.forget(math.inf if still else t - DORMANT - STALL_MOST)
        return []

    def drop(self) -> None:
        """End all tracks without a vote; who left before keeps theirs.

        With one, a visitor would vote at every pause, and whoever may send pauses would choose how often.
        """
        self._tracks.clear()

    def _forgive(self, stalled: float) -> None:
        """Go on as if the camera had not been silent for so many seconds."""
        if stalled > 0:
            for state in self._tracks.values():
                state.seen += stalled
                state.mean_gate = None  # what was known of the mask is too old

    def _vote(self, state: _State) -> list[Vote]:
        if not state.sums or (state.sightings < SIGHTINGS and not state.still):
            return []
        route, cell, _ = self._answer(state)
        return [Vote(route, cell)]

    def _track(self, state: _State) -> Track:
        route, cell, mean = self._answer(state)
        return Track(state.number, state.box, route, cell, mean, state.frames)

    def _settled(self, state: _State) -> bool:
        if state.looks < LOOKS or state.sightings < SIGHTINGS or len(state.sums) > 1:
            return False
        certain = 1.0 if state.route == "masked" else 0.0
        if state.mean_gate is not None and abs(state.mean_gate - certain) > DOUBT:
            return False
        ((_, total),) = state.sums.items()
        second, best = np.sort(total.logs)[-2:]
        return float(best - second) >= math.log(LEAD) * total.weight

    def _answer(self, state: _State) -> tuple[Route, Cell, F32]:
        means: dict[Route, F32] = {}
        for route, total in state.sums.items():
            mean = np.exp(total.logs / max(total.weight, 1e-9))
            means[route] = mean / mean.sum()
        # One model asked per look: the route most of the looks took. Both asked: the more confident one.
        weights = {route: total.weight for route, total in state.sums.items()}
        both = len(weights) > 1 and len({round(w, 6) for w in weights.values()}) == 1
        route = max(means, key=lambda r: float(means[r].max()) if both else weights[r])
        best = int(means[route].argmax())
        sure = float(means[route][best]) >= self._uncertain_below[route]
        cell: Cell = EMOTIONS[best] if sure else "uncertain"
        return route, cell, means[route]


def _affinities(states: Sequence[_State], boxes: Sequence[FaceBox], t: float) -> NDArray[np.float64]:
    """(S, B), > 0 where a box may be a track's next: overlap first, then nearness; wider for a track lost a while."""
    if not states or not boxes:
        return np.zeros((len(states), len(boxes)))
    old = np.array([(s.box.x, s.box.y, s.box.w, s.box.h) for s in states])[:, None]
    new = np.array([(b.x, b.y, b.w, b.h) for b in boxes])[None]
    shared = (
        np.minimum(old[..., :2] + old[..., 2:], new[..., :2] + new[..., 2:]) - np.maximum(old, new)[..., :2]
    ).clip(0)
    both = shared.prod(axis=-1)
    iou = both / (old[..., 2:].prod(axis=-1) + new[..., 2:].prod(axis=-1) - both)
    wider = np.maximum(old[..., 2], new[..., 2])
    lost = np.array([1 + min(1.0, t - s.seen) for s in states])[:, None]
    apart = np.hypot(*np.moveaxis(old[..., :2] + old[..., 2:] / 2 - new[..., :2] - new[..., 2:] / 2, -1, 0))
    near = 1 - apart / (NEAR * lost * wider)
    alike = wider <= SIZE_RATIO * np.minimum(old[..., 2], new[..., 2])
    moving = np.array([not s.still for s in states])[:, None]
    return np.where(alike & moving, np.where(iou >= IOU, 1 + iou, near.clip(0)), 0.0)
