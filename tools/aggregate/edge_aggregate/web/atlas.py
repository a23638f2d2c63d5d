"""Places on a map: a vendored outline of the land where it is fine enough, dots coloured by their share.

The outline is Natural Earth's at 1:110 million (public domain) as packed by world-atlas 2.0.2 (ISC, see
`land-110m-LICENSE`), in TopoJSON: https://github.com/topojson/topojson-specification.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 720
HEIGHT: Final = 400
LABELLED: Final = (("wide", 20.0), ("narrow", 26.0))
"""Classes of labels, of which the style sheet shows one, and as large as it makes them at the most."""
EM: Final = 0.64
"""Of a label's size: how wide a character is, in a wide typeface."""
GAP: Final = 13
"""Between a dot's middle and its label."""
MOST_ROWS: Final = 4
"""That a label may lie beneath its dot."""
LABELS: Final = 60
"""More could not be read, nor found room: dots say their names then to whoever points at them, or hears the page."""
COARSE_DEGREES: Final = 3.0
"""Below, the outline would say nothing: a kilometre scale is drawn instead."""

Ring = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Dot:
    """A place: where it is (degrees), what it is called, where it leads, and its share (None: none)."""

    latitude: float
    longitude: float
    name: str
    link: str
    share: float | None


@cache
def _land() -> list[Ring]:
    """The outline's rings, (longitude, latitude) in degrees. One that crosses 180° goes on beyond it."""
    topology = json.loads(files("edge_aggregate.web").joinpath("land-110m.json").read_text())
    (sx, sy), (tx, ty) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs: list[Ring] = []
    for packed in topology["arcs"]:
        x = y = 0
        arc = []
        for dx, dy in packed:
            x, y = x + dx, y + dy
            arc.append((x * sx + tx, y * sy + ty))
        arcs.append(arc)
    rings = []
    for geometry in topology["objects"]["land"]["geometries"]:
        for polygon in geometry["arcs"]:
            for ring in polygon:
                points: Ring = []
                for number in ring:
                    points += arcs[number] if number >= 0 else arcs[~number][::-1]
                rings.append(_unrolled(points))
    return rings


def _unrolled(ring: Ring) -> Ring:
    """Without the jump at 180°, which would be drawn right across the map; Antarctica is closed around its pole."""
    points, turns = ring[:1], 0
    for (before, _), (x, y) in pairwise(ring):
        turns += (before - x > 180) - (x - before > 180)
        points.append((x + 360 * turns, y))
    if turns:
        points += [(points[-1][0], -90.0), (points[0][0], -90.0)]
    return points


@dataclass(frozen=True, slots=True)
class _View:
    """What the map shows: its middle in degrees, how much narrower a degree is there, pixels a degree of latitude."""

    longitude: float
    latitude: float
    narrow: float
    scale: float

    def at(self, longitude: float, latitude: float) -> tuple[float, float]:
        """Where a place is, in pixels."""
        return (
            WIDTH / 2 + (longitude - self.longitude) * self.narrow * self.scale,
            HEIGHT / 2 - (latitude - self.latitude) * self.scale,
        )


@lru_cache(maxsize=8)
def _outline(view: _View) -> str:
    """The land, drawn once for a view: places stay where they are."""
    reach_x, reach_y = WIDTH / view.scale / view.narrow, WIDTH / view.scale
    parts = []
    for ring in ([(x + turn, y) for x, y in ring] if turn else ring for ring in _land() for turn in (-360, 0, 360)):
        if any(abs(x - view.longitude) < reach_x and abs(y - view.latitude) < reach_y for x, y in ring):
            path = "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(view.at(*p) for p in ring))
            parts.append(f'<path class="land" d="{path}Z"/>')
    return "".join(parts)


class _Labels:
    """Labels of one size, each beside its dot, or under those that are there already."""

    def __init__(self, css: str, size: float, places: Sequence[tuple[float, float]]) -> None:
        self._css, self._size = css, size
        self._taken = [(0.0, WIDTH / 4, HEIGHT - 20.0, size), *((x - 8, x + 8, y + 4, 0.7 * size) for x, y in places)]
        """Left, right, baseline, and how near another's may come: of the scale bar, of dots, of labels."""

    def beside(self, x: float, y: float, text: str) -> str:
        """A label for a dot; none where it would lie so far away that it would be taken for another's."""
        width, beneath = EM * self._size * len(text), max(y + 4, self._size)
        ends = x > WIDTH * 0.6 or (x + GAP + width > WIDTH and x - GAP - width > 0)
        side, at = ("end", x - GAP) if ends else ("start", x + GAP)
        left = at - width if ends else at
        while any(abs(beneath - low) < near and a < left + width and left < b for a, b, low, near in self._taken):
            beneath += self._size
        if beneath > min(HEIGHT - 4, y + 4 + MOST_ROWS * self._size):
            return ""
        self._taken.append((left, left + width, beneath, self._size))
        return f'<text class="{self._css}" x="{at:.1f}" y="{beneath:.1f}" text-anchor="{side}">{escape(text)}</text>'


def draw(title: str, dots: Sequence[Dot]) -> Markup:
    """The map that holds all dots with room around them. Raises ValueError without dots."""
    south, north = min(d.latitude for d in dots), max(d.latitude for d in dots)
    west, east = min(d.longitude for d in dots), max(d.longitude for d in dots)
    middle = (west + east) / 2, (south + north) / 2
    narrow = math.cos(math.radians(middle[1])) or 1.0
    span = max((east - west) * narrow * 1.3, (north - south) * 1.3 * WIDTH / HEIGHT, 0.02)
    view = _View(*middle, narrow, WIDTH / span)
    parts = [_outline(view) if span >= COARSE_DEGREES else "", _scale_bar(view.scale)]
    places = {view.at(dot.longitude, dot.latitude) for dot in dots} if len(dots) <= LABELS else ()
    layouts = [_Labels(css, size, tuple(places)) for css, size in LABELLED]
    for dot in sorted(dots, key=lambda d: -d.latitude):
        x, y = view.at(dot.longitude, dot.latitude)
        link, name = escape(dot.link), escape(dot.name)
        shade = "none" if dot.share is None else str(min(8, int(dot.share * 9)))
        share = "no figure" if dot.share is None else f"{100 * dot.share:.0f} %"
        if len(dots) > LABELS:
            parts.append(
                f'<a href="{link}" aria-label="{name}: {share}"><title>{name} {share}</title>'
                f'<circle class="place h-{shade}" cx="{x:.1f}" cy="{y:.1f}" r="4"/></a>'
            )
            continue
        labels = "".join(layout.beside(x, y, f"{dot.name} {share}") for layout in layouts)
        parts.append(
            f'<a href="{link}" aria-label="{name}: {share}"><title>{name} {share}</title>'
            f'<circle class="place h-{shade}" cx="{x:.1f}" cy="{y:.1f}" r="7"/>{labels}</a>'
        )
    return Markup(  # noqa: S704 - numbers, and texts that were escaped
        f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _scale_bar(scale: float) -> str:
    """A length of 1, 2 or 5 times a power of ten kilometres, about a fifth of the width."""
    km = 111.2 * (WIDTH / 5) / scale
    power = 10 ** math.floor(math.log10(km))
    length = power * max(step for step in (1, 2, 5) if step * power <= km)
    pixels = length / 111.2 * scale
    return (
        f'<line class="rule" x1="16" x2="{16 + pixels:.1f}" y1="{HEIGHT - 14}" y2="{HEIGHT - 14}"/>'
        f'<text x="16" y="{HEIGHT - 20}">{length:g} km</text>'
    )
