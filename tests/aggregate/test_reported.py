"""The share of a period for which windows arrived stands beside coverage: a kiosk that is off sends none."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.cli import main
from edge_aggregate.decode import milliseconds
from edge_aggregate.figures import city_while_open, figures, local_series, read
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period
from edge_aggregate.reported import Known
from edge_aggregate.sites import read_sites
from edge_aggregate.store import open_store
from edge_aggregate.web.app import make_app
from starlette.testclient import TestClient

from tests.support.windows import DAY, window, write_log

if TYPE_CHECKING:
    from pathlib import Path

WEEK = Period(milliseconds(DAY), milliseconds(DAY + timedelta(days=7)))
ASKED = ["--from", "2026-03-02", "--to", "2026-03-09"]
OPEN = '[sites.lobby]\nzone = "Europe/Lisbon"\nhours = { mon-fri = "08:00-20:00" }\n'


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A lobby's kiosk that was off but for Monday; a hall with two, one of which died in the week before."""

    def hours(device: str, site: str, start: datetime, count: int) -> list[dict[str, Any]]:
        boot = device[-1] * 32
        return [
            window(
                n + 1, start=start + timedelta(hours=n), site=site, device=device, boot=boot, cells={"masked_sad": 9}
            )
            for n in range(count)
        ]

    lines = [
        *hours("kiosk-1", "lobby", DAY, 24),
        *hours("kiosk-2", "hall", DAY - timedelta(days=5), 12 * 24 + 12),
        *hours("kiosk-3", "hall", DAY - timedelta(days=5), 24),
    ]
    path = str(tmp_path / "store.db")
    with open_store(path, create=True) as opened:
        ingest_files(opened, [write_log(tmp_path / "log.jsonl", lines)])
    (tmp_path / "sites.toml").write_text(OPEN)
    return path


def test_a_kiosk_that_was_off_most_of_the_week_reported_a_seventh(store: str) -> None:
    with open_store(store, read_only=True) as opened:
        hall, lobby = figures(opened, WEEK)
        days = local_series(opened, WEEK, UTC, ["lobby"])
    assert (lobby.coverage, lobby.reported, lobby.devices) == (1.0, 1 / 7, 1)
    assert (hall.coverage, hall.reported, hall.devices) == (1.0, 0.5, 2), "one of its two is dead all week, and missed"
    assert [(one.coverage, one.reported) for one in days] == [(1.0, 1.0)] + [(None, 0.0)] * 6


def test_of_a_period_that_is_not_over_what_has_passed_counts(store: str) -> None:
    twice = Period(WEEK.start_ms, WEEK.end_ms + 7 * 86_400_000)
    tomorrow = Period(WEEK.end_ms + 86_400_000, WEEK.end_ms + 2 * 86_400_000)
    with open_store(store, read_only=True) as opened:
        (hall,) = figures(opened, twice, ["hall"])
        (none,) = figures(opened, tomorrow, ["hall"])
    assert hall.reported == pytest.approx(0.5, abs=1e-4)
    assert (none.reported, none.devices) == (None, 2)


def test_a_device_that_was_taken_away_is_missed_for_thirty_days(store: str, tmp_path: Path) -> None:
    later = window(999, start=DAY + timedelta(days=60), device="kiosk-2", site="hall", boot="f" * 32)
    with open_store(store) as opened:
        ingest_files(opened, [write_log(tmp_path / "later.jsonl", [later])])
        spans = opened.engine.fetch("SELECT COUNT(*) FROM spans")[0][0]
        assert spans > 1
        for first in range(-10, 60):
            period = Period(*(milliseconds(DAY + timedelta(days=first + more)) for more in (0, 2)))
            counts = {
                Known(opened, period.days, ["hall"], whole=True).devices("hall", period.days),
                Known(opened, range(period.days.start - 9, period.days.stop + 9)).devices("hall", period.days),
            }
            # kiosk-3 was last there 4 days and more before DAY, kiosk-2 until a week after it.
            there = [first + 1 >= -5 and first <= last + 30 for last in (-5, 7)]
            assert counts == {sum(there) + (first + 1 >= 60)}, first


