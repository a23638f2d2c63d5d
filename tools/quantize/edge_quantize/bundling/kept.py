"""Models of an earlier bundle in a new one, byte for byte: when one net is new, the others are not quantised again."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import BundleError
from edge_quantize.bundling import convert, float_model
from edge_quantize.evaluation.chips import for_role

if TYPE_CHECKING:
    from pathlib import Path

    from edge_quantize.bundling.quant_error import LayerError


def keep(base: Path, role: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[LayerError] | None]:
    """Copy one model of a bundle that was verified, with its float source, into `folder`.

    Returns its manifest entry and golden arrays as they were; its layers' errors anew, if its source is there. Raises
    BundleError where the source, which no digest covers, is a link to what lies elsewhere.
    """
    manifest = json.loads((base / "manifest.json").read_text(encoding="utf-8"))
    entry: dict[str, Any] = next(model for model in manifest["models"] if model["role"] == role)
    for name in (entry["file"], entry.get("source"), entry.get("edgetpu")):
        if name and (base / name).is_symlink():
            msg = f"{base / name} is a link: put the file itself there"
            raise BundleError(msg)
        if name and (base / name).exists():
            shutil.copyfile(base / name, folder / name)
    with np.load(base / manifest["golden"]) as golden:
        answers = {name: golden[name] for name in golden.files if name.startswith(f"{role}_")}
    source = folder / str(entry.get("source"))
    if not source.exists() or source.suffix != ".keras":
        return entry, answers, None
    graph = convert.fixed(float_model.load_keras(source))
    return entry, answers, convert.layer_errors(graph, (folder / entry["file"]).read_bytes(), for_role(role).test)
