"""Charts as SVG text, drawn here: shapes and classes only, colours are the style sheet's, so that no script is needed.

Every chart has a title for screen readers; the page puts the table of its numbers behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_aggregate.figures import Figure

WIDTH: Final = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 36, 16, 46
"""Room for labels as large as the style sheet makes them on a phone, 26; on the right for half of the last."""


@dataclass(frozen=True, slots=True)
class Line:
    """A share over time with its band. `points` holds (label, index, low, high); None leaves a hole."""

    css: str
    points: Sequence[tuple[float | None, float | None, float | None]]


def line_chart(title: str, labels: Sequence[str], lines: Sequence[Line], unfinished: Sequence[bool]) -> Markup:
    """Shares from 0 to 1 over equal steps of time; steps that are not finished are hatched."""
    height, inner_w, inner_h = 268, WIDTH - _LEFT - _RIGHT, 268 - _TOP - _BOTTOM
    top = _ceiling([high for line in lines for _, _, high in line.points if high is not None])
    step = inner_w / max(1, len(labels))

    def x(at: int) -> float:
        return _LEFT + step * (at + 0.5)

    def y(share: float) -> float:
        return _TOP + inner_h * (1 - share / top)

    parts = [_grid(top, y)]
    for at, open_ in enumerate(unfinished):
        if open_:
            left = x(at) - step / 2
            parts.append(f'<rect class="unfinished" x="{left:.1f}" y="{_TOP}" width="{step:.1f}" height="{inner_h}"/>')
    for line in lines:
        for run in _runs(line.points):
            band = [(x(at), y(high or 0)) for at, (_, _, high) in run]
            band += [(x(at), y(low or 0)) for at, (_, low, _) in reversed(run)]
            parts.append(f'<polygon class="band {line.css}" points="{_points(band)}"/>')
            parts.append(
                f'<polyline class="line {line.css}" points="{_points([(x(at), y(i or 0)) for at, (i, _, _) in run])}"/>'
            )
            parts += [
                f'<circle class="dot {line.css}" cx="{x(at):.1f}" cy="{y(i or 0):.1f}" r="2.5"/>'
                for at, (i, _, _) in run
            ]
    every = max(1, -(-len(labels) // 8))
    for at in range(0, len(labels), every):
        spare = ' class="wide"' if at // every % 2 else ""  # on a phone there is room for every other
        parts.append(f'<text{spare} x="{x(at):.1f}" y="{height - 6}" text-anchor="middle">{escape(labels[at])}</text>')
    return _svg(title, height, parts)


def _runs(
    points: Sequence[tuple[float | None, float | None, float | None]],
) -> list[list[tuple[int, tuple[float | None, float | None, float | None]]]]:
    """Stretches without a hole."""
    runs: list[list[tuple[int, tuple[float | None, float | None, float | None]]]] = [[]]
    for at, point in enumerate(points):
        if point[0] is None:
            runs.append([])
        else:
            runs[-1].append((at, point))
    return [run for run in runs if run]


def bar_chart(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> Markup:
    """Rows of shares that add up to 1, side by side. Each row: its name, and (class, share) from left to right."""
    height, inner = 12 + 40 * len(rows), WIDTH - 150
    parts = []
    for at, (name, shares) in enumerate(rows):
        left, top = 146.0, 8 + 40 * at
        parts.append(f'<text class="side" x="140" y="{top + 15}">{escape(name)}</text>')
        for css, share in shares:
            width = max(0.0, share) * inner
            parts.append(f'<rect class="mix {css}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="30"/>')
            left += width
    return _svg(title, height, parts)


def heat_map(title: str, rows: Sequence[tuple[str, Sequence[float | None]]]) -> Markup:
    """24 columns a row; darker is more, of what the cells hold between their least and their most."""
    known = [value for _, cells in rows for value in cells if value is not None]
    least, most = (min(known), max(known)) if known else (0.0, 1.0)
    cell, left = (WIDTH - 78) / 24, 70.0
    parts = [
        f'<text x="{left + cell * (hour + 0.5):.1f}" y="24" text-anchor="middle">{hour}</text>'
        for hour in range(0, 24, 3)
    ]
    for at, (name, cells) in enumerate(rows):
        top = 32 + 28 * at
        parts.append(f'<text class="side" x="64" y="{top + 13}">{escape(name)}</text>')
        for hour, value in enumerate(cells):
            shade = "none" if value is None else str(min(8, int(9 * (value - least) / ((most - least) or 1))))
            parts.append(
                f'<rect class="heat h-{shade}" x="{left + cell * hour:.1f}" y="{top}"'
                f' width="{cell - 1.5:.1f}" height="26"/>'
            )
    return _svg(title, 36 + 28 * len(rows), parts)


def band_bar(figure: Figure) -> Markup:
    """A share and its band in the width of a table cell; the number stands beside it."""
    if figure.index is None or figure.low is None or figure.high is None:
        return Markup("")
    low, high, at = (100 * share for share in (figure.low, figure.high, figure.index))
    return Markup(  # noqa: S704 - numbers
        '<svg class="spark" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" x="0" y="5" width="100" height="2"/>'
        f'<rect class="reach" x="{low:.2f}" y="3" width="{max(high - low, 0.6):.2f}" height="6"/>'
        f'<rect class="point" x="{max(at - 0.6, 0):.2f}" y="0" width="1.2" height="12"/></svg>'
    )


def _ceiling(values: Sequence[float]) -> float:
    """The end of the scale: a fifth above the greatest, in steps of a tenth."""
    most = max(values, default=0.5)
    return min(1.0, max(0.1, -(-most * 11 // 1) / 10))


def _grid(top: float, y: object) -> str:
    lines = []
    for tenth in range(int(top * 10) + 1):
        if top > 0.5 and tenth % 2:
            continue
        at = y(tenth / 10)  # type: ignore[operator]
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        lines.append(f'<text class="side" x="{_LEFT - 6}" y="{at:.1f}">{10 * tenth} %</text>')
    return "".join(lines)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _svg(title: str, height: int, parts: Sequence[str]) -> Markup:
    return Markup(  # noqa: S704 - numbers, names of classes, and texts that were escaped
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
