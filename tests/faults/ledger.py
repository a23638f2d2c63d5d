"""The ledger of what was done how often: one JSON line a sitting, with the commit it ran on."""

from __future__ import annotations

import json
import platform
import subprocess
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.faults.kiosk import REPO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SOAK = REPO / "bench" / "soak.jsonl"


def commit() -> str:
    """The commit that runs, with a + when the tree has changes."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=REPO, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "edge") else "")


def note(ledger: Path, faults: Mapping[str, int], seconds: float, **figures: float) -> None:
    """Append a sitting: how often which fault, how long it took, and what came of it."""
    ledger.parent.mkdir(exist_ok=True)
    line = {
        "commit": commit(),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "seconds": round(seconds),
        "faults": dict(sorted(faults.items())),
        **figures,
    }
    with ledger.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def totals(ledger: Path) -> Counter[str]:
    """How often each fault was done, over all sittings."""
    total: Counter[str] = Counter()
    if ledger.exists():
        for line in ledger.read_text(encoding="utf-8").splitlines():
            total.update(json.loads(line)["faults"])
    return total
