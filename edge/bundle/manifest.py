"""The model bundle: signature, manifest, checksums, golden answers. A bundle that computes wrongly is not used."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.bundle.newest import MANIFEST_LIMIT
from edge.bundle.signature import Signed, verify_signature
from edge.contract import ContractError, read_json
from edge.errors import BundleError
from edge.types import EMOTIONS, PREPROCESS_ID, ROUTES, CropSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Judge = Callable[["Bundle", str, str, NDArray[np.int8], NDArray[np.int8]], None]
    """Compares outputs (N, …) of a role, computed on a backend, with golden ones; raises BundleError."""

Role = Literal["gate", "fer_unmasked", "fer_masked", "detector"]

FILE_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}$"
"""A file of the bundle: in its folder, visible, and printed as it is."""

_FILE_LIMIT: Final = 256 * 2**20
"""Bytes of a model, or of the golden answers, at most."""

INPUT_SCALE: Final = 1 / 128
"""The input scale of `gray48/1`: exactly 1/128, so that no two implementations round differently."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Tensor(_Part):
    """Shape, dtype and quantisation of a model's input or output."""

    shape: list[int]
    dtype: str
    scale: float
    zero_point: int


ANSWERS: Final = 17
"""Columns of a detector's output: score (logit), centre from the anchor's, size, six keypoints from the anchor's centre
(right and left eye, nose, mouth, right and left ear), x before y, in pixels of the input."""


class AnchorGrid(_Part):
    """The anchors of one map, row by row, `each` at all `cells`² places. Column k means q × step[k] + zero[k]."""

    cells: int = Field(ge=1, le=256)
    each: int = Field(ge=1, le=16)
    step: list[float] = Field(min_length=ANSWERS, max_length=ANSWERS)
    zero: list[float] = Field(min_length=ANSWERS, max_length=ANSWERS)


class Entry(_Part):
    """One model of the bundle."""

    role: Role
    file: str = Field(pattern=FILE_NAME)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    edgetpu: str | None = Field(default=None, pattern=FILE_NAME)
    edgetpu_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    source: str | None = Field(default=None, pattern=FILE_NAME)
    input: Tensor
    output: Tensor
    labels: list[str] = []
    params: int | None = Field(default=None, ge=0, le=2**63 - 1)
    macs: int | None = Field(default=None, ge=0, le=2**63 - 1)
    metrics: dict[str, Any] = {}
    uncertain_below: float = Field(default=0.0, ge=0, le=1)
    confusion: list[list[int]] | None = None
    anchors: list[AnchorGrid] = []

    @model_validator(mode="after")
    def _anchored(self) -> Self:
        count = sum(grid.cells**2 * grid.each for grid in self.anchors)
        shapes = self.input.shape, self.output.shape
        if self.role == "detector" and shapes != ([1, 128, 128, 3], [1, count, ANSWERS]):
            msg = f"the detector's shapes are {shapes}, its {count} anchors need ([1, 128, 128, 3], [1, {count}, 17])"
            raise ValueError(msg)
        if self.role == "detector" and any(grid.step[0] <= 0 for grid in self.anchors):
            msg = "a detector's scores must grow: step[0] of its anchors is not above 0"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _label_order(self) -> Self:
        wanted = {"gate": list(ROUTES), "fer_unmasked": list(EMOTIONS), "fer_masked": list(EMOTIONS)}
        if self.role in (*wanted, "detector") and (self.input.scale != INPUT_SCALE or self.input.zero_point != 0):
            given = self.input.scale, self.input.zero_point
            msg = f"input quantisation of {self.role} is {given}, {PREPROCESS_ID} needs ({INPUT_SCALE}, 0)"
            raise ValueError(msg)
        if self.role in wanted and self.labels != wanted[self.role]:
            msg = f"labels of {self.role} are {self.labels}, not {wanted[self.role]}"
            raise ValueError(msg)
        if self.role in wanted and self.output.shape != [1, len(self.labels)]:
            msg = f"output of {self.role} is {self.output.shape}, not [1, {len(self.labels)}], one value a label"
            raise ValueError(msg)
        return self


class Preprocess(_Part):
    """The preprocessing the models were trained for, and each detector's crop."""

    id: str
    crop: dict[str, CropSpec]


