"""Finding a bundle without reading it: light enough for the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge.contract import ContractError, read_json

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_LIMIT: Final = 4 * 2**20
"""Bytes of a manifest, at most."""


def newest_bundle(models: Path) -> Path | None:
    """The bundle folder under `models` with the latest `created`; None when there is none."""
    found: list[tuple[str, Path]] = []
    for manifest in models.glob("*/manifest.json"):
        try:
            with manifest.open("rb") as file:
                told = read_json(file.read(MANIFEST_LIMIT + 1), limit=MANIFEST_LIMIT)
        except (OSError, ContractError):
            continue
        if isinstance(told, dict) and isinstance(told.get("created"), str):
            found.append((told["created"], manifest.parent))
    return max(found)[1] if found else None
