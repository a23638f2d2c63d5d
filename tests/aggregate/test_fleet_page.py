"""The page of the fleet tells what devices say, keeps the dead, and says when nothing comes at all."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.decode import milliseconds
from edge_aggregate.ingest import ingest_files
from edge_aggregate.sites import read_sites
from edge_aggregate.store import open_store
from edge_aggregate.store.fleet import HealthRow, StatusRow, read_message, write_fleet
from edge_aggregate.store.upkeep import retain
from edge_aggregate.web import freshness, views
from edge_aggregate.web.app import Pages, make_app
from starlette.testclient import TestClient

from edge.contract import Health, encode
from tests.support.windows import BOOT, DAY, HEALTH, window, write_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEAD, ALIVE = "kiosk-1", "kiosk-2"
PAGES = ("/", "/site/lobby", "/fleet", "/quality")
NEWEST = DAY + timedelta(days=20, seconds=1)
"""When the last window of the one that is alive came."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One kiosk that died after a day, one that counts for 20; this machine's clock stands at the newest message."""
    lines = [window(hour + 1, start=DAY + timedelta(hours=hour), cells={"unmasked_sad": 30}) for hour in range(24)]
    for hour in range(480):
        start = DAY + timedelta(hours=hour)
        lines.append(window(hour + 1, start=start, device=ALIVE, boot="b" * 32, cells={"unmasked_happy": 30}))
    path = str(tmp_path / "store.db")
    with open_store(path, create=True) as opened:
        ingest_files(opened, [write_log(tmp_path / "log.jsonl", lines)])
    clock_at(monkeypatch, NEWEST)
    return path


@pytest.fixture
def client(store: str) -> Iterator[TestClient]:
    with TestClient(make_app(store, read_sites(None))) as client:
        yield client


def clock_at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    monkeypatch.setattr(freshness, "now_ms", lambda: milliseconds(moment))


def says(store: str, device: str, state: str, at: datetime, site: str = "lobby") -> None:
    with open_store(store) as opened:
        at_ms = milliseconds(at)
        write_fleet(opened.engine, [StatusRow(device, site, state, BOOT, "1", at_ms, None, at_ms)], [])


def health(at: datetime, device: str = ALIVE, **said: Any) -> HealthRow:  # noqa: ANN401 - fields of a payload
    return HealthRow(device, "lobby", encode(Health(**HEALTH | said)).decode(), milliseconds(at))


def row_of(text: str, device: str) -> str:
    return text.partition(f'<th scope="row">{device}</th>')[2].partition("</tr>")[0]


def test_a_device_that_goes_offline_is_shown_at_once(store: str, client: TestClient) -> None:
    says(store, ALIVE, "online", NEWEST)
    assert ">online<" in row_of(client.get("/fleet").text, ALIVE)
    says(store, ALIVE, "offline", NEWEST + timedelta(minutes=1))
    assert ">offline<" in row_of(client.get("/fleet").text, ALIVE)


def test_a_health_that_says_the_same_makes_no_page_anew(store: str) -> None:
    pages, at = Pages(store, read_sites(None)), NEWEST + timedelta(minutes=1)
    said = []
    healths: list[dict[str, Any]] = [{}, {}, {"restarts": 3}, {"scene": "dark"}, {"scene": "dark"}, {}]
    for minute, more in enumerate(healths):
        with open_store(store) as opened:
            write_fleet(opened.engine, [], [health(at + timedelta(minutes=minute), **more)])
        said.append(pages.version())
    changed = [now != before for before, now in pairwise(said)]
    assert changed == [False, False, True, False, True], "restarts are not shown; a dark scene is"
    with open_store(store) as opened:
        write_fleet(opened.engine, [], [health(at + timedelta(hours=1))])
    assert pages.version() != said[-1], "when it was last heard of, to the hour"


