"""Asking real publishers for what never came, over a real broker."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate import subscribe
from edge_aggregate.cli import main
from edge_aggregate.commands import replay as replay_command
from edge_aggregate.commands.subscribe import duration
from edge_aggregate.decode import milliseconds
from edge_aggregate.ingest import ingest_files
from edge_aggregate.metrics import Figures
from edge_aggregate.replay import Asker
from edge_aggregate.store import open_store
from edge_aggregate.store.fleet import HealthRow, StatusRow, read_fleet, write_fleet
from edge_aggregate.store.replays import drop_lease, note_asked, note_gone, read_gaps, take_lease

from edge.errors import BrokerUnavailable
from edge.types import Vote
from tests.support.appliance import closing, vision
from tests.support.broker import Mosquitto, needs_mosquitto
from tests.support.subscriber import Devices, Process, environment_with, until
from tests.support.windows import BOOT, DAY, window, write_log
from tests.support.wire import Ear, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HAPPY = [Vote("unmasked", "happy")] * 3
OFTEN = "from edge_aggregate.commands import subscribe; subscribe.duration = lambda text: 1.0"

pytestmark = pytest.mark.aggregate


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The command takes them for itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def gaps(store: str) -> list[tuple[int, int, bool]]:
    with open_store(store, read_only=True) as found:
        return [(gap.first_seq, gap.last_seq, gap.lost) for gap in read_gaps(found.engine)]


@pytest.fixture
def kiosk(tmp_path: Path) -> Iterator[tuple[Mosquitto, Process]]:
    """A publisher that has sent rows 1 to 20, and a subscriber that was told of all but 6 to 15."""
    folder = tmp_path / "kiosk"
    folder.mkdir()
    with Mosquitto(tmp_path) as broker, vision(folder, BOOT) as outbox:
        process = Process(tmp_path, broker.port)

        def commit(rows: int) -> None:
            for _ in range(rows):
                outbox.commit(closing(HAPPY))

        with Service(folder, broker.port, "--retry", "0.2"), process, Ear(broker.port, "edge/v1/#") as ear:
            commit(5)
            until(lambda: process.windows() == 5, "the first", process)
            assert process.end() == 0
            forget_session(broker.port)
            commit(10)
            until(lambda: len(ear.keys()) == 15, "somebody else gets the next")
            process.start()
            commit(5)
            until(lambda: process.windows() == 10, "the last", process)
            assert gaps(process.store) == [(6, 15, False)]
            yield broker, process


def forget_session(port: int) -> None:
    from edge_aggregate.broker import Broker
    from edge_aggregate.connection import Connection

    connection = Connection(Broker("127.0.0.1", port), "aggregator", keep_s=0, receive=10, on_message=print)
    connection.open()
    connection.close()


def replay(process: Process, port: int, *options: str) -> int:
    return main(["replay", "--store", process.store, "--broker", f"127.0.0.1:{port}", *options])


@needs_mosquitto
def test_a_gap_is_asked_for_and_closes(kiosk: tuple[Mosquitto, Process], capsys: pytest.CaptureFixture[str]) -> None:
    broker, process = kiosk
    assert replay(process, broker.port, "--dry-run") == 0
    said = capsys.readouterr().out
    assert f"lobby/kiosk-07: {BOOT[:8]}…/6 to 15, 10 windows\n10 windows missing in 1 gaps: 1 to ask for" in said
    assert process.ask("SELECT COUNT(*) FROM replays") == [(0,)], "a dry run asks nothing"
    assert replay(process, broker.port) == 0
    assert (
        "1 gaps asked for: 10 windows are sent again, 0 are gone, 0 devices did not answer" in capsys.readouterr().out
    )
    until(lambda: process.windows() == 20, "they come", process)
    assert gaps(process.store) == []
    assert process.ask("SELECT COUNT(*) FROM leases") == [(0,)]


@needs_mosquitto
def test_what_is_gone_is_lost_and_not_asked_for_again(
    kiosk: tuple[Mosquitto, Process], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some rows are there no more: those that are come, the rest is asked for once more and then no more."""
    broker, process = kiosk
    outbox = sqlite3.connect(tmp_path / "kiosk" / "outbox.db")
    with outbox:
        outbox.execute("DELETE FROM rows WHERE seq BETWEEN 8 AND 11")
    outbox.close()
    assert replay(process, broker.port) == 0
    assert "6 windows are sent again, 4 are gone" in capsys.readouterr().out
    until(lambda: gaps(process.store) == [(8, 11, False)], "the rest", process)
    assert replay(process, broker.port) == 0
    assert "0 windows are sent again, 4 are gone" in capsys.readouterr().out
    assert gaps(process.store) == [(8, 11, True)]
    capsys.readouterr()
    assert main(["gaps", "--store", process.store]) == 0
    assert f"lobby/kiosk-07: 4 lost for good, {BOOT[:8]}…/8 to 11, between " in capsys.readouterr().out
    assert replay(process, broker.port) == 0
    assert "0 to ask for, 1 lost for good, 0 not now" in capsys.readouterr().out


