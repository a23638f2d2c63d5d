"""The rules of who may import whom can fail: each is broken in a copy of the tree, and the linter says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """`lint-imports` on a tree, whatever is installed."""
    places = os.pathsep.join(map(str, (tree, tree / "tools/quantize", tree / "tools/aggregate")))
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is linted."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("edge", "tools"):
        shutil.copytree(REPO / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.png", "*.npz"))
    shutil.copy(REPO / "pyproject.toml", copy)
    return copy


def test_the_tree_keeps_every_rule(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "forbidden", "rule"),
    [
        ("edge/vision/recorder.py", "edge.publisher.session", "the two services"),
        ("edge/publisher/session.py", "edge.vision.track", "the two services"),
        ("edge/vision/track.py", "edge.vision.detect.overlap", "Stages of vision"),
        ("edge/types.py", "edge.errors", "The rooms"),
        ("edge/outbox/rows.py", "edge_quantize.progress", "never the reverse"),
        ("tools/aggregate/edge_aggregate/check.py", "edge.outbox.rows", "The aggregator"),
        ("tools/quantize/edge_quantize/masks/synthesis.py", "edge_quantize.commands.masks", "The toolchain"),
        ("tools/quantize/edge_quantize/training/augment.py", "edge_quantize.training.loop", "No circles"),
    ],
)
def test_a_forbidden_import_fails_the_lint(tree: Path, file: str, forbidden: str, rule: str) -> None:
    path = tree / file
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\nimport {forbidden}\n", encoding="utf-8")
    try:
        done = lint(tree)
    finally:
        path.write_text(before, encoding="utf-8")
    assert done.returncode == 1, done.stdout
    said = " ".join(done.stdout.split())
    assert rule in said
    assert " 0 broken" not in said
