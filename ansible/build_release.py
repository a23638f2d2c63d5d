#!/usr/bin/env python3
"""Build releases on the control host: everything a device installs, with hashes, so that it fetches nothing.

    .venv/bin/python ansible/build_release.py --target bookworm-arm64 [--target …] [--name 0.2.0]

One tarball a target, `build/releases/edge-<name>-<target>.tar`: wheels and their hashed lock, the model bundle, units,
documents. The same inputs give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from edge.bundle.newest import newest_bundle

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = {"bookworm": "3.11", "trixie": "3.13"}
MACHINE: Final = {"arm64": "aarch64", "amd64": "x86_64"}
GLIBC: Final = {"bookworm": range(17, 37), "trixie": range(17, 42)}
"""manylinux_2_N that the distribution's C library can load."""


def _run(*command: str) -> None:
    fixed = os.environ | {"SOURCE_DATE_EPOCH": "315532800"}  # 1980: no build time in the wheel
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=fixed)
    if done.returncode:
        sys.exit(f"build-release: {' '.join(command[:5])} …: {done.stderr.strip() or done.stdout.strip()}")


def own_wheel(source: Path, out: Path) -> Path:
    """Build the project's wheel from a source tree."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        for name in ("edge", "tools", "pyproject.toml", "README.md", "LICENSE"):
            _run("cp", "-r", str(source / name), str(tree))
        _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree))
    (wheel,) = out.glob("edge_fer-*.whl")
    return wheel


def wheelhouse(target: str, cache: Path) -> Path:
    """Download the wheels of a target's lock, each checked against its hash; what is there already is kept."""
    suite, _, arch = target.partition("-")
    folder = cache / target
    platforms = [f"manylinux_2_{n}_{MACHINE[arch]}" for n in GLIBC[suite]] + [f"manylinux2014_{MACHINE[arch]}"]
    _run(
        *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"),
        *("--only-binary=:all:", "--require-hashes", "--python-version", PYTHON[suite], "--dest", str(folder)),
        *(f"--platform={platform}" for platform in platforms),
        *("-r", f"requirements/device-{suite}.txt"),
    )
    return folder


def build(target: str, *, name: str, source: Path, bundle: Path, out: Path, cache: Path) -> Path:
    """Write one tarball; returns its path."""
    suite = target.partition("-")[0]
    wheels = wheelhouse(target, cache)
    with tempfile.TemporaryDirectory() as folder:
        own = own_wheel(source, Path(folder))
        lock = (ROOT / f"requirements/device-{suite}.txt").read_text()
        digest = hashlib.sha256(own.read_bytes()).hexdigest()
        version = own.name.split("-")[1]
        lock += f"edge-fer=={version} --hash=sha256:{digest}\n"
        about = {"version": name, "target": target, "python": PYTHON[suite], "bundle": bundle.name}
        files = {f"wheels/{path.name}": path.read_bytes() for path in (own, *_locked(wheels, lock))}
        files |= {f"models/{bundle.name}/{p.name}": p.read_bytes() for p in bundle.iterdir() if p.suffix != ".keras"}
        for part in ("systemd", "docs"):
            files |= {str(p.relative_to(source)): p.read_bytes() for p in (source / part).rglob("*") if p.is_file()}
    files |= {"release.json": json.dumps(about).encode(), "requirements.txt": lock.encode()}
    out.mkdir(parents=True, exist_ok=True)
    tarball = out / f"edge-{name}-{target}.tar"
    with tarfile.open(tarball, "w") as archive:
        for path, content in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    return tarball


def _locked(wheels: Path, lock: str) -> list[Path]:
    """The wheels of the lock; a cache may hold those of older locks, too."""
    return [w for w in wheels.glob("*.whl") if f"--hash=sha256:{hashlib.sha256(w.read_bytes()).hexdigest()}" in lock]


def main() -> None:
    """Build every target asked for and print each tarball with its SHA-256."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    targets = [f"{suite}-{arch}" for suite in PYTHON for arch in MACHINE]
    parser.add_argument("--target", action="append", choices=targets, help="may be given again (default: all)")
    parser.add_argument("--name", default=version, help=f"the release's name, new for each change ({version})")
    parser.add_argument("--bundle", type=Path, help="model bundle (default: the newest under models/)")
    parser.add_argument("--source", type=Path, default=ROOT, help="source tree (this one)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/releases")
    parser.add_argument("--cache", type=Path, default=ROOT / "build/wheels", help="downloaded wheels")
    arguments = parser.parse_args()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", arguments.name):  # as edge-release takes it
        parser.error(f"--name {arguments.name!r}: letters, digits, . + _ -, at first a letter or digit")
    bundle = arguments.bundle or newest_bundle(ROOT / "models")
    if bundle is None:
        parser.error(f"no model bundle under {ROOT / 'models'}: name one by --bundle")
    print(f"model bundle: {bundle.name}", file=sys.stderr)  # beside what `sha256sum --check` reads
    for target in arguments.target or targets:
        tarball = build(
            target,
            name=arguments.name,
            source=arguments.source,
            bundle=bundle,
            out=arguments.out,
            cache=arguments.cache,
        )
        print(f"{hashlib.sha256(tarball.read_bytes()).hexdigest()}  {tarball}")


if __name__ == "__main__":
    main()