class Manifest(_Part):
    """`manifest.json`."""

    schema_: Literal["edge.bundle/1"] = Field(alias="schema")
    name: str
    created: str
    license: str
    models: list[Entry]
    preprocess: Preprocess
    golden: str = Field(pattern=FILE_NAME)
    golden_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        roles = [m.role for m in self.models]
        if len(set(roles)) != len(roles):
            msg = f"roles are not unique: {roles}"
            raise ValueError(msg)
        if self.preprocess.id != PREPROCESS_ID:
            msg = f"preprocess.id is {self.preprocess.id!r}, this version computes {PREPROCESS_ID!r}"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder with a valid manifest whose files have the checksums it states."""

    folder: Path
    manifest: Manifest
    signed: Signed | None = None
    """None when no key was asked for."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Classifier roles it holds."""
        return tuple(m.role for m in self.manifest.models if m.role != "detector")

    @property
    def has_detector(self) -> bool:
        """Whether it holds the role `detector`."""
        return len(self.roles) < len(self.manifest.models)

    def entry(self, role: str) -> Entry:
        """The manifest entry of a role. Raises BundleError when the bundle has none."""
        for model in self.manifest.models:
            if model.role == role:
                return model
        key = "detector.kind" if role == "detector" else "models.strategy"
        msg = f"{self.folder}: the bundle has no model for role {role}: install one that has, or change {key}"
        raise BundleError(msg)

    def path(self, role: str) -> Path:
        """The model file of a role."""
        return self.folder / self.entry(role).file

    def read(self, role: str) -> bytes:
        """A role's model file. Raises BundleError when it is not the one the manifest states."""
        return _read(self.folder, self.entry(role).file, self.entry(role).sha256)

    def read_edgetpu(self, role: str) -> bytes:
        """A role's model as the Edge TPU compiler left it. Raises BundleError when there is none or another one."""
        entry = self.entry(role)
        if entry.edgetpu is None:
            msg = f"{self.folder}: no model of role {role} is compiled for the Edge TPU: run edge-quantize compile"
            raise BundleError(msg)
        return _read(self.folder, entry.edgetpu, entry.edgetpu_sha256)

    def read_golden(self) -> bytes:
        """The golden answers' file. Raises BundleError when it is not the one the manifest states."""
        return _read(self.folder, self.manifest.golden, self.manifest.golden_sha256)

    def digest(self, role: str) -> str:
        """`sha256:<64 hex>` of a role's model file."""
        return f"sha256:{self.entry(role).sha256}"

    def crop(self, detector: str) -> CropSpec:
        """Crop constants for a detector's boxes. Raises BundleError when none were measured for it."""
        try:
            return self.manifest.preprocess.crop[detector]
        except KeyError:
            known = ", ".join(self.manifest.preprocess.crop)
            msg = f"{self.folder}: no crop constants for detector {detector} (it has {known})"
            raise BundleError(msg) from None


def _content(folder: Path, name: str, limit: int, mend: str) -> bytes:
    """A regular file that lies in the bundle itself: a link out of it could be any file, a pipe never ends."""
    path = folder / name
    try:
        if folder.resolve() not in path.resolve().parents:
            msg = f"{path}: is a link out of the bundle: {mend}"
            raise BundleError(msg)
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_size > limit:
                msg = f"{path}: is no regular file of at most {limit} bytes: {mend}"
                raise BundleError(msg)
            return file.read(limit)
    except (OSError, RuntimeError) as error:  # links in a circle
        msg = f"{path}: {getattr(error, 'strerror', None) or error}: {mend}"
        raise BundleError(msg) from error


def _read(folder: Path, name: str, sha256: str | None) -> bytes:
    path, content = folder / name, _content(folder, name, _FILE_LIMIT, "install the bundle again")
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        msg = f"{path}: sha256 is {digest[:12]}…, the manifest says {sha256[:12]}…: install the bundle again"
        raise BundleError(msg)
    return content


def load_bundle(folder: Path, public_key: str | None = None) -> Bundle:
    """Read a bundle and check every file's SHA-256, and first the manifest's signature when a key is given.

    Args:
        folder: the bundle.
        public_key: a minisign public key or the path of one; without it signatures are not looked at.

    Raises:
        BundleError: which file is wrong and why.
        ConfigError: the key is none.

    """
    path = folder / "manifest.json"
    content = _content(folder, path.name, MANIFEST_LIMIT, "models.bundle must name a bundle folder")
    signed = None if public_key is None else verify_signature(content, path, public_key)
    try:
        manifest = Manifest.model_validate(read_json(content, limit=MANIFEST_LIMIT))
    except (ContractError, OverflowError) as error:
        msg = f"{path}: {error}: install the bundle again"
        raise BundleError(msg) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(p) for p in first["loc"]) or "file"
        msg = f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}: install the bundle again"
        raise BundleError(msg) from error
    if signed is not None and manifest.golden_sha256 is None:
        msg = f"{path}: golden_sha256 is missing, so the signature does not cover {manifest.golden}: sign it again"
        raise BundleError(msg)
    bundle = Bundle(folder, manifest, signed)
    for model in manifest.models:
        bundle.read(model.role)
        if model.edgetpu is None:
            continue
        if signed is not None and model.edgetpu_sha256 is None:
            msg = f"{path}: edgetpu_sha256 is missing, so the signature does not cover {model.edgetpu}: sign it again"
            raise BundleError(msg)
        bundle.read_edgetpu(model.role)
    bundle.read_golden()
    return bundle
