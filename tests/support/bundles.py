"""Changes to a copy of a bundle that its own checksums do not betray."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def restate_golden(folder: Path) -> None:
    """Write the checksum of `golden.npz` as it is now into the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["golden_sha256"] = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest), encoding="utf-8")


def without_detector(source: Path, folder: Path) -> Path:
    """Copy a bundle, its float sources left out, into the new `folder`, and take the detector out of it."""
    shutil.copytree(
        source, folder, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("*.keras", "detector*")
    )
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["models"] = [model for model in manifest["models"] if model["role"] != "detector"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return folder
