"""A camera that is not there, is pulled out, or sticks: what was counted stays, and nobody is "nobody"."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.errors import SourceError
from edge.outbox.outbox import Outbox
from tests.faults.kiosk import REPO

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import WindowReport
    from tests.faults.conftest import Done

CONFIG = """[device]
id = "kiosk-07"
site = "lobby"
purpose = "test"
mode = "development"
[camera]
{camera}
[detector]
rotations = [0]
[models]
bundle = '{bundle}'
[window]
seconds = {seconds}
[privacy]
noise = "off"
min_count = 1
[storage]
outbox = "outbox.db"
runtime = "run"
"""

UNPLUGGED = textwrap.dedent("""
    import sys, time
    import numpy as np
    import edge.vision.service
    from edge.cli import main
    from edge.errors import SourceError
    from edge.types import Frame

    class Unplugged:
        \"\"\"A live camera that is pulled out after two seconds.\"\"\"
        live, ended, index, turns = True, False, 0, (0,)
        def __init__(self):
            self.drops, self.began = {}, time.monotonic()
            self.noise = np.random.default_rng(1)
        def read(self, timeout):
            time.sleep(0.05)
            if time.monotonic() - self.began > 2:
                raise SourceError("camera /dev/video0 stopped giving frames: unplugged?")
            self.index += 1
            return Frame(self.noise.integers(0, 255, (48, 64, 3), np.uint8), time.monotonic(), self.index)
        def close(self):
            self.ended = True

    edge.vision.service.open_cameras = lambda _: Unplugged()
    sys.exit(main(["vision", "--config", sys.argv[1]]))
""")


def configure(folder: Path, bundle: Path, camera: str, seconds: float = 5) -> Path:
    """A configuration without a broker."""
    path = folder / "config.toml"
    path.write_text(CONFIG.format(camera=camera, bundle=bundle, seconds=seconds))
    return path


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and log of a program of this tree."""
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=REPO, capture_output=True, text=True, check=False, timeout=300
    )
    return ended.returncode, ended.stderr


def reports(folder: Path) -> list[WindowReport]:
    """The windows of the outbox."""
    with Outbox(folder / "outbox.db") as outbox:
        return [row.report() for row in outbox.unsent()]


def test_not_there(tmp_path: Path, bundle_folder: Path, done: Done) -> None:
    config = configure(tmp_path, bundle_folder, f'kind = "v4l2"\nsource = "{tmp_path}/video0"')
    code, log = run("-m", "edge", "vision", "--config", config)
    assert code == SourceError.exit_code
    assert "is it plugged in" in log
    done({"camera_absent": 1})


def test_unplugged_and_back(tmp_path: Path, bundle_folder: Path, done: Done) -> None:
    config = configure(tmp_path, bundle_folder, 'kind = "v4l2"', seconds=0.5)
    for _ in range(2):
        code, log = run("-c", UNPLUGGED, config)
        assert code == SourceError.exit_code
        assert "unplugged?" in log
    with Outbox(tmp_path / "outbox.db") as outbox:
        rows = outbox.unsent()
    first = [row for row in rows if row.boot_id == rows[0].boot_id]
    second = rows[len(first) :]
    assert sum(row.report().seconds for row in first) >= 1.5, "up to the last frame"
    assert {row.prev for row in second} == {first[-1].key}
    done({"camera_unplugged": 2}, committed=len(rows))


def test_stuck_on_one_picture(tmp_path: Path, bundle_folder: Path, done: Done) -> None:
    """Twenty seconds of the same frame: unknown from the tenth on, not zero."""
    clip = tmp_path / "stuck.mkv"  # lossless: a rate control would make the frames differ
    picture = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"FFV1"), 10, (128, 96))
    for _ in range(200):
        writer.write(picture)
    writer.release()
    config = configure(tmp_path, bundle_folder, f"kind = \"replay\"\nsource = '{clip}'")
    code, log = run("-m", "edge", "vision", "--config", config)
    assert code == 0, log
    seen = [(report.scene, report.coverage) for report in reports(tmp_path)]
    assert [scene for scene, _ in seen] == ["ok", "ok", "frozen", "frozen"]
    assert [coverage < 0.1 for _, coverage in seen] == [False, False, True, True]
    done({"frames_frozen": 1}, committed=len(seen))
