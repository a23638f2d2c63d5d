"""Finding a bundle without reading it: light enough for the configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def newest_bundle(models: Path) -> Path | None:
    """The bundle folder under `models` with the latest `created`; None when there is none."""
    found: list[tuple[str, Path]] = []
    for manifest in models.glob("*/manifest.json"):
        try:
            found.append((str(json.loads(manifest.read_bytes())["created"]), manifest.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(found)[1] if found else None
