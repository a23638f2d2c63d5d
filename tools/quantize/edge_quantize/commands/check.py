"""`edge-quantize check`: what the Edge TPU compiler would map of models, and do they stay on the chip together."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.bundle.manifest import load_bundle
from edge_quantize.edgetpu.budget import place, room
from edge_quantize.edgetpu.checker import check_file

if TYPE_CHECKING:
    import argparse

    from edge.bundle.manifest import Bundle
    from edge_quantize.edgetpu.budget import Share
    from edge_quantize.edgetpu.checker import Report

HOTTEST_FIRST: Final = ("detector", "gate", "fer_unmasked", "fer_masked")
"""By how often they run: on every frame, on every face, on the faces of one route."""
NOT_ALL: Final = 3
"""Exit code with --strict when something is left to the CPU or streamed."""


def hottest_first(bundle: Bundle) -> list[str]:
    """Roles in the order in which they are compiled together: the last one's parameters are streamed first."""
    return sorted((model.role for model in bundle.manifest.models), key=HOTTEST_FIRST.index)


def _files(paths: list[Path]) -> list[Path]:
    """Files as given, a bundle's folder standing for its models."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            bundle = load_bundle(path)
            files += [bundle.path(role) for role in hottest_first(bundle)]
        else:
            files.append(path)
    return files


def _verdict(streamed: int) -> str:
    return "streaming" if streamed else "resident"


def _as_json(path: Path, report: Report, share: Share) -> dict[str, Any]:
    return {
        "file": str(path),
        "ops": len(report.findings),
        "mapped": report.mapped,
        "cpu_ops": report.cpu_ops,
        "refused": report.refused,
        "operators": [
            {"name": f.name, "version": f.version, "mapped": f.mapped, "status": f.status, "why": f.why or None}
            for f in report.findings
        ],
        "weight_bytes": report.need.weights,
        "parameter_bytes": report.need.parameters,
        "activation_bytes": report.need.activations,
        "on_chip_bytes": share.on_chip,
        "streamed_bytes": share.streamed,
        "verdict": _verdict(share.streamed),
    }


def _together(models: list[dict[str, Any]], usable: int) -> dict[str, Any]:
    """The answer for all files: of one file, its own figures."""
    total: dict[str, Any] = {
        key: sum(model[key] for model in models) for key in ("ops", "mapped", "on_chip_bytes", "streamed_bytes")
    }
    return {
        **total,
        "cpu_ops": [name for model in models for name in model["cpu_ops"]],
        "usable_bytes": usable,
        "verdict": _verdict(total["streamed_bytes"]),
        "models": models,
    }


def _rows(report: Report) -> list[str]:
    """Like the compiler's log: operators of one name and status together, in order of appearance."""
    counts: dict[tuple[str, str], int] = {}
    for finding in report.findings:
        text = finding.status + (f": {finding.why}" if finding.why else "")
        counts[finding.name, text] = counts.get((finding.name, text), 0) + 1
    return [f"  {count:4} × {name:30} {text}" for (name, text), count in counts.items()]


def _lines(path: Path, report: Report, share: Share, *, every: bool) -> list[str]:
    lines = [f"{path}: {report.mapped} of {len(report.findings)} operators on the Edge TPU"]
    if report.refused:
        lines.append(f"  the compiler refuses the file: {report.refused}")
    if every:
        lines += [
            f"  {number:4}  {f.name:30} {f.status}{': ' + f.why if f.why else ''}"
            for number, f in enumerate(report.findings)
        ]
    else:
        lines += _rows(report)
    need = report.need
    lines.append(
        f"  parameters {need.parameters:,} bytes (weights {need.weights:,}), activations up to {need.activations:,}; "
        f"{share.on_chip:,} on the chip, {share.streamed:,} streamed at every inference: {_verdict(share.streamed)}"
    )
    return lines


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize check`."""
    files = _files(args.files)
    reports = [check_file(path) for path in files]
    needs = [report.need for report in reports]
    shares = place(needs)
    found = list(zip(files, reports, shares, strict=True))
    answer = _together([_as_json(*one) for one in found], room(needs))
    if args.json:
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    else:
        lines = [line for one in found for line in _lines(*one, every=args.ops)]
        lines.append(
            f"together: {answer['mapped']} of {answer['ops']} operators mapped, {answer['on_chip_bytes']:,} of "
            f"{answer['usable_bytes']:,} bytes on the chip, {answer['streamed_bytes']:,} streamed: {answer['verdict']}"
        )
        sys.stdout.write("\n".join(lines) + "\n")
    whole = answer["mapped"] == answer["ops"] and not answer["streamed_bytes"]
    return NOT_ALL if args.strict and not whole else 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `check`."""
    parser = subparsers.add_parser("check", help="what the Edge TPU compiler would map, without the compiler")
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE|BUNDLE",
        help=".tflite files that are compiled together, most used first; a bundle's folder stands for its models",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--ops", action="store_true", help="one line an operator instead of one a kind")
    parser.add_argument("--strict", action="store_true", help=f"exit {NOT_ALL} unless all is mapped and resident")
    parser.set_defaults(func=command)
