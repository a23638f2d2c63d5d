"""What health says of speed comes from looks at blank pictures that cost what a frame in which all moves costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edge.bundle.manifest import load_bundle
from edge.inference.cpu import CpuBackend
from edge.types import Frame
from edge.vision import service
from edge.vision.detect.blazeface import BlazeFace
from edge.vision.detect.choose import ROLE, open_detector
from edge.vision.detect.regions import regions
from edge.vision.figures import PROBE, Probe
from edge.vision.service import Vision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray

    from edge.config import Config
    from edge.types import U8
    from edge.vision.detect import Detector


def counted(bundle_folder: Path, **options: Any) -> tuple[Probe, list[int]]:  # noqa: ANN401 - handed on
    """A probe, and how many pictures each of its searches shows the network."""
    bundle = load_bundle(bundle_folder)
    cpu = CpuBackend(bundle, (ROLE,))
    asked: list[int] = []

    def answer(images: U8) -> NDArray[np.int8]:
        asked.append(len(images))
        return cpu.outputs(ROLE, images)

    return Probe(cpu, (), BlazeFace(answer, bundle.entry(ROLE).anchors, **options)), asked


def test_a_timed_look_searches_all_of_the_blank_picture_each_time(bundle_folder: Path) -> None:
    probe, asked = counted(bundle_folder)
    probe.see(Frame(np.zeros((270, 480, 3), np.uint8), 0.0, 0))
    for look in range(4):
        probe.run(look * PROBE)
    assert asked == [len(regions(480, 270, 2))] * 4


def test_a_timed_look_searches_what_a_frame_of_that_camera_would(bundle_folder: Path) -> None:
    probe, asked = counted(bundle_folder, min_face=80)
    small, frame = np.zeros((360, 640), np.uint8), np.zeros((720, 1280), np.uint8)
    probe.see(Frame(small, 0.0, 0))
    probe.run(0.0)
    probe.see(Frame(frame, 0.1, 1, lores=small))
    probe.run(PROBE)
    assert asked == [len(regions(640, 360, 1)), len(regions(640, 360, 3))]


def test_a_replay_is_searched_whatever_it_costs_and_a_camera_within_its_budget(
    settings: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[object] = []

    def opened(*given: Any, **options: Any) -> Detector:  # noqa: ANN401 - handed on
        budgets.append(options["budget_ms"])
        return open_detector(*given, **options)

    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(service, "open_detector", opened)
    Vision(settings(tmp_path, detector={"budget_ms": 7.0})).run()
    assert set(budgets) == {None}, "its counts would depend on the machine"
    monkeypatch.setattr(service, "open_cameras", lambda *_: None)
    camera = {"kind": "v4l2", "source": "/dev/video0"}
    for given, taken in ({"budget_ms": 7.0}, 7.0), ({}, "auto"):
        budgets.clear()
        live = Vision(settings(tmp_path, detector=given, camera=camera))
        assert budgets == [taken, taken], "its own, and the one that is timed"
        live._finish()
