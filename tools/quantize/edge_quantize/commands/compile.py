"""`edge-quantize compile`: a bundle's models compiled together for the Edge TPU, verified and recorded."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from edge.bundle.manifest import load_bundle
from edge.bundle.signature import SUFFIX
from edge.errors import BundleError, ConfigError, refuse_options
from edge_quantize.bundling.bundle import verify
from edge_quantize.bundling.sign import read_secret_key, sign_bundle
from edge_quantize.commands.check import hottest_first
from edge_quantize.edgetpu.checker import check_file
from edge_quantize.edgetpu.compiler import compiled_path, run_compiler, verify_set

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from minisign import SecretKey

TIMEOUT: Final = 600.0


def compile_bundle(folder: Path, key: SecretKey | None = None, timeout: float = TIMEOUT) -> list[str]:
    """Compile a bundle's models together and record them in its manifest; nothing changes unless all is right.

    Args:
        folder: the bundle.
        key: minisign key that signs the new manifest.
        timeout: seconds the compiler may take.

    Returns:
        A line for each model.

    Raises:
        ConfigError: the bundle is signed and there is no key.
        BackendError: the compiler is missing or fails.
        BundleError: the bundle is damaged, or what was made of it cannot be used.

    """
    folder = folder.resolve()
    bundle = load_bundle(folder)
    if key is None and (folder / f"manifest.json{SUFFIX}").exists():
        msg = f"{folder}: the bundle is signed, and its manifest will change: give --sign-key, or remove the signature"
        raise ConfigError(msg)
    sources = {role: bundle.path(role) for role in hottest_first(bundle)}
    try:
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            out, draft, old = (Path(work) / name for name in ("out", "new", "old"))
            out.mkdir()
            made = {source: compiled_path(source, out) for source in sources.values()}
            log = run_compiler(list(made), out, timeout)
            parts = verify_set(made, log)
            shutil.copytree(folder, draft, copy_function=shutil.copyfile)
            _record(draft, {role: made[source] for role, source in sources.items()}, log.version)
            verify(draft, None if key is None else sign_bundle(draft, key))
            folder.rename(old)
            try:
                draft.rename(folder)
            except OSError:
                old.rename(folder)
                raise
    except OSError as error:
        msg = f"{error.filename or folder}: {error.strerror or error}: the folder and the one above must be writable"
        raise BundleError(msg) from error
    lines = [
        f"{made[source].name}: every operator mapped, {part.on_chip_bytes:,} bytes of parameters on the chip "
        f"({check_file(source).need.parameters:,} predicted), runtime {part.min_runtime} or newer"
        for source, part in parts.items()
    ]
    token = next(iter(parts.values())).caching_token
    return [*lines, f"{folder}: compiled together by {log.version}, caching token {token}"]


def _record(draft: Path, made: Mapping[str, Path], version: str) -> None:
    """Put compiled models into a bundle, by role."""
    manifest = json.loads((draft / "manifest.json").read_bytes())
    for entry in manifest["models"]:
        content = made[entry["role"]].read_bytes()
        entry["edgetpu"] = made[entry["role"]].name
        entry["edgetpu_sha256"] = hashlib.sha256(content).hexdigest()
        entry["edgetpu_compiler"] = version
        (draft / entry["edgetpu"]).write_bytes(content)
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize compile`."""
    if args.sign_key is None:
        refuse_options(args, ("password_file",), "opens the key of --sign-key: give both or neither")
    key = read_secret_key(args.sign_key, args.password_file) if args.sign_key else None
    sys.stdout.write("\n".join(compile_bundle(args.bundle, key, args.timeout)) + "\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `compile`."""
    parser = subparsers.add_parser("compile", help="compile a bundle's models together with edgetpu_compiler")
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="seconds the compiler may take")
    parser.add_argument("--sign-key", type=Path, metavar="FILE", help="sign the bundle with this minisign secret key")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is the key's password")
    parser.set_defaults(func=command, default_of=parser.get_default)
