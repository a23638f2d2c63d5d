"""The evaluation report: JSON for programs, Markdown for the repository, one self-contained HTML page for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2

from edge.types import CELLS, EMOTIONS
from edge_quantize.evaluation.corruptions import CORRUPTIONS
from edge_quantize.evaluation.report_page import GROUPS, TITLES, to_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_quantize.evaluation.evaluate import Evaluation

RUNS: Final = Path("build/train")
_TURNED: Final = (("worn", "masks as they sit"), ("never_seen", "families of masks never seen"))
_SHARE: Final = ("what", "accuracy (95 % Wilson)", "n")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _share(figure: dict[str, Any]) -> tuple[str, str]:
    if figure["accuracy"] is None:
        return "no images", "0"
    return f"{figure['accuracy']:.2%} ({figure['low']:.2%} to {figure['high']:.2%})", str(figure["n"])


def _lost(figure: dict[str, Any]) -> str:
    return f"{figure['loss_points']:.1f} ({figure['loss_low']:.1f} to {figure['loss_high']:.1f})"


def _models(figures: dict[str, Any]) -> list[str]:
    rows = []
    for role, one in figures.items():
        paired = one["int8_against_float"] or {}
        cells = [f"{paired[key]:{form}}" if key in paired else "not known" for key, form in
                 (("loss_points", ".2f"), ("mcnemar_p", ".3f"), ("ties", ".2%"))]  # fmt: skip
        counts = (f"{one[key]:,}" if one[key] else "not known" for key in ("params", "macs"))
        rows.append((TITLES.get(role, role), f"{one['bytes']:,}", *counts, *cells))
    head = ("model", "bytes", "parameters", "MACs", "points lost by int8, paired", "McNemar p", "ties in int8")
    return _table(head, rows)


def _expression(figure: dict[str, Any]) -> list[str]:
    half = figure["half_b"]
    rows = [("all", *_share(figure)), ("without duplicated images", *_share(figure["without_duplicates"])),
            ("against FER+ majority", *_share(figure["ferplus"])), ("half B", *_share(half)),
            ("half B, where not uncertain", *_share(half["accuracy_where_sure"]))]  # fmt: skip
    for name in ("by_kind", "by_mask_tone_quartile", *GROUPS):
        words = name.removeprefix("by_").replace("_", " ")
        rows += [(f"{words}: {key}", *_share(value)) for key, value in figure.get(name, {}).items()]
    for key, title in _TURNED if "as_they_sit" in figure else ():
        made = figure["as_they_sit"][key]
        rows += [(title, *_share(made)), (f"{title}, on faces that take a flat mask too", *_share(made["paired"])),
                 (f"{title}: these faces in flat masks", *_share(made["flat"])),
                 *((f"{title}, {name}", *_share(value)) for name, value in made["by_angle"].items())]  # fmt: skip
    if "same_faces_unmasked" in figure:
        rows += [("the same faces unmasked", *_share(figure["same_faces_unmasked"])),
                 ("the unmasked net on these", *_share(figure["unmasked_net_on_masked_faces"]))]  # fmt: skip
    bias = ", ".join(f"{float(true):.0%} reads {read:.1%}" for true, read in figure["happy_share_read"].items())
    classes = [(name, *(f"{c[key]:.3f}" for key in ("precision", "recall", "f1", "specificity")), str(c["n"]))
               for name, c in figure["classes"].items()]  # fmt: skip
    counts = [(name, *map(str, line))
              for name, line in zip(EMOTIONS, figure["confusion_with_uncertain"], strict=True)]  # fmt: skip
    return [*_table(_SHARE, rows),
            (f"Macro-F1 {figure['macro_f1']:.3f}; calibration error {figure['ece']:.3f} (half B {half['ece']:.3f}); "
            f"uncertain on half B {half['uncertain_share']:.1%}. A true share of happy faces of {bias}."), "",
            *_table(("class", "precision", "recall", "F1", "specificity", "n"), classes),
            "Confusion at the shipped threshold:", "", *_table(("true \\ answered", *CELLS), counts)]  # fmt: skip


def _mixture(figure: dict[str, Any]) -> list[str]:
    rows = [("gate", *_share(figure["gate"])), ("highest-probability", *_share(figure["highest_probability"])),
            ("single (unmasked net alone)", *_share(figure["single"])),
            ("sent by the gate to the right net", *_share(figure["routed_right"]))]  # fmt: skip
    return [*_table(("strategy", *_SHARE[1:]), rows),
            (f"The gate takes {figure['time_ratio']:.2f} of the time of both nets (McNemar p between their answers "
            f"{figure['mcnemar_p']:.3f})."), ""]  # fmt: skip


def _gate(figure: dict[str, Any]) -> list[str]:
    real = figure["real_held_out"]
    kinds = figure["synthetic_by_kind"].items()
    rows = [("PublicTest, with and without synthetic masks", *_share(figure["synthetic"])),
            *((f"masked faces found, {kind}", *_share(value)) for kind, value in kinds),
            ("crops of real photographs held out", *_share(real)), ("by photograph", *_share(real["by_photo"])),
            ("tight crops", *_share(real["tight"])), ("loose crops", *_share(real["loose"]))]  # fmt: skip
    for key, title in _TURNED:
        made = figure[key]
        rows += [(f"PublicTest and {title}", *_share(made["told_apart"])),
                 (f"{title}: masked faces found", *_share(made["found"]))]  # fmt: skip
        for part in ("by_family", "by_angle"):
            rows += [(f"{title}, {name}", *_share(value)) for name, value in made[part].items()]
    return _table(_SHARE, rows)


def _public_c(figures: dict[str, Any]) -> list[str]:
    clean, hurt = figures["fer_unmasked"]["clean"], figures["fer_unmasked"]["corruptions"]
    rows = [("clean", _share(clean)[0], "", f"{clean['sad_share']:.1%}")]
    rows += [(f"{name}: {words}", _share(hurt[name])[0], _lost(hurt[name]), f"{hurt[name]['sad_share']:.1%}")
             for name, (words, _) in CORRUPTIONS.items()]  # fmt: skip
    others = [role for role in figures if role != "fer_unmasked"]
    pairs = [(name, *(_lost(figures[role]["corruptions"][name]) for role in others)) for name in CORRUPTIONS]
    pairs += [(words, *(f"{figures[role][key]:.1f}" for role in others))
              for key, words in (("mean_loss", "**mean**"), ("worst_loss", "**worst**"))]  # fmt: skip
    heads = (f"{TITLES[role]}: points lost (95 %), n = {figures[role]['clean']['n']}" for role in others)
    whole = figures["fer_unmasked"]
    return [(f"Unmasked net, n = {clean['n']}: mean loss **{whole['mean_loss']:.1f}** points (aim: 2.5 at most), "
            f"worst **{whole['worst_loss']:.1f}** ({whole['worst']}; aim: 5 at most)."), "",
            *_table(("corruption", "accuracy (95 % Wilson)", "points lost (95 %)", "answered sad"), rows),
            *_table(("corruption", *heads), pairs)]  # fmt: skip


def _in_scene(figure: dict[str, Any]) -> list[str]:
    rows = [("faces found", *_share(figure["recall"])),
            ("right in the scene, of those found", *_share(figure["in_scene"])),
            ("right directly, the same faces", *_share(figure["direct"])),
            ("right directly, the faces not found", *_share(figure["not_found_direct"]))]  # fmt: skip
    sizes = [(side, _share(one["recall"])[0], str(one["recall"]["n"]), _share(one["direct"])[0],
              _share(one["accuracy"])[0], _lost(one) if one["accuracy"]["n"] else "no faces found")
             for side, one in figure["by_side"].items()]  # fmt: skip
    box = figure["median_box"]
    lost = f"Lost in the scene: **{_lost(figure)}** points" if figure["in_scene"]["n"] else "No faces were found"
    return [(f"{lost} (aim: 1.5 at most; McNemar p {figure['mcnemar_p']:.3f}). The box of `{figure['detector']}` is "
            f"{box['width']} of the face's side wide, its centre at {box['x']}, {box['y']} (medians)."), "",
            *_table(("what", "share (95 % Wilson)", "n"), rows),
            *_table(("side of the face", "found", "n", "right directly", "right in the scene", "points lost (95 %)"),
                    sizes)]  # fmt: skip


def _looks(times: dict[str, int]) -> list[str]:
    runs = ", ".join(f"{run} {n}" for run, n in times.items()) or "none"
    return [(f"Each look is a chance to choose by it. Training runs were scored on PublicTest {sum(times.values())} "
            f"times ({runs})."), ""]  # fmt: skip


def sections(report: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """Title and Markdown lines of each section of the report, by key."""
    unknown = ", ".join(report["not_measured"])
    out = {
        "models": ("Models", [
            "int8 files as shipped, bare TFLite interpreter, device's crop.", "", *_models(report["models"])]),
        "fer_unmasked": ("Unmasked, PublicTest", _expression(report["fer_unmasked"])),
        "fer_masked": ("Masked, frozen masked PublicTest", _expression(report["fer_masked"])),
        "mixture": ("Mixture: PublicTest, half of it masked", _mixture(report["mixture"])),
        "gate": ("Gate", _gate(report["gate"])),
        "public_c": ("PublicTest-C: what cameras do to faces", _public_c(report["public_c"])),
        "in_scene": ("PublicTest-in-scene: detector, crop, int8", _in_scene(report["in_scene"])),
        "not_measured": ("Not measured", [
            f"**Not measured:** {unknown}. The data do not say, and nothing was guessed.", ""]),
    }  # fmt: skip
    if "public_test_scored" in report:
        out["looks"] = ("Looks at PublicTest", _looks(report["public_test_scored"]))
    return out


def to_markdown(report: dict[str, Any]) -> str:
    """Render the report as Markdown."""
    parts = [f"## {report['bundle']}, made {report['created']}\n"]
    parts += ["\n".join([f"### {title}", "", *lines]) for title, lines in sections(report).values()]
    return "\n".join(parts)


def write(done: Evaluation, folder: Path, runs: Path | None = None) -> None:
    """Write report.json, report.md, report.html and the contact sheets into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(done.report, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(to_markdown(done.report), encoding="utf-8")
    (folder / "report.html").write_text(to_html(done, sections(done.report), runs), encoding="utf-8")
    for name, image in done.sheets.items():
        cv2.imwrite(str(folder / f"{name}.png"), image)


def looks(runs: Path) -> dict[str, int]:
    """How often each run was scored on PublicTest: every look at it is a chance to choose by it."""
    return {path.parent.relative_to(runs).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
            for path in sorted(runs.rglob("public_scores.jsonl"))}  # fmt: skip
