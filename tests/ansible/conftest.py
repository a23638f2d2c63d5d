"""The device that `edge-release` works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.edge_release import edge_release

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, on a device of its own folders: release 1 runs confirmed, 2 is staged. systemd is not there."""
    return edge_release(tmp_path, monkeypatch)