@pytest.mark.parametrize("path", PAGES)
def test_a_dead_subscriber_is_seen_on_every_page(
    store: str, client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    says(store, ALIVE, "online", NEWEST)
    clock_at(monkeypatch, NEWEST + timedelta(hours=3))
    assert "Nothing has come" not in client.get(path).text
    for later, since in ((timedelta(hours=5, minutes=40), "5 h"), (timedelta(days=3, hours=2), "3 d")):
        clock_at(monkeypatch, NEWEST + later)
        assert f"Nothing has come for {since}: the newest message is of 22 Mar 2026 00:00 UTC" in client.get(path).text
        part = client.get(path, headers={"HX-Request": "true"}).text
        assert f"Nothing has come for {since}" in part, "a page that is open gets it too"


def test_of_a_store_that_is_filled_from_files_nothing_is_late(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No subscriber was ever there to die."""
    clock_at(monkeypatch, NEWEST + timedelta(hours=20))
    assert "Nothing has come" not in client.get("/fleet").text


def test_the_last_window_of_each_device_is_found_from_its_runs(store: str) -> None:
    """Not from all windows that are held: of a year there are millions."""
    with open_store(store) as opened:
        plan = [str(row[-1]) for row in opened.engine.fetch(f"EXPLAIN QUERY PLAN {views._LAST_WINDOWS}")]
    assert not [step for step in plan if step.startswith("SCAN w")]
    assert [step for step in plan if step.startswith("SEARCH w USING PRIMARY KEY (boot=? AND seq=?)")]


def test_a_page_that_is_open_is_told_when_nothing_comes(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    says(store, ALIVE, "online", NEWEST)
    pages = Pages(store, read_sites(None))
    clock_at(monkeypatch, NEWEST + timedelta(hours=3))
    before = str(pages.version())
    clock_at(monkeypatch, NEWEST + timedelta(hours=3, minutes=1))
    assert str(pages.version()) != before


def test_whoever_says_how_it_is_is_heard_of(store: str, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows may be long: a health each minute shows that subscriber and broker are well."""
    clock_at(monkeypatch, NEWEST + timedelta(hours=9))
    with open_store(store) as opened:
        write_fleet(opened.engine, [], [health(NEWEST + timedelta(hours=8))])
    assert "Nothing has come" not in client.get("/fleet").text
    clock_at(monkeypatch, NEWEST + timedelta(hours=12))
    assert "Nothing has come for 4 h" in client.get("/fleet").text


def test_a_message_from_a_clock_that_is_ahead_hides_no_silence(
    store: str, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(store, ALIVE, "online", NEWEST)
    says(store, ALIVE, "online", NEWEST + timedelta(days=400))
    clock_at(monkeypatch, NEWEST + timedelta(hours=12))
    assert "Nothing has come for 12 h" in client.get("/fleet").text


def test_a_dead_kiosk_stays_until_retention_drops_it(store: str, client: TestClient, tmp_path: Path) -> None:
    text = client.get("/fleet").text
    assert "silent for 19 d" in row_of(text, DEAD)
    assert "02 Mar" not in row_of(text, DEAD)
    assert "03 Mar 2026 00:00" in row_of(text, DEAD)
    assert "silent" not in row_of(text, ALIVE)
    says(store, "kiosk-3", "stopped", DAY)
    assert "silent for 20 d" in row_of(client.get("/fleet").text, "kiosk-3"), "one that never counted"
    later = window(481, start=DAY + timedelta(days=90), device=ALIVE, boot="b" * 32)
    with open_store(store) as opened:
        ingest_files(opened, [write_log(tmp_path / "later.jsonl", [later])])
        assert "silent for 89 d" in row_of(client.get("/fleet").text, DEAD)
        retain(opened, 65)
    text = client.get("/fleet").text
    assert row_of(text, ALIVE)
    assert not row_of(text, DEAD)
    assert not row_of(text, "kiosk-3")


def test_a_device_whose_retained_status_is_taken_away_is_listed_no_more(store: str, client: TestClient) -> None:
    says(store, DEAD, "offline", DAY + timedelta(days=1))
    says(store, ALIVE, "online", NEWEST, site="hall")
    assert row_of(client.get("/fleet").text, DEAD)
    for device in (DEAD, ALIVE):
        assert read_message(f"edge/v1/lobby/{device}/health", b"", 0) is None
        gone = read_message(f"edge/v1/lobby/{device}/status", b"", milliseconds(NEWEST))
        assert isinstance(gone, StatusRow)
        with open_store(store) as opened:
            write_fleet(opened.engine, [gone], [])
    text = client.get("/fleet").text
    assert not row_of(text, DEAD)
    assert ">online<" in row_of(text, ALIVE), "it stands at another site now, and lives"
    with open_store(store) as opened:
        write_fleet(opened.engine, [], [health(NEWEST + timedelta(minutes=1), DEAD)])
    assert "no status" in row_of(client.get("/fleet").text, DEAD), "it speaks again"