@needs_mosquitto
def test_a_subscriber_asks_by_itself_and_of_two_only_one(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Devices(broker.port) as devices, Ear(broker.port, "edge/v1/+/+/cmd/#") as ear:
        options = ("--share", "figures", "--replay-every", "15m")
        one = Process(tmp_path, broker.port, *options, name="one").start()
        devices.count([1, 2, 5])
        until(lambda: one.windows() == 3, "with a gap", one)
        assert one.end() == 0
        processes = [Process(tmp_path, broker.port, *options, name=name) for name in ("two", "three")]
        try:
            for process in processes:
                process.start(environment=environment_with(tmp_path, OFTEN))
            until(lambda: ear.heard, "asked", processes[0])
            time.sleep(4)  # rounds of both
        finally:
            for process in processes:
                process.kill()
        commands = [json.loads(message.payload) for message in ear.heard]
        assert [(c["boot_id"], c["from"], c["to"]) for c in commands] == [(BOOT, 3, 4)]
        assert ear.heard[0].response_topic == f"edge/v1/lobby/kiosk-1/reply/{commands[0]['id']}"
        assert ear.heard[0].correlation


@needs_mosquitto
def test_a_device_that_is_away_is_asked_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0x10 says at once that it is not connected; then it waits its time."""
    with Mosquitto(tmp_path) as broker:
        process = Process(tmp_path, broker.port)
        with open_store(process.store, create=True) as store:
            ingest_files(store, [write_log(tmp_path / "log.jsonl", [window(1), window(3)])])
        assert replay(process, broker.port) == 0
        assert "1 gaps asked for: 0 windows are sent again, 0 are gone, 1 devices" in capsys.readouterr().out
        assert replay(process, broker.port) == 0
        assert "0 to ask for, 0 lost for good, 1 not now" in capsys.readouterr().out


@needs_mosquitto
def test_a_broker_that_lets_nobody_ask_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read edge/#\n")
    acl.chmod(0o644)
    with Mosquitto(tmp_path, f"acl_file {acl}") as broker:
        process = Process(tmp_path, broker.port)
        with open_store(process.store, create=True) as store:
            ingest_files(store, [write_log(tmp_path / "log.jsonl", [window(1), window(3)])])
        assert replay(process, broker.port) == 77
        assert "let this client write edge/v1/+/+/cmd/replay there" in caplog.text


def test_a_replay_without_a_broker_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store.db"
    with open_store(str(path), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [window(1), window(3)])])
    assert main(["replay", "--store", str(path)]) == 2
    assert "give --broker HOST[:PORT]" in capsys.readouterr().err


class Wire:
    """What an asker says."""

    def __init__(self) -> None:
        self.published: dict[int, int] = {}
        self.said: list[tuple[str, dict[str, Any], str, bytes]] = []

    def publish(self, topic: str, payload: bytes, *, answer_to: str, correlation: bytes, expiry: int) -> int:
        assert expiry > 0
        self.said.append((topic, json.loads(payload), answer_to, correlation))
        return len(self.said)


class Breaking(Wire):
    """A connection that goes once something was asked over it."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()
        self.granted = {1: [0]}

    def open(self, _: object) -> None:
        pass

    def subscribe(self, *_: object) -> int:
        return 1

    def step(self, _: float) -> None:
        if self.said:
            msg = "the broker is gone"
            raise BrokerUnavailable(msg)


def test_a_broker_that_goes_in_a_round_keeps_nobody_from_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "store.db")
    with open_store(path, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [window(1), window(3)])])
    monkeypatch.setattr(replay_command, "Connection", Breaking)
    assert main(["replay", "--store", path, "--broker", "localhost"]) == BrokerUnavailable.exit_code
    assert "the broker is gone" in capsys.readouterr().err
    with open_store(path, read_only=True) as store:
        assert store.engine.fetch("SELECT COUNT(*) FROM leases") == [(0,)]
        assert store.engine.fetch("SELECT tries FROM replays") == [(1,)], "it was in the middle of one"


