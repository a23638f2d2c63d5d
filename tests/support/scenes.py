"""Labelled scenes: real faces on known paths, through the whole vision service, compared with the truth.

`python -m tests.support.scenes --draws 5` prints the table of docs/tracking.md. Faces come from the shared data
(EDGE_DATA) and the demo's portraits; each draw takes other people. A person *is in* a window when visible there for at
least a second.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from unittest import mock

import cv2
import numpy as np

from edge.commands.demo.clip import place, room
from edge.config import Config, StorageSection, development
from edge.outbox.outbox import Outbox
from edge.types import Frame
from edge.vision import pipeline
from edge.vision import service as vision
from edge.vision.camera.pictures import read_still
from edge.vision.detect.haar import Haar
from edge.vision.track import Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edge.types import U8, Route, Track, Vote

SIZE: Final = (480, 270)
FPS: Final = 5
WINDOW: Final = 5.0
HEIGHT: Final = 96
"""Of a portrait in pixels; the face in it is about 56 wide."""
MARGIN: Final = 1.7
"""Side of a portrait in widths of the face."""
VISIBLE: Final = 1.0
"""Seconds in a window that make a person be in it."""
MATERIAL: Final = Path(__file__).resolve().parents[2] / "edge" / "demo_material"


@dataclass(frozen=True, slots=True)
class Person:
    """Who walks from key place to key place (t, x, y), with what face until when, out of sight during `away`."""

    faces: Sequence[tuple[float, U8]]
    path: Sequence[tuple[float, float, float]]
    away: Sequence[tuple[float, float]] = ()

    def at(self, t: float) -> tuple[float, float] | None:
        """Centre at scene time `t`; None when not to be seen."""
        times, xs, ys = zip(*self.path, strict=True)
        if not times[0] <= t < times[-1] or any(a <= t < b for a, b in self.away):
            return None
        return float(np.interp(t, times, xs)), float(np.interp(t, times, ys))

    def face(self, t: float) -> U8:
        return next(face for until, face in self.faces if t < until)


@dataclass(frozen=True, slots=True)
class Scene:
    """People in one room; who comes later in the list stands in front."""

    name: str
    people: Sequence[Person]

    @property
    def seconds(self) -> float:
        return max(person.path[-1][0] for person in self.people)


def portrait(image: U8) -> U8 | None:
    """The square around the only face that the detector finds in a photo, if it finds it again in a room."""
    detector = Haar(rotations=(0.0,))
    boxes = [b for b in detector.detect(image, thorough=True) if b.w >= 48]
    if len(boxes) != 1:
        return None
    (x, y), half = boxes[0].centre, MARGIN * boxes[0].w / 2
    cut = image[max(0, round(y - half)) : round(y + half), max(0, round(x - half)) : round(x + half)]
    square = cv2.resize(cut, (2 * HEIGHT, 2 * HEIGHT), interpolation=cv2.INTER_AREA).astype(np.uint8)
    canvas = room(SIZE)
    place(canvas, square, HEIGHT, SIZE[0] / 2, SIZE[1] / 2)
    return square if len(detector.detect(canvas, thorough=True)) == 1 else None


def strangers(count: int, draw: int, data: Path) -> list[U8]:
    """Portraits of `count` people, other ones at each draw."""
    photos = sorted((data / "masks_real" / "unmasked").glob("*.jpg"))
    found: list[U8] = []
    for i in np.random.default_rng(20261121 + draw).permutation(len(photos)):
        if (one := portrait(read_still(photos[i]))) is not None:
            found.append(one)
            if len(found) == count:
                return found
    msg = f"{len(found)} of {count} faces found under {data}"
    raise LookupError(msg)


def with_and_without_mask() -> tuple[U8, U8]:
    """The demo's portrait of one person, bare and masked, cut alike."""
    bare, masked = (read_still(MATERIAL / f"{name}.png") for name in ("astronaut", "astronaut_masked"))
    (box,) = Haar(rotations=(0.0,)).detect(bare, thorough=True)
    (x, y), half = box.centre, MARGIN * box.w / 2
    part = slice(max(0, round(y - half)), round(y + half)), slice(max(0, round(x - half)), round(x + half))
    return bare[part], masked[part]


