"""dlib's HOG detector where dlib is installed, and what is said where it is not."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.cli import main
from edge.errors import ConfigError
from edge.vision.detect.hog import Hog

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8


def test_without_dlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(ConfigError, match=r'in a clone: \.venv/bin/pip install -e "\.\[hog\]"'):
        Hog()


def test_check_config_names_the_line_that_asks_for_it(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    path = tmp_path / "config.toml"
    path.write_text(
        f"""[device]
id = "a"
site = "b"
purpose = "audience-statistics"
signage_acknowledged = true
[camera]
kind = "replay"
source = "clip.mp4"
[detector]
kind = "hog"
[models]
bundle = "{bundle_folder}"
[mqtt]
host = "localhost"
""",
        encoding="utf-8",
    )
    assert main(["check-config", "--config", str(path)]) == 2
    assert 'config.toml:10: detector.kind: "hog" needs dlib' in capsys.readouterr().out


def test_a_face_is_found_near_and_far_and_nobody_in_the_dark(portraits: dict[str, U8]) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed: .venv/bin/pip install -e '.[hog]'")
    for side in (130, 300):
        image = np.full((360, 480, 3), 128, np.uint8)
        image[20 : 20 + side, 40 : 40 + side] = cv2.resize(portraits["astronaut"], (side, side))
        (box,) = Hog().detect(image)
        assert math.dist(box.centre, (40 + side / 2, 20 + side / 2)) < 0.2 * side
        assert 0.2 * side < box.w < 0.6 * side
    assert Hog().detect(np.zeros((360, 480), np.uint8)) == []
    assert Hog().detect(np.zeros((1, 1, 3), np.uint8)) == []


def test_the_smallest_face_is_one_of_the_frame(portraits: dict[str, U8]) -> None:
    pytest.importorskip("dlib", reason="dlib is not installed: .venv/bin/pip install -e '.[hog]'")
    image = np.full((360, 480, 3), 128, np.uint8)
    image[20:120, 40:140] = cv2.resize(portraits["astronaut"], (100, 100))
    assert Hog(min_face=80).detect(image, thorough=True) == []
    assert len(Hog(min_face=80).detect(image, thorough=True, zoom=2)) == 1
