"""The detector on an Edge TPU that works, fails in mid-frame, comes back, or finds faces where none are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge.bundle.manifest import load_bundle
from edge.inference.choose import open_backend
from edge.types import Frame
from edge.vision.detect.choose import ROLE, judge, open_detector
from edge.vision.pipeline import Pipeline
from edge.vision.route import Router
from tests.support.edgetpu import LONG, QUICK, SAME, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.bundle.manifest import Bundle
    from edge.inference.edgetpu import EdgeTpuBackend
    from edge.inference.protocol import Backend
    from edge.types import U8, FaceBox
    from tests.support.edgetpu import StandIn

SHOWN = 19
"""Regions of a frame of 1280×720 that are searched when none follows: all of it, and three rows of squares."""


@pytest.fixture(scope="module")
def bundle(compiled_bundle: Path) -> Bundle:
    return load_bundle(compiled_bundle)


@pytest.fixture(scope="module")
def frame(portraits: dict[str, U8]) -> U8:
    """Four people in 1280×720, two of them masked, each in one square or two."""
    image = np.full((720, 1280, 3), 128, np.uint8)
    for n, name in enumerate(("astronaut", "hopper", "astronaut_masked", "hopper_masked")):
        face = cv2.resize(portraits[name], (260, 260), interpolation=cv2.INTER_AREA)
        image[40 + 360 * (n % 2) :, 100 + 300 * n :][:260, :260] = face
    return image


def look(bundle: Bundle, backend: Backend, image: U8) -> list[FaceBox]:
    """Everybody whom a detector that has seen nothing before finds in a frame."""
    return open_detector(bundle, "blazeface", backend).detect(image, thorough=True)


@pytest.fixture(scope="module")
def people(bundle: Bundle, frame: U8) -> list[FaceBox]:
    """Whom the CPU finds; the stand-in computes the same bits."""
    found = look(bundle, open_backend(bundle, (ROLE,), "cpu", judge, runtime=SAME), frame)
    assert len(found) == 4
    return found


@pytest.fixture(scope="module")
def requests(bundle: Bundle, frame: U8) -> list[int]:
    """How many regions each request of a frame has: all parts at once, then all closer looks at what is in doubt."""
    backend = open_backend(bundle, (ROLE,), "cpu", judge, runtime=SAME)
    sizes: list[int] = []
    outputs = backend.outputs

    def noting(role: str, chips: U8) -> Any:  # noqa: ANN401 - passed on
        sizes.append(len(chips))
        return outputs(role, chips)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "outputs", noting)
        look(bundle, backend, frame)
    assert sizes[0] == SHOWN
    assert len(sizes) <= 2
    return sizes


def test_all_regions_of_a_frame_are_one_request_that_the_tpus_share(
    tpus: StandIn,
    opened: Callable[..., EdgeTpuBackend],
    bundle: Bundle,
    frame: U8,
    people: list[FaceBox],
    requests: list[int],
) -> None:
    tpus.plug("2-1")
    tpus.plug("2-2")
    backend = opened(roles=(ROLE,))
    assert backend.name == "edgetpu:2/2"
    before = len(tpus.seen("detect"))
    assert look(bundle, backend, frame) == people
    work = [device for _, device in tpus.seen("detect")[before:]]
    assert len(work) == sum(requests)
    shares = [(size // 2, size - size // 2) for size in requests]
    assert sorted(work.count(device) for device in ("usb:0", "usb:1")) == [
        sum(part) for part in zip(*shares, strict=True)
    ]


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("abort-third", "died .*SIGABRT"),
        ("hang", "hung"),
        ("error", "erred .*told to fail"),
        ("misplace", r"wrong .*detector_int8.tflite: computes wrongly on edgetpu: \d boxes for 1"),
    ],
)
def test_a_tpu_that_fails_in_mid_frame_costs_no_face_and_comes_back(  # noqa: PLR0913 - a case and its fixtures
    word: str,
    cause: str,
    *,
    tpus: StandIn,
    opened: Callable[..., EdgeTpuBackend],
    bundle: Bundle,
    frame: U8,
    people: list[FaceBox],
    requests: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tpus.plug()
    backend = opened(QUICK._replace(check_s=0, invoke_s=1.0 if word == "hang" else LONG), (ROLE, "gate"))
    detector = open_detector(bundle, "blazeface", backend)
    assert detector.detect(frame, thorough=True) == people
    tpus.tell(word)
    assert detector.detect(frame, thorough=True) == people, "the frame in hand"
    assert backend.name == "cpu:fallback"
    assert re.search(f"cause={cause}", caplog.text)
    assert detector.detect(frame, thorough=True) == people, "the frame after"
    tpus.tell("ok")
    backend._patience = QUICK
    until(backend, "edgetpu")
    before = len(tpus.seen("detect"))
    assert detector.detect(frame, thorough=True) == people
    assert len(tpus.seen("detect")) == before + sum(requests)


def test_a_tpu_that_finds_golden_faces_elsewhere_is_not_used_for_anything(
    tpus: StandIn, opened: Callable[..., EdgeTpuBackend], bundle: Bundle, frame: U8, people: list[FaceBox]
) -> None:
    tpus.plug()
    tpus.tell("misplace")
    gate = opened()
    assert gate.name == "edgetpu", "its classifiers compute rightly"
    gate.close()
    backend = opened(roles=(ROLE, "gate"))
    assert backend.name == "cpu:fallback"
    assert "detector_int8.tflite: computes wrongly on edgetpu" in backend.trouble
    assert look(bundle, backend, frame) == people


def test_models_are_asked_one_after_the_other_once_a_frame(
    opened: Callable[..., EdgeTpuBackend],
    tpus: StandIn,
    bundle: Bundle,
    frame: U8,
    requests: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tpus.plug()
    backend = opened(roles=(ROLE, *bundle.roles))
    asked: list[tuple[str, int]] = []
    outputs = backend.outputs

    def noting(role: str, chips: U8) -> Any:  # noqa: ANN401 - passed on
        asked.append((role, len(chips)))
        return outputs(role, chips)

    monkeypatch.setattr(backend, "outputs", noting)
    detector = open_detector(bundle, "blazeface", backend)
    pipeline = Pipeline(detector, Router(backend, "gate"), bundle.crop("blazeface"), {"unmasked": 0.0, "masked": 0.0})
    pipeline.see(Frame(frame, 0.0, 0, still=True))
    searched = [(ROLE, size) for size in requests]
    assert asked == [*searched, ("gate", 4), ("fer_unmasked", 2), ("fer_masked", 2)]
