"""`edge-quantize`: a file that cannot be used is one line, whichever command meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from edge_quantize.cli import main

ROOT = Path(__file__).resolve().parents[2]
LONG = "x" * 300
"""A name that the system does not look for: it answers as for a folder that keeps this user out, root included."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", LONG],
        ["inspect", LONG],
        ["keygen", "--key", LONG],
        ["masks", "--input", LONG, "--out", "out"],
        ["convert", "--role", "gate", "--out", "x.tflite", "--model", f"{LONG}.keras"],
    ],
)
def test_a_place_that_cannot_be_looked_at_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) in {2, 65, 66}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("edge-quantize")]
    assert LONG in line


def test_a_reader_that_goes_is_no_error(bundle_folder: Path) -> None:
    command = [sys.executable, "-m", "edge_quantize.cli", "check", "--ops", str(bundle_folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.close()
        assert b"Traceback" not in ran.stderr.read()
        assert ran.wait() == 0
