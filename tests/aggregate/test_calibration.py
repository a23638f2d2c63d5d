"""Confusion tables: from a bundle's manifest to weights, exactly, and what is refused on the way."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.calibration import MANIFEST_LIMIT, Table, correct, exact_inverse, read_manifest

from edge.bundle.manifest import load_bundle
from edge.contract import ContractError
from edge.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

BUNDLE = next(Path(__file__).parents[2].glob("models/*"))
MANIFEST = BUNDLE / "manifest.json"
FROZEN = Path(__file__).with_name("frozen_manifest.json")
"""That of `fer-2026.12`: bits are held on a table that no new bundle changes."""

HAPPY = [
    "-0.042759061664454895",
    "-0.013211496864093843",
    "-0.011383381035621237",
    "1.1450050486025078",
    "-0.11599326962312137",
    "0.005314498238351058",
    "-0.0378496455799176",
    "-0.012937149803144513",
]
SPREAD = [
    "0.0001086560297403369",
    "0.00046971200770779323",
    "6.88783030292131e-05",
    "0.00017403863186459494",
    "0.00017217872893385635",
    "5.4136203780919966e-05",
    "0.00010334986732269057",
]


def test_a_bundle_gives_a_table_per_reader_under_the_hash_that_counts_name() -> None:
    bundle = load_bundle(BUNDLE)
    tables = read_manifest(MANIFEST)
    assert [t.key for t in tables] == [(role, bundle.digest(role)) for role in ("fer_unmasked", "fer_masked")]
    assert {t.bundle for t in tables} == {bundle.manifest.name}
    for table in tables:
        assert [list(row) for row in table.counts] == bundle.entry(table.role).confusion


def test_the_weights_undo_the_table_exactly_and_lose_nobody() -> None:
    for table in read_manifest(MANIFEST):
        rates, inverse = exact_inverse(table)
        assert all(sum(row) == 1 for row in rates)
        for i, row in enumerate(rates):
            for j in range(7):
                assert sum(p * inverse[k][j] for k, p in enumerate(row)) == Fraction(int(i == j))
        assert all(sum(row) == 1 for row in inverse)
        found = correct(table)
        assert found.key == table.key
        assert found.happy == found.inverse[3] == tuple(float(row[3]) for row in inverse)
        for i, (row, n) in enumerate(zip(rates, map(sum, table.counts), strict=True)):
            square = sum(p * inverse[k][3] ** 2 for k, p in enumerate(row))
            assert found.spread[i] == float((square - int(i == 3)) / n) > 0


def test_the_weights_are_these_to_the_last_bit() -> None:
    found = correct(read_manifest(FROZEN)[0])
    assert [repr(w) for w in found.happy] == HAPPY
    assert [repr(w) for w in found.spread] == SPREAD


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    manifest = json.loads(MANIFEST.read_text())
    change(manifest)
    return json.dumps(manifest)


def confusion(manifest: dict[str, Any]) -> list[Any]:
    table: list[Any] = manifest["models"][1]["confusion"]
    return table


def same(manifest: dict[str, Any]) -> None:
    confusion(manifest)[5] = list(confusion(manifest)[4])


def no_readers(manifest: dict[str, Any]) -> None:
    manifest["models"] = manifest["models"][:1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("not json", "not JSON"),
        ("[" * 100_000, "recursion limit"),
        ('"\\ud800"', "not JSON"),
        ("[]", "file: Input should be"),
        ("{}", "name: Field required"),
        (changed(lambda m: m.pop("models")), "models: Field required"),
        (changed(lambda m: m.update(models=[7])), "models.0: Input should be"),
        (changed(lambda m: m.update(name="x\x1b[2J")), "name: String should match"),
        (changed(no_readers), "no model of role fer_unmasked or fer_masked"),
        (changed(lambda m: m["models"].append(m["models"][1])), "a role is there twice"),
        (changed(lambda m: m["models"][1].pop("confusion")), "models.1: confusion is missing"),
        (changed(lambda m: m["models"][2].update(confusion=None)), "models.2: confusion is missing"),
        (changed(lambda m: m["models"][1].update(sha256="abc")), "models.1.sha256"),
        (changed(lambda m: m["models"][1]["labels"].reverse()), "labels are not angry, disgust"),
        (changed(lambda m: confusion(m).pop()), "models.1.confusion: List should have at least 7"),
        (changed(lambda m: confusion(m)[2].append(1)), "models.1.confusion.2: List should have at most 8"),
        (changed(lambda m: confusion(m)[2].__setitem__(0, -1)), "confusion.2.0: Input should be greater"),
        (changed(lambda m: confusion(m)[2].__setitem__(0, 1.5)), "confusion.2.0: Input should be a valid integer"),
        (changed(lambda m: confusion(m)[2].__setitem__(0, 1.0)), "confusion.2.0: Input should be a valid integer"),
        (changed(lambda m: confusion(m)[2].__setitem__(0, "1")), "confusion.2.0: Input should be a valid integer"),
        (
            changed(lambda m: confusion(m)[2].insert(0, confusion(m)[2].pop(0) > 0)),
            "confusion.2.0: Input should be a valid integer",
        ),
        (changed(lambda m: confusion(m)[2].__setitem__(0, 10**9 + 1)), "confusion.2.0: Input should be less"),
        (changed(lambda m: confusion(m).__setitem__(1, [0] * 8)), "no picture of disgust"),
        (changed(same), "reads an expression as a mixture of others"),
    ],
)
def test_what_is_no_manifest_is_one_line_that_says_where(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(ContractError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert message.isprintable()


def test_what_is_no_file_of_a_sane_size_is_one_line(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b" " * (MANIFEST_LIMIT + 1))
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "absent", "there is none"),
        (tmp_path, "is no file"),
        (tmp_path / "pipe", "is no file"),
        (big, "larger than"),
        (tmp_path / "a\0b", "manifest.json of a bundle"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("/proc/self/mem"), "Input/output error"),  # opens, and cannot be read: root is no exception
    ):
        with pytest.raises(SourceError, match=reason):
            read_manifest(path)


def test_a_table_as_large_as_is_allowed_is_still_exact() -> None:
    large = tuple(tuple(10**9 - 7 * i * j if i == j else 3**j for j in range(8)) for i in range(7))
    rates, inverse = exact_inverse(Table("fer_unmasked", "sha256:" + "0" * 64, large, "big"))
    assert sum(p * inverse[k][3] for k, p in enumerate(rates[3])) == 1