def test_where_opening_hours_are_known_it_is_of_those(store: str, tmp_path: Path) -> None:
    places = read_sites(tmp_path / "sites.toml")
    with open_store(store, read_only=True) as opened:
        hall, lobby = figures(opened, WEEK, None, places)
        reading = read(opened, WEEK)
        city = reading.city("both", ["hall", "lobby"], None)
        assert city is not None
        together = city_while_open(opened, reading, city.figure, ["hall", "lobby"], places)
    assert (lobby.reported, hall.reported) == (1 / 5, 0.5), "closed on Saturday and Sunday"
    assert city.figure.devices == 3
    assert city.figure.reported == pytest.approx((24 + 168) / (3 * 168))
    assert together.reported == pytest.approx((12 + 168) / (60 + 2 * 168))


@pytest.mark.parametrize(
    ("start", "end", "hours"),
    [
        (datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC), 60),
        (datetime(2026, 3, 2, 10, tzinfo=UTC), datetime(2026, 3, 2, 11, 30, tzinfo=UTC), 1.5),
        (datetime(2026, 3, 30, tzinfo=UTC), datetime(2026, 3, 30, 8, tzinfo=UTC), 1),  # 8:00 is 7:00 UTC in summer
        (datetime(2026, 3, 7, tzinfo=UTC), datetime(2026, 3, 8, tzinfo=UTC), 0),
        (datetime(2026, 3, 8, tzinfo=UTC), datetime(2026, 3, 7, tzinfo=UTC), 0),
    ],
)
def test_a_site_is_open_for_so_long(tmp_path: Path, start: datetime, end: datetime, hours: float) -> None:
    (tmp_path / "sites.toml").write_text(OPEN)
    sites = read_sites(tmp_path / "sites.toml")
    assert sites["lobby"].open_ms(milliseconds(start), milliseconds(end)) == hours * 3_600_000


def test_a_site_that_never_closes_is_open_for_23_and_25_hours_where_clocks_change(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text('[sites.a]\nzone = "Europe/Lisbon"\nhours = { mon-sun = "00:00-24:00" }\n')
    site = read_sites(tmp_path / "sites.toml")["a"]
    for day, length in ((29, 23), (30, 24)):
        begins, ends = (datetime(2026, 3, day + more, tzinfo=site.place).astimezone(UTC) for more in (0, 1))
        assert site.open_ms(milliseconds(begins), milliseconds(ends)) == length * 3_600_000


def test_the_command_and_the_pages_name_both(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "--store", store, *ASKED]) == 0
    shown = capsys.readouterr().out
    assert "coverage  reported  windows" in shown
    assert "100%      14%       24" in shown
    assert "reported: share of the period (or of the opening hours in --sites) for which windows arrived; " in shown
    assert main(["index", "--store", store, *ASKED, "--site", "lobby", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["coverage"], row["reported"], row["devices"]) == (1.0, 1 / 7, 1)
    for places, of in ((None, "the period"), (tmp_path / "sites.toml", "its opening hours")):
        with TestClient(make_app(store, read_sites(places))) as client:
            card = client.get("/site/lobby?last=28d").text.partition("How much was seen")[2].partition("</article>")[0]
            assert "100 %</p><p>of the reported time the camera could see</p>" in card
            assert f"of {of} is reported (1 device)" in card
            table = client.get("/?last=28d").text.partition("Table of sites")[2]
            assert '100 % <span class="quiet">of ' in table
            assert "behind it, the share of the period, or of its opening hours, for which windows arrived" in table


def test_a_file_of_figures_has_it(store: str, tmp_path: Path) -> None:
    assert main(["export", "--store", store, *ASKED, "--out", str(tmp_path / "out.csv")]) == 0
    header, *rows = (tmp_path / "out.csv").read_text().splitlines()
    first = dict(zip(header.split(","), rows[0].split(","), strict=True))
    assert (first["site"], first["reported"], first["devices"]) == ("hall", "0.5", "2")
