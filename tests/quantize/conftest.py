"""Data of the toolchain's tests."""

from __future__ import annotations

import os

import pytest
from edge_quantize.datasets.fer2013 import Fer2013, data_root, load_fer2013


@pytest.fixture(scope="session")
def fer2013() -> Fer2013:
    """FER2013; skips where it is absent, fails where CI says that it must be there."""
    if not (data_root() / "fer2013").is_dir():
        reason = f"no FER2013 in {data_root()}: set EDGE_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return load_fer2013()
