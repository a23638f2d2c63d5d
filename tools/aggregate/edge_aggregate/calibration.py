"""How a model's answers relate to the truth: confusion tables by model hash, and what undoes them.

A table says how often each of the seven expressions was read as which, on labelled pictures. `correct` turns it into
weights under which a cell's counts add up to the happy faces that there were, whatever the others looked like
(docs/decisions/0029-bands.md). The weights are rational numbers until they are done: every machine has the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.contract import ContractError, read_json
from edge.errors import SourceError
from edge.types import CELLS, EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MANIFEST_LIMIT: Final = 4 * 2**20
"""Bytes of a manifest, at most."""
PICTURES_LIMIT: Final = 10**9
"""Pictures in one cell of a table, at most: beyond it the rational numbers would take long for nothing."""
ROLES: Final = ("fer_unmasked", "fer_masked")
"""Roles of the models that read expressions, in the order of the routes."""

_ADDED: Final = Fraction(1, 10)
"""Added to each cell, so that what was never seen on a few hundred pictures is rare and not impossible."""
_HAPPY: Final = EMOTIONS.index("happy")


@dataclass(frozen=True, slots=True)
class Table:
    """A model's confusion table: `counts` has a row per true expression (7), a column per cell of `CELLS` (8).

    `role` is one of `ROLES`, `digest` the model's `sha256:<64 hex>` as payloads name it, `bundle` where it came from.
    """

    role: str
    digest: str
    counts: tuple[tuple[int, ...], ...]
    bundle: str

    @property
    def key(self) -> tuple[str, str]:
        """(role, digest): what a count is corrected by."""
        return self.role, self.digest


@dataclass(frozen=True, slots=True)
class Correction:
    """What undoes a table, as the floats nearest to the exact numbers.

    `inverse` (7 rows of 8): the weight of each cell's count in the number of faces with an expression. `happy` (8): its
    row for the happy ones. `spread` (7): the variance of the happy number per squared face of an expression, since the
    table was counted on so many pictures and not on all.
    """

    role: str
    digest: str
    inverse: tuple[tuple[float, ...], ...]
    happy: tuple[float, ...]
    spread: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str]:
        """(role, digest)."""
        return self.role, self.digest


@lru_cache(maxsize=256)
def correct(table: Table) -> Correction:
    """The correction of a table, about 20 ms the first time. Raises ContractError if two expressions read the same."""
    rates, inverse = exact_inverse(table)
    happy = [row[_HAPPY] for row in inverse]
    spread = []
    for counted, row in zip(table.counts, rates, strict=True):
        mean = sum(p * w for p, w in zip(row, happy, strict=True))
        square = sum(p * w * w for p, w in zip(row, happy, strict=True))
        spread.append((square - mean**2) / sum(counted))
    return Correction(
        table.role,
        table.digest,
        tuple(tuple(map(float, column)) for column in zip(*inverse, strict=True)),
        tuple(map(float, happy)),
        tuple(map(float, spread)),
    )


def exact_inverse(table: Table) -> tuple[list[list[Fraction]], list[list[Fraction]]]:
    """P (7 × 8), how an expression is read, and W (8 × 7) with P·W = 1: exact.

    Of all such W it is W = G⁻¹Pᵀ(PG⁻¹Pᵀ)⁻¹, with G the cells' mean rates on its diagonal: the least noisy one for a
    crowd of which nothing is known. Its rows add up to 1, so that nobody is added or lost.

    Raises:
        ContractError: an expression is read as another, or as a mixture of others.

    """
    rates = []
    for row in table.counts:
        total = sum(row) + len(row) * _ADDED
        rates.append([(count + _ADDED) / total for count in row])
    weights = [len(rates) / sum(column) for column in zip(*rates, strict=True)]
    scaled = [[p * g for p, g in zip(row, weights, strict=True)] for row in rates]
    square = [[_dot(one, other) for other in scaled] for one in rates]
    # The square is its own transpose, and so is its inverse: Wᵀ = (PG⁻¹Pᵀ)⁻¹ PG⁻¹.
    solved = _solve(square, scaled)
    if solved is None:
        msg = (
            f"{table.bundle}: the table of {table.role} reads an expression as a mixture of others: nothing undoes that"
        )
        raise ContractError(msg)
    return rates, [list(column) for column in zip(*solved, strict=True)]


def _dot(one: Sequence[Fraction], other: Sequence[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(one, other, strict=True)), Fraction(0))


def _solve(square: list[list[Fraction]], right: list[list[Fraction]]) -> list[list[Fraction]] | None:
    """X with square · X = right by elimination; None where the square has no inverse."""
    rows = [[*left, *side] for left, side in zip(square, right, strict=True)]
    size = len(rows)
    for i in range(size):
        pivot = next((k for k in range(i, size) if rows[k][i]), None)
        if pivot is None:
            return None
        rows[i], rows[pivot] = rows[pivot], rows[i]
        head = rows[i][i]
        rows[i] = [value / head for value in rows[i]]
        for k in range(size):
            if k != i and (factor := rows[k][i]):
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[size:] for row in rows]


class _Read(BaseModel):
    """A part of a manifest: what is not named here is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


