"""Evaluation on made-up answers, so that every figure can be checked by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edge_quantize import evaluate, metrics, report
from edge_quantize.data import Fer2013

if TYPE_CHECKING:
    from pathlib import Path


def test_ferplus_majority_maps_to_our_classes() -> None:
    votes = np.zeros((5, 10), np.int16)
    votes[0, 1] = 8  # happiness
    votes[1, 0] = votes[1, 3] = 5  # a tie
    votes[2] = -1  # unknown
    votes[3, 9] = 7  # not a face
    votes[4, 4] = 6  # anger
    assert evaluate.ferplus_majority(votes).tolist() == [3, -1, -1, -1, 0]


def test_happy_bias_of_a_perfect_and_of_an_eager_classifier() -> None:
    perfect = np.hstack([np.eye(7, dtype=int) * 100, np.zeros((7, 1), int)])
    assert evaluate.happy_bias(perfect.tolist(), (0.15, 0.5)) == {"0.15": 0.15, "0.50": 0.5}
    eager = perfect.copy()
    eager[4] = (0, 0, 0, 60, 40, 0, 0, 0)
    assert evaluate.happy_bias(eager.tolist(), (0.15,))["0.15"] == pytest.approx(0.15 + 0.85 * 0.1)
    shy = perfect.copy()
    shy[:3, 7] = shy[[0, 1, 2], [0, 1, 2]]
    shy[[0, 1, 2], [0, 1, 2]] = 0
    assert evaluate.happy_bias(shy.tolist(), (0.5,))["0.50"] == pytest.approx(0.5 / 0.75, abs=1e-4)


def test_single_pictures_leaves_out_both_of_a_pair() -> None:
    fer = made_up(6)
    assert evaluate.single_pictures(fer, np.arange(6)).tolist() == [True, True, True, True, False, False]


def made_up(n: int) -> Fer2013:
    """A data set of n faces, all of PublicTest; the last two show the same picture."""
    rng = np.random.default_rng(0)
    group = np.arange(n, dtype=np.int32)
    group[-1] = group[-2]
    return Fer2013(
        images=rng.integers(0, 256, (n, 48, 48)).astype(np.uint8), labels=(np.arange(n) % 7).astype(np.uint8),
        public=np.ones(n, bool), votes=np.full((n, 10), -1, np.int16), dup_group=group, usable=np.zeros(n, bool),
    )  # fmt: skip


def test_the_report_is_complete_and_refers_to_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fer, rng = made_up(70), np.random.default_rng(3)
    rows = np.arange(70)

    def said(classes: int) -> Any:  # noqa: ANN401
        return rng.dirichlet(np.ones(classes), 70).astype(np.float32)

    roles = {"gate": 2, "fer_unmasked": 7, "fer_masked": 7}
    answers = evaluate.Answers(rows, rows, {r: said(k) for r, k in roles.items()},
                               {r: said(k) for r, k in roles.items()},
                               said(2), {"gate": 0.2, "fer_unmasked": 1.0, "fer_masked": 1.0})  # fmt: skip

    class Worn:
        params = np.array([(k % 5, float(k)) for k in range(70)], np.dtype([("kind", "u1"), ("tone", "<f4")]))

    monkeypatch.setattr(evaluate, "frozen", Worn)
    mixture = evaluate._mixture(fer, answers)
    assert mixture["masked_share"] == 0.5
    assert mixture["time_ratio"] == pytest.approx(0.6)
    made: dict[str, Any] = {"bundle": "b", "created": "now", "mixture": mixture, "not_measured": [], "sha256": {},
                            "invoke_ms": answers.invoke_ms}  # fmt: skip
    for role, source in (("fer_unmasked", answers.bare), ("fer_masked", answers.worn)):
        made[role] = evaluate._expression(fer, rows, source[role], 0.3)
        made[role]["happy_share_read"] = evaluate.happy_bias(made[role]["confusion_with_uncertain"])
        assert np.array(made[role]["confusion_with_uncertain"]).shape == (7, 8)
        assert np.array(made[role]["confusion_with_uncertain"]).sum() == 70
        assert made[role]["without_duplicates"]["n"] == 68
    made["fer_masked"]["by_kind"] = {"surgical": metrics.share(np.ones(4, bool))}
    made["gate"] = evaluate._gate(answers, rows % 2, np.linspace(1, 1.6, 70).astype(np.float32), rows // 2)
    assert made["gate"]["real_held_out"]["tight"]["n"] + made["gate"]["real_held_out"]["loose"]["n"] == 70
    assert made["gate"]["real_held_out"]["by_photo"]["n"] == 35
    report.write(made, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 7
    assert "http://" not in page
    assert "https://" not in page
    assert "not measured" in (tmp_path / "report.md").read_text(encoding="utf-8")
