"""What the benches say of their own figures: what moved, what differs. Their measuring is not repeated here."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Bench = Callable[[str], Any]

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Imports a script of `bench/` as it is run: with its folder on the path."""
    monkeypatch.syspath_prepend(str(BENCH))

    yield import_module
    for name in [name for name, module in sys.modules.items() if str(BENCH) in str(getattr(module, "__file__", ""))]:
        if "." not in name:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("here", "there", "moved"),
    [
        ([50.0, 52.0, 51.0], [10.0, 11.0, 10.5], True),
        ([10.0, 10.2, 10.1], [10.1, 10.1, 10.1], False),
        ([10.0, 30.0, 20.0], [9.0, 10.0, 19.0], False),
        ([1.0], [1.0], False),
        ([1.0], [2.0], True),
    ],
    ids=["far apart", "both ways", "one way, within the noise", "one round, the same", "one"],
)
def test_quick_says_what_moved_by_more_than_the_noise(
    bench: Bench, here: list[float], there: list[float], *, moved: bool
) -> None:
    assert bench("quick").moved(here, there) is moved
    assert bench("quick").moved(there, here) is moved


def test_answers_on_arm_are_compared_output_by_output(bench: Bench) -> None:
    arm = bench("arm64")
    wanted = {role: np.array([[1, 9], [9, 1]], np.int8) for role in arm.ROLES}
    got = {role: np.concatenate([answers, answers]) for role, answers in wanted.items()}
    got["gate"] = got["gate"] + np.array([[0, 0], [0, 1], [5, 5], [5, 5]], np.int8)
    got["fer_masked"] = got["fer_masked"][:, ::-1]
    same = "same bits (4)"
    assert arm.compared(got, wanted).split(" | ") == [
        same,
        "1 of 4, ≤ 1 LSB",
        same,
        "4 of 4, ≤ 8 LSB, 2 of 2 with another argmax",
    ]
    assert "of 8" in arm.compared(got, {role: np.concatenate([one, one]) for role, one in wanted.items()})
