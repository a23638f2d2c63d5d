"""Interpreters are opened in one place, so that a runtime, its kernels and its threads are chosen once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
HOME = "edge/inference/tflite.py"
RUNTIMES = ("tflite_runtime", "ai_edge_litert", "tensorflow.lite.python.interpreter")


def openers(source: str) -> list[int]:
    """Lines that import a TFLite runtime or make an `Interpreter`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".interpreter"):
            names = [node.value]  # for `import_module`
        made = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Interpreter"
        if made or any(name.startswith(RUNTIMES) for name in names):
            found.append(getattr(node, "lineno", 0))
    return found


@pytest.mark.parametrize(
    "line",
    [
        "from tflite_runtime.interpreter import Interpreter",
        "from tflite_runtime import interpreter as runtime",
        "import ai_edge_litert.interpreter",
        "from tensorflow.lite.python import interpreter",
        "import_module('ai_edge_litert.interpreter')",
        "tf.lite.Interpreter(model_content=b'')",
    ],
)
def test_each_way_of_opening_one_is_seen(line: str) -> None:
    assert openers(line) == [1]


def test_nothing_but_the_runtime_s_own_file_opens_an_interpreter() -> None:
    files = [path for room in ("edge", "tools", "bench", "ansible") for path in (REPO / room).rglob("*.py")]
    found = {str(path.relative_to(REPO)) for path in files if openers(path.read_text(encoding="utf-8"))}
    assert found == {HOME}
