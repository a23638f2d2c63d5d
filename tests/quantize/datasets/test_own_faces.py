"""CSVs in the form of FER2013's, as spreadsheets and editors leave them: read, or one line with row and column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from edge_quantize.datasets.own_faces import faces_of

from edge.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

ROW = "0 " * 2303 + "255"


def csv(folder: Path, *rows: str, encoding: str = "utf-8") -> Path:
    path = folder / "faces.csv"
    path.write_bytes("\n".join(("emotion,pixels,Usage", *rows)).encode(encoding))
    return path


def test_pictures_of_one_name_in_a_class_keep_names_of_their_own(tmp_path: Path) -> None:
    for name in ("happy/a/1.png", "happy/b/1.png", "happy/2.png", "happy/2.jpg", "sad/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    named = [(face.label, face.name) for face in faces_of(tmp_path)]
    assert named == [("happy", "2.jpg"), ("happy", "2.png"), ("happy", "a/1"), ("happy", "b/1"), ("sad", "2")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_face_of_a_csv(tmp_path: Path, encoding: str) -> None:
    (face,) = faces_of(csv(tmp_path, f"3,{ROW},Training", encoding=encoding))
    assert (face.label, face.name) == ("happy", "2")
    assert face.read().shape == (48, 48)
    assert np.flatnonzero(face.read()).tolist() == [2303]


@pytest.mark.parametrize("label", ["²", "7", "-1", "", "٣", "9" * 5000, "happy", "\x1b[2J"])
def test_an_emotion_that_is_none_has_its_row_and_column(tmp_path: Path, label: str) -> None:
    path = csv(tmp_path, f"3,{ROW},Training", f"{label},{ROW},Training")
    with pytest.raises(SourceError) as caught:
        faces_of(path)
    said = str(caught.value)
    assert said.startswith(f"{path}, line 3, column emotion: ")
    assert said.isprintable()
    assert len(said) < len(str(path)) + 100


@pytest.mark.parametrize("pixel", ["²", "-1", "256", "9" * 30, "9" * 5000, "1.5", "x", "1e2", "0x1f"])
def test_a_pixel_that_is_none_has_its_row_and_column(tmp_path: Path, pixel: str) -> None:
    path = csv(tmp_path, f"3,{ROW},Training", f"3,7 {pixel} {ROW[4:]},Training")
    with pytest.raises(SourceError) as caught:
        faces_of(path)[1].read()
    said = str(caught.value)
    assert said.startswith(f"{path}, line 3, column pixels: number 2 is {pixel[:20]!a}")
    assert said.isprintable()


def test_too_few_pixels_have_their_row(tmp_path: Path) -> None:
    path = csv(tmp_path, "3,1 2 3,Training", "3,,Training")
    for face, said in zip(faces_of(path), ("line 2, column pixels: 3", "line 3, column pixels: 0"), strict=True):
        with pytest.raises(SourceError, match=said):
            face.read()


@pytest.mark.parametrize(("encoding", "says"), [("utf-16", "UTF-16"), ("latin-1", "Latin-1")])
def test_another_encoding_is_named(tmp_path: Path, encoding: str, says: str) -> None:
    path = csv(tmp_path, f"3,{ROW},für", encoding=encoding)
    with pytest.raises(SourceError, match=f"not UTF-8 text.*{says}.*save it as UTF-8"):
        faces_of(path)


def test_what_is_meant_for_a_test_is_told_however_it_is_written(tmp_path: Path) -> None:
    written = ("Training", "", "publictest", "PrivateTest ")
    faces = faces_of(csv(tmp_path, *(f"3,{ROW},{usage}" for usage in written)))
    assert [face.usage for face in faces] == ["training", "", "publictest", "privatetest"]
    assert [face.name for face in faces] == ["2", "3", "publictest/4", "privatetest/5"]
    with pytest.raises(SourceError, match="line 3, column Usage: 'validation' is none of Training, PublicTest"):
        faces_of(csv(tmp_path, f"3,{ROW},Training", f"3,{ROW},Validation"))


def test_a_folder_holds_faces_to_test_on(tmp_path: Path) -> None:
    for name in ("happy/1.png", "happy/PublicTest/1.png", "happy/anna/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    told = {face.name: face.usage for face in faces_of(tmp_path)}
    assert told == {"1": "", "PublicTest/1": "publictest", "anna/2": ""}
