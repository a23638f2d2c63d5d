"""Which parts of a stream's frames are searched: what changed at once, the rest in turn, as far as the time allows.

Who is followed moves in every frame, and is seen in every frame anyhow: that alone is no reason to search around them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

import cv2
import numpy as np

from edge.vision.detect.regions import FOLLOW, Region, around, holds, room, shows
from edge.vision.preprocess import shrink, to_grey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.types import U8
    from edge.vision.detect.regions import Place

Budget = float | Literal["auto"] | None
"""Milliseconds in which a frame of a stream is searched. `auto`: 25, or up to 60 where fewer than six searches would
fit into that: one to three of 11 ms show half of the faces in a moving scene that five show. None: no limit."""
AUTO_MS: Final = (25.0, 60.0)
AUTO_SEARCHES: Final = 6

EVERY: Final = 30
"""Every part of a picture that stands still is searched once in so many frames."""
BUSY: Final = 6
"""One in which nothing moves but people who are followed, once in so many."""
BODY: Final = (2.0, 1.5)
"""What is taken for a followed face's person: so many widths to either side of its centre, so many heights above it,
and everything below."""
JUMP: Final = 28
"""Grey levels by which nine pixels of the shrunken frame change from one frame to the next, on average, where
somebody new may stand in front of a person who is followed. Faces of 24 pixels and more that appear do in 480×270,
seven times out of eight; who sways or walks slowly stays below."""
MOVED: Final = 8
"""Grey levels by which a pixel of the shrunken frame differs where something moved; a sensor's noise of 5 makes 6."""
SMALL: Final = 64
"""Longer side of the shrunken frame in which movement is looked for."""
ROWS: Final = 120
"""Rows of the frame, or a few more, of which it is shrunk: reading all takes longer than a search."""
LOOKS: Final = 64
"""Frames of which the fastest says what a search costs: the machine's own speed, not what else it does just now."""


