"""When a row goes out and with which label, without a broker: a session that only notes what it is told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from edge.contract import EARLIEST, Status, Topics, decode_counts
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import InvokeMs, VisionFile, read_command
from edge.publisher.dispatch import RETRY_S, Dispatcher
from edge.publisher.session import Ack, Incoming
from tests.support.appliance import closing, vision

if TYPE_CHECKING:
    from pathlib import Path

    from edge.publisher.session import Session
    from edge.types import TimeQuality

TOPICS = Topics("edge", "lobby", "kiosk-07")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BIRTH = Status(state="online", boot_id=None, version="0", since=NOW)


@dataclass
class Clock:
    """A clock that is told the time."""

    kernel_boot_id: str = "0" * 32
    mono: float = 1000.0
    now: datetime = NOW
    quality: TimeQuality = "synced"

    def monotonic(self) -> float:
        """Seconds."""
        return self.mono

    def utcnow(self) -> datetime:
        """UTC."""
        return self.now

    def time_quality(self) -> TimeQuality:
        """As told."""
        return self.quality

    def pass_time(self, seconds: float) -> None:
        """Let both clocks run."""
        self.mono += seconds
        self.now += timedelta(seconds=seconds)


@dataclass
class Notes:
    """In place of a `Session`."""

    v5: bool = True
    window: int = 50
    acks: list[Ack] = field(default_factory=list)
    incoming: list[Incoming] = field(default_factory=list)
    denied: list[tuple[str, int]] = field(default_factory=list)
    published: list[tuple[str, bytes, dict[str, Any]]] = field(default_factory=list)
    subscribed: tuple[str, ...] = ()

    def publish(self, topic: str, payload: bytes, **options: Any) -> int:  # noqa: ANN401 - noted as given
        """Note it."""
        self.published.append((topic, payload, options))
        return len(self.published)

    def subscribe(self, *topics: str) -> None:
        """Note it."""
        self.subscribed = topics

    def leaf(self, name: str) -> list[bytes]:
        """Payloads published on a leaf."""
        return [payload for topic, payload, _ in self.published if topic.endswith("/" + name)]

    def answer(self, code: int = 0) -> None:
        """Acknowledge everything."""
        self.acks[:] = [Ack(mid, code) for mid in range(1, len(self.published) + 1)]


class Bench:
    """A desk with all it needs."""

    def __init__(self, folder: Path, hold: float = 900.0, home_assistant: str | None = None) -> None:
        self.clock, self.notes = Clock(), Notes()
        vision(folder).close()
        self.writer = vision(folder, "b" * 32, clock=self.clock)
        self.outbox = Outbox(folder / "outbox.db", clock=self.clock)
        self.dispatcher = Dispatcher(TOPICS, self.clock, hold=hold, runtime=folder, home_assistant=home_assistant)
        self.session = cast("Session", self.notes)
        self.dispatcher.greet(self.session, BIRTH)

    def turn(self, code: int | None = None, figures: VisionFile | None = None) -> None:
        """Send; then, with a code, acknowledge everything with it."""
        self.dispatcher.send(self.outbox, self.session, figures)
        if code is not None:
            self.notes.answer(code)
        self.dispatcher.receive(self.outbox, self.session)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A desk that holds unsynced rows for 900 s."""
    return Bench(tmp_path)


def unsynced(bench: Bench) -> None:
    """Commit one window counted before the clock was set: the last 60 s, labelled 1970."""
    bench.writer.commit(
        closing(
            end=datetime(1970, 1, 2, tzinfo=UTC),
            seconds=60,
            time_quality="unsynced",
            mono_end=bench.clock.mono,
        )
    )


def test_a_clock_set_while_the_broker_is_away_labels_the_row_all_the_same(bench: Bench) -> None:
    bench.clock.quality = "unsynced"
    unsynced(bench)
    closed = bench.clock.mono
    bench.clock.pass_time(300)
    bench.dispatcher.tend(bench.outbox)
    bench.clock.quality = "synced"
    bench.clock.now += timedelta(days=365)  # wrong by a year until now
    bench.dispatcher.tend(bench.outbox)
    bench.clock.pass_time(3600)
    bench.turn()
    window = decode_counts(bench.notes.leaf("counts")[0]).window
    assert (window.start, window.time_quality) == (
        bench.clock.now - timedelta(seconds=bench.clock.mono - closed + 60),
        "synced",
    )


