"""When `health` may be asked for, and what it says then."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edge.contract import ContractError, Health, decode, encode
from edge.outbox.rows import OutboxStats
from edge.outbox.runtime_files import InvokeMs, VisionFile
from edge.publisher.bulletin import SILENT_S
from edge.publisher.health import BEAT_S, STALE_S, Sampler, runs
from edge.publisher.session import Incoming
from tests.publisher.test_dispatch import BIRTH, Bench, Clock, troubles

if TYPE_CHECKING:
    from pathlib import Path

    from edge.types import FrameRate

STATS = OutboxStats(0, 0.0, 0, 0)


def figures(clock: Clock, rate: FrameRate = "ok", **changes: object) -> VisionFile:
    """A vision service that runs."""
    made = VisionFile(
        boot_id="b" * 32,
        state="running",
        updated=clock.mono,
        backend="cpu",
        rate=rate,
        invoke_ms=InvokeMs(p50=1.2345, p95=123.45),
        drops={},
        restarts=0,
        scene="ok",
        time_quality="synced",
        paused=False,
        versions={},
    )
    return made.model_copy(update=changes)


def test_figures_of_the_boot_before_are_no_running_service() -> None:
    """The runtime folder of a bench is no tmpfs, and its monotonic clock began again."""
    clock = Clock()
    told = figures(clock)
    assert [runs(told, told.updated + age) for age in (-1e4, -0.1, 0, STALE_S, STALE_S + 1)] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_a_pause_samples_nothing() -> None:
    """Who may send `cmd/paused` sees by it that it was obeyed, and no figure of that moment."""
    clock = Clock()
    sampler = Sampler(clock)
    before = sampler(figures(clock), STATS, None)
    moment: dict[str, Any] = {"rate": "slow", "restarts": 3, "drops": {"camera_lost": 1}, "scene": "frozen"}
    for paused in (True, False, True, False):
        clock.pass_time(1)
        told = sampler(figures(clock, **moment, paused=paused), STATS, None)
        expected = before.model_copy(update={"paused": paused, "scene": "paused" if paused else "ok"})
        assert told == expected
    clock.pass_time(BEAT_S)
    assert sampler(figures(clock, **moment), STATS, None).restarts == 3, "on the beat it is told"


def test_commands_without_end_make_no_more_health_than_a_few(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for i in range(300):
        bench.clock.pass_time(0.2)
        topic = "edge/v1/lobby/kiosk-07/cmd/paused"
        bench.notes.incoming.append(Incoming(topic, b"true" if i % 2 else b"false", False, None, None))  # noqa: FBT003
        bench.turn(0, figures(bench.clock, paused=bool(i % 2)))
    assert len(bench.notes.leaf("health")) < 25, "in a minute"


def test_times_are_published_with_two_digits() -> None:
    clock = Clock()
    told = Sampler(clock)(figures(clock), STATS, None)
    assert (told.invoke_ms.p50, told.invoke_ms.p95) == (1.2, 120.0)


@pytest.mark.parametrize(("fps", "rate"), [(9, "ok"), (0, "none"), (0.5, "ok")])
def test_a_payload_of_a_device_that_still_counts_frames_is_read(fps: float, rate: str) -> None:
    clock = Clock()
    sent = json.loads(encode(Sampler(clock)(figures(clock), STATS, None)))
    assert "fps" not in sent
    del sent["rate"]
    old = json.dumps({**sent, "fps": fps, "drops": {"overwritten": 4}})
    assert decode(Health, old).rate == rate
    with pytest.raises(ContractError, match="rate"):
        decode(Health, json.dumps(sent))
    with pytest.raises(ContractError):
        decode(Health, json.dumps({**sent, "rate": "ok", "detector": "x" * 65}))


@pytest.mark.parametrize("paused", [True, False])
def test_a_vision_service_that_never_comes_up_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, paused: bool
) -> None:
    """After a boot there are no figures, and what the broker retains is the health of before: online, rate ok."""
    bench = Bench(tmp_path)
    bench.outbox.paused = paused
    bench.dispatcher.greet(bench.session, BIRTH.model_copy(update={"boot_id": "a" * 32}))
    bench.clock.pass_time(SILENT_S - 1)
    bench.turn(0)
    assert bench.notes.leaf("health") == [], "it may be starting"
    bench.clock.pass_time(1)
    for _ in range(3):
        bench.turn(0)
    (told,) = (decode(Health, payload) for payload in bench.notes.leaf("health"))
    expected = ("a" * 32, "none", "none", "paused" if paused else "frozen", paused, None)
    assert (told.boot_id, told.rate, told.backend, told.scene, told.paused, told.outbox.trouble) == expected
    assert troubles(bench, "status")[-1] == "no-vision"
    assert caplog.text.count("event=vision-unheard") == 1
    bench.clock.pass_time(BEAT_S)
    bench.turn(0)
    assert len(bench.notes.leaf("health")) == 2, "on its beat"
    bench.dispatcher.greet(bench.session, BIRTH.model_copy(update={"boot_id": "b" * 32}))
    bench.turn(0)
    assert troubles(bench, "status")[-1] == "no-vision", "a run that begins and ends, each time, is none yet"
    bench.turn(0, figures(bench.clock))
    told = decode(Health, bench.notes.leaf("health")[-1])
    assert (told.rate, told.backend, told.outbox.trouble) == ("ok", "cpu", None), "at once"
    assert troubles(bench, "status")[-1] is None
    bench.clock.pass_time(SILENT_S - 1)
    bench.turn(0)
    assert troubles(bench, "status")[-1] is None, "counted from when it was last heard of"


def test_before_the_first_run_status_alone_tells_that_vision_does_not_come_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.clock.pass_time(SILENT_S)
    bench.turn(0)
    assert troubles(bench, "status") == [None, "no-vision"]
    assert bench.notes.leaf("health") == [], "it names a run"
