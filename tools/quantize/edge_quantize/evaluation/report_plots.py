"""The plots of the evaluation report, each a picture that an HTML page holds within itself."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from matplotlib.figure import Figure

from edge_quantize.evaluation import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.types import U8
    from edge_quantize.evaluation.mistakes import Mistake

WORST_LOSS: Final = 8
"""Points that any corruption of PublicTest-C may cost at most."""
_BLUE, _ORANGE = "#4c78a8", "#f58518"


def png(data: bytes, alt: str) -> str:
    """Put the bytes of a PNG file into an HTML element."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'


def sheet(image: U8, alt: str) -> str:
    """Contact sheet, grey or BGR, as an HTML element."""
    return png(cv2.imencode(".png", image)[1].tobytes(), alt)


def figure_png(figure: Any, alt: str) -> str:  # noqa: ANN401 - matplotlib's types are its own
    """Put a matplotlib figure into an HTML element."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return png(buffer.getvalue(), alt)


def confusion(title: str, table: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str]) -> str:
    """Confusion matrix: counts, coloured by the share of their row."""
    counts = np.array(table, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.4 + 0.72 * len(columns), 1.2 + 0.6 * len(rows)))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("answered")
    axes.set_ylabel("true")
    axes.set_title(title)
    for y, line in enumerate(counts):
        for x, count in enumerate(line):
            axes.text(x, y, f"{int(count)}", ha="center", va="center", fontsize=8,
                      color="white" if shares[y, x] > 0.55 else "black")  # fmt: skip
    return figure_png(figure, title)


def reliability(series: dict[str, list[dict[str, float]]]) -> str:
    """Reliability diagram: share right against the probability stated, 95 % Wilson."""
    figure = Figure(figsize=(5, 4.6))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    for name, bins in series.items():
        right = np.array([one["accuracy"] for one in bins])
        spans = np.array([metrics.wilson(round(one["accuracy"] * one["n"]), int(one["n"])) for one in bins])
        axes.errorbar([one["confidence"] for one in bins], right, yerr=_around(right, spans[:, 0], spans[:, 1]),
                      marker="o", markersize=4, linewidth=1, capsize=2, label=name)  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("probability stated")
    axes.set_ylabel("share right")
    axes.set_title("Reliability (95 % Wilson)")
    axes.legend()
    return figure_png(figure, "reliability diagram")


def _around(values: Any, low: Any, high: Any) -> Any:  # noqa: ANN401 - rows of numbers
    """Error bars (2, N). Rounded figures may lie a hair outside their own interval when all answers are right."""
    middle = np.asarray(values, float)
    return np.maximum(0.0, [middle - np.asarray(low, float), np.asarray(high, float) - middle]).tolist()


def bars(title: str, series: dict[str, dict[str, dict[str, Any]]], label: str = "accuracy") -> str:
    """Shares with their intervals by name, one colour a series; names without images are left out."""
    names = list(dict.fromkeys(n for one in series.values() for n, f in one.items() if f["accuracy"] is not None))
    figure = Figure(figsize=(6, 0.9 + (0.2 + 0.2 * len(series)) * len(names)))
    axes = figure.subplots()
    height = 0.8 / len(series)
    for k, (what, one) in enumerate(series.items()):
        shown = [one[name] for name in names]
        values = [f["accuracy"] for f in shown]
        places = np.arange(len(names)) + (k - (len(series) - 1) / 2) * height
        axes.barh(places, values, xerr=_around(values, [f["low"] for f in shown], [f["high"] for f in shown]),
                  height=height, capsize=2, color=(_BLUE, _ORANGE)[k % 2], label=what)  # fmt: skip
    axes.set_yticks(range(len(names)), [f"{name} (n {next(iter(series.values()))[name]['n']})" for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"{label} (95 % Wilson)")
    axes.set_title(title)
    if len(series) > 1:
        axes.legend(fontsize=8)
    return figure_png(figure, title)


def losses(public_c: dict[str, Any], words: dict[str, str]) -> str:
    """Points lost to each corruption, by role; `words` names the roles."""
    names = list(next(iter(public_c.values()))["corruptions"])
    figure = Figure(figsize=(7.5, 0.9 + 0.45 * len(names)))
    axes = figure.subplots()
    height = 0.8 / len(public_c)
    for k, (role, one) in enumerate(public_c.items()):
        shown = [one["corruptions"][name] for name in names]
        values = [f["loss_points"] for f in shown]
        places = np.arange(len(names)) + (k - (len(public_c) - 1) / 2) * height
        span = _around(values, [f["loss_low"] for f in shown], [f["loss_high"] for f in shown])
        axes.barh(places, values, xerr=span, height=height, error_kw={"linewidth": 0.8}, label=words[role])
    axes.axvline(WORST_LOSS, color="0.4", linewidth=1, linestyle=":")
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("points of accuracy lost, 95 % interval (dotted: the most allowed)")
    axes.set_title("PublicTest-C")
    axes.legend(fontsize=8)
    return figure_png(figure, "points lost by corruption")


def mistakes(shown: Sequence[Mistake], columns: int = 12) -> str:
    """Contact sheet of mistakes: true label, answer, probability."""
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(columns * 1.05, rows * 1.45))
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, one in zip(grid.flat, shown, strict=False):
        axes.imshow(one.face, cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{one.true}\n→ {one.said} {one.probability:.2f}", fontsize=7)
    return figure_png(figure, "surest mistakes")
