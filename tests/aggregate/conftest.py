"""For this folder's tests: a PostgreSQL server, started when the first asks for it, and stores of either engine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import Postgres, programs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real server; skips where PostgreSQL is not installed, fails in CI."""
    if programs() is None:
        reason = "no PostgreSQL server; install one with: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest) -> str:
    """An empty store of either engine."""
    return ":memory:" if request.param == "sqlite" else str(request.getfixturevalue("postgres").address())