def test_unsynced_row_waits_and_is_labelled_once_the_clock_is_set(bench: Bench) -> None:
    bench.clock.quality = "unsynced"
    unsynced(bench)
    bench.clock.pass_time(300)
    bench.turn(0)
    assert bench.notes.leaf("counts") == []
    bench.clock.quality = "synced"
    bench.turn()
    first = decode_counts(bench.notes.leaf("counts")[0])
    assert (first.window.time_quality, first.window.start) == ("synced", NOW - timedelta(seconds=60))
    # The connection breaks and the clock jumps: the label is stored and stays.
    bench.clock.now += timedelta(days=365)
    bench.dispatcher.forget()
    bench.turn()
    assert bench.notes.leaf("counts")[1] == bench.notes.leaf("counts")[0]


def test_unsynced_row_goes_as_it_is_after_the_hold_and_is_never_restamped(bench: Bench) -> None:
    bench.clock.quality = "unsynced"
    unsynced(bench)
    bench.clock.pass_time(901)
    bench.turn()
    bench.clock.quality = "synced"
    bench.dispatcher.forget()
    bench.turn()
    sent = [decode_counts(p) for p in bench.notes.leaf("counts")]
    assert [m.window.time_quality for m in sent] == ["unsynced", "unsynced"]
    assert sent[0] == sent[1]
    assert sent[0].window.start == EARLIEST, "no subscriber takes 1970"


@pytest.mark.parametrize("quality", ["synced", "holdover"])
def test_a_server_that_is_years_behind_loses_no_window(bench: Bench, quality: TimeQuality) -> None:
    bench.writer.commit(closing(end=datetime(2007, 4, 7, tzinfo=UTC), seconds=60, time_quality=quality))
    bench.turn(0)
    window = decode_counts(bench.notes.leaf("counts")[0]).window
    assert (window.start, window.time_quality) == (EARLIEST, "unsynced")
    assert bench.outbox.stats().refused == 0


@pytest.mark.parametrize("mended", [True, False])
def test_a_row_that_waits_takes_no_label_of_a_server_that_is_years_behind(bench: Bench, *, mended: bool) -> None:
    bench.clock.quality = "unsynced"
    unsynced(bench)
    bench.clock.quality, bench.clock.now = "synced", datetime(2007, 4, 7, tzinfo=UTC)
    bench.dispatcher.tend(bench.outbox)
    bench.turn(0)
    assert bench.notes.leaf("counts") == []
    bench.clock.pass_time(300 if mended else 901)
    if mended:
        bench.clock.now = NOW
    bench.turn()
    window = decode_counts(bench.notes.leaf("counts")[0]).window
    expected = (NOW - timedelta(seconds=360), "synced") if mended else (EARLIEST, "unsynced")
    assert (window.start, window.time_quality) == expected
    assert bench.outbox.stats().refused == 0


@pytest.mark.parametrize("why", ["other kernel boot", "drain", "no hold"])
def test_no_wait_where_waiting_is_vain(tmp_path: Path, why: str) -> None:
    bench = Bench(tmp_path, hold=0 if why == "no hold" else 900)
    bench.clock.quality = "unsynced"
    unsynced(bench)
    if why == "other kernel boot":
        bench.clock.kernel_boot_id = "1" * 32
        bench.clock.quality = "synced"
    if why == "drain":
        bench.dispatcher.drain()
    bench.turn()
    assert decode_counts(bench.notes.leaf("counts")[0]).window.time_quality == "unsynced"


@pytest.mark.parametrize("code", [0x10, 0x87, 0x80, 0x97])
def test_what_is_not_taken_is_probed_once_a_minute(bench: Bench, code: int) -> None:
    for _ in range(5):
        bench.writer.commit(closing())
    bench.turn(code)
    assert len(bench.notes.leaf("counts")) == 5
    for _ in range(10):
        bench.clock.pass_time(RETRY_S / 11)
        bench.turn(code)
    assert len(bench.notes.leaf("counts")) == 5
    bench.clock.pass_time(RETRY_S)
    bench.turn(code)
    assert len(bench.notes.leaf("counts")) == 6, "one row asks for all"
    assert bench.outbox.stats().unsent == 5
    bench.clock.pass_time(RETRY_S)
    bench.turn(0)
    bench.turn(0)
    assert bench.outbox.stats().unsent == 0
    assert bench.dispatcher.idle


def test_at_most_a_window_in_flight(bench: Bench) -> None:
    bench.notes.window = 10
    for _ in range(30):
        bench.writer.commit(closing())
    for _ in range(3):
        bench.turn()
    assert len(bench.notes.leaf("counts")) <= 10
    for _ in range(10):
        bench.turn(0)
    keys = [decode_counts(p).seq for p in bench.notes.leaf("counts")]
    assert keys == list(range(1, 31))


