"""For every field that crosses the wall: hostile values neither end the other side nor reach the broker."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from edge.config import StorageSection
from edge.contract import decode_counts
from edge.errors import StorageError
from edge.outbox.outbox import Outbox
from edge.outbox.runtime_files import (
    COMMAND_FILE,
    VISION_FILE,
    CommandFile,
    VisionFile,
    read_command,
    read_vision,
    write_command,
    write_vision,
)
from edge.outbox.writer import open_for_vision
from edge.process.clock import SystemClock
from edge.types import Vote
from edge.vision.kill_switch import PauseSwitch
from edge.vision.recorder import Recorder
from tests.publisher.test_dispatch import Bench
from tests.support.appliance import closing, vision, vision_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MARK: Final = "SECRETPICTURE"
HOSTILE: Final[tuple[Any, ...]] = (
    MARK,
    MARK * 10_000,
    f"{MARK}\n\0\x1b[2J",
    f"cpu {MARK}",
    [MARK],
    {MARK: MARK},
    {MARK: 1},
    [[[]]],
    None,
    True,
    -1,
    10**30,
    -(10**30),
    2**63,
    1e308,
    "NaN",
    "",
)
"""What JSON can hold in the place of a field."""
RAW: Final = (b"", b"{", b"[" * 100_000, b"\xff\xfe{}", b"null", b'{"boot_id": NaN}', b"\x00" * 10, b"{}" * 4_000_000)


def paths(value: object, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The place of each field of a JSON object, inner ones too."""
    found = [at] if at else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*at, key))
    return found


def put(whole: dict[str, Any], at: tuple[str, ...], value: object) -> str:
    """The object's JSON with one field replaced."""
    fresh = json.loads(json.dumps(whole))
    place = fresh
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return json.dumps(fresh)


def published(bench: Bench) -> bytes:
    """Everything the broker was given."""
    return b"".join(topic.encode() + payload for topic, payload, _ in bench.notes.published)


def longest(bench: Bench) -> int:
    """Bytes of the longest message."""
    return max(len(payload) for _, payload, _ in bench.notes.published)


# ---- vision is the enemy's


