"""A store in PostgreSQL is the store in a file, shared: same contents, same types, and a server that goes away."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.cli import main
from edge_aggregate.figures import figures
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period
from edge_aggregate.sites import read_sites
from edge_aggregate.store import open_store
from edge_aggregate.store.postgres import _translated
from edge_aggregate.web.app import make_app
from starlette.testclient import TestClient

from edge.errors import StorageError
from tests.aggregate.test_store import messy_log
from tests.support.broker import free_port
from tests.support.postgres import PASSWORD, Postgres
from tests.support.windows import BOOT, dump, window, write_log

if TYPE_CHECKING:
    from pathlib import Path

    from edge_aggregate.store import Store

YEAR = Period(1_767_225_600_000, 1_798_761_600_000)

pytestmark = pytest.mark.aggregate


def in_a_file(folder: Path, lines: list[Any]) -> tuple[dict[str, list[str]], list[Any]]:
    with open_store(":memory:", create=True) as store:
        ingest_files(store, [write_log(folder / "whole.jsonl", lines)])
        return dump(store), list(figures(store, YEAR))


@pytest.mark.parametrize("seed", [1, 2])
def test_both_hold_the_same_whatever_the_order_and_the_batches(tmp_path: Path, postgres: Postgres, seed: int) -> None:
    lines = messy_log(seed)
    expected, shown = in_a_file(tmp_path, lines)
    random.Random(seed).shuffle(lines)  # noqa: S311 - no secret
    path = write_log(tmp_path / "log.jsonl", lines)
    with open_store(postgres.address(), create=True) as store:
        ingest_files(store, [path], batch_lines=31)
        assert dump(store) == expected
        assert list(figures(store, YEAR)) == shown
        assert ingest_files(store, [path]).skipped == 1
    assert all(expected.values()), "every table has something in it"


def test_two_subscribers_merge_at_once(tmp_path: Path, postgres: Postgres) -> None:
    lines = messy_log(5) + messy_log(5)[::3]
    expected, _ = in_a_file(tmp_path, lines)
    halves = [write_log(tmp_path / f"{half}.jsonl", lines[half::2]) for half in range(2)]
    address = postgres.address()
    failed: list[BaseException] = []

    def subscribe(path: Path) -> None:
        try:
            with open_store(address, create=True) as store:  # both make the tables, one does
                ingest_files(store, [path], batch_lines=9)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=subscribe, args=(half,)) for half in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with open_store(address, read_only=True) as store:
        assert dump(store) == expected


def test_rows_have_the_types_they_have_in_a_file(tmp_path: Path, postgres: Postgres) -> None:
    path = write_log(tmp_path / "log.jsonl", [window(1, cells={"unmasked_happy": 12}, coverage=1)])
    queries = (
        "SELECT * FROM windows",
        "SELECT * FROM days",
        "SELECT * FROM terms",
        "SELECT SUM(windows), SUM(unmasked_happy), AVG(windows), COUNT(*), MAX(day) FROM days",
        "SELECT * FROM site_days",
    )
    found = []
    for address in (":memory:", postgres.address()):
        with open_store(address, create=True) as store:
            ingest_files(store, [path])
            found.append([[(value, type(value)) for value in store.engine.fetch(sql)[0]] for sql in queries])
    assert found[0] == found[1]


def kill_once(store: Store, server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server go when a batch's windows are in, and its days are not."""
    real = store.engine.load

    def load(table: str, *args: Any) -> None:  # noqa: ANN401
        real(table, *args)
        if table == "windows":
            monkeypatch.undo()
            server.kill()

    monkeypatch.setattr(store.engine, "load", load)


def test_a_server_gone_mid_batch_is_told_and_the_batch_is_tried_again(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ = postgres  # or the reason why there is none
    lines = messy_log(3)
    path = write_log(tmp_path / "log.jsonl", lines)
    with Postgres(settings=()) as server, open_store(server.address(), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "first.jsonl", lines[:50])])
        before = dump(store)
        kill_once(store, server, monkeypatch)
        with pytest.raises(StorageError, match=r"went away .* no batch is half in") as caught:
            ingest_files(store, [path])
        assert PASSWORD not in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(StorageError, match="cannot be reached"):
            ingest_files(store, [path])
        server.start()
        assert dump(store) == before, "the same store, connected anew"
        ingest_files(store, [path])
        resumed = dump(store)
    expected, _ = in_a_file(tmp_path, lines[:50] + lines)
    assert resumed == expected