class Schedule:
    """One stream's. What is due and not paid for stays due, and what is due longest comes first."""

    def __init__(self, budget_ms: Budget = None, clock: Callable[[], float] = time.perf_counter) -> None:
        """`budget_ms` of searching a frame, by `clock` in seconds; None: all that is due, whatever it takes."""
        self._budget, self._clock = budget_ms, clock
        self._took: deque[float] = deque(maxlen=LOOKS)
        self._began = 0.0
        self._frames = 0
        self._parts: tuple[Region, ...] = ()
        self._due: dict[Region, None] = {}  # in the order in which they fell due
        self._shown: dict[Region, tuple[U8, int]] = {}
        self._small: U8 | None = None

    @property
    def searches(self) -> float:
        """How many searches a frame the budget pays: one until the first was timed."""
        if self._budget is None:
            return math.inf
        if not self._took:
            return 1
        one = 1000 * min(self._took)
        budget = sorted((*AUTO_MS, AUTO_SEARCHES * one))[1] if self._budget == "auto" else self._budget
        return max(1, budget // one)

    def choose(self, image: U8, parts: tuple[Region, ...], faces: Sequence[Place]) -> list[Region]:
        """What to search in the next frame, uint8 (H, W) or (H, W, 3): some of `parts`, and squares around `faces`.

        `parts[0]`, where it is due or shows a face, comes first, then what shows each face of the last frame that is
        not shown well enough anyhow, then the other parts. Due is where something moved since it was searched; the rest
        in turn.
        """
        now = self._fall_due(image, parts, faces)
        frame, rooms = parts[0], [room(face, parts[0]) for face in faces]
        wanted = frame in self._due or any(shows(frame, at, face[2]) for face, at in zip(faces, rooms, strict=True))
        whole = [frame] if wanted else []
        others = [part for part in self._due if part not in whole]
        left = self.searches - len(whole)
        near = _near(faces, rooms, [*whole, *others], frame)
        if len(near) + len(others) > left:  # a square that may have to wait shows nobody
            near = _near(faces, rooms, whole, frame)
            turn = self._frames % max(1, len(near))
            near = [*near[turn:], *near[:turn]][: int(max(1, min(left, len(near))))]
            # Whatever the budget, somebody new is looked for in turn.
            others = others[: int(max(1, min(left - len(near), len(others))))]
        for part in (*whole, *others):
            self._due.pop(part, None)
            self._shown[part] = now[part], self._frames
        return [*whole, *near, *others]

    def begin(self) -> None:
        """The searches of a frame begin."""
        self._began = self._clock()

    def end(self, searches: int) -> None:
        """So many have ended."""
        if searches:
            self._took.append(max((self._clock() - self._began) / searches, 1e-6))

    def forget(self) -> None:
        """Keep no picture of any part."""
        self._parts, self._due, self._shown, self._small = (), {}, {}, None

    def put_off(self, place: Place) -> None:
        """A place that nothing final was said of is searched again in the next frame."""
        there = room(place, self._parts[0])
        self._due |= dict.fromkeys(part for part in self._parts[1:] if holds(part, there))

    def _fall_due(self, image: U8, parts: tuple[Region, ...], faces: Sequence[Place]) -> dict[Region, U8]:
        """Add to what is due; returns the shrunken frame under each part."""
        small = _shrunk(image)
        if self._parts != parts:
            self._parts, self._due, self._shown, self._small = parts, {}, {}, None
        self._frames += 1
        zoom = small.shape[1] / image.shape[1]
        news = _news(small, self._small, faces, zoom)
        self._small = small
        now = {part: small[cut] for part, cut in zip(parts, _cuts(parts, zoom), strict=True)}
        for at, (part, cut) in enumerate(zip(parts, _cuts(parts, zoom), strict=True)):
            in_turn = (self._frames + at * EVERY // len(parts)) % EVERY == 0
            if in_turn or part not in self._shown or self._moved(part, now[part], news[cut]):
                self._due.setdefault(part)
        return now

    def _moved(self, part: Region, now: U8, news: U8) -> bool:
        """Whether a part changed since it was searched: where there is news at once, elsewhere now and then."""
        then, frame = self._shown[part]
        where = news if self._frames - frame < BUSY else None
        return cv2.norm(now, then, cv2.NORM_INF, where) >= MOVED


class Rest:
    """Whether a stream's frame can be left out by a detector that searches all of it at once."""

    def __init__(self, turns: int = 1) -> None:
        """`turns`: frames in which it has looked for everything."""
        self._schedule, self._turns, self._awake = Schedule(), turns, 0

    def wanted(self, image: U8) -> bool:
        """Whether to search this one: something moved lately, a face was found lately, or it is its turn."""
        if self._schedule.choose(image, (Region(0, 0, image.shape[1], image.shape[0]),), ()):
            self._awake = self._turns
        self._awake -= 1
        return self._awake >= 0

    def forget(self) -> None:
        """Keep no picture, nor that a face was there."""
        self._schedule.forget()
        self._awake = 0

    def found(self) -> None:
        """A face is there: the next frames are searched."""
        self._awake = self._turns


def _near(faces: Sequence[Place], rooms: Sequence[Region], shown: Sequence[Region], frame: Region) -> list[Region]:
    """Squares around the faces, in their `rooms`, that nothing else shows; one for several, where it shows them."""
    near: list[Region] = []
    for face, at in zip(faces, rooms, strict=True):
        if not any(shows(part, at, face[2]) for part in (*shown, *near)):
            near.append(around(face, FOLLOW, frame))
    return near


def _news(small: U8, last: U8 | None, faces: Sequence[Place], zoom: float) -> U8:
    """255 where what moves is not somebody who is followed, else 0; of the shrunken frame and the one before it."""
    news = np.full_like(small, 255)
    if last is None:
        return news
    aside, above = BODY
    for x, y, w, h in faces:
        left, right, top = ((x - aside * w) * zoom, (x + aside * w) * zoom, (y - above * h) * zoom)
        news[max(0, round(top)) :, max(0, round(left)) : max(0, round(right))] = 0
    if faces:
        step = cv2.blur(small.astype(np.int16) - last, (3, 3))
        news[np.abs(step) >= JUMP] = 255
    return news


def _shrunk(image: U8) -> U8:
    rows = image[:: max(1, image.shape[0] // ROWS)]
    zoom = SMALL / max(image.shape[:2])
    return shrink(to_grey(rows), max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))


@cache
def _cuts(parts: tuple[Region, ...], zoom: float) -> list[tuple[slice, slice]]:
    """Where each part lies in the shrunken frame."""
    return [
        (
            slice(int(part.y * zoom), math.ceil((part.y + part.h) * zoom)),
            slice(int(part.x * zoom), math.ceil((part.x + part.w) * zoom)),
        )
        for part in parts
    ]
