"""Nothing of a face leaves RAM: every system call of both services that writes is traced while they see a known one.

Canaries are what the services really had in hand: pixels of the frame, the chip, the probabilities, and a track
number that nothing else would write.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.config import load
from edge.inference.tflite import to_int8
from edge.vision.preprocess import chip, to_grey
from edge.vision.service import Vision
from tests.end_to_end.test_run import REPO, configure
from tests.support.broker import Mosquitto, needs_mosquitto

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edge.types import U8, CropSpec, FaceBox, Frame, Track

STRACE = shutil.which("strace")
PORTRAIT = REPO / "edge" / "demo_material" / "astronaut.png"
RUN = 24
"""Bytes of a canary: long enough never to occur by chance, short enough to survive any packing in rows."""
TRACK = 7_310_554_217_961_337
WRITING = "write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendmmsg"
UNSEEN = "sendfile,splice,vmsplice,tee,copy_file_range,process_vm_writev,io_uring_setup"
"""Calls that move bytes without showing them to the trace: none may be made."""
MARKED = f"""
import sys
from edge.vision import track
class Marked(track.Tracker):
    def __init__(self, *args):
        super().__init__(*args)
        self._next = {TRACK}
track.Tracker = Marked
from edge.cli import main
sys.exit(main(sys.argv[1:]))
"""


pytestmark = pytest.mark.usefixtures("strace")


@pytest.fixture
def strace() -> None:
    """`make system` brings strace where it may install; where it may not, this is skipped."""
    if STRACE is None:
        may = os.environ.get("CI") == "true" and os.geteuid() == 0 and shutil.which("apt-get")
        (pytest.fail if may else pytest.skip)("no strace: make system, or apt-get install strace")


def traced(folder: Path, *command: object, ends: tuple[int, ...] = (0,)) -> tuple[bytes, set[str], str]:
    """Run a command: (all bytes that it and its children wrote anywhere, paths opened for writing, the trace)."""
    log = folder / "trace"
    calls = f"trace={WRITING},{UNSEEN},open,openat,creat,prlimit64,setrlimit"
    trace = [str(STRACE), "-f", "-qq", "-xx", "-s", "1000000", "-e", calls, "-o", str(log), *map(str, command)]
    done = subprocess.run(
        trace, cwd=REPO, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=300,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode in ends, done.stderr.decode()[-2000:]
    lines = log.read_text().splitlines()
    log.unlink()

    def plain(text: str) -> bytes:
        return bytes.fromhex(text.replace("\\x", ""))

    opened = [re.search(r'(?:open|openat|creat)\(.*?"([^"]*)"(.*)\) = \d', line) for line in lines]
    paths = {plain(m[1]).decode() for m in opened if m and re.search(r"O_WRONLY|O_RDWR|O_CREAT|^$", m[2])}
    texts = (t for line in lines if " open" not in line for t in re.findall(r'"((?:\\x[0-9a-f]{2})+)"', line))
    return b"|".join(map(plain, texts)), paths, "\n".join(lines)


def canaries(config: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What a run of the same configuration has in hand when it sees the portrait."""
    chips: list[U8] = []
    tracks: list[Track] = []
    frames: list[U8] = []

    def noted(image: U8, box: FaceBox, crop: CropSpec) -> U8:
        chips.append(chip(image, box, crop))
        return chips[-1]

    def seen(frame: Frame, found: Sequence[Track]) -> None:
        frames.append(frame.image.copy())
        tracks.extend(found)

    monkeypatch.setattr("edge.vision.pipeline.chip", noted)
    Vision(load(config), on_frame=seen).run()
    (image,), (face,), (track,) = frames, chips, tracks
    x, y = (round(v) for v in track.box.centre)
    runs = [image[y + d, x : x + RUN // 3].tobytes() for d in range(-20, 21, 10)]
    runs += [to_grey(image)[y + d, x : x + RUN].tobytes() for d in range(-20, 21, 10)]
    for one in (face, to_int8(face)):
        runs += [one.reshape(48, 48)[row, 12 : 12 + RUN].tobytes() for row in range(4, 48, 8)]
    p = track.probabilities
    runs += [p.tobytes(), p.astype(np.float64).tobytes(), *(f"{v:.6f}".encode() for v in p if 1e-4 < v < 1 - 1e-4)]
    return [*runs, str(TRACK).encode(), f"{TRACK:x}".encode(), TRACK.to_bytes(8, "little"), TRACK.to_bytes(8, "big")]


@needs_mosquitto
def test_nothing_of_a_face_is_written_anywhere(
    tmp_path: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Mosquitto(tmp_path) as broker:
        (tmp_path / "like").mkdir()
        (tmp_path / "real").mkdir()
        sought = canaries(configure(tmp_path / "like", PORTRAIT, bundle_folder, broker.port), monkeypatch)
        config = configure(tmp_path / "real", PORTRAIT, bundle_folder, broker.port)
        said, opened, trace = traced(tmp_path, sys.executable, "-c", MARKED, "vision", "--config", config)
        # Nobody subscribes: the row is sent, kept, and the publisher says so with 75.
        sent, opened_too, more = traced(
            tmp_path, sys.executable, "-m", "edge", "publish", "--config", config, "--lifeline", "--drain-timeout", 2,
            ends=(75,),
        )  # fmt: skip
    assert b"mechanism" in said, "the trace must have seen the window being recorded"
    assert b'"visitors":1' in sent, "and sent, with the visitor in it"
    assert "RLIMIT_CORE, {rlim_cur=0, rlim_max=0}" in trace, "a crash must not leave a core"
    files = b"".join(path.read_bytes() for path in (tmp_path / "real").rglob("*") if path.is_file())
    assert not [run for run in sought for place in (said, sent, files) if run in place]
    assert not re.search(rb'"(track|number|box|embedding|crop)"', said + sent + files)
    for path in opened | opened_too:
        ours = path.startswith((f"{tmp_path}/real/outbox.db", f"{tmp_path}/real/run/"))
        assert ours or path in {"/dev/null", "/dev/tty"}, f"{path} was opened for writing"
    assert not re.search(rf"\b({UNSEEN.replace(',', '|')})\(", trace + more)


def test_the_trace_would_have_seen_a_leak(tmp_path: Path) -> None:
    """A file, a socket and a log, each with another canary; and a file where none should be."""
    image = np.asarray(cv2.imread(str(PORTRAIT)), np.uint8)
    leak = tmp_path / "leak.bin"
    code = f"""
import cv2, logging, socket
open({str(leak)!r}, "wb").write(cv2.imread({str(PORTRAIT)!r}).tobytes())
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(({TRACK}).to_bytes(8, "little"), ("127.0.0.1", 9))
logging.warning("track %d", {TRACK})
"""
    out, opened, _ = traced(tmp_path, sys.executable, "-c", code)
    assert image[200, 200:208].tobytes() in out
    assert TRACK.to_bytes(8, "little") in out
    assert str(TRACK).encode() in out
    assert str(leak) in opened
