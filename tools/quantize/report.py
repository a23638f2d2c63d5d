"""The evaluation report: JSON for programs, Markdown for the repository, one self-contained HTML page for people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_quantize.corruptions import CORRUPTIONS
from edge_quantize.report_page import GROUPS, to_html

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from edge_quantize.mistakes import Mistake


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
    for name in ("by_kind", "by_mask_tone_quartile", *GROUPS):
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
    lines += _public_c(report["public_c"]) + _in_scene(report["in_scene"])
    if "public_test_scored" in report:
        times = ", ".join(f"{run} {n}" for run, n in report["public_test_scored"].items())
        lines += ["### Looks at PublicTest", "", f"Finished runs scored on it, by run folder: {times}.", ""]
    return "\n".join(lines)


def _public_c(figures: dict[str, Any]) -> list[str]:
    """PublicTest-C, a row a corruption."""
    roles = list(figures)
    head = "| corruption | " + " | ".join(roles) + " | answered sad (unmasked) |"
    lines = ["### PublicTest-C: points lost to what cameras do", "", head, "|---|" + "---|" * (len(roles) + 1)]
    for name, (words, _) in CORRUPTIONS.items():
        losses = " | ".join(f"{figures[role]['corruptions'][name]['loss_points']:.1f}" for role in roles)
        lines.append(f"| {name}: {words} | {losses} | "
                     f"{figures['fer_unmasked']['corruptions'][name]['sad_share']:.1%} |")  # fmt: skip
    for key, words in (("mean_loss", "mean"), ("worst_loss", "worst")):
        lines.append(f"| **{words}** | " + " | ".join(f"**{figures[role][key]:.1f}**" for role in roles) + " | |")
    n = next(iter(figures["fer_unmasked"]["corruptions"].values()))["n"]
    return [*lines, "", f"n = {n} unmasked faces; a loss of a point or less is within the interval.", ""]


def _in_scene(figure: dict[str, Any]) -> list[str]:
    """PublicTest-in-scene."""
    lines = ["### PublicTest-in-scene: detector, crop, int8", "", "| what | share (95 % Wilson) | n |", "|---|---|---|",
             f"| faces found | {_share(figure['recall'])} |",
             f"| right, of those found, in the scene | {_share(figure['in_scene'])} |",
             f"| right, the same faces directly | {_share(figure['direct'])} |"]  # fmt: skip
    for side, one in figure["by_side"].items():
        lines += [f"| found at {side} | {_share(one['recall'])} |", f"| right at {side} | {_share(one['accuracy'])} |"]
    box = figure["median_box"]
    return [*lines, "", (f"Lost in the scene: {figure['loss_points']} points (McNemar p {figure['mcnemar_p']:.3f}). "
            f"The detector's box is {box['width']} of the face's side wide, its centre at {box['x']}, {box['y']} "
            "(medians)."), ""]  # fmt: skip


def write(report: dict[str, Any], folder: Path, mistakes: Sequence[Mistake] = (), runs: Path | None = None) -> None:
    """Write report.json, report.md and report.html into `folder`."""
    markdown = to_markdown(report)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown + "\n", encoding="utf-8")
    (folder / "report.html").write_text(to_html(report, markdown, mistakes, runs), encoding="utf-8")


def looks(runs: Path) -> dict[str, int]:
    """How often each run was scored on PublicTest: every look at it is a chance to choose by it."""
    return {path.parent.name: len(path.read_text(encoding="utf-8").splitlines())
            for path in sorted(runs.glob("*/public_scores.jsonl"))}  # fmt: skip


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize evaluate`."""
    from edge_quantize.evaluate import evaluate

    report, mistakes = evaluate(args.bundle)
    if args.runs.is_dir():
        report["public_test_scored"] = looks(args.runs)
    write(report, args.out, mistakes, args.runs)
    sys.stdout.write(json.dumps(report) + "\n" if args.json else to_markdown(report) + f"\nreport: {args.out}\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `evaluate`."""
    parser = subparsers.add_parser("evaluate", help="score a bundle's int8 files and write a report")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle folder, e.g. models/fer-2026.11")
    parser.add_argument("--out", type=Path, default=Path("build/report"))
    parser.add_argument("--runs", type=Path, default=Path("build/train"), help="training runs, for their curves")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.set_defaults(func=command)
