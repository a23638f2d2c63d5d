"""The vision service on a clip whose every frame shows two people, while its Edge TPU fails and comes back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.outbox.outbox import Outbox
from tests.end_to_end.test_canary import canaries, strace, traced  # noqa: F401 - a fixture
from tests.end_to_end.test_run import REPO, configure, until
from tests.support.broker import free_port
from tests.support.processes import alive

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8
    from tests.support.edgetpu import StandIn

LAUNCH = """
import sys
from pathlib import Path
from edge.inference import choose, coral, edgetpu
from edge.cli import main
coral.SYSFS = Path(sys.argv[1])
choose.Patience = lambda: edgetpu.Patience(start_s=60, invoke_s=5, retry_s=0.1, return_s=0.5, check_s=0)
sys.exit(main(sys.argv[2:]))
"""
"""`edge …` with the stand-in's sysfs and less patience."""
PEOPLE = 2


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, portraits: dict[str, U8]) -> Path:
    """Four seconds of two people side by side, the picture moving a little."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    faces = [cv2.resize(portraits[name], (200, 200), interpolation=cv2.INTER_AREA) for name in ("astronaut", "hopper")]
    still = np.hstack(faces)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5.0, (400, 200))
    for i in range(20):
        writer.write(np.roll(still, i % 4, axis=0))
    writer.release()
    return path


def test_faces_are_counted_before_during_and_after(
    tmp_path: Path, film: Path, compiled_bundle: Path, tpus: StandIn
) -> None:
    tpus.plug()
    config = configure(tmp_path, film, compiled_bundle, free_port(), loop=True, seconds=2)
    seen = tmp_path / "run" / "vision.json"
    command = [sys.executable, "-c", LAUNCH, str(tpus.sysfs), "vision", "--config", str(config)]

    def reaches(backend: str, more: int) -> None:
        """Wait for `more` frames on a backend, each with everybody in it."""
        until(lambda: seen.exists() and json.loads(seen.read_text())["backend"] == backend)
        start, before = json.loads(seen.read_text())["development"]["frames"], len(tpus.seen("detect"))
        until(lambda: json.loads(seen.read_text())["development"]["frames"] >= start + more)
        figures = json.loads(seen.read_text())
        assert (figures["backend"], figures["detector"]) == (backend, f"blazeface on {backend}")
        if backend == "edgetpu":
            assert len(tpus.seen("detect")) >= before + more, "faces are looked for on the TPU too"
        assert figures["development"]["faces"] == PEOPLE * figures["development"]["frames"]

    with (tmp_path / "log").open("wb") as out:
        vision = subprocess.Popen(command, cwd=REPO, stderr=out)
    try:
        reaches("edgetpu", 5)
        for word in ("abort", "hang"):
            tpus.tell(word)
            reaches("cpu:fallback", 5)
            tpus.tell("ok")
            reaches("edgetpu", 5)
        vision.send_signal(signal.SIGTERM)
        assert vision.wait(30) == 0
    finally:
        vision.kill()
        vision.wait()
    figures = json.loads(seen.read_text())
    assert figures["development"]["faces"] == PEOPLE * figures["development"]["frames"]
    assert figures["restarts"] >= 2
    assert figures["drops"] == {}
    with closing(Outbox(tmp_path / "outbox.db")) as outbox:
        windows = [row.report() for row in outbox.unsent(10_000)]
    votes = [sum(cell or 0 for row in window.counts.values() for cell in row.values()) for window in windows]
    assert set(votes[:-1]) == {PEOPLE}, votes
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    for line in (
        "backend chosen=edgetpu reason=",
        'detector chosen="blazeface on edgetpu"',
        "cause=died",
        "cause=hung",
    ):
        assert line in log
    assert log.count("backend now=cpu:fallback before=edgetpu") >= 2
    until(lambda: not alive(tpus.seen("invoke")[-1][0]))


@pytest.mark.usefixtures("strace")
def test_no_face_is_written_on_its_way_to_the_worker(
    tmp_path: Path, compiled_bundle: Path, tpus: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    portrait = REPO / "edge" / "demo_material" / "astronaut.png"
    config = configure(tmp_path, portrait, compiled_bundle, free_port())
    sought = canaries(config, monkeypatch)
    tpus.plug()
    out, _, _ = traced(tmp_path, sys.executable, "-c", LAUNCH, str(tpus.sysfs), "vision", "--config", config)
    assert b"backend chosen=edgetpu" in out, "the face must have gone to the worker"
    assert not [run for run in sought if run in out]
