"""With and without one visitor: every published field but the noised cells is the same."""

from __future__ import annotations

import json
import logging
import re
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from edge.contract import counts_payload, encode
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import read_vision
from edge.process.clock import SystemClock
from edge.publisher.health import health
from edge.vision.service import Vision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge.config import Config
    from edge.types import U8

NOISED = ("counts", "noise_draws", "suppressed_cells", "visitors")
TIMED = ("invoke_ms",)
"""Figures that no two runs share; what they may tell is said in docs/privacy.md."""


@pytest.fixture
def rooms(portraits: dict[str, U8], tmp_path: Path) -> dict[str, Path]:
    """Four pictures of an empty room; the same with a visitor in the third; with one too far away to be read."""
    empty = np.random.default_rng(3).integers(60, 180, (60, 80, 3), np.uint8)
    room = cv2.resize(empty, (320, 240), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    folders = {}
    for name, size in (("empty", 0), ("near", 240), ("far", 80)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for i in range(4):
            picture = room.copy()
            if size and i == 2:
                picture[:size, :size] = cv2.resize(portraits["astronaut"], (size, size))
            cv2.imwrite(str(folders[name] / f"{i}.png"), picture)
    return folders


class StoppedClock(SystemClock):
    """The same noon for every run."""

    def __init__(self) -> None:
        super().__init__(synced=lambda: True)

    def monotonic(self) -> float:
        return 1000.0

    def utcnow(self) -> datetime:
        return datetime(2026, 11, 21, 12, tzinfo=UTC)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a kiosk's log would hold: no DEBUG of Pillow's, and no camera ends and says why nobody could vote."""
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("edge")]
    return [line for line in lines if not line.startswith("event=no_vote_possible")]


def published(config: Config, caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Everything that leaves: windows, health, log."""
    clock = StoppedClock()
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        Vision(config, clock=clock).run()
    with Outbox(config.storage.outbox, clock=clock) as outbox:
        windows = [
            counts_payload(row.report(), site="s", device="d", boot_id=row.boot_id, seq=row.seq, prev=row.prev)
            for row in outbox.unsent()
        ]
        stats = outbox.stats()
    config.storage.outbox.unlink()
    shutil.rmtree(config.storage.outbox.with_name("outbox.db.ledger"))
    figures = read_vision(config.storage.runtime)
    assert figures is not None
    says = health(figures, stats, clock, None)
    assert says.invoke_ms.p50 is not None, "null until the first face would tell of it"
    assert (says.backend, says.detector) == ("cpu", "blazeface on cpu")
    return {
        "counts": [json.loads(encode(w)) | {"boot_id": None} for w in windows],
        "health": {k: v for k, v in json.loads(encode(says)).items() if k not in TIMED} | {"boot_id": None},
        "log": [re.sub(r"[0-9a-f]{32}", "*", line) for line in told(caplog)],
        "development": figures.development,
    }


def test_one_visitor_changes_no_field_but_the_noised_cells(
    settings: Callable[..., Config], rooms: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    def run(name: str, **privacy: object) -> dict[str, Any]:
        return published(
            settings(
                rooms[name],
                window={"seconds": 2.0},
                privacy=privacy,
                detector={"rotations": (0.0,), "min_face": 20},
            ),
            caplog,
        )

    seen = {name: run(name) for name in rooms}
    verbose = {name: said.pop("development") for name, said in seen.items()}
    assert {name: d.faces for name, d in verbose.items()} == {"empty": 0, "near": 1, "far": 0}
    assert {name: d.drops for name, d in verbose.items()} == {"empty": {}, "near": {}, "far": {"too_small": 1}}
    for said in seen.values():
        assert len(said["counts"]) == 2
        for window in said["counts"]:
            for field in NOISED:
                del window[field]
    assert seen["near"] == seen["far"] == seen["empty"]
    exact = run("near", noise="off", min_count=1)["counts"]
    assert [w["visitors"] for w in exact] == [0, 1], "without noise the visitor is there to be seen"


def test_who_steps_before_a_plain_wall_decides_neither_noise_nor_budget(
    settings: Callable[..., Config], portraits: dict[str, U8], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A view without contrast counts as covered, until somebody stands in it: for one picture in fifty."""
    seen: dict[str, dict[str, Any]] = {}
    for name in ("plain", "visited"):
        folder = tmp_path / name
        folder.mkdir()
        for i in range(50):
            picture = np.full((240, 320, 3), 128, np.uint8)
            if name == "visited" and i == 20:
                picture[:, :240] = cv2.resize(portraits["astronaut"], (240, 240))
            cv2.imwrite(str(folder / f"{i:02}.png"), picture)
        seen[name] = published(
            settings(folder, window={"seconds": 50.0}, detector={"rotations": (0.0,), "min_face": 20}), caplog
        )
    assert (seen["plain"].pop("development").faces, seen["visited"].pop("development").faces) == (0, 1)
    for said in seen.values():
        (window,) = said["counts"]
        assert said["health"]["privacy"]["spent_today"] == 1, "noise was drawn"
        for field in NOISED:
            del window[field]
    assert seen["visited"] == seen["plain"]
