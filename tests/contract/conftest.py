"""What every test of the contract may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.broker import Mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running Mosquitto."""
    with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture(scope="session")
def schemas() -> Path:
    """The committed JSON Schemas."""
    return Path(__file__).parents[2] / "docs" / "schema"
