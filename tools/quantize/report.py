"""The evaluation report: JSON for programs, Markdown for the repository, one self-contained HTML page for people."""

from __future__ import annotations

import base64
import html
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.types import CELLS, EMOTIONS, ROUTES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def _share(figure: dict[str, Any]) -> str:
    if figure["accuracy"] is None:
        return "no images"
    return f"{figure['accuracy']:.2%} ({figure['low']:.2%} to {figure['high']:.2%}) | {figure['n']}"


def _classes(figure: dict[str, Any]) -> list[str]:
    lines = ["", "| class | precision | recall | F1 | specificity | n |", "|---|---|---|---|---|---|"]
    for name, c in figure["classes"].items():
        cells = " | ".join(f"{c[key]:.3f}" for key in ("precision", "recall", "f1", "specificity"))
        lines.append(f"| {name} | {cells} | {c['n']} |")
    return [*lines, ""]


def _expression(title: str, figure: dict[str, Any]) -> list[str]:
    half = figure["half_b"]
    lines = [f"### {title}", "", "| what | accuracy (95 % Wilson) | n |", "|---|---|---|",
             f"| all | {_share(figure)} |", f"| without duplicated images | {_share(figure['without_duplicates'])} |",
             f"| against FER+ majority | {_share(figure['ferplus'])} |", f"| half B | {_share(half)} |",
             f"| half B, where not uncertain | {_share(half['accuracy_where_sure'])} |"]  # fmt: skip
    for name in ("by_kind", "by_mask_tone_quartile", "by_luminance_quartile"):
        words = name.removeprefix("by_").replace("_", " ")
        lines += [f"| {words}: {key} | {_share(value)} |" for key, value in figure.get(name, {}).items()]
    if "same_faces_unmasked" in figure:
        lines += [f"| the same faces unmasked | {_share(figure['same_faces_unmasked'])} |",
                  f"| the unmasked net on these | {_share(figure['unmasked_net_on_masked_faces'])} |"]  # fmt: skip
    bias = ", ".join(f"{float(true):.0%} reads {read:.1%}" for true, read in figure["happy_share_read"].items())
    return [*lines, "", (f"Macro-F1 {figure['macro_f1']:.3f}; calibration error {figure['ece']:.3f} (half B "
            f"{half['ece']:.3f}); uncertain on half B {half['uncertain_share']:.1%}. "
            f"A true share of happy faces of {bias}."),
            *_classes(figure)]  # fmt: skip


def to_markdown(report: dict[str, Any]) -> str:
    """Render the report as Markdown."""
    mixture, gate = report["mixture"], report["gate"]
    lines = [
        f"## {report['bundle']}, made {report['created']}",
        "",
        "int8 files as shipped, bare TFLite interpreter, device's crop. Age, sex and skin tone: **not measured**.",
        "",
    ]
    lines += _expression("Unmasked, PublicTest", report["fer_unmasked"])
    lines += _expression("Masked, frozen masked PublicTest", report["fer_masked"])
    lines += ["### Mixture: PublicTest, half of it masked", "",
              "| strategy | accuracy (95 % Wilson) | n |", "|---|---|---|",
              f"| gate | {_share(mixture['gate'])} |",
              f"| highest-probability | {_share(mixture['highest_probability'])} |",
              f"| single (unmasked net alone) | {_share(mixture['single'])} |", "",
              (f"The gate takes {mixture['time_ratio']:.2f} of the time of both nets (McNemar p between their answers "
              f"{mixture['mcnemar_p']:.3f})."), ""]  # fmt: skip
    real = gate["real_held_out"]
    lines += ["### Gate", "", "| what | accuracy (95 % Wilson) | n |", "|---|---|---|",
              f"| PublicTest, with and without synthetic masks | {_share(gate['synthetic'])} |",
              *(f"| masked faces found, {kind} | {_share(value)} |"
                for kind, value in gate["synthetic_by_kind"].items()),
              f"| crops of real photographs held out | {_share(real)} |",
              f"| by photograph | {_share(real['by_photo'])} |",
              f"| tight crops | {_share(real['tight'])} |",
              f"| loose crops | {_share(real['loose'])} |", ""]  # fmt: skip
    return "\n".join(lines)


def _picture(figure: Any) -> str:  # noqa: ANN401 - matplotlib's types are its own
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return f'<img alt="plot" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode("ascii")}">'


def _confusion_plot(title: str, table: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str]) -> str:
    import numpy as np
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


def to_html(report: dict[str, Any]) -> str:
    """Render the report as one HTML page without outside references."""
    bare, worn, gate, mixture = (report[key] for key in ("fer_unmasked", "fer_masked", "gate", "mixture"))
    plots = [
        _confusion_plot("Unmasked, at the shipped threshold", bare["confusion_with_uncertain"], EMOTIONS, CELLS),
        _confusion_plot("Masked, at the shipped threshold", worn["confusion_with_uncertain"], EMOTIONS, CELLS),
        _confusion_plot("Gate, real photographs held out", gate["real_held_out"]["confusion"], ROUTES, ROUTES),
        _reliability_plot({"unmasked": bare["reliability"], "masked": worn["reliability"]}),
        _bars("Masked faces by kind of mask", worn["by_kind"]),
        _bars("Mixture", {"gate": mixture["gate"], "highest-probability": mixture["highest_probability"],
                          "single": mixture["single"]}),
        _bars("Unmasked, by luminance quartile", bare["by_luminance_quartile"]),
    ]  # fmt: skip
    style = ("body{font:15px system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
             "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;"
             "text-align:left}img{max-width:100%;margin:.5rem}")  # fmt: skip
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(report["bundle"])}</title>'
            f"<style>{style}</style></head><body>{_table_html(to_markdown(report))}<h2>Plots</h2>{''.join(plots)}"
            "</body></html>\n")  # fmt: skip


def write(report: dict[str, Any], folder: Path) -> None:
    """Write report.json, report.md and report.html into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(to_markdown(report) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(to_html(report), encoding="utf-8")


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize evaluate`."""
    from edge_quantize.evaluate import evaluate

    report = evaluate(args.bundle)
    write(report, args.out)
    sys.stdout.write(json.dumps(report) + "\n" if args.json else to_markdown(report) + f"\nreport: {args.out}\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `evaluate`."""
    parser = subparsers.add_parser("evaluate", help="score a bundle's int8 files and write a report")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle folder, e.g. models/fer-2026.11")
    parser.add_argument("--out", type=Path, default=Path("build/report"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.set_defaults(func=command)
