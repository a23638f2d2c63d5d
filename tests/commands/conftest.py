"""A configuration for the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.config_text import GOOD

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path
