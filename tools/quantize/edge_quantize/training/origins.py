"""What a net was trained on, as run folders and bundles tell it: FER2013, or somebody's own faces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_quantize.training.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN: Final = "own faces"
"""In a model's manifest entry as `trained_on`; without that key it is FER2013's faces alone."""


def has_own_faces(named: str, runs: Path) -> bool:
    """Whether a run (`a`, or several, `a + b`), or one it began from or learned from, had faces of its own.

    Runs are folders in `runs`. Of a bundle's `.keras` its manifest tells; what is in no run and in no bundle is taken
    for FER2013's.
    """
    return any(_of_chain(named, runs, set()))


def kept_own(folder: Path) -> set[str]:
    """Files (`fer_masked.keras`) and roles (`fer_masked`) of a bundle that were trained on own faces."""
    try:
        models = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["models"]
        return {str(model[key]) for model in models if model.get("trained_on") == OWN for key in ("role", "source")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _of_chain(named: str | None, runs: Path, known: set[Path]) -> Iterator[bool]:
    for one in (named or "").split(" + "):
        folder = runs / one
        if not one or folder in known:
            continue
        known.add(folder)
        if Path(one).suffix == ".keras":
            yield Path(one).name in kept_own(Path(one).parent)
        elif (folder / "recipe.json").exists():
            recipe = RunFolder(folder).recipe()
            yield recipe.data is not None
            for before in (recipe.init, recipe.beside, recipe.teacher):
                yield from _of_chain(before, runs, known)
