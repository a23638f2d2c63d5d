"""Memory that is freed stays with the process, where the C library is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREED = """
import sys
import numpy as np
from edge_quantize.training.memory import keep_freed_memory

def resident() -> int:
    with open("/proc/self/statm") as told:
        return int(told.read().split()[1]) * 4096

if sys.argv[1] == "keep":
    keep_freed_memory()
before = resident()
block = np.ones(2**26, np.uint8)
del block
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_a_large_block_that_is_freed_stays_with_the_process() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FREED, word], check=True, capture_output=True, text=True).stdout)
        for word in ("keep", "leave")
    )
    assert kept > 0.9 * 2**26
    assert given_back < 2**25
