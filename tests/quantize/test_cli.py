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


@pytest.mark.parametrize("link", [False, True], ids=["a folder", "a dangling link"])
def test_a_bundle_is_made_under_a_name_that_is_given_and_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, link: bool
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    taken = models / "fer-1"
    if link:
        taken.symlink_to(tmp_path / "elsewhere")
    else:
        taken.mkdir()
        (taken / "manifest.json").write_text("{}")
    make = ["bundle", "--runs", str(tmp_path / "runs"), "--out", str(models)]
    assert main(make) == 2
    assert "--name is missing: name the bundle that is made, or give --verify BUNDLE" in capsys.readouterr().err
    # The key, which is asked for its password, and the nets are not looked for yet: neither is there.
    for more in ([], ["--sign-key", str(tmp_path / "none.key")]):
        assert main([*make, "--name", "fer-1", *more]) == 2
        told = f"edge-quantize: {taken}: is there already: give another --name, or remove the folder\n"
        assert capsys.readouterr().err == told
    assert list(models.iterdir()) == [taken]
    assert link or (taken / "manifest.json").read_text() == "{}"


def test_keygen_says_where_the_public_key_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keygen", "--help"])
    assert "the same name ending in .pub" in " ".join(capsys.readouterr().out.split())


def test_a_reader_that_goes_is_no_error(bundle_folder: Path) -> None:
    command = [sys.executable, "-m", "edge_quantize.cli", "check", "--ops", str(bundle_folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.close()
        assert b"Traceback" not in ran.stderr.read()
        assert ran.wait() == 0