def test_answers_of_others_are_not_believed(tmp_path: Path) -> None:
    with open_store(":memory:", create=True) as store:
        lines = [window(seq, device=device) for device in ("kiosk-1", "kiosk-2") for seq in (1, 3, 6)]
        ingest_files(store, [write_log(tmp_path / "log.jsonl", lines)])
        asker, wire = Asker("edge", None), Wire()
        asker.tend(wire, store)  # type: ignore[arg-type] # what it uses of one
        first = list(wire.said)
        assert sorted(topic for topic, *_ in first) == [f"edge/v1/lobby/kiosk-{n}/cmd/replay" for n in (1, 2)], (
            "one command at a time to each"
        )
        _, command, topic, correlation = first[0]
        good = json.dumps({"id": command["id"], "sent": 0, "gone": command["to"] - command["from"] + 1}).encode()
        stranger = topic.replace("kiosk-1", "kiosk-3").replace("kiosk-2", "kiosk-3")
        assert asker.take(stranger, good, correlation), "another device, and not for the fleet either"
        assert asker.take(topic, good, b"guessed")
        assert asker.take(topic, b"\xff{", correlation)
        assert asker.take(topic, good.replace(b'"gone": ', b'"gone": -'), correlation)
        assert not asker.take("edge/v1/lobby/kiosk-1/health", b"{}", None)
        asker.tend(wire, store)  # type: ignore[arg-type]
        assert not any(gap.lost for gap in read_gaps(store.engine))
        assert len(wire.said) == 2
        assert asker.take(topic, good, correlation)
        asker.tend(wire, store)  # type: ignore[arg-type]
        assert sum(gap.lost for gap in read_gaps(store.engine)) == 1
        assert asker.answers.gone == command["to"] - command["from"] + 1


def test_one_asker_at_a_time(address: str) -> None:
    hour = 3_600_000
    with open_store(address, create=True) as store:
        engine = store.engine
        assert take_lease(engine, "replay", "one", 0, hour)
        assert not take_lease(engine, "replay", "two", hour - 1, hour)
        assert take_lease(engine, "replay", "one", hour - 1, hour), "it goes on"
        assert not take_lease(engine, "replay", "two", hour, hour)
        assert take_lease(engine, "replay", "two", 2 * hour, hour), "one that ended without a word"
        drop_lease(engine, "replay", "one")
        assert not take_lease(engine, "replay", "one", 2 * hour, hour), "not its own to drop"
        drop_lease(engine, "replay", "two")
        assert take_lease(engine, "replay", "one", 2 * hour, hour)
        assert take_lease(engine, "replay", "two", -100 * hour, hour), "a clock that was far ahead holds up nobody"


@pytest.mark.parametrize("at_once", [True, False])
def test_a_kiosk_that_was_moved_is_asked_whatever_its_old_topic_still_says(
    tmp_path: Path, address: str, *, at_once: bool
) -> None:
    """Its `stopped` there is retained, and comes again at each connection; its own end, and its next run's, count."""
    hour, old, new = 3_600_000, "1" * 32, "2" * 32
    heard = milliseconds(DAY)
    online = StatusRow("kiosk-1", "lobby", "online", new, "1", heard - hour, None, heard)
    left = StatusRow("kiosk-1", "attic", "stopped", old, "1", heard - 2 * hour, None, heard, retained=True)
    measured = HealthRow("kiosk-1", "attic", "{}", heard, retained=True)
    with open_store(address, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [window(1), window(9, start=DAY)])])
        write_fleet(store.engine, [], [measured])
        write_fleet(store.engine, [left], [])
        assert read_fleet(store.engine)[0].state == "stopped", "of one that had told its health alone"
        for statuses in [[online, left]] if at_once else [[online], [left]]:
            write_fleet(store.engine, statuses, [measured])
        (gap,) = read_gaps(store.engine)
        (member,) = read_fleet(store.engine)
        assert (member.site, gap.state, gap.due(heard)) == ("lobby", "online", True)
        write_fleet(store.engine, [online._replace(state="stopped", retained=True)], [])
        assert not read_gaps(store.engine)[0].due(heard), "it ended while nobody listened"
        again = online._replace(boot_id="3" * 32, since_ms=heard, retained=True)
        write_fleet(store.engine, [again], [])
        assert read_gaps(store.engine)[0].due(heard), "and began again"
        ahead = online._replace(state="stopped", since_ms=heard + 400 * 24 * hour)
        write_fleet(store.engine, [ahead, again], [])
        assert read_gaps(store.engine)[0].due(heard), "a clock that was far ahead holds up nobody"


