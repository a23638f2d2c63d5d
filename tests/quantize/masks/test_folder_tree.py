"""Masks on somebody's own faces: folder trees and CSVs, colour and grey, interrupted and begun again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from edge_quantize.cli import main
from edge_quantize.datasets.own_faces import faces_of
from edge_quantize.masks import folder_tree
from edge_quantize.masks.templates import read_template

from edge.errors import SourceError
from tests.conftest import MATERIAL

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two portraits in colour at 96 pixels, one in grey at 48, a picture of nothing and a broken one."""
    portrait = cv2.imread(str(MATERIAL / "astronaut.png"))
    assert portrait is not None
    face = portrait[40:200, 70:230]
    folder = tmp_path / "faces"
    for label, name, image in (
        ("happy", "colour", cv2.resize(face, (96, 96), interpolation=cv2.INTER_AREA)),
        ("happy", "turned", cv2.resize(face[:, ::-1], (96, 96), interpolation=cv2.INTER_AREA)),
        ("neutral", "grey", cv2.cvtColor(cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)),
        ("neutral", "nobody", np.full((96, 96, 3), 128, np.uint8)),
    ):
        (folder / label).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / label / f"{name}.png"), image)
    (folder / "sad").mkdir()
    (folder / "sad" / "broken.png").write_bytes(b"\x89PNG")
    return folder


@pytest.mark.parametrize("out", [".", "masked"])
def test_masked_faces_do_not_go_among_the_bare_ones(tree: Path, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tree.rglob("*"))
    assert main(["masks", "--input", str(tree), "--out", str(tree / out)]) == SourceError.exit_code
    assert "give another --out" in capsys.readouterr().err
    assert sorted(tree.rglob("*")) == before


def test_a_tree_is_masked_in_its_own_colours_and_not_twice(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masked"
    command = ["masks", "--input", str(tree), "--out", str(out), "--processes", "1"]
    assert main(command) == 0
    assert "3 of 5 faces masked" in capsys.readouterr().out
    made = {path.relative_to(out).as_posix() for path in out.glob("*/*.png")}
    assert made == {"happy/colour.png", "happy/turned.png", "neutral/grey.png"}
    reasons = json.loads((out / "rejects.json").read_text(encoding="utf-8"))
    assert reasons == {"happy": {}, "neutral": {"no landmarks": 1}, "sad": {"unreadable": 1}}
    before, after = (cv2.imread(str(f / "happy" / "colour.png")) for f in (tree, out))
    assert before is not None
    assert after is not None
    assert after.shape == (96, 96, 3)
    changed = (before != after).any(axis=2)
    assert changed[60:].mean() > 2 * changed[:30].mean()
    grey = cv2.imread(str(out / "neutral" / "grey.png"), cv2.IMREAD_UNCHANGED)
    assert grey is not None
    assert grey.shape == (48, 48)
    assert list(out.glob("sheet-*.png"))

    kept = (out / "happy" / "colour.png").stat().st_mtime_ns
    (out / "happy" / "turned.png").unlink()
    assert main(command) == 0
    assert (out / "happy" / "colour.png").stat().st_mtime_ns == kept
    assert (out / "happy" / "turned.png").exists()
    assert len((out / "refused.jsonl").read_text(encoding="utf-8").splitlines()) == 2

    first = (out / "happy" / "colour.png").read_bytes()
    assert main([*command, "--seed", "2"]) == SourceError.exit_code
    assert "holds masks of another --seed, --template or version: --again draws all anew" in capsys.readouterr().err
    assert (out / "happy" / "colour.png").read_bytes() == first
    assert main([*command, "--seed", "2", "--again"]) == 0
    assert (out / "happy" / "colour.png").read_bytes() != first
    assert len((out / "refused.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    (out / "lots.json").unlink()  # as a version before left it: nobody knows of which seed they are
    assert main([*command, "--seed", "2"]) == SourceError.exit_code


def test_masks_drawn_anew_leave_nothing_of_those_before_though_it_is_broken_off(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "masked"
    command = ["masks", "--input", str(tree), "--out", str(out), "--processes", "1"]
    assert main(command) == 0
    (out / "happy" / "publictest").mkdir()
    (out / "happy" / "publictest" / "9.png").write_bytes(b"of a picture that is no more")

    def broken_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_tree, "get_context", broken_off)
    with pytest.raises(KeyboardInterrupt):
        folder_tree.mask_tree(tree, out, seed=2, again=True)
    assert not list(out.glob("*/**/*.png"))
    assert json.loads((out / "lots.json").read_text(encoding="utf-8"))["seed"] == 2


def test_a_csv_has_fer2013_s_own_order_of_classes(tmp_path: Path) -> None:
    pixels = " ".join(["7"] * 48 * 48)
    path = tmp_path / "faces.csv"
    path.write_text(f"emotion,pixels,Usage\n4,{pixels},Training\n6,{pixels},Training\n", encoding="utf-8")
    sad, neutral = faces_of(path)
    assert (sad.label, neutral.label) == ("sad", "neutral")
    assert (sad.read() == 7).all()
    assert sad.read().shape == (48, 48)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "line 1: no column 'emotion'"),
        ("emotion,pixels\n9,1 2\n", "line 2, column emotion: '9'"),
        ("emotion,pixels\n1,1 2\n", "line 2, column pixels: 2 pixels"),
        ("emotion,pixels\n1,1 x\n", "line 2, column pixels: number 2 is 'x'"),
        ("emotion,pixels\n", "no pictures"),
    ],
)
def test_a_bad_csv_says_where(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "faces.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=says):
        faces_of(path)[0].read()


def test_nothing_to_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "gone", "gone.csv"):
        command = ["masks", "--input", str(tmp_path / source), "--out", str(tmp_path / "out")]
        assert main(command) == SourceError.exit_code
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"edge-quantize: {tmp_path / source}: ")
    assert main(["masks", "--input", str(tmp_path / "empty")]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["grey", "small", "clear"])
def test_a_bad_template_is_refused(tmp_path: Path, what: str) -> None:
    image = {
        "grey": np.full((64, 64, 3), 200, np.uint8),
        "small": np.full((16, 16, 4), 255, np.uint8),
        "clear": np.zeros((64, 64, 4), np.uint8),
    }[what]
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), image)
    with pytest.raises(SourceError, match="mask template"):
        read_template(str(path))
