"""`edge-quantize keygen` and `sign`: minisign keys and signatures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.bundle.signature import SUFFIX
from edge_quantize.bundling.sign import keygen, read_secret_key, sign_bundle

if TYPE_CHECKING:
    import argparse


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize sign`."""
    public = sign_bundle(args.bundle, read_secret_key(args.key, args.password_file))
    sys.stdout.write(f"{args.bundle}/manifest.json{SUFFIX}: signed; in config.toml: [models] public_key = {public!r}\n")
    return 0


def keygen_command(args: argparse.Namespace) -> int:
    """Run `edge-quantize keygen`."""
    public, key = keygen(args.key)
    sys.stdout.write(
        f"{args.key}: the secret key, without a password: keep it off the devices and out of the repository\n"
        f"{public}: the public key\nin config.toml: [models] public_key = {key!r}\n"
    )
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `sign` and `keygen`."""
    parser = subparsers.add_parser("sign", help="sign a bundle with a minisign key")
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="a minisign secret key")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is the key's password")
    parser.set_defaults(func=command)
    parser = subparsers.add_parser("keygen", help="make a minisign key pair without a password")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        help="the secret key; the public one gets the same name ending in .pub",
    )
    parser.set_defaults(func=keygen_command)