_Pictures = Annotated[int, Field(ge=0, le=PICTURES_LIMIT)]
_Row = Annotated[list[_Pictures], Field(min_length=len(CELLS), max_length=len(CELLS))]


class _Model(_Read):
    role: Annotated[str, Field(max_length=64)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    labels: list[str] = []
    confusion: Annotated[list[_Row], Field(min_length=len(EMOTIONS), max_length=len(EMOTIONS))] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.role not in ROLES:
            return self
        if self.labels != list(EMOTIONS):
            msg = f"labels are not {', '.join(EMOTIONS)}"
            raise ValueError(msg)
        if self.confusion is None:
            msg = "confusion is missing, the table of how it reads labelled pictures"
            raise ValueError(msg)
        for name, row in zip(EMOTIONS, self.confusion, strict=True):
            if not any(row):
                msg = f"confusion has no picture of {name}"
                raise ValueError(msg)
        return self


class _Manifest(_Read):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}$")]
    models: Annotated[list[_Model], Field(max_length=64)]

    @model_validator(mode="after")
    def _readers(self) -> Self:
        roles = [model.role for model in self.models if model.role in ROLES]
        if not roles:
            msg = f"it has no model of role {' or '.join(ROLES)}"
            raise ValueError(msg)
        if len(set(roles)) < len(roles):
            msg = "a role is there twice"
            raise ValueError(msg)
        return self


def read_manifest(path: Path) -> list[Table]:
    """The tables of a bundle's `manifest.json`, in its order: of its models, only the hashes are needed.

    Raises:
        SourceError: it cannot be read as a file of at most `MANIFEST_LIMIT` bytes.
        ContractError: it is no manifest with 7 × 8 tables that can be undone; in one line with the place.

    """
    try:
        if not path.is_file():
            msg = f"{path}: {'is no file' if path.exists() else 'there is none'}: give the manifest.json of a bundle"
            raise SourceError(msg)
        with path.open("rb") as file:
            content = file.read(MANIFEST_LIMIT + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        msg = f"{path}: {why}: give the manifest.json of a bundle"
        raise SourceError(msg) from error
    if len(content) > MANIFEST_LIMIT:
        msg = f"{path}: is larger than {MANIFEST_LIMIT} bytes: give the manifest.json of a bundle"
        raise SourceError(msg)
    try:
        manifest = _Manifest.model_validate(read_json(content, limit=MANIFEST_LIMIT))
    except ContractError as error:
        msg = f"{path}: {error}: give the manifest.json of a bundle"
        raise ContractError(msg) from error
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        why = first["msg"].removeprefix("Value error, ")
        msg = f"{path}: {where}: {why}: give the manifest.json of a bundle made by edge-quantize"
        raise ContractError(msg) from error
    tables = [
        Table(model.role, f"sha256:{model.sha256}", tuple(map(tuple, model.confusion)), manifest.name)
        for model in manifest.models
        if model.role in ROLES and model.confusion is not None
    ]
    for table in tables:
        try:
            correct(table)
        except ContractError as error:
            msg = f"{path}: {error}"
            raise ContractError(msg) from error
    return tables
