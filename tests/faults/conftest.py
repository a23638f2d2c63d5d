"""Everything in this folder carries the marker `faults` and runs by `make test-faults`, not with the unit tests."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pytest

from edge.bundle.golden import golden_answers
from edge.bundle.manifest import load_bundle
from edge.inference.choose import open_backend
from edge.inference.cpu import CpuBackend
from edge.inference.edgetpu import EdgeTpuBackend, Patience
from edge.vision.detect.choose import judge
from tests.faults.kiosk import REPO
from tests.faults.ledger import note
from tests.support.edgetpu import QUICK, SAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edge.types import U8
    from tests.support.edgetpu import Answers

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


@pytest.fixture
def opened(compiled_bundle: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., EdgeTpuBackend]]:
    """Opens the backend of `auto`, by default for the gate only, which starts soonest."""
    caplog.set_level(logging.INFO)
    backends = []

    def make(patience: Patience = QUICK, roles: tuple[str, ...] = ("gate",)) -> EdgeTpuBackend:
        backend = open_backend(load_bundle(compiled_bundle), roles, "auto", judge, patience, runtime=SAME)
        assert isinstance(backend, EdgeTpuBackend)
        backends.append(backend)
        return backend

    yield make
    for backend in backends:
        backend.close()


@pytest.fixture(scope="module")
def chips(bundle_folder: Path) -> U8:
    """Many faces: all golden chips of the masked and the unmasked model."""
    golden = golden_answers(load_bundle(bundle_folder), ("fer_unmasked", "fer_masked"))
    return np.concatenate([golden["fer_unmasked"][0], golden["fer_masked"][0]])


@pytest.fixture(scope="module")
def right(bundle_folder: Path, chips: U8) -> Answers:
    """What the CPU says of them; the stand-in computes the same to 1 LSB."""
    return CpuBackend(load_bundle(bundle_folder), ("gate",), choice=SAME).outputs("gate", chips).astype(int)
