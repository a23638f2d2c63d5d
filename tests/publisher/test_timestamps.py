"""Windows go out under the names they were counted under, or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edge.config import StorageSection
from edge.contract import decode_counts
from edge.publisher.session import Incoming
from edge.types import Vote
from edge.vision.recorder import Recorder
from tests.publisher.test_dispatch import TOPICS, Bench
from tests.support.appliance import closing

if TYPE_CHECKING:
    from pathlib import Path


def replay(bench: Bench, boot_id: str) -> dict[str, int]:
    """What a replay of a run's first ten windows is answered with."""
    command = json.dumps({"id": "r", "boot_id": boot_id, "from": 1, "to": 10}).encode()
    message = Incoming(TOPICS("cmd/replay"), command, retained=False, response_topic=None, correlation=None)
    bench.notes.incoming.append(message)
    bench.turn(0)
    bench.turn(0)
    answer: dict[str, int] = json.loads(bench.notes.leaf("reply/r")[-1])
    return answer


@pytest.mark.parametrize("owner", ["lobby/kiosk-08", "arcade/kiosk-07"])
def test_windows_of_another_name_are_not_sent(tmp_path: Path, owner: str, caplog: pytest.LogCaptureFixture) -> None:
    """The publisher may be the first to come back with a new name: vision has not put the file aside yet."""
    bench = Bench(tmp_path)
    for _ in range(3):
        bench.writer.commit(closing([Vote("unmasked", "happy")]))
    bench.outbox.mark_sent([("b" * 32, 1), ("b" * 32, 2)])
    bench.writer.belong(owner)
    answer = replay(bench, "b" * 32)
    assert (bench.notes.leaf("counts"), bench.notes.leaf("live")) == ([], [])
    assert answer["gone"] == 9, "all but the one that waits"
    stats = bench.outbox.stats()
    assert (stats.unsent, stats.refused) == (1, 0), "they are kept as they are"
    assert len([line for line in caplog.messages if f"event=outbox-foreign of={owner}" in line]) == 1
    bench.writer.belong("lobby/kiosk-07")
    bench.turn(0)
    assert [decode_counts(counts).seq for counts in bench.notes.leaf("counts")] == [3]
    assert replay(bench, "b" * 32)["sent"] == 3


def test_what_one_kiosk_counted_is_not_counted_again_by_its_copy(tmp_path: Path) -> None:
    """A gap of its own run would be a gap of the copy's, who would be asked for it, and for the run before."""
    bench = Bench(tmp_path)
    for _ in range(10):
        bench.writer.commit(closing([Vote("unmasked", "happy")] * 10))
    bench.turn(0)
    bench.writer.belong("arcade/kiosk-01")
    assert len(bench.notes.leaf("counts")) == 10
    for one in (bench.writer, bench.outbox):
        one.close()
    place = StorageSection(outbox=tmp_path / "outbox.db", runtime=tmp_path)
    run = Recorder(place, bench.clock, "policy", f"{TOPICS.site}/{TOPICS.device}")
    run.begin()
    run.put(closing([Vote("unmasked", "sad")]))
    run.close()
    bench.outbox = type(bench.outbox)(tmp_path / "outbox.db", clock=bench.clock)
    bench.notes.published.clear()
    bench.turn(0)
    (sent,) = [decode_counts(counts) for counts in bench.notes.leaf("counts")]
    assert (sent.device, sent.seq, sent.prev) == (TOPICS.device, 1, None)
    assert replay(bench, "b" * 32)["gone"] == 10
