"""A whole kiosk as processes: vision, publisher and broker as they ship, and a subscriber that listens all the while.

Vision counts a loop of small pictures in real time, a window every 0.2 s, and says on its log what it has committed. At
the end `reckon` compares what was said to be committed, what lies in the outbox and what the subscriber has.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from edge.commands.demo.subscriber import Broker
from edge.contract import ReplayCommand, decode_counts, encode
from edge.errors import BrokerUnavailable
from edge.outbox.outbox import Outbox
from edge.publisher.session import open_session
from tests.support.broker import Mosquitto
from tests.support.wire import Ear, wait

if TYPE_CHECKING:
    from edge.outbox.rows import Key, Row

REPO = Path(__file__).resolve().parents[2]
DEVICE = "edge/v1/lobby/kiosk-07"
PATIENCE_S = 300
"""A service that does not come up in this time hangs; a starved machine may need minutes."""
_COMMITTED = re.compile(r"window_committed boot_id=([0-9a-f]{32}) seq=(\d+) waiting=\d+\n")
_CONFIG = """[device]
id = "kiosk-07"
site = "lobby"
purpose = "test"
mode = "development"
[camera]
kind = "replay"
source = '{source}'
loop = true
realtime = true
still_seconds = 0.2
[detector]
kind = "haar"
rotations = [0]
[models]
bundle = '{bundle}'
strategy = "single"
[window]
seconds = 0.2
[privacy]
noise = "off"
min_count = 1
[mqtt]
host = "127.0.0.1"
port = {port}
[storage]
outbox = '{outbox}'
runtime = '{runtime}'
"""


@dataclass(frozen=True)
class Reckoning:
    """What a sitting came to; all but the first three and `replayed` have to be 0."""

    committed: int
    """Windows in the outbox."""
    received: int
    """Messages on `counts`, replays included."""
    replayed: int
    """Windows that the broker had acknowledged and lost, and that were asked for again."""
    lost_after_commit: int
    """Said to be committed, and not in the outbox."""
    undelivered: int
    """In the outbox, and not at the subscriber."""
    duplicates: int
    """Keys with more than one payload, or windows with more than one key: what deduplication does not remove."""
    gaps: int
    """Runs whose windows are not numbered 1 … n, or that name another run before them than there was."""

    @property
    def bad(self) -> int:
        """0 when everything is as promised."""
        return self.lost_after_commit + self.undelivered + self.duplicates + self.gaps


class Kiosk:
    """See the module; `storage` is the outbox's folder, for faults of the disk."""

    def __init__(self, folder: Path, bundle: Path, *, storage: Path | None = None, port: int | None = None) -> None:
        self.folder = folder
        self.broker = Mosquitto(folder)
        self.outbox = (storage or folder) / "outbox.db"
        pictures = folder / "pictures"
        pictures.mkdir()
        for n, noise in enumerate(np.random.default_rng(1).integers(0, 255, (3, 48, 64), np.uint8)):
            cv2.imwrite(str(pictures / f"{n}.png"), noise)
        self._config = folder / "config.toml"
        self._config.write_text(
            _CONFIG.format(
                source=pictures,
                bundle=bundle,
                port=port or self.broker.port,
                outbox=self.outbox,
                runtime=folder / "run",
            )
        )
        self.vision_log, self.publisher_log = folder / "vision.log", folder / "publisher.log"
        self.vision: subprocess.Popen[bytes] | None = None
        self.publisher: subprocess.Popen[bytes] | None = None
        self._ear: Ear | None = None

    # ---- processes

    def _start(self, service: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "edge", service, "--config", str(self._config)], cwd=REPO, stderr=out
            )

    def start_vision(self) -> None:
        """Start it and wait for its first window."""
        before = len(self.acknowledged())
        self.vision = self._start("vision", self.vision_log)
        wait(lambda: len(self.acknowledged()) > before, PATIENCE_S, lambda: self.vision_log.read_text()[-2000:])

    def start_publisher(self) -> None:
        """Start it and wait until it has a broker."""
        before = self.connected()
        self.publisher = self._start("publish", self.publisher_log)
        wait(lambda: self.connected() > before, PATIENCE_S, self.publisher_log.read_text)

    def connected(self) -> int:
        """How often the publisher has found the broker."""
        return self.publisher_log.read_text().count("event=connected") if self.publisher_log.exists() else 0

    def acknowledged(self) -> list[Key]:
        """Keys that vision has said to be committed."""
        text = self.vision_log.read_text() if self.vision_log.exists() else ""
        return [(boot, int(seq)) for boot, seq in _COMMITTED.findall(text)]

    def __enter__(self) -> Self:
        """Start everything."""
        self.broker.start()
        self._ear = Ear(self.broker.port, f"{DEVICE}/counts", f"{DEVICE}/reply/#").__enter__()
        self.start_vision()
        self.start_publisher()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs."""
        for process in (self.vision, self.publisher):
            if process is not None:
                process.kill()
                process.wait(10)
        if self._ear is not None:
            self._ear.__exit__()
        self.broker.kill()

    # ---- what came of it

    @property
    def ear(self) -> Ear:
        """The subscriber."""
        assert self._ear is not None
        return self._ear

    def rows(self) -> list[Row]:
        """Every row of the outbox, in order of commit."""
        with Outbox(self.outbox) as outbox:
            boots = outbox._db.execute("SELECT boot_id, last_seq FROM boots ORDER BY ordinal").fetchall()
            found: list[Row] = []
            for boot, last in boots:
                for low in range(1, last + 1, 50):
                    found += outbox.between(boot, low, low + 49)
        return found

    def unsent(self) -> int:
        """Rows not acknowledged by the broker."""
        with Outbox(self.outbox) as outbox:
            return outbox.stats().unsent

    def _ask_again(self, missing: set[Key]) -> None:
        """What a subscriber does about gaps: it asks for a replay of each run that has some."""
        for boot in {boot for boot, _ in missing}:
            seqs = [seq for other, seq in missing if other == boot]
            command = ReplayCommand(id=f"{boot[:12]}-{min(seqs)}", boot_id=boot, from_=min(seqs), to=max(seqs))
            asker = open_session(Broker("127.0.0.1", self.broker.port), "asker")
            asker.publish(f"{DEVICE}/cmd/replay", encode(command), response_topic=f"{DEVICE}/reply/{command.id}")
            while not asker.acks:
                asker.step(0.1)
            asker.close()

    def reckon(self) -> Reckoning:
        """Stop vision in an orderly way, let the rest arrive, ask for what a broker has lost, and compare."""
        assert self.vision is not None
        assert self.publisher is not None
        self.vision.terminate()
        assert self.vision.wait(PATIENCE_S) == 0, self.vision_log.read_text()
        wait(lambda: self.unsent() == 0, PATIENCE_S, self.publisher_log.read_text)
        rows = self.rows()
        keys = {row.key for row in rows}
        missing = keys - set(self.ear.keys())
        if missing:
            try:
                self._ask_again(missing)
            except BrokerUnavailable:
                self._ask_again(missing)
            wait(lambda: not keys - set(self.ear.keys()), PATIENCE_S, self.publisher_log.read_text)
        self.publisher.terminate()
        assert self.publisher.wait(PATIENCE_S) == 0, self.publisher_log.read_text()
        return self._compare(rows, len(missing))

    def _compare(self, rows: list[Row], replayed: int) -> Reckoning:
        heard = [m.payload for m in self.ear.heard if m.topic.endswith("/counts")]
        windows = {json.dumps(json.loads(payload)) for payload in heard}
        received = {(c.boot_id, c.seq) for c in map(decode_counts, windows)}
        keys = [row.key for row in rows]
        gaps, before = 0, None
        for boot in dict.fromkeys(boot for boot, _ in keys):
            run = [row for row in rows if row.boot_id == boot]
            gaps += [row.seq for row in run] != list(range(1, len(run) + 1)) or {row.prev for row in run} != {before}
            before = boot, len(run)
        return Reckoning(
            committed=len(keys),
            received=len(heard),
            replayed=replayed,
            lost_after_commit=len(set(self.acknowledged()) - set(keys)),
            undelivered=len(set(keys) - received),
            duplicates=len(windows) - len(received) + sum(n - 1 for n in Counter(keys).values()),
            gaps=gaps,
        )
