"""Who may import whom: the rules of CONTRIBUTING.md, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

REPO: Final = Path(__file__).resolve().parents[2]
STAGES: Final = ("camera", "detect", "preprocess", "backend", "route", "track", "window", "privacy")


def imported(path: Path) -> set[str]:
    """Modules of the project that a file imports when it runs, at its head or when they are used."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.partition(".")[0] in {"edge", "edge_quantize", "edge_aggregate"}}


def files(room: str) -> list[Path]:
    """The file `room`.py, or all in the folder of that name."""
    place = REPO / "edge" / room
    return sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage: str) -> None:
    # What a chip is, every stage may know: there is one preprocessing.
    others = {f"edge.{other}" for other in STAGES} - {f"edge.{stage}", "edge.vision.preprocess"}
    for path in files(stage):
        assert not {name for name in imported(path) if ".".join(name.split(".")[:2]) in others}, path


def test_types_and_errors_import_nothing() -> None:
    assert imported(REPO / "edge" / "types.py") == imported(REPO / "edge" / "errors.py") == set()


def test_the_appliance_knows_no_tools_and_the_aggregator_only_the_contract_and_errors() -> None:
    for path in (REPO / "edge").rglob("*.py"):
        assert all(name.startswith("edge.") or name == "edge" for name in imported(path)), path
    for path in (REPO / "tools" / "aggregate").rglob("*.py"):
        known = {".".join(name.split(".")[:2]) for name in imported(path) if name.startswith("edge.")}
        assert known <= {"edge.contract", "edge.errors"}, path