def test_live_is_the_last_released_window_with_what_remains_of_two(bench: Bench) -> None:
    for _ in range(2):
        bench.writer.commit(closing(seconds=60))
    bench.turn(0)
    bench.clock.pass_time(30)
    bench.turn()
    topic, payload, options = bench.notes.published[-1]
    assert (topic, decode_counts(payload).seq) == (TOPICS("live"), 2)
    assert options == {"retain": True, "expiry": 90}
    bench.clock.pass_time(60)
    bench.dispatcher.greet(bench.session, BIRTH)
    bench.turn()
    assert bench.notes.published[-1][2] == {"retain": True, "expiry": 30}
    bench.notes.v5 = False
    bench.dispatcher.greet(bench.session, BIRTH)
    bench.turn()
    assert bench.notes.published[-1][2]["retain"] is False
    bench.clock.pass_time(60)
    before = len(bench.notes.leaf("live"))
    bench.dispatcher.greet(bench.session, BIRTH)
    bench.turn()
    assert len(bench.notes.leaf("live")) == before, "what has expired is not sent"


def figures_of(bench: Bench) -> VisionFile:
    """A vision service that runs."""
    return VisionFile(
        boot_id="b" * 32,
        state="running",
        updated=bench.clock.mono,
        backend="cpu",
        rate="slow",
        invoke_ms=InvokeMs(p50=1.0, p95=2.0),
        drops={},
        restarts=0,
        scene="ok",
        time_quality="synced",
        paused=False,
        versions={},
    )


def troubles(bench: Bench, leaf: str) -> list[str | None]:
    """What the payloads of a leaf, `status` or `health`, said of the outbox."""
    told = [json.loads(payload) for payload in bench.notes.leaf(leaf)]
    return [(one.get("outbox") or one)["trouble"] for one in told]


def test_an_outbox_that_cannot_be_used_is_told_of_with_its_last_known_figures(bench: Bench) -> None:
    figures = figures_of(bench)
    bench.writer.commit(closing())
    bench.turn(0x10, figures)
    bench.dispatcher.trouble = "read-only"
    for _ in range(2):
        bench.dispatcher.send(None, bench.session, figures)
    assert troubles(bench, "status") == [None, "read-only"]
    assert troubles(bench, "health") == [None, "read-only"]
    assert json.loads(bench.notes.leaf("health")[-1])["outbox"]["unsent"] == 1
    bench.dispatcher.trouble = None
    bench.turn(None, figures.model_copy(update={"trouble": "full", "waiting": 3}))
    assert troubles(bench, "status")[-1] == "full", "vision's trouble is the device's"
    assert json.loads(bench.notes.leaf("health")[-1])["outbox"]["waiting"] == 3
    bench.turn(None, figures)
    assert troubles(bench, "status")[-1] == troubles(bench, "health")[-1] is None


def test_without_figures_of_vision_status_alone_tells(bench: Bench) -> None:
    bench.dispatcher.trouble = "read-only"
    bench.dispatcher.send(None, bench.session, None)
    assert troubles(bench, "status") == [None, "read-only"]
    assert bench.notes.leaf("health") == []


def test_what_the_broker_took_while_the_outbox_was_away_is_not_sent_again(bench: Bench) -> None:
    bench.writer.commit(closing())
    bench.turn()
    bench.notes.answer()
    bench.dispatcher.receive(None, bench.session)
    bench.dispatcher.mark(bench.outbox)
    bench.turn()
    assert len(bench.notes.leaf("counts")) == 1
    assert bench.outbox.stats().unsent == 0


def test_health_on_connect_each_window_and_each_minute(bench: Bench) -> None:
    figures = figures_of(bench)
    bench.turn(0, figures)
    bench.turn(0, figures)
    assert len(bench.notes.leaf("health")) == 1
    bench.writer.commit(closing())
    bench.turn(0, figures)
    assert len(bench.notes.leaf("health")) == 2
    bench.turn(0, figures.model_copy(update={"boot_id": "c" * 32}))
    assert json.loads(bench.notes.leaf("health")[-1])["boot_id"] == "c" * 32, "a new run of vision is told of at once"
    bench.clock.pass_time(61)
    bench.turn(0, figures)
    told = json.loads(bench.notes.leaf("health")[-1])
    assert told["rate"] == "none", "a file a minute old is a service that does not run"
    assert told["outbox"] == {"unsent": 0, "oldest_s": 0.0, "waiting": 0, "trouble": None}


def test_an_unreadable_row_holds_nobody_up(bench: Bench) -> None:
    for _ in range(3):
        bench.writer.commit(closing())
    bench.writer._db.execute("UPDATE rows SET report = '{}' WHERE seq = 1")
    bench.writer._db.execute("UPDATE rows SET report = replace(report, '\"angry\":0', '\"angry\":-5') WHERE seq = 2")
    bench.turn(0)
    assert [decode_counts(p).seq for p in bench.notes.leaf("counts")] == [3]
    assert bench.outbox.stats().refused == 2