def test_the_page_of_an_empty_store_names_it_without_its_password(postgres: Postgres) -> None:
    address = postgres.address()
    open_store(address, create=True).close()
    page = TestClient(make_app(address, read_sites(None)), base_url="http://localhost").get("/").text
    assert "is empty" in page
    assert "postgresql://edge@" in page
    assert "s3cr" not in page


def test_what_keeps_a_store_from_opening_is_told_without_its_password(postgres: Postgres) -> None:
    address = postgres.address()
    wrong = postgres.url("store1", "wr0ng")
    cases = {
        wrong: "refuses the password",
        postgres.url("nowhere"): "no such database: `createdb`",
        address.replace("edge:", "nobody:"): "password|user",
        f"postgresql://edge:s3cret@127.0.0.1:{free_port()}/store": "cannot be reached",
        "postgresql://edge:s3cr/et@127.0.0.1/store": "%2F",
        "postgresql://edge:s3cr@et@127.0.0.1/store": "%40",
        "postgresql://edge:s3cr%et@127.0.0.1/store": "%25",
        address: "holds no store: `edge-aggregate ingest",
    }
    for tried, said in cases.items():
        with pytest.raises(StorageError, match=said) as caught:
            open_store(tried)
        text = str(caught.value)
        assert not any(secret in text for secret in ("s3cr", "wr0ng", "et@", PASSWORD)), text
        assert "\n" not in text
        assert caught.value.__cause__ is None


def test_a_reader_cannot_write_and_a_writer_does_not_wait_for_ever(tmp_path: Path, postgres: Postgres) -> None:
    path = write_log(tmp_path / "log.jsonl", [window(1)])
    address = postgres.address()
    with open_store(address, create=True) as store:
        with open_store(address, read_only=True) as reader, pytest.raises(StorageError, match="for reading only"):
            ingest_files(reader, [path])
        with (
            open_store(address, busy_s=0.1) as other,
            store.engine.writing(),
            pytest.raises(StorageError, match=r"another program has been writing for 0.1 s: wait"),
        ):
            ingest_files(other, [path])
        assert ingest_files(store, [path]).merged.windows == 1


def test_tables_of_another_program_are_left_alone(postgres: Postgres) -> None:
    import psycopg

    address = postgres.address()
    with psycopg.connect(address) as database:
        database.execute("CREATE TABLE sites (url TEXT)")
    with pytest.raises(StorageError, match="another program: name another database"):
        open_store(address, create=True)


def test_texts_that_no_database_takes_are_dead_letters_that_it_takes(tmp_path: Path, postgres: Postgres) -> None:
    bad = window(1)
    bad["payload"]["privacy"]["unit"] = "a\0b"
    half = window(2)
    half["payload"]["privacy"]["unit"] = "\ud800"
    lines = [bad, half, window(3) | {"topic": "edge/v1/\0\ud800/x/counts"}, window(4)]
    path = write_log(tmp_path / "log.jsonl", lines)
    dead = []
    for address in (":memory:", postgres.address()):
        with open_store(address, create=True) as store:
            merged = ingest_files(store, [path]).merged
            assert (merged.windows, merged.dead) == (1, 3)
            dead.append(store.engine.fetch("SELECT kind, reason, topic, excerpt FROM dead ORDER BY line"))
    assert dead[0] == dead[1]


def test_marks_in_texts_and_comments_are_no_places_for_values() -> None:
    sql = "SELECT '?', \"a?\" -- it's ?\n/* ? */ FROM t WHERE a LIKE '50%' AND b % ? = ?"
    assert _translated(sql) == "SELECT '?', \"a?\" -- it's ?\n/* ? */ FROM t WHERE a LIKE '50%%' AND b %% %s = %s"


def test_the_commands_take_its_address(tmp_path: Path, postgres: Postgres, capsys: pytest.CaptureFixture[str]) -> None:
    address = postgres.address()
    path = write_log(tmp_path / "log.jsonl", [window(1, cells={"unmasked_happy": 40, "unmasked_sad": 60}), window(4)])
    assert main(["ingest", "--store", address, "--files", str(path)]) == 0
    assert main(["index", "--store", address, "--site", "lobby", "--from", "2026-03-02", "--to", "2026-03-03"]) == 0
    assert main(["gaps", "--store", address]) == 0
    shown = capsys.readouterr()
    assert "lobby" in shown.out
    assert BOOT[:8] in shown.out
    assert PASSWORD not in shown.out + shown.err