def test_a_health_of_where_a_kiosk_stood_before_goes_when_its_status_comes(address: str) -> None:
    """A broker may repeat what is retained in any order, and two writes may part it."""
    heard = milliseconds(DAY)
    online = StatusRow("kiosk-1", "lobby", "online", "2" * 32, "1", heard, None, heard, retained=True)
    here, before = (HealthRow("kiosk-1", site, f'{{"of": "{site}"}}', 0, retained=True) for site in ("lobby", "zoo"))
    with open_store(address, create=True) as store:
        for healths, kept in (([here, before], None), ([here, before], here.health), ([], here.health)):
            write_fleet(store.engine, [], healths)
            write_fleet(store.engine, [online], [])
            (member,) = read_fleet(store.engine)
            assert (member.site, member.health) == ("lobby", kept)


def test_when_a_gap_is_due(tmp_path: Path, address: str) -> None:
    with open_store(address, create=True) as store:
        engine = store.engine
        ingest_files(store, [write_log(tmp_path / "log.jsonl", [window(1), window(9, start=DAY)])])
        (gap,) = read_gaps(engine)
        assert gap.due(0)
        for now, soon, later in ((0, 899_999, 900_000), (900_000, 4_499_999, 4_500_000)):
            note_asked(engine, gap, now)
            (gap,) = read_gaps(engine)
            assert not gap.due(soon)
            assert gap.due(later)
        assert not gap._replace(state="offline").due(10**12)
        note_gone(engine, gap, 0)
        (gap,) = read_gaps(engine)
        assert gap.lost
        assert not gap.due(10**12)
        ingest_files(store, [write_log(tmp_path / "more.jsonl", [window(4)])])
        assert [gap.lost for gap in read_gaps(engine)] == [True, True], "what is left of it is lost too"
        ingest_files(store, [write_log(tmp_path / "yet more.jsonl", [window(12)])])
        assert sorted((gap.first_seq, gap.lost) for gap in read_gaps(engine)) == [(2, True), (5, True), (10, False)]


class Caught:
    """In the place of a subscriber: what it would have been given."""

    task: Asker | None

    def __init__(self, *given: Any) -> None:  # noqa: ANN401
        Caught.task, self.figures = given[-1], Figures()

    def run(self) -> None:
        pass


@pytest.mark.parametrize(("options", "every"), [((), 900), (("1h",), 3600), (("off",), None)])
def test_a_subscriber_asks_every_quarter_of_an_hour_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], every: float | None
) -> None:
    """Whoever copies the first command of a page must not find out after 30 days that nothing was asked for."""
    monkeypatch.setattr(subscribe, "Subscriber", Caught)
    said = [f"--replay-every={option}" for option in options]
    ingest = ["ingest", "--broker", "localhost", "--store", str(tmp_path / "s.db"), "--landing", str(tmp_path / "l")]
    assert main([*ingest, *said]) == 0
    assert (None if Caught.task is None else Caught.task._every) == every


@pytest.mark.parametrize(("text", "seconds"), [("15m", 900), ("60s", 60), ("2h", 7200), ("off", 0)])
def test_a_time_between_rounds(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "5s", "m", "-1m", "9999h", "1.5h"])
def test_no_time_between_rounds(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ingest", "--store", "x", f"--replay-every={text}"])
    assert "is no time between a minute and a week" in capsys.readouterr().err
