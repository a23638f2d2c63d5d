"""Inside the guest of `power.py`: say what the outbox has, then commit until the power goes.

`python guest.py OUTBOX BOOT_ID SYNCHRONOUS [--look]`; every line begins with "outbox".
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge.outbox.writer import open_for_vision
from edge.types import Vote
from tests.support.appliance import Committing, closing


def say(*words: object) -> None:
    """One line to the console."""
    print("outbox", *words, flush=True)


def main(path: str, boot_id: str, synchronous: str, *look: str) -> None:
    """See the module."""
    found, damaged = open_for_vision(Path(path))
    found.close()
    outbox = Committing(Path(path))
    if damaged is not None and synchronous == "FULL":
        say("broken", "put aside as", damaged)
    for boot, last in outbox._db.execute("SELECT boot_id, last_seq FROM boots").fetchall():
        kept = [row.seq for low in range(1, last + 1, 50) for row in outbox.between(boot, low, low + 49)]
        if kept != list(range(1, last + 1)):
            say("broken", boot, "has not the windows it counts")
        say("found", boot, len(kept))
    if look:
        return
    outbox._db.execute(f"PRAGMA synchronous={synchronous}")
    outbox.begin_boot(boot_id, "0" * 32)
    while True:
        say("committed", boot_id, outbox.commit(closing([Vote("unmasked", "happy")])))


if __name__ == "__main__":
    main(*sys.argv[1:])