def test_commands_that_are_retained_foreign_or_nonsense(bench: Bench, tmp_path: Path) -> None:
    def come(topic: str, payload: bytes = b"", *, retained: bool = False) -> None:
        bench.notes.incoming.append(Incoming(topic, payload, retained, None, None))
        bench.turn()

    come(TOPICS("cmd/pause"), retained=True)
    come("edge/v1/lobby/another/cmd/pause")
    come("quite/something/else")
    come(TOPICS("cmd/replay"), b"{")
    come(TOPICS("cmd/replay"), b'{"id": "r", "boot_id": "' + b"b" * 32 + b'", "from": 3, "to": 1}')
    assert read_command(tmp_path) is None
    assert bench.dispatcher.idle or not bench.notes.leaf("reply/r")
    come(TOPICS("cmd/pause"))
    found = read_command(tmp_path)
    assert found is not None
    assert found.paused


def test_a_replay_of_more_than_there_ever_was(bench: Bench) -> None:
    for _ in range(3):
        bench.writer.commit(closing())
    bench.turn(0)
    ask = {"id": "r-9", "boot_id": "b" * 32, "from": 2, "to": 10**12, "later": "field"}
    message = Incoming(
        TOPICS("cmd/replay"), json.dumps(ask).encode(), retained=False, response_topic=None, correlation=None
    )
    bench.notes.incoming.append(message)
    bench.turn(0)
    bench.turn(0)
    assert json.loads(bench.notes.leaf("reply/r-9")[0]) == {"id": "r-9", "sent": 2, "gone": 10**12 - 3}
    assert [decode_counts(p).seq for p in bench.notes.leaf("counts")] == [1, 2, 3, 2, 3]


def test_counts_come_before_the_announcement(tmp_path: Path) -> None:
    bench = Bench(tmp_path, home_assistant="homeassistant")
    for _ in range(3):
        bench.writer.commit(closing())
    bench.turn()
    assert not [topic for topic, _, _ in bench.notes.published if topic.startswith("homeassistant")]
    bench.turn(code=0)
    bench.turn()
    leaves = [topic.rsplit("/", 1)[1] for topic, _, _ in bench.notes.published]
    assert leaves.index("config") > max(n for n, leaf in enumerate(leaves) if leaf == "counts")


@pytest.mark.parametrize("when", ["early", "late"])
def test_an_announcement_that_the_broker_hangs_up_on_twice_is_left_out_for_an_hour(tmp_path: Path, when: str) -> None:
    early = left_out = when == "early"
    bench = Bench(tmp_path, home_assistant="homeassistant")

    def announced() -> int:
        return sum(topic.startswith("homeassistant") for topic, _, _ in bench.notes.published)

    for n in range(1, 5):
        bench.turn(code=0)  # acknowledged, as Mosquitto does with what it dropped
        assert announced() == (min(n, 2) if left_out else n)
        bench.dispatcher.lost(early=early)
        bench.dispatcher.greet(bench.session, BIRTH)
    bench.clock.pass_time(3601)
    bench.turn()
    assert announced() == (3 if left_out else 5)


def test_a_replayed_row_is_not_marked_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.writer.commit(closing())
    bench.turn(code=0)
    marked: list[object] = []
    monkeypatch.setattr(bench.outbox, "mark_sent", marked.extend)
    ask = {"id": "r", "boot_id": "b" * 32, "from": 1, "to": 1}
    command = json.dumps(ask).encode()
    message = Incoming(TOPICS("cmd/replay"), command, retained=False, response_topic=None, correlation=None)
    bench.notes.incoming.append(message)
    bench.turn()
    before = len(bench.notes.leaf("counts"))
    bench.turn(code=0)
    assert (before, len(bench.notes.leaf("counts")), marked) == (1, 2, [])


def test_after_a_flood_nothing_is_subscribed_to_for_an_hour(bench: Bench) -> None:
    everything = bench.notes.subscribed
    assert everything
    bench.dispatcher.lost(early=True, flooded=True)
    bench.notes.subscribed = ()
    bench.dispatcher.greet(bench.session, BIRTH)
    bench.clock.pass_time(3599)
    bench.turn()
    assert bench.notes.subscribed == ()
    bench.clock.pass_time(2)
    bench.turn()
    assert bench.notes.subscribed == everything, "on the same connection"


def test_a_refused_subscription_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    commands = TOPICS("cmd/+")
    for _ in range(2):  # and again at the next connection
        bench.notes.denied.append((commands, 0x87))
        bench.turn()
    (line,) = [record.getMessage() for record in caplog.records if "subscription-denied" in record.getMessage()]
    assert line.startswith(f'event=subscription-denied topic={commands} code=0x87 why="not authorised: ')
    assert bench.notes.denied == []
