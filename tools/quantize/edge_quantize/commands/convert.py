"""`edge-quantize convert`: one float model to int8."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ConfigError
from edge_quantize.bundling import quant_error, unbiased
from edge_quantize.bundling.convert import (
    MAX_LOSS,
    compare,
    fixed,
    layer_errors,
    refuse_loss,
    representative,
)
from edge_quantize.bundling.float_model import ends_in_softmax, load_model, predict, with_temperature
from edge_quantize.evaluation import metrics

if TYPE_CHECKING:
    import argparse


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize convert`."""
    from edge_quantize.evaluation.chips import for_role

    if args.report is not None:
        quant_error.check_report(args.report)
    model = load_model(args.model)  # before the faces: what was asked for is judged first
    data = for_role(args.role)
    if model.output_shape[-1] != len(data.names):
        msg = f"{args.model}: gives {model.output_shape[-1]} answers, {args.role} has {len(data.names)}"
        raise ConfigError(msg)
    if not ends_in_softmax(model):
        temperature = metrics.fit_temperature(predict(model, data.fit), data.fit_labels)
        model = with_temperature(model, temperature)
        sys.stdout.write(f"temperature {temperature:.3f}\n")
    graph = fixed(model)
    flat = unbiased.to_tflite(model, graph, representative(data.train, data.train_labels), data.train)
    paired = compare(model, flat, data.test, data.test_labels)
    sys.stdout.write(f"float {paired.float_accuracy:.4f}, int8 {paired.int8_accuracy:.4f}, n {paired.n}, "
                     f"same answer {paired.agreement:.4f}, ties {paired.ties:.4f}\n")  # fmt: skip
    wanted = args.report is not None or paired.loss > args.max_loss
    layers = layer_errors(graph, flat, data.test) if wanted else []
    if args.report is not None:
        quant_error.write_report(args.report, {args.role: layers})
        sys.stdout.write(f"layer errors: {args.report}\n")
    refuse_loss(paired, str(args.model), args.max_loss, layers)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(flat)
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `convert`."""
    parser = subparsers.add_parser("convert", help="quantise one Keras model or SavedModel to full int8")
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        help="a .keras file or SavedModel folder, (48, 48, 1) → logits or probabilities",
    )
    parser.add_argument("--role", required=True, choices=("gate", "fer_unmasked", "fer_masked"))
    parser.add_argument("--out", type=Path, required=True, help="the .tflite file to write")
    parser.add_argument("--max-loss", type=float, default=MAX_LOSS, help="points int8 may lose against float")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write each layer's error, as .json or .md")
    parser.set_defaults(func=command)
