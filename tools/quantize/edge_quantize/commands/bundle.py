"""`edge-quantize bundle`: trained nets to one verified bundle, or a check of one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ConfigError, refuse_options
from edge_quantize.bundling import convert
from edge_quantize.bundling.blazeface import weights_file
from edge_quantize.bundling.bundle import ROLES, build, refuse_taken, verify
from edge_quantize.bundling.sign import read_secret_key

if TYPE_CHECKING:
    import argparse

_OF_MAKING = ("runs", "name", "out", "only", "rest_from", "max_loss", "license", "sign_key", "password_file")


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize bundle`."""
    if args.verify is not None:
        refuse_options(args, _OF_MAKING, "leave out with --verify, which only checks a bundle")
        verify(args.verify, args.public_key)
        said = "signature, files" if args.public_key else "files"
        sys.stdout.write(f"{args.verify}: {said}, quantisation and golden answers are right\n")
        return 0
    refuse_options(args, ("public_key",), "only of --verify: the bundle that is made is signed by --sign-key")
    if args.sign_key is None:
        refuse_options(args, ("password_file",), "opens the key of --sign-key: give both or neither")
    if args.name is None:
        msg = "--name is missing: name the bundle that is made, or give --verify BUNDLE"
        raise ConfigError(msg)
    # Before the long work, not after it.
    refuse_taken(args.out / args.name)
    key = read_secret_key(args.sign_key, args.password_file) if args.sign_key else None
    if (args.only is None) != (args.rest_from is None):
        msg = "--only says which models are made, --rest-from where the others come from: give both or neither"
        raise ConfigError(msg)
    made = args.only or (*ROLES, "detector")
    sources = {role: weights_file() if role == "detector" else args.runs / role / "final.keras" for role in made}
    build(sources, args.out / args.name, args.max_loss, key, args.rest_from, args.license)
    manifest = json.loads((args.out / args.name / "manifest.json").read_text(encoding="utf-8"))
    for model in manifest["models"]:
        for where, figure in model["metrics"].items():
            if "accuracy" in figure:
                sys.stdout.write(f"{model['role']}: {where} {figure['accuracy']:.4f} ({figure['low']:.4f} to "
                                 f"{figure['high']:.4f}, n {figure['n']})\n")  # fmt: skip
    sys.stdout.write(f"bundle: {args.out / args.name}\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `bundle`."""
    parser = subparsers.add_parser("bundle", help="make a verified model bundle from trained nets, or verify one")
    parser.add_argument("--runs", type=Path, default=Path("build/train"), help="folder with <role>/final.keras")
    parser.add_argument("--name", help="of the bundle that is made; one that is there is never replaced")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder that gets <name>/")
    parser.add_argument("--only", nargs="+", action="extend", choices=(*ROLES, "detector"), metavar="ROLE",
                        help="make these models alone, with --rest-from")  # fmt: skip
    parser.add_argument("--rest-from", type=Path, metavar="BUNDLE", help="take the other models from it, byte for byte")
    parser.add_argument("--max-loss", type=float, default=convert.MAX_LOSS, help="points int8 may lose against float")
    parser.add_argument("--license", metavar="SPDX", help="of the weights, where nets were trained on your own faces")
    parser.add_argument("--verify", type=Path, metavar="BUNDLE", help="only check this bundle")
    parser.add_argument("--public-key", metavar="KEY", help="with --verify: it must be signed by this minisign key")
    parser.add_argument("--sign-key", type=Path, metavar="FILE", help="sign the bundle with this minisign secret key")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is the key's password")
    parser.set_defaults(func=command, default_of=parser.get_default)
