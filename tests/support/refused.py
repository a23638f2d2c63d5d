"""What a command of the aggregator says instead of doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_aggregate.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path, notes: int = 0) -> str:
    """The one line on standard error, after `notes` others; the exit code is that of a mistake."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) in (2, 65, 66, 74)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == notes + 1, lines
    assert lines[-1].startswith("edge-aggregate: "), lines
    return lines[-1]
