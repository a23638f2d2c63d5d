"""What COMMIT has answered is there after the power was cut."""

from __future__ import annotations

import os
import random
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.power import UML, cut_power, panics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.conftest import Done

CUTS = 3


@pytest.fixture(autouse=True)
def _power(tmp_path_factory: pytest.TempPathFactory) -> None:
    if UML is None:
        reason = "no User-Mode Linux on PATH; install it with: apt-get install user-mode-linux"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    if "amx_tile" in Path("/proc/cpuinfo").read_text(encoding="utf-8") and panics(tmp_path_factory.mktemp("boot")):
        pytest.skip("this User-Mode Linux boots on no processor with AMX: run it on another, or with a newer kernel")


def moments() -> Iterator[float]:
    """Seconds of committing before each cut."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    while True:
        yield chance.uniform(0.2, 2.0)


def test_nothing_committed_is_lost(tmp_path: Path, done: Done) -> None:
    committed, lost = cut_power(tmp_path, CUTS, moments(), "FULL")
    done({"power_cut": CUTS}, committed=committed, lost_after_commit=lost)
    assert committed >= CUTS
    assert lost == 0


def test_the_cut_is_one(tmp_path: Path, done: Done) -> None:
    """The control: without synchronous writing the same cut costs windows."""
    committed, lost = cut_power(tmp_path, 1, moments(), "OFF")
    done({"power_cut_control": 1}, control_committed=committed, control_lost=lost)
    assert lost > 0
