"""No pixel leaves RAM: every write of the vision service is traced while it looks at a known face."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edge.detect.haar import Haar
from edge.preprocess import chip, to_grey
from edge.types import CropSpec
from tests.broker import free_port
from tests.service.test_run import REPO, configure

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import U8

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="no strace; install it with: apt-get install strace")
RUN = 24
"""Bytes of a canary: long enough never to occur by chance, short enough to survive any packing in rows."""


def written(folder: Path, *command: str) -> bytes:
    """All bytes that a command and its children wrote to files and sockets, strung together."""
    log = folder / "trace"
    calls = "trace=write,pwrite64,writev,pwritev,sendto,sendmsg,sendmmsg"
    trace = [str(STRACE), "-f", "-qq", "-xx", "-s", "1000000", "-e", calls, "-o", str(log), *command]
    subprocess.run(trace, cwd=REPO, check=True, stderr=subprocess.DEVNULL, timeout=300)
    return b"|".join(
        bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"((?:\\x[0-9a-f]{2})+)"', log.read_text())
    )


def canaries(image: U8) -> list[bytes]:
    """Byte runs from the face: of the frame (BGR and grey) and of its chip."""
    (box, *_) = Haar().detect(image, thorough=True)
    face = chip(image, box, CropSpec())
    x, y = (round(v) for v in box.centre)
    runs = [image[y + d, x : x + RUN // 3].tobytes() for d in range(-20, 21, 10)]
    runs += [to_grey(image)[y + d, x : x + RUN].tobytes() for d in range(-20, 21, 10)]
    return runs + [face[row, 12 : 12 + RUN].tobytes() for row in range(4, 48, 8)]


@needs_strace
def test_no_face_is_written_anywhere(tmp_path: Path, bundle_folder: Path) -> None:
    portrait = REPO / "edge" / "demo_material" / "astronaut.png"
    image = np.asarray(cv2.imread(str(portrait)), np.uint8)
    config = configure(tmp_path, portrait, bundle_folder, free_port())
    out = written(tmp_path, sys.executable, "-m", "edge", "vision", "--config", str(config))
    assert b"discrete" in out or b"mechanism" in out, "the trace must have seen the window being recorded"
    assert not [run for run in canaries(image) if run in out]
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "trace")
    assert not [run for run in canaries(image) if run in files]
    assert not re.search(rb'"(track|number|box|embedding|crop)"', files)


@needs_strace
def test_the_trace_would_have_seen_a_leak(tmp_path: Path) -> None:
    image = np.asarray(cv2.imread(str(REPO / "edge" / "demo_material" / "astronaut.png")), np.uint8)
    leak = tmp_path / "leak.bin"
    code = f"import cv2; open({str(leak)!r}, 'wb').write(cv2.imread('edge/demo_material/astronaut.png').tobytes())"
    out = written(tmp_path, sys.executable, "-c", code)
    assert [run for run in canaries(image) if run in out]
