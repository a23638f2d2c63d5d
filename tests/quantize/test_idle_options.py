"""An option that another one makes meaningless is refused in a line, before anything is opened."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest
from edge_quantize.cli import main as quantize
from edge_quantize.commands.bundle import add_parser

if TYPE_CHECKING:
    from pathlib import Path

VERIFY = ("bundle", "--verify", "models/none")
PHOTO = ("masks", "--image", "face.png", "--out", "masked.png")
OWN = ("masks", "--input", "faces", "--out", "masked")
_OF_CHECK = "leave out with --verify, which only checks a bundle"
_OF_SIGNING = "opens the key of --sign-key: give both or neither"
_OF_PHOTO = "leave out with --image, which is one photograph"
_OF_OWN = "leave out with --input, whose masks are drawn by lot"
_OF_DATA_SET = "of your own pictures: give --image or --input, or leave out"
LOOKS = (("--kind", "n95"), ("--tone", "190"), ("--hue", "30"), ("--saturation", ".5"), ("--slip", ".2"))
RENDERING = (("--folder", "f"), ("--renderings", "3"), ("--freeze",))


@pytest.mark.parametrize(
    ("command", "option", "told"),
    [
        *(
            (VERIFY, option, f"{option[0]}: {_OF_CHECK}")
            for option in (
                *(("--runs", "r"), ("--name", "n"), ("--out", "o"), ("--only", "gate"), ("--rest-from", "b")),
                *(("--max-loss", "1"), ("--license", "MIT"), ("--sign-key", "k"), ("--password-file", "p")),
            )
        ),
        (("bundle",), ("--public-key", "k.pub"), "--public-key: only of --verify"),
        (("bundle",), ("--password-file", "p"), f"--password-file: {_OF_SIGNING}"),
        (("compile", "--bundle", "models/none"), ("--password-file", "p"), f"--password-file: {_OF_SIGNING}"),
        *((PHOTO, option, f"{option[0]}: {_OF_PHOTO}") for option in (*RENDERING, ("--input", "faces"))),
        (PHOTO, ("--again",), f"--again: {_OF_PHOTO}"),
        (PHOTO, ("--processes", "3"), f"--processes: {_OF_PHOTO}"),
        (PHOTO, ("--template", "t.png", "--kind", "n95"), "--kind: is of the masks that are drawn"),
        (PHOTO, ("--saturation", ".5"), "--saturation: is of a colour: give --hue too"),
        *((OWN, option, f"{option[0]}: {_OF_OWN}") for option in (*RENDERING, *LOOKS)),
        *(
            (("masks",), option, f"{option[0]}: {_OF_DATA_SET}")
            for option in (("--out", "o"), ("--template", "t.png"), *LOOKS)
        ),
    ],
)
def test_it_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    option: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert quantize([*command, *option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"edge-quantize: {told}")
    assert list(tmp_path.iterdir()) == []


def test_models_may_be_named_one_by_one() -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    assert parser.parse_args(["bundle", "--only", "gate", "--only", "fer_masked"]).only == ["gate", "fer_masked"]
