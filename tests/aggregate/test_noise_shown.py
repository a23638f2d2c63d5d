"""What is mostly noise is no share: on the map, in the hours of the week, in Grafana; a flush is of no hour."""

from __future__ import annotations

import json
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from edge_aggregate.cli import main
from edge_aggregate.decode import milliseconds
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period
from edge_aggregate.profile import week
from edge_aggregate.sites import read_sites
from edge_aggregate.statistics import bare_share
from edge_aggregate.store import open_store
from edge_aggregate.web.app import make_app
from starlette.testclient import TestClient

from tests.aggregate.test_grafana import asked
from tests.support.windows import DAY, window, write_log

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

MONTH = Period(milliseconds(DAY), milliseconds(DAY + timedelta(days=28)))
NOISE = {"unmasked_happy": 9, "unmasked_sad": -3, "unmasked_fear": -4}
"""A closed shop's day: happy is 450 % of all."""
SAD = {"unmasked_happy": -6, "unmasked_sad": 40}
PLACES = (
    "[sites.lobby]\nlatitude = 38.7\nlongitude = -9.1\n[sites.hall]\nlatitude = 41.1\nlongitude = -8.6\n"
    "[sites.attic]\nlatitude = 40.1\nlongitude = -8.4\n"
)


def stored(folder: Path, lines: Iterable[dict[str, Any]]) -> str:
    path = str(folder / "store.db")
    with open_store(path, create=True) as store:
        ingest_files(store, [write_log(folder / "log.jsonl", lines)])
    return path


def noisy() -> list[dict[str, Any]]:
    """A shop that is closed, one where nobody is happy, and one with visitors."""
    draws = dict.fromkeys((*NOISE, *SAD), 24)
    return [
        window(1, cells=NOISE, draws=draws, flush=True),
        window(1, cells=SAD, draws=draws, flush=True, site="attic", device="kiosk-3", boot="c" * 32),
        window(1, cells={"unmasked_happy": 30, "unmasked_sad": 90}, site="hall", device="kiosk-2", boot="b" * 32),
    ]


def test_a_share_without_a_band_is_one_or_none() -> None:
    assert bare_share(9, 2, 1.8 * 24) is None, "2 is well within three standard deviations"
    assert bare_share(9, 2, 0.0) == 1.0
    assert bare_share(-6, 34, 1.8 * 24) == 0.0
    assert bare_share(30, 120, 4.0) == 0.25
    assert bare_share(0, 0, 0.0) is None
    assert bare_share(-1, -5, 0.0) is None


def test_the_map_gives_a_closed_shop_no_figure(tmp_path: Path) -> None:
    path = stored(tmp_path, noisy())
    (tmp_path / "sites.toml").write_text(PLACES)
    with TestClient(make_app(path, read_sites(tmp_path / "sites.toml"))) as client:
        text = client.get("/?last=24h").text
    drawn = text.partition('aria-label="Map"')[2].partition("</svg>")[0]
    for site, share in (("lobby", "no figure"), ("attic", "0 %"), ("hall", "25 %")):
        assert f'aria-label="{site}: {share}"' in drawn
    assert "450 %" not in text
    assert "h--" not in drawn


def a_quiet_month() -> list[dict[str, Any]]:
    """A kiosk from 8 to 20 that mostly holds back until midnight; one hour of noise."""
    lines = []
    for hour in range(28 * 24):
        start = DAY + timedelta(hours=hour)
        cells: dict[str, int] = {}
        if hour % 24 == 23:
            cells = {"unmasked_happy": 20, "unmasked_sad": 15}
        elif hour % 24 == 12:
            cells = {"unmasked_happy": 10, "unmasked_sad": 10}
        elif hour == 24 * 2 + 14:
            cells = {"unmasked_happy": 3, "unmasked_sad": -2}
        lines.append(window(hour + 1, start=start, cells=cells, flush=hour % 24 == 23))
    return lines


def test_votes_of_a_flush_are_of_no_hour_and_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored(tmp_path, a_quiet_month())
    with open_store(path, read_only=True) as store:
        hours, flushed = week(store, "lobby", MONTH, UTC)
    assert flushed == 28 * 35
    assert {hour.hour for hour in hours if hour.n > 1} == {12}
    assert all(hour.windows == 0 for hour in hours if hour.hour == 23)
    said = f"left out: {28 * 35} votes of windows that empty the cells at the end of a UTC day"
    ask = ["index", "--store", path, "--site", "lobby", "--by", "hour-of-week", "--from", "2026-03-02"]
    assert main([*ask, "--to", "2026-03-30"]) == 0
    assert said in capsys.readouterr().out
    assert main([*ask, "--to", "2026-03-30", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 168
    assert said in err
    with TestClient(make_app(path, read_sites(None))) as client:
        chart = client.get("/site/lobby").text.partition('id="week"')[2].partition("</div>")[0]
    assert said.replace("left", "Left") in chart


def test_exact_counts_hold_nothing_back_and_keep_every_hour(tmp_path: Path) -> None:
    lines = [
        window(n + 1, start=DAY + timedelta(hours=n), epsilon=None, min_count=1, cells={"masked_sad": 1}, flush=n == 23)
        for n in range(25)
    ]
    with open_store(stored(tmp_path, lines), read_only=True) as store:
        hours, flushed = week(store, "lobby", MONTH, UTC)
    assert (flushed, sum(hour.n for hour in hours)) == (0, 25)


def test_an_hour_of_noise_has_no_share(tmp_path: Path) -> None:
    with open_store(stored(tmp_path, a_quiet_month()), read_only=True) as store:
        hours, _ = week(store, "lobby", MONTH, UTC)
    shown = {(hour.weekday, hour.hour): hour.index for hour in hours if hour.windows}
    assert shown[2, 14] is None, "3 of 1"
    assert shown[2, 12] == 0.5
    assert shown[2, 13] is None, "nothing was released"


def test_grafana_shows_shares_or_none(tmp_path: Path, address: str) -> None:
    closed = window(2, start=DAY + timedelta(hours=1), cells={"unmasked_happy": -9}, flush=True)
    with open_store(address, create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", noisy())])
        shares = {site: None if share is None else float(share) for site, share, *_ in asked(store, "sites")}
        assert shares == {"attic": 0.0, "hall": 0.25, "lobby": 1.0}
        ingest_files(store, [write_log(tmp_path / "more.jsonl", [closed])])
        assert {site: share for site, share, *_ in asked(store, "sites")}["lobby"] is None
        assert [share for _, site, share in asked(store, "happy by day") if site == "lobby"] == [None]