def scenes(faces: Sequence[U8]) -> list[Scene]:
    """All scenes, of ten faces."""

    def one(i: int, *path: tuple[float, float, float], away: Sequence[tuple[float, float]] = ()) -> Person:
        return Person([(99.0, faces[i])], path, away)

    bare, masked = with_and_without_mask()
    grid = [(48 + 96 * (i % 5), 68 + 134 * (i // 5)) for i in range(10)]
    middle, aside = (240, 135), (260, 140)
    return [
        Scene("one stands", [one(0, (0, *middle), (10, *aside))]),
        Scene("one walks by", [one(1, (0, 50, 135), (5, 430, 130))]),
        Scene("two cross, one behind the other", [
            one(2, (0, 60, 125), (8, 420, 125)), one(3, (0, 420, 150), (8, 60, 150))
        ]),
        Scene("two cross, side by side", [one(4, (0, 60, 60), (8, 420, 60)), one(5, (0, 420, 205), (8, 60, 205))]),
        Scene("one looks away four times", [
            one(6, (0, *middle), (10, *aside), away=[(1, 2), (3, 4.6), (6, 7), (8, 9)])
        ]),
        Scene("one leaves, is back after 2 s", [one(7, (0, *middle), (10, *middle), away=[(4, 6)])]),
        Scene("one leaves, is back after 4 s", [one(8, (0, *middle), (10, *middle), away=[(3, 7)])]),
        Scene("another steps in after 1 s", [one(0, (0, *middle), (4, *middle)), one(9, (5, *middle), (10, *middle))]),
        Scene("another steps in after 4 s", [one(1, (0, *middle), (3, *middle)), one(2, (7, *middle), (10, *middle))]),
        Scene("mask on, mask off", [Person([(3, bare), (7, masked), (99, bare)], [(0, *middle), (10, *aside)])]),
        Scene("five stand, one goes", [one(i, (0, *grid[i]), (4 if i == 2 else 10, *grid[i])) for i in range(5)]),
        Scene("ten stand and sway", [
            one(i, (0, x, y), (2.5, x + 10, y), (5, x - 8, y + 5), (7.5, x, y)) for i, (x, y) in enumerate(grid)
        ]),
    ]  # fmt: skip


class Stage:
    """A camera that plays scenes one after the other, each from a window's start, with nothing in between."""

    live = False

    def __init__(self, plays: Sequence[Scene], seed: int) -> None:
        self.drops: dict[str, int] = {}
        self.ended = False
        self.truth: dict[int, dict[tuple[str, int], tuple[float, float]]] = {}
        """Frame → (scene, person) → centre."""
        self.start: dict[str, float] = {}
        self._frames = self._play(plays, np.random.default_rng(seed))

    def _play(self, plays: Sequence[Scene], rng: np.random.Generator) -> Iterator[Frame]:
        index, began = 0, 0.0
        walls = [np.clip(room(SIZE) + rng.normal(0, 3, (*SIZE[::-1], 3)), 0, 255).astype(np.uint8) for _ in range(8)]
        for scene in plays:
            self.start[scene.name] = began
            for step in range(round(scene.seconds * FPS)):
                t = step / FPS
                canvas = walls[index % len(walls)].copy()  # a sensor's noise: no two frames alike
                places = {}
                for i, person in enumerate(scene.people):
                    if (centre := person.at(t)) is not None:
                        x, y = (v + rng.normal(0, 1) for v in centre)
                        place(canvas, person.face(t), HEIGHT, x, y)
                        places[scene.name, i] = x, y
                self.truth[index] = places
                yield Frame(canvas, began + t, index, 1 / FPS)
                index += 1
            began = WINDOW * (np.ceil((began + scene.seconds) / WINDOW) + 1)

    def read(self, timeout: float) -> Frame | None:  # noqa: ARG002 - the protocol's
        frame = next(self._frames, None)
        self.ended = frame is None
        return frame

    def close(self) -> None:
        self.ended = True


@dataclass(slots=True)
class Outcome:
    """What became of one scene."""

    name: str
    people: int
    person_windows: int
    votes: int
    switches: int
    """How often a person's track number changed."""
    nobodys: int
    """Votes of tracks that followed none of the people."""
    most: int
    """Most votes of one person in one window."""
    unseen: int
    """Person-windows without a vote."""
    routes: Counter[str] = field(default_factory=Counter)


class Ballot(Tracker):
    """The tracker, telling which track gave each vote."""

    cast: list[tuple[int, Vote]]

    def __init__(self, uncertain_below: Mapping[Route, float]) -> None:
        super().__init__(uncertain_below)
        type(self).cast = []

    def _vote(self, state: object) -> list[Vote]:
        votes = super()._vote(state)  # type: ignore[arg-type]
        self.cast.extend((state.number, vote) for vote in votes)  # type: ignore[attr-defined]
        return votes


def play(config: Config, plays: Sequence[Scene], seed: int = 0) -> list[Outcome]:
    """Run the service on the scenes; exact counts, windows of `WINDOW` seconds."""
    stage = Stage(plays, seed)
    followed: dict[int, Counter[tuple[str, int]]] = defaultdict(Counter)
    last: dict[tuple[str, int], int] = {}
    switches: Counter[str] = Counter()

    def watch(frame: Frame, tracks: Sequence[Track]) -> None:
        for who, (x, y) in stage.truth[frame.index].items():
            near = [(abs(t.box.centre[0] - x) + abs(t.box.centre[1] - y), t) for t in tracks]
            distance, track = min(near, key=lambda one: one[0], default=(np.inf, None))
            if track is None or distance > track.box.w / 2:
                continue
            followed[track.number][who] += 1
            if last.setdefault(who, track.number) != track.number:
                switches[who[0]] += 1
                last[who] = track.number

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # small frames: more threads only wait for each other
    with mock.patch.object(vision, "open_cameras", return_value=stage), mock.patch.object(pipeline, "Tracker", Ballot):
        service = vision.Vision(config, on_frame=watch)
        by_window: list[list[tuple[int, Vote]]] = []
        close = service._close

        def closing(end: float) -> None:
            close(end)
            by_window.append(list(Ballot.cast))
            Ballot.cast.clear()

        with mock.patch.object(service, "_close", closing):
            service.run()
    cv2.setNumThreads(threads)
    _check(config, by_window)
    return [_outcome(scene, stage, by_window, followed, switches) for scene in plays]


def _check(config: Config, by_window: Sequence[Sequence[object]]) -> None:
    """What was committed is what was counted here."""
    with Outbox(config.storage.outbox) as outbox:
        rows = [row.report().counts for row in outbox.unsent(10_000)]
    committed = [sum(cell or 0 for cells in counts.values() for cell in cells.values()) for counts in rows]
    assert committed == [len(votes) for votes in by_window]


def _outcome(
    scene: Scene,
    stage: Stage,
    by_window: Sequence[Sequence[tuple[int, Vote]]],
    followed: Mapping[int, Counter[tuple[str, int]]],
    switches: Counter[str],
) -> Outcome:
    first = round(stage.start[scene.name] / WINDOW)
    seen: Counter[tuple[int, int]] = Counter()
    for step in range(round(scene.seconds * FPS)):
        for i, person in enumerate(scene.people):
            if person.at(step / FPS) is not None:
                seen[first + int(step / FPS // WINDOW), i] += 1
    there = {key for key, frames in seen.items() if frames >= VISIBLE * FPS}
    given: Counter[tuple[int, int]] = Counter()
    nobodys, routes = 0, Counter[str]()
    # A track that was lost votes at most `DORMANT` seconds later: perhaps in the window after.
    for window in range(first, first + int(np.ceil(scene.seconds / WINDOW)) + 1):
        for number, vote in by_window[window] if window < len(by_window) else ():
            routes[vote.route] += 1
            if followed[number]:
                given[window, followed[number].most_common(1)[0][0][1]] += 1
            else:
                nobodys += 1
    return Outcome(
        scene.name,
        len(scene.people),
        len(there),
        sum(given.values()) + nobodys,
        switches[scene.name],
        nobodys,
        max(given.values(), default=0),
        sum(1 for key in there if not given[key]),
        routes,
    )


def exact(bundle: Path, folder: Path) -> Config:
    """A development configuration without noise, whose files lie in `folder`."""
    base = development(str(MATERIAL / "astronaut.png"), bundle.parent).model_dump()
    base["models"]["bundle"] = bundle
    base["storage"] = StorageSection(outbox=folder / "outbox.db", runtime=folder / "run").model_dump()
    base["window"] = {"seconds": WINDOW}
    base["privacy"] |= {"noise": "off", "min_count": 1}
    return Config.model_validate(base)


def main() -> None:
    """Print the table of docs/tracking.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    data = Path(os.environ.get("EDGE_DATA", "../shared/data"))
    bundle = development().models.bundle.resolve()
    total: dict[str, list[Outcome]] = defaultdict(list)
    for draw in range(args.draws):
        with tempfile.TemporaryDirectory() as folder:
            for outcome in play(exact(bundle, Path(folder)), scenes(strangers(10, draw, data)), draw):
                total[outcome.name].append(outcome)
    print("| scene | people × windows | votes | per person and window | most of one | without | nobody's | switches |")
    print("|---|---|---|---|---|---|---|---|")
    everything = [o for outcomes in total.values() for o in outcomes]
    for name, outcomes in [*total.items(), ("**all**", everything)]:
        windows, votes = (sum(getattr(o, key) for o in outcomes) for key in ("person_windows", "votes"))
        unseen, nobodys, switches = (
            sum(getattr(o, key) for o in outcomes) for key in ("unseen", "nobodys", "switches")
        )
        most = max(o.most for o in outcomes)
        print(f"| {name} | {windows} | {votes} | {votes / windows:.2f} | {most} | {unseen} | {nobodys} | {switches} |")
    print({name: sum((o.routes for o in outcomes), Counter()) for name, outcomes in total.items() if "mask" in name})


if __name__ == "__main__":
    main()
