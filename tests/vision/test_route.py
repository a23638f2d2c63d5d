"""Which models are asked, with how many chips: every strategy, counted by a false backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edge.vision.route import ROLES, Router

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.types import F32, U8, Route, Strategy


class Counting:
    """A backend that notes who was asked for which chips; a chip's first pixel comes back as the answer."""

    name, restarts = "cpu", 0

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[int]]] = []

    def outputs(self, role: str, chips: U8) -> NDArray[np.int8]:
        pytest.fail(f"the router needs probabilities, and asked {role} for the raw answers of {len(chips)} chips")

    def probabilities(self, role: str, chips: U8) -> F32:
        marks = [int(c[0, 0]) for c in chips]
        self.asked.append((role, marks))
        width = 2 if role == "gate" else 7
        return np.array([[m / 100] * width for m in marks], np.float32)

    def attend(self) -> None:
        pass

    def close(self) -> None:
        pass


CHIPS = np.zeros((4, 48, 48), np.uint8) + np.array([10, 20, 30, 40], np.uint8)[:, None, None]
MIXED: list[Route] = ["unmasked", "masked", "unmasked", "masked"]


@pytest.mark.parametrize(
    ("strategy", "routes", "asked"),
    [
        ("gate", MIXED, [("gate", [10, 20, 30, 40]), ("fer_unmasked", [10, 30]), ("fer_masked", [20, 40])]),
        ("gate", ["masked"] * 4, [("gate", [10, 20, 30, 40]), ("fer_masked", [10, 20, 30, 40])]),
        (
            "highest-probability",
            ["unmasked"] * 4,
            [("fer_unmasked", [10, 20, 30, 40]), ("fer_masked", [10, 20, 30, 40])],
        ),
        ("single", MIXED, [("fer_unmasked", [10, 20, 30, 40])]),
    ],
)
def test_who_is_asked(strategy: Strategy, routes: list[Route], asked: list[tuple[str, list[int]]]) -> None:
    backend = Counting()
    router = Router(backend, strategy)
    gate = router.masked(CHIPS)
    answers = router.expressions(CHIPS, routes)
    assert backend.asked == asked
    assert {role for role, _ in asked} <= set(ROLES[strategy])
    assert (gate == [None] * 4) is (strategy != "gate")
    for i, answer in enumerate(answers):  # each face has its own answer
        assert answer
        assert all(p[0] == pytest.approx((i + 1) / 10) for p in answer.values())


def test_the_gate_says_how_likely_a_mask_is() -> None:
    assert Router(Counting(), "gate").masked(CHIPS) == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("strategy", ROLES)
def test_without_a_face_no_fer_model_is_asked(strategy: Strategy) -> None:
    backend = Counting()
    assert Router(backend, strategy).expressions(CHIPS[:0], []) == []
    assert backend.asked == []
