"""Known vulnerabilities of what is locked: `python -m tests.repository.audit`, which `make lint` calls.

Where no database can be reached it says so within seconds and does not fail. A database is believed only if it knows of
an old release that is vulnerable beyond doubt: a mirror of packages answers too, and knows nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

REPO: Final = Path(__file__).resolve().parents[2]
DATABASES: Final = (("-s", "pypi"), ("-s", "osv"))
KNOWN: Final = "urllib3==1.26.0"
"""The control: its holes are in every database."""
PROBE_S, AUDIT_S = 6.0, 120.0
ACCEPTED: Final[dict[str, str]] = {}
"""Id of a vulnerability: why it does not concern this project."""


def _audit(seconds: float, database: tuple[str, ...], *locks: Path) -> list[dict[str, Any]] | None:
    """What a database says of each pin of these locks; None when it did not say it in time, or not at all."""
    command = [sys.executable, "-m", "pip_audit", *database, "--disable-pip", "--no-deps", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "3", *(word for lock in locks for word in ("-r", str(lock)))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
        return list(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None


def _holes(pins: list[dict[str, Any]]) -> list[str]:
    return sorted(
        {
            f"{pin['name']} {pin['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release'}"
            for pin in pins
            for hole in pin.get("vulns", ())
            if not {hole["id"], *hole.get("aliases", ())} & ACCEPTED.keys()
        }
    )


def main(*databases: tuple[str, ...], locks: Path = REPO / "requirements") -> int:
    """Ask the first database that can be believed; 1 if it knows of a hole."""
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control.txt"
        control.write_text(f"{KNOWN}\n")
        asked = databases or DATABASES
        database = next((one for one in asked if _holes(_audit(PROBE_S, one, control) or [])), None)
    if database is None:
        print("pip-audit: no database of vulnerabilities can be reached: nothing was audited")
        return 0
    pins = _audit(AUDIT_S, database, *sorted(locks.glob("*.txt")))
    if pins is None:
        print("pip-audit: the database did not answer to the end: nothing was audited")
        return 0
    if skipped := sorted({pin["name"] for pin in pins if "skip_reason" in pin}):
        print(f"pip-audit: not in the database: {', '.join(skipped)}")
    holes = _holes(pins)
    print("\n".join(holes) or f"pip-audit: {len(pins)} pins, nothing known against them")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
