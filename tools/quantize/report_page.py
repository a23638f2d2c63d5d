"""The evaluation as one self-contained HTML page: the tables of the Markdown report, and plots."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.types import CELLS, EMOTIONS, ROUTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edge_quantize.mistakes import Mistake


GROUPS = ("by_luminance_quartile", "by_sharpness_quartile", "by_yaw", "by_chin")
"""Groups of faces that are drawn as bars."""


def _picture(figure: Any) -> str:  # noqa: ANN401 - matplotlib's types are its own
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return _png(buffer.getvalue())


def _png(data: bytes) -> str:
    return f'<img alt="plot" src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'


def _confusion_plot(title: str, table: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str]) -> str:
    from matplotlib.figure import Figure

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
    return _picture(figure)


def _reliability_plot(series: dict[str, list[dict[str, float]]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, bins in series.items():
        axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], marker="o", markersize=3, label=name)
    axes.set_xlabel("probability stated")
    axes.set_ylabel("share right")
    axes.set_title("Reliability")
    axes.legend()
    return _picture(figure)


def _bars(title: str, figures: dict[str, dict[str, Any]]) -> str:
    from matplotlib.figure import Figure

    shown = {name: f for name, f in figures.items() if f["accuracy"] is not None}
    figure = Figure(figsize=(6, 0.6 + 0.34 * len(shown)))
    axes = figure.subplots()
    values = [f["accuracy"] for f in shown.values()]
    # Rounded figures may lie a hair outside their own interval when all answers are right.
    errors = [[max(0.0, f["accuracy"] - f["low"]) for f in shown.values()],
              [max(0.0, f["high"] - f["accuracy"]) for f in shown.values()]]  # fmt: skip
    axes.barh(range(len(shown)), values, xerr=errors, color="#4c78a8", height=0.7, capsize=2)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_title(title + " (accuracy, 95 % Wilson)")
    return _picture(figure)


def _table_html(markdown: str) -> str:
    """Turn this module's own Markdown (headings, tables, paragraphs) into HTML."""
    out: list[str] = []
    table: list[list[str]] = []

    def flush() -> None:
        if table:
            head, *body = table
            out.append("<table><tr>" + "".join(f"<th>{c}</th>" for c in head) + "</tr>")
            out.extend("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in body)
            out.append("</table>")
            table.clear()

    for raw in markdown.splitlines():
        line = html.escape(raw).replace("**not measured**", "<b>not measured</b>")
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not all(set(cell) <= {"-"} for cell in cells):
                table.append(cells)
            continue
        flush()
        if line.startswith("### "):
            out.append(f"<h2>{line[4:]}</h2>")
        elif line.startswith("## "):
            out.append(f"<h1>{line[3:]}</h1>")
        elif line:
            out.append(f"<p>{line}</p>")
    flush()
    return "\n".join(out)


def _loss_plot(public_c: dict[str, Any]) -> str:
    """Points lost to each corruption, by model."""
    from matplotlib.figure import Figure

    names = list(next(iter(public_c.values()))["corruptions"])
    figure = Figure(figsize=(7.5, 0.8 + 0.42 * len(names)))
    axes = figure.subplots()
    height = 0.8 / len(public_c)
    for k, (role, one) in enumerate(public_c.items()):
        places = np.arange(len(names)) + (k - (len(public_c) - 1) / 2) * height
        axes.barh(places, [one["corruptions"][n]["loss_points"] for n in names], height=height, label=role)
    axes.axvline(8, color="0.5", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("points of accuracy lost (dotted: the most allowed)")
    axes.set_title("PublicTest-C")
    axes.legend()
    return _picture(figure)


def _mistakes_plot(mistakes: Sequence[Mistake], columns: int = 12) -> str:
    """Contact sheet of the surest mistakes."""
    from matplotlib.figure import Figure

    rows = -(-len(mistakes) // columns)
    figure = Figure(figsize=(columns * 1.05, rows * 1.45))
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, one in zip(grid.flat, mistakes, strict=False):
        axes.imshow(one.face, cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{one.true}\n→ {one.said} {one.probability:.2f}", fontsize=7)
    return _picture(figure)


def _curves(runs: Path) -> str:
    """Learning curves that finished runs left, one picture a run."""
    return "".join(
        f"<h3>{html.escape(path.parent.name)}</h3>{_png(path.read_bytes())}"
        for path in sorted(runs.glob("*/curves.png"))
    )


def to_html(report: dict[str, Any], markdown: str, mistakes: Sequence[Mistake] = (), runs: Path | None = None) -> str:
    """Render the report as one HTML page without outside references.

    `markdown` is its text, `mistakes` are shown as a contact sheet, `runs` is the folder of training runs.
    """
    bare, worn, gate, mixture = (report[key] for key in ("fer_unmasked", "fer_masked", "gate", "mixture"))
    plots = [
        _confusion_plot("Unmasked, at the shipped threshold", bare["confusion_with_uncertain"], EMOTIONS, CELLS),
        _confusion_plot("Masked, at the shipped threshold", worn["confusion_with_uncertain"], EMOTIONS, CELLS),
        _confusion_plot("Gate, real photographs held out", gate["real_held_out"]["confusion"], ROUTES, ROUTES),
        _reliability_plot({"unmasked": bare["reliability"], "masked": worn["reliability"]}),
        _bars("Masked faces by kind of mask", worn["by_kind"]),
        _bars("Mixture", {"gate": mixture["gate"], "highest-probability": mixture["highest_probability"],
                          "single": mixture["single"]}),
        *(_bars(f"Unmasked, {name.replace('_', ' ')}", bare[name]) for name in GROUPS if name in bare),
        _loss_plot(report["public_c"]),
        _bars("Detector's recall in scenes, by side of the face",
              {side: one["recall"] for side, one in report["in_scene"]["by_side"].items()}),
    ]  # fmt: skip
    tail = f"<h2>Surest mistakes, unmasked</h2>{_mistakes_plot(mistakes)}" if mistakes else ""
    if runs is not None and (curves := _curves(runs)):
        tail += f"<h2>Learning curves</h2>{curves}"
    style = ("body{font:15px system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
             "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;"
             "text-align:left}img{max-width:100%;margin:.5rem}")  # fmt: skip
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(report["bundle"])}</title>'
            f"<style>{style}</style></head><body>{_table_html(markdown)}<h2>Plots</h2>{''.join(plots)}"
            f"{tail}</body></html>\n")  # fmt: skip