def test_no_field_of_vision_json_ends_the_publisher_or_carries_a_picture(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    good = vision_file().model_copy(update={"privacy": None, "detector": "haar on cpu"})
    whole = json.loads(good.model_dump_json())
    whole["privacy"] = {"epsilon": 1.0, "spent_today": 1.0, "day_bound": 12.0, "exhausted": False}
    whole["development"] = {"frames": 1, "faces": 1, "routes": {"masked": 1}, "stage_ms": {"detect": 1.0}, "fps": 1.0}
    assert {at[0] for at in paths(whole)} == set(VisionFile.model_fields), "every field is tried"
    accepted = 0
    for at in paths(whole):
        for value in HOSTILE:
            (tmp_path / VISION_FILE).write_text(put(whole, at, value))
            try:
                figures = read_vision(tmp_path)
            except StorageError:
                continue
            accepted += 1
            if at[0] == "versions":  # names: the one free text, see below
                assert value in {MARK, "NaN"}
                continue
            bench.clock.pass_time(61)
            bench.turn(0, figures)
    assert accepted, "null and 0 are good values of some fields"
    assert MARK.encode() not in published(bench)
    assert longest(bench) < 2000
    write_vision(tmp_path, good)
    assert read_vision(tmp_path) == good


def test_figures_that_are_good_words_are_few() -> None:
    """What is left for an enemy who keeps to the schema: the names of two versions, and numbers within bounds."""
    free = {
        name
        for name, value in VisionFile.model_json_schema()["properties"].items()
        if value.get("type") == "string" and not ({"enum", "const", "pattern"} & set(value))
    }
    assert free == set()


def test_an_enemy_names_itself_a_few_times_and_no_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in range(50):
        bench.clock.pass_time(61)
        names = {"edge": f"{number}", "bundle": MARK}
        bench.turn(0, vision_file().model_copy(update={"versions": names, "boot_id": f"{number:032x}"}))
    said = [json.loads(payload) for payload in bench.notes.leaf("health")]
    assert len(said) == 50
    assert len({one["versions"]["edge"] for one in said}) == 4


def test_an_enemy_who_says_something_new_each_time_is_heard_on_the_beat(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in range(600):
        bench.clock.pass_time(0.1)
        bench.turn(0, vision_file().model_copy(update={"boot_id": f"{number:032x}"}))
    assert len(bench.notes.leaf("health")) < 25, "in a minute"


def columns() -> list[str]:
    """Of a row."""
    with sqlite3.connect(":memory:") as db:
        from edge.outbox.rows import SCHEMA

        db.executescript(SCHEMA)
        return [name for _, name, *_ in db.execute("PRAGMA table_info(rows)")]


@pytest.mark.parametrize("column", [name for name in columns() if name != "n"])
def test_no_column_of_a_row_ends_the_publisher_or_reaches_the_broker(tmp_path: Path, column: str) -> None:
    values = (MARK, MARK * 1000, MARK.encode(), b"\xff\xfe", 2**63 - 1, -(2**63), -1, 0, 1e308, float("inf"), "", None)
    bench = Bench(tmp_path)
    enemy = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    made = 0
    for value in values:
        seq = bench.writer.commit(closing([Vote("masked", "happy")]))
        try:
            enemy.execute(f"UPDATE rows SET {column} = ? WHERE seq = ? AND boot_id = ?", (value, seq, "b" * 32))  # noqa: S608
            made += 1
        except sqlite3.Error:
            continue
    enemy.execute("UPDATE rows SET report = CAST(X'FFFE' AS TEXT) WHERE seq = 1")  # text that is no UTF-8
    last = bench.writer.commit(closing())
    for _ in range(4):
        bench.clock.pass_time(61)
        bench.dispatcher.tend(bench.outbox)
        bench.turn(0)
        bench.outbox.released_since(0)
        bench.outbox.between("b" * 32, -(10**30), 10**30)
        bench.outbox.unlabelled(0)
    assert made > 1
    sent = [decode_counts(payload) for payload in bench.notes.leaf("counts")]
    assert last in [counts.seq for counts in sent], "the good row is not held up"
    assert MARK.encode() not in published(bench)
    stats = bench.outbox.stats()
    assert stats.unsent == 0
    assert stats.refused > 0
    enemy.close()


def test_no_field_of_a_report_ends_the_publisher_or_carries_a_picture(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.writer.commit(closing())
    whole = json.loads(bench.outbox.unsent()[0].body)
    tried = 0
    enemy = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    extra = [(), ("counts",), ("counts", "unmasked"), ("privacy",), ("models",)]
    for at in paths(whole) + [(*place, MARK) for place in extra]:
        for value in HOSTILE:
            seq = bench.writer.commit(closing())
            enemy.execute("UPDATE rows SET report = ? WHERE seq = ?", (put(whole, at, value), seq))
            tried += 1
        bench.clock.pass_time(61)
        bench.dispatcher.tend(bench.outbox)
        for _ in range(3):
            bench.turn(0)
    last = bench.writer.commit(closing())
    bench.turn(0)
    assert tried > 500
    assert MARK.encode() not in published(bench)
    assert longest(bench) < 2000
    assert decode_counts(bench.notes.leaf("counts")[-1]).seq == last
    assert bench.outbox.stats().refused > tried / 2
    enemy.close()


# ---- the publisher is the enemy's


def test_no_field_of_command_json_ends_vision(tmp_path: Path) -> None:
    switch = PauseSwitch(tmp_path / "pause", None, tmp_path)
    write_command(tmp_path, "pause")
    assert switch.cause() == "command"
    whole = json.loads((tmp_path / COMMAND_FILE).read_text())
    assert {at[0] for at in paths(whole)} == set(CommandFile.model_fields)
    for at in paths(whole):
        for value in HOSTILE:
            if at == ("paused",) and value is True:
                continue
            (tmp_path / COMMAND_FILE).write_text(put(whole, at, value))
            assert switch.cause() == "command", "what is no command changes nothing"
    for raw in RAW:
        (tmp_path / COMMAND_FILE).write_bytes(raw)
        assert switch.cause() == "command"
    assert not write_command(tmp_path, "resume").paused


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path, _: Path) -> None:
    path.mkdir()


def huge(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.parametrize("name", [COMMAND_FILE, VISION_FILE])
@pytest.mark.parametrize("kind", [fifo, link, device, folder, huge])
def test_what_is_no_small_file_is_refused_at_once(
    tmp_path: Path, kind: Callable[[Path, Path], None], name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    kind(tmp_path / name, elsewhere)
    began = time.monotonic()
    with pytest.raises(StorageError, match="delete it"):
        (read_command if name == COMMAND_FILE else read_vision)(tmp_path)
    assert time.monotonic() - began < 30, "it has not waited"
    if kind is not folder:
        write_command(tmp_path, "pause") if name == COMMAND_FILE else write_vision(tmp_path, vision_file())
        assert (read_command if name == COMMAND_FILE else read_vision)(tmp_path) is not None
    assert elsewhere.read_text() == "kept", "nobody was led elsewhere"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_file_of_somebody_else_in_the_writers_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "publisher").mkdir()
    write_command(tmp_path, "pause")
    assert read_command(tmp_path) is not None
    os.chown(tmp_path / "publisher" / COMMAND_FILE, 4711, -1)
    with pytest.raises(StorageError, match="user 4711 owns it"):
        read_command(tmp_path)


def test_each_writer_has_a_folder_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / COMMAND_FILE).write_text("left over")
    for name in ("vision", "publisher"):
        (tmp_path / name).mkdir()
    write_command(tmp_path, "pause")
    write_vision(tmp_path, vision_file())
    assert [p.name for p in (tmp_path / "publisher").iterdir()] == [COMMAND_FILE]
    assert [p.name for p in (tmp_path / "vision").iterdir()] == [VISION_FILE]
    assert read_command(tmp_path) is not None


PROGRAMS: Final = {
    "trigger": "CREATE TRIGGER t BEFORE INSERT ON rows BEGIN SELECT RAISE(ABORT, 'again'); END",
    "trigger that counts": "CREATE TRIGGER t AFTER INSERT ON rows BEGIN INSERT INTO meta VALUES (new.n, 1); END",
    "trigger on meta": "CREATE TRIGGER t BEFORE UPDATE ON boots BEGIN SELECT RAISE(ROLLBACK, 'again'); END",
    "view": "CREATE VIEW v AS SELECT * FROM rows",
    "table": "CREATE TABLE pictures (p BLOB)",
    "column": "ALTER TABLE rows ADD COLUMN extra DEFAULT 1",
    "index": "CREATE UNIQUE INDEX i ON rows (kernel_boot_id)",
    "view for table": "ALTER TABLE rows RENAME TO hidden; CREATE VIEW rows AS SELECT * FROM hidden;",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_in_the_outbox_is_never_run_and_each_window_is_drawn_once(tmp_path: Path, program: str) -> None:
    drawn: list[int] = []
    run = Recorder(
        StorageSection(outbox=tmp_path / "outbox.db", runtime=tmp_path), SystemClock(), "policy", "lobby/kiosk-07"
    )
    run.begin()

    def window(number: int) -> None:
        close = closing()

        def counted(*held: Any) -> Any:  # noqa: ANN401 - handed on
            drawn.append(number)
            return close(*held)

        run.put(counted)

    window(1)
    with sqlite3.connect(tmp_path / "outbox.db") as enemy:
        enemy.executescript(PROGRAMS[program])
    enemy.close()
    with pytest.raises(StorageError, match="other tables, triggers or views"):
        Outbox(tmp_path / "outbox.db")
    window(2)
    window(3)
    run.close()
    assert drawn == [1, 2, 3]
    with Outbox(tmp_path / "outbox.db") as outbox:
        assert len(outbox.unsent()) == 2, "in a new file; the other one lies aside"
    assert (tmp_path / "outbox.db.damaged-1").exists()


def test_a_trigger_hidden_from_the_schema_check_is_still_not_run(tmp_path: Path) -> None:
    """Between our look at the schema and the statement nobody can write; the authorizer would stop it all the same."""
    with vision(tmp_path) as outbox:
        outbox.commit(closing())
        with sqlite3.connect(tmp_path / "outbox.db") as enemy:
            enemy.execute(PROGRAMS["trigger that counts"])
        enemy.close()
        outbox._known = outbox._db.execute("PRAGMA schema_version").fetchone()[0]
        with pytest.raises(StorageError, match="not authorized"):
            outbox.commit(closing())
        assert outbox._db.execute("SELECT count(*) FROM rows").fetchone() == (1,)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE boots SET last_seq = 'many'",
        "UPDATE boots SET last_seq = 9223372036854775807",
        "UPDATE boots SET last_seq = -1",
        "UPDATE boots SET boot_id = X'00'",
        "UPDATE boots SET prev_boot_id = 'SECRET', prev_last_seq = 'SECRET'",
        "DELETE FROM boots",
        "DELETE FROM meta",
        "INSERT OR REPLACE INTO meta VALUES ('dropped', 'many'), ('day', '1e999'), ('paused', X'FF')",
        "INSERT INTO rows SELECT n + 1, boot_id, seq + 1, NULL, NULL, '', '', 0, 0, 0, NULL, NULL, NULL FROM rows",
        "PRAGMA user_version = 0",
    ],
)
def test_no_value_that_vision_reads_in_the_outbox_ends_it(tmp_path: Path, change: str) -> None:
    place = StorageSection(outbox=tmp_path / "outbox.db", runtime=tmp_path)
    run = Recorder(place, SystemClock(), "policy", "lobby/kiosk-07")
    run.begin()
    run.put(closing())
    with sqlite3.connect(tmp_path / "outbox.db") as enemy:
        enemy.execute(change)
    enemy.close()
    run.put(closing())
    run.close()
    again = Recorder(place, SystemClock(), "policy", "lobby/kiosk-07")
    again.begin()
    again.put(closing())
    again.close()
    assert (run.waiting, again.waiting) == (0, 0)
    with Outbox(tmp_path / "outbox.db") as outbox:
        outbox.refuse_unsound()
        outbox.stats()
        assert outbox.unsent()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_link_in_the_place_of_the_database_leads_nowhere(tmp_path: Path, suffix: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    (tmp_path / f"outbox.db{suffix}").symlink_to(victim)
    try:
        outbox, _ = open_for_vision(tmp_path / "outbox.db")
    except StorageError:
        pass
    else:
        outbox.begin_boot("a" * 32, "0" * 32)
        outbox.close()
    assert victim.read_bytes() == b""
