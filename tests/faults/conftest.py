"""Everything in this folder carries the marker `faults` and runs by `make test-faults`, not with the unit tests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.faults.kiosk import REPO
from tests.faults.ledger import note

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).parent
LEDGER = REPO / "build" / "faults.jsonl"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark this folder's tests."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)


class Done(Protocol):
    """Notes in the ledger what a test has done."""

    def __call__(self, faults: Mapping[str, int], **figures: float) -> None:
        """See `tests.faults.ledger.note`."""
        ...


@pytest.fixture
def done() -> Done:
    """Notes what was done in build/faults.jsonl."""
    began = time.monotonic()

    def write(faults: Mapping[str, int], **figures: float) -> None:
        note(LEDGER, faults, time.monotonic() - began, **figures)

    return write
