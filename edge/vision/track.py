"""Who is who from frame to frame, and one vote per visitor and window. RAM only.

Boxes are joined to tracks greedily by overlap, then by nearness. A track's route is the running mean of the
gate's probability with hysteresis; its vote is the mean of its log-probabilities in the window, weighted by
chip sharpness and size.
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

    from edge.types import F32, U8

DORMANT: Final = 3.0
"""Seconds a lost track keeps its place before a face there is a new visitor."""
SIGHTINGS: Final = 3
SPACING: Final = 0.2
"""A vote needs this many sightings, each at least so many seconds after the one before."""
TO_MASKED: Final = 0.6
TO_UNMASKED: Final = 0.4
GATE_MEMORY: Final = 1.0
"""Time constant in seconds of the mean gate probability."""
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
    sums: dict[Route, _Sum] = field(default_factory=dict)

    def new_window(self) -> None:
        self.sums, self.sightings, self.counted_at = {}, 0, -math.inf


def chip_weight(chip: U8, width: float) -> float:
    """How much one look counts: sharpness (variance of the Laplacian, saturating) times size (to 96 px)."""
    sharpness = float(cv2.Laplacian(chip, cv2.CV_32F).var())
    return (0.1 + sharpness / (sharpness + 100.0)) * min(1.0, width / 96.0)


class Tracker:
    """Call `associate`, then `gate` and `express` per track of the frame; `votes` at the window's close."""

    def __init__(self, uncertain_below: Mapping[Route, float]) -> None:
        self._uncertain_below = dict(uncertain_below)
        self._tracks: dict[int, _State] = {}
        self._ended: list[Vote] = []
        self._next = 1

    def associate(self, boxes: Sequence[FaceBox], t: float, *, still: bool = False) -> list[int]:
        """Track numbers of this frame's boxes, in order. A still shares no track with other frames."""
        self.forget(math.inf if still else t - DORMANT)
        pairs = sorted(
            (-_affinity(state, box, t), number, i)
            for number, state in self._tracks.items()
            for i, box in enumerate(boxes)
            if _affinity(state, box, t) > 0
        )
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

    def gate(self, number: int, masked: float | None, t: float) -> Route:
        """Take the gate's answer for a track; returns the route to ask: hysteresis around the running mean."""
        state = self._tracks[number]
        if masked is None:
            return state.route
        if state.mean_gate is None:
            state.mean_gate = masked
            state.route = "masked" if masked >= 0.5 else "unmasked"
            return state.route
        keep = math.exp(-max(0.0, t - state.seen) / GATE_MEMORY)
        state.mean_gate = keep * state.mean_gate + (1 - keep) * masked
        if state.mean_gate > TO_MASKED:
            state.route = "masked"
        elif state.mean_gate < TO_UNMASKED:
            state.route = "unmasked"
        return state.route

    def express(self, number: int, answers: Mapping[Route, F32], weight: float, t: float) -> Track:
        """Add a look at a track: probabilities (7,) per route asked. Returns the track as it now stands."""
        state = self._tracks[number]
        state.seen = t
        state.frames += 1
        if t - state.counted_at >= SPACING - 1e-6:
            state.sightings += 1
            state.counted_at = t
        for route, probabilities in answers.items():
            total = state.sums.setdefault(route, _Sum())
            total.logs = total.logs + weight * np.log(np.maximum(probabilities, 1 / 512))
            total.weight += weight
        route, cell, mean = self._answer(state)
        return Track(number, state.box, route, cell, mean, state.frames)

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

    def _vote(self, state: _State) -> list[Vote]:
        if not state.sums or (state.sightings < SIGHTINGS and not state.still):
            return []
        route, cell, _ = self._answer(state)
        return [Vote(route, cell)]

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


def _affinity(state: _State, box: FaceBox, t: float) -> float:
    """> 0 when a box may be the track's next: overlap first, then nearness; wider for a track lost a while."""
    old = state.box
    ratio = max(old.w / box.w, box.w / old.w)
    if state.still or ratio > SIZE_RATIO:
        return 0.0
    w = min(old.x + old.w, box.x + box.w) - max(old.x, box.x)
    h = min(old.y + old.h, box.y + box.h) - max(old.y, box.y)
    if w > 0 and h > 0:
        iou = w * h / (old.w * old.h + box.w * box.h - w * h)
        if iou >= IOU:
            return 1 + iou
    reach = NEAR * (1 + min(1.0, t - state.seen)) * max(old.w, box.w)
    distance = math.dist(old.centre, box.centre)
    return 1 - distance / reach if distance < reach else 0.0
