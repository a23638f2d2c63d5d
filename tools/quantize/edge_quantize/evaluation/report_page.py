"""The evaluation as one self-contained HTML page: the sections of the Markdown report, each with its plots."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any, Final

from edge.types import CELLS, EMOTIONS, ROUTES
from edge_quantize.evaluation import report_plots as plots
from edge_quantize.training.run_folder import curves

if TYPE_CHECKING:
    from pathlib import Path

    from edge_quantize.evaluation.evaluate import Evaluation

GROUPS: Final = ("by_luminance_quartile", "by_sharpness_quartile", "by_yaw", "by_chin")
"""Groups of faces that are reported of both expression models."""
TITLES: Final = {"fer_unmasked": "unmasked", "fer_masked": "masked", "gate": "gate"}
_STYLE: Final = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h2{margin-top:2.5rem;border-bottom:1px solid #ccc}"
    "table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}"
    "td,th{border:1px solid #ccc;padding:.2rem .6rem;text-align:left}th{background:#f3f3f3}"
    "img{max-width:100%;margin:.5rem;vertical-align:top}"
)


def _inline(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))


def _section_html(lines: list[str]) -> str:
    """Turn the report's own Markdown (tables and paragraphs) into HTML."""
    out: list[str] = []
    table: list[list[str]] = []

    def flush() -> None:
        if table:
            head, *body = table
            out.append("<table><tr>" + "".join(f"<th>{c}</th>" for c in head) + "</tr>")
            out.extend("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in body)
            out.append("</table>")
            table.clear()

    for line in lines:
        if line.startswith("|"):
            cells = [_inline(cell.strip()) for cell in line.removeprefix("|").removesuffix("|").split("|")]
            if not all(set(cell) <= {"-"} for cell in cells):
                table.append(cells)
            continue
        flush()
        if line:
            out.append(f"<p>{_inline(line)}</p>")
    flush()
    return "\n".join(out)


def _expression(title: str, figure: dict[str, Any]) -> str:
    groups = ("by_kind", "by_mask_tone_quartile", *GROUPS)
    return plots.confusion(
        f"{title}, at the shipped threshold", figure["confusion_with_uncertain"], EMOTIONS, CELLS
    ) + "".join(
        plots.bars(f"{title}, {name.replace('_', ' ')}", {"": figure[name]}) for name in groups if name in figure
    )


def _curves(runs: Path | None) -> str:
    """Learning curves of every run that logged some, from its log.csv."""
    if runs is None:
        return ""
    drawn = ((path.parent.name, curves(path.parent)) for path in sorted(runs.glob("*/log.csv")))
    return "".join(
        f"<h3>{html.escape(name)}</h3>{plots.figure_png(figure, f'learning curves of {name}')}"
        for name, figure in drawn
        if figure is not None
    )


def to_html(done: Evaluation, sections: dict[str, tuple[str, list[str]]], runs: Path | None = None) -> str:
    """Render an evaluation as one HTML page without outside references.

    Args:
        done: what `evaluate` gave.
        sections: by key, the title and the Markdown lines of `report.sections`.
        runs: folder of training runs, for their learning curves.

    """
    report = done.report
    bare, worn, gate, mixture = (report[key] for key in ("fer_unmasked", "fer_masked", "gate", "mixture"))
    by_side = report["in_scene"]["by_side"]
    pictures = {
        "fer_unmasked": _expression("Unmasked", bare),
        "fer_masked": _expression("Masked", worn)
        + plots.reliability({"unmasked": bare["reliability"], "masked": worn["reliability"]}),
        "mixture": plots.bars("Mixture", {"": {"gate": mixture["gate"], "single": mixture["single"],
                                               "highest-probability": mixture["highest_probability"]}}),
        "gate": plots.confusion("Gate, synthetic masks", gate["synthetic"]["confusion"], ROUTES, ROUTES)
        + plots.confusion("Gate, real photographs", gate["real_held_out"]["confusion"], ROUTES, ROUTES),
        "public_c": plots.losses(report["public_c"], TITLES),
        "in_scene": plots.bars("Faces found, by side of the face",
                               {"": {side: one["recall"] for side, one in by_side.items()}}, "recall")
        + plots.bars("Faces found, by side of the face",
                     {"directly": {side: one["direct"] for side, one in by_side.items()},
                      "in the scene": {side: one["accuracy"] for side, one in by_side.items()}}),
    }  # fmt: skip
    for name, image in done.sheets.items():
        pictures[name] += plots.sheet(image, f"contact sheet of {name}")
    body = "".join(
        f"<h2>{html.escape(title)}</h2>{_section_html(lines)}{pictures.get(key, '')}"
        for key, (title, lines) in sections.items()
    )
    if done.mistakes:
        body += f"<h2>Surest mistakes of the unmasked net: true label → answer</h2>{plots.mistakes(done.mistakes)}"
    if learnt := _curves(runs):
        body += f"<h2>Learning curves</h2>{learnt}"
    title = html.escape(f"{report['bundle']}, made {report['created']}")
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n")  # fmt: skip
