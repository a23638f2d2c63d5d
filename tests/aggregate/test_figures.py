"""Figures by hand: what is counted, what is left out, when they are final, in whose day."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from edge_aggregate.cli import main
from edge_aggregate.decode import milliseconds
from edge_aggregate.figures import figures, local_series, read
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import Period, last, local_days, midnight, moment, zone
from edge_aggregate.profile import week
from edge_aggregate.statistics.parts import HAPPY
from edge_aggregate.store import Store, open_store
from edge_aggregate.store.replays import note_gone, read_gaps
from edge_aggregate.sums import site_sums

from edge.errors import ConfigError
from edge.types import CELLS
from tests.support.windows import DAY, window, write_log

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

REPO = Path(__file__).resolve().parents[2]
LISBON = ZoneInfo("Europe/Lisbon")


def stored(folder: Path, lines: Iterable[dict[str, Any] | str]) -> Store:
    store = open_store(str(folder / "store.db"), create=True)
    ingest_files(store, [write_log(folder / "log.jsonl", lines)])
    return store


def a_day(start: datetime = DAY, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """24 hourly windows; the last one flushes."""
    first = fields.pop("first", 1)
    return [window(first + hour, start=start + timedelta(hours=hour), flush=hour == 23, **fields) for hour in range(24)]


def days(start: datetime, count: int = 1) -> Period:
    return Period(milliseconds(start), milliseconds(start + timedelta(days=count)))


def test_uncertain_and_unsynced_are_left_out_and_no_votes_give_no_shares(tmp_path: Path) -> None:
    lines = [
        window(1, cells={"unmasked_happy": 30, "unmasked_uncertain": 99, "masked_happy": 10, "masked_sad": 60}),
        window(2, start=DAY + timedelta(hours=1), cells={"unmasked_happy": 50}, quality="unsynced"),
        window(1, device="kiosk-2", site="hall", boot="c" * 32, cells={"unmasked_uncertain": 40}),
        window(30, start=DAY + timedelta(days=1)),
    ]
    with stored(tmp_path, lines) as store:
        hall, lobby = figures(store, days(DAY))
    assert (lobby.happy, lobby.n, lobby.index) == (40, 100, 0.4)
    assert (lobby.windows, lobby.unsynced) == (2, 1)
    assert lobby.low is not None
    assert 0.25 < lobby.low < 0.4
    assert (hall.n, hall.index, hall.low, hall.index_corrected) == (0, None, None, None)


def test_a_window_belongs_to_the_period_that_holds_its_start(tmp_path: Path) -> None:
    lines = [
        window(1, start=DAY - timedelta(minutes=30), cells={"unmasked_happy": 11}),
        window(2, start=DAY + timedelta(minutes=30), cells={"unmasked_happy": 12}),
        window(3, start=DAY + timedelta(hours=23, minutes=30), cells={"unmasked_happy": 13}),
        window(4, start=DAY + timedelta(days=1), cells={"unmasked_happy": 14}),
        window(5, start=DAY + timedelta(days=3)),
    ]
    with stored(tmp_path, lines) as store:
        assert [f.happy for f in figures(store, days(DAY))] == [25]
        assert [f.happy for f in figures(store, days(DAY - timedelta(days=1), 3))] == [50]
        half = Period(milliseconds(DAY + timedelta(hours=12)), milliseconds(DAY + timedelta(hours=36)))
        assert [f.happy for f in figures(store, half)] == [27]


def test_any_cut_into_days_and_edges_counts_every_window_once(tmp_path: Path) -> None:
    lines = [
        line
        for day in range(4)
        for line in a_day(DAY + timedelta(days=day), first=1 + 24 * day, cells={"masked_happy": 1})
    ]
    with stored(tmp_path, lines) as store:
        for start in range(0, 96, 7):
            for end in range(start + 1, 97, 5):
                period = Period(milliseconds(DAY) + start * 3_600_000, milliseconds(DAY) + end * 3_600_000)
                assert site_sums(store, period)["lobby"].windows == end - start, (start, end)


def test_spans_days_and_windows_give_the_same_sums_wherever_a_period_is_cut(tmp_path: Path) -> None:
    r = random.Random(5)  # noqa: S311 - no secret
    lines, hours = [], 36 * 24 + 7  # four spans are over, the last day is not
    for hour in range(hours):
        cells = {"unmasked_happy": r.randrange(10, 30), "masked_sad": r.randrange(10, 30)}
        start = DAY + timedelta(hours=hour)
        lines.append(window(hour + 1, start=start, cells=cells, flush=hour % 24 == 23, epsilon=1.0 + hour // 400))
        lines += [window(hour + 1, start=start, device="kiosk-2", boot="b" * 32, site="hall", cells=cells)] * (hour % 3)
    r.shuffle(lines)
    with stored(tmp_path, lines) as store:
        assert len(store.engine.fetch("SELECT DISTINCT span FROM spans")) == 4
        for _ in range(60):
            first, last_hour = sorted(r.sample(range(hours + 30), 2))
            if r.random() < 0.5:
                first, last_hour = first // 24 * 24, -(-last_hour // 24) * 24
            start_ms, end_ms = (milliseconds(DAY) + at * 3_600_000 for at in (first, last_hour))
            found = site_sums(store, Period(start_ms, end_ms))
            for site, windows, duplicates, happy, draws, covered in store.engine.fetch(
                "SELECT s.name, COUNT(*), SUM(duplicates), SUM(unmasked_happy), SUM(draws_masked_sad),"
                " SUM(covered_ppm_s) FROM windows w JOIN sites s ON s.id = w.site WHERE start_ms >= ? AND start_ms < ?"
                " GROUP BY s.name",
                (start_ms, end_ms),
            ):
                one = found.pop(site)
                parts = one.part_list()
                assert (one.windows, one.duplicates, one.covered_ppm_s) == (windows, duplicates, covered)
                assert sum(part.cells[HAPPY[0]] for part in parts) == happy
                assert sum(part.draws[8 + CELLS.index("sad")] for part in parts) == draws
            assert not found, "no site without windows"


def test_held_back_cells_widen_a_short_period_and_not_a_whole_day(tmp_path: Path) -> None:
    cells = {f"unmasked_{cell}": 20 for cell in ("happy", "sad")}
    lines = a_day()
    lines[9] = window(10, start=DAY + timedelta(hours=9), cells=cells, draws=dict.fromkeys(cells, 6))
    lines[23] = window(24, start=DAY + timedelta(hours=23), cells=cells, draws=dict.fromkeys(cells, 14), flush=True)
    with stored(tmp_path, [*lines, window(25, start=DAY + timedelta(days=1))]) as store:
        whole = site_sums(store, days(DAY))["lobby"]
        assert whole.held_tuple() == ()
        morning = Period(milliseconds(DAY + timedelta(hours=6)), milliseconds(DAY + timedelta(hours=12)))
        held = site_sums(store, morning)["lobby"].held
        # Six draws in the fourth window since six o'clock: some are from before. At noon both hold back again.
        assert held[3] == held[5] == 2 * 100
        assert held[0] == 100, "never released: only what is held at the end"
        (short,), (day,) = figures(store, morning), figures(store, days(DAY))
    assert short.high is not None
    assert short.low is not None
    assert day.high is not None
    assert day.low is not None
    assert short.high - short.low > 1.5 * (day.high - day.low)


def test_what_cells_hold_back_is_told_kiosk_by_kiosk_where_two_stand_at_a_site(tmp_path: Path) -> None:
    cells, lines = {"unmasked_happy": 20}, []
    # The first window of the morning is one kiosk's, and the last: between them the other one's lie.
    for device, boot, hours in (("kiosk-1", "a" * 32, range(6, 12)), ("kiosk-2", "b" * 32, range(7, 11))):
        for number, hour in enumerate(hours, 1):
            released: dict[str, Any] = {"cells": cells, "draws": {"unmasked_happy": 6}} if number == 4 else {}
            start = DAY + timedelta(hours=hour)
            lines += [
                window(number, start=start, device=device, boot=boot, **released),
                window(number, start=start, device=f"{device}-alone", boot=boot, site=device, **released),
            ]
    with stored(tmp_path, [*lines, window(99, start=DAY + timedelta(days=1), device="later", boot="c" * 32)]) as store:
        found = site_sums(
            store, Period(milliseconds(DAY + timedelta(hours=6)), milliseconds(DAY + timedelta(hours=12)))
        )
    assert found["lobby"].held == [sum(both) for both in zip(found["kiosk-1"].held, found["kiosk-2"].held, strict=True)]
    assert found["kiosk-2"].held[3] == 100, "six draws in its fourth window: some are from before"


def test_a_day_that_is_not_over_holds_back_what_each_kiosks_last_set_clock_left(tmp_path: Path) -> None:
    """By the last window of the last of its runs, whose clock was set."""
    happy: dict[str, Any] = {"cells": {"unmasked_happy": 20}}
    sad: dict[str, Any] = {"cells": {"unmasked_sad": 20}}
    lines = [
        window(1, start=DAY + timedelta(hours=3), boot="f" * 32, **happy),  # an earlier run, whose name sorts last
        window(1, start=DAY + timedelta(hours=4), boot="a" * 32, **happy),
        window(2, start=DAY + timedelta(hours=5), boot="a" * 32, **sad),
        window(3, start=DAY + timedelta(hours=6), boot="a" * 32, quality="unsynced", **happy),
        window(1, start=DAY + timedelta(hours=5), device="kiosk-2", boot="b" * 32, quality="unsynced", **happy),
    ]
    with stored(tmp_path, lines) as store:
        held = site_sums(store, days(DAY))["lobby"].held
    assert held[CELLS.index("sad")] == 0
    assert held[CELLS.index("happy")] == 100


def test_a_day_is_final_when_every_known_device_has_flushed(tmp_path: Path) -> None:
    one, two = a_day(cells={"unmasked_happy": 1}), a_day(device="kiosk-2", boot="c" * 32, cells={"unmasked_happy": 1})
    rest = [window(25, start=DAY + timedelta(days=1, hours=3))]
    with stored(tmp_path, [*one, *two[:-1], *rest]) as store:
        assert [f.state for f in figures(store, days(DAY))] == ["provisional"], "one has not flushed"
        ingest_files(store, [write_log(tmp_path / "late", two[-1:])])
        assert [f.state for f in figures(store, days(DAY))] == ["final"]
        assert [f.state for f in figures(store, days(DAY, 2))] == ["provisional"], "the second day is not over"


def test_an_open_gap_keeps_a_day_provisional_until_it_is_filled(tmp_path: Path) -> None:
    lines = a_day()
    late = lines.pop(7)
    with stored(tmp_path, [*lines, window(25, start=DAY + timedelta(days=1, hours=3))]) as store:
        (before,) = figures(store, days(DAY))
        assert (before.state, before.missing) == ("provisional", 1)
        ingest_files(store, [write_log(tmp_path / "late", [late])])
        (after,) = figures(store, days(DAY))
        assert (after.state, after.missing) == ("final", 0)


@pytest.mark.parametrize("known", [True, False])
def test_days_of_which_every_window_was_lost_stay_provisional_until_they_come(tmp_path: Path, *, known: bool) -> None:
    """Runs b to e never came; run f says how far e had come: what is missing lies after the last window of run a."""
    f = [window(n + 1, start=DAY + timedelta(days=5, hours=n), boot="f" * 32, prev=("e" * 32, 12)) for n in range(24)]
    f[-1]["payload"]["flush"] = True
    lines = [*(a_day() if known else ()), *f, window(25, start=DAY + timedelta(days=6), boot="f" * 32)]
    lost = [window(n + 1, start=DAY + timedelta(days=1, hours=8 * n), boot="e" * 32, flush=True) for n in range(12)]
    with stored(tmp_path, lines) as store:
        of_days = [days(DAY + timedelta(days=n)) for n in range(6)]
        before = [figures(store, day, ["lobby"])[0].state for day in of_days]
        assert before == ["provisional"] * 6
        months_ago = figures(store, days(DAY - timedelta(days=40)), ["lobby"])[0]
        assert months_ago.state == "final"
        ingest_files(store, [write_log(tmp_path / "late", lost)])
        after = [figures(store, day, ["lobby"])[0] for day in of_days]
        assert {one.state for one in after} == {"final"}
        assert sum(one.windows for one in after) == (24 if known else 0) + 12 + 24


def test_a_device_that_nobody_knew_leaves_days_open_for_no_longer_than_what_it_lost(tmp_path: Path) -> None:
    lines = [*a_day(), window(25, start=DAY + timedelta(days=4), flush=True)]
    new = window(2, start=DAY + timedelta(days=4), boot="c" * 32, device="kiosk-9")  # its first never came
    with stored(tmp_path, [*lines, new, window(26, start=DAY + timedelta(days=5, hours=1))]) as store:
        states = [figures(store, days(DAY + timedelta(days=n)), ["lobby"])[0].state for n in (0, 1, 2)]
        assert states == ["final"] * 3
        assert figures(store, days(DAY + timedelta(days=4)), ["lobby"])[0].state == "provisional"


def test_what_a_device_says_is_lost_holds_up_no_day(tmp_path: Path) -> None:
    lines = a_day()
    del lines[7]
    with stored(tmp_path, [*lines, window(25, start=DAY + timedelta(days=1, hours=3))]) as store:
        (gap,) = read_gaps(store.engine)
        note_gone(store.engine, gap, store.newest_ms)
        (after,) = figures(store, days(DAY))
    assert (after.state, after.missing) == ("final", 1)


def test_what_comes_thirty_days_late_restates_and_is_counted(tmp_path: Path) -> None:
    lines = a_day(cells={"unmasked_happy": 1})
    late = lines.pop(7)
    late["received"] = (DAY + timedelta(days=32)).isoformat()
    with stored(tmp_path, [*lines, window(25, start=DAY + timedelta(days=31, hours=1))]) as store:
        (before,) = figures(store, days(DAY))
        assert (before.state, before.happy) == ("final", 23), "30 days have passed"
        ingest_files(store, [write_log(tmp_path / "late", [late])])
        (after,) = figures(store, days(DAY))
        assert (after.state, after.happy) == ("restated", 24)


def test_a_device_that_nobody_knew_of_restates(tmp_path: Path) -> None:
    known = [*a_day(), window(25, start=DAY + timedelta(days=1, hours=5))]
    stranger = a_day(device="kiosk-9", boot="e" * 32)
    for line in stranger:
        line["received"] = (DAY + timedelta(days=1, hours=4)).isoformat()
    with stored(tmp_path, known) as store:
        assert [f.state for f in figures(store, days(DAY))] == ["final"]
        ingest_files(store, [write_log(tmp_path / "late", stranger)])
        assert [f.state for f in figures(store, days(DAY))] == ["restated"]


def test_exact_counts_need_no_flush_to_be_final(tmp_path: Path) -> None:
    lines = [window(h + 1, start=DAY + timedelta(hours=h), epsilon=None, min_count=1) for h in range(26)]
    with stored(tmp_path, lines) as store:
        assert [f.state for f in figures(store, days(DAY))] == ["final"]


def test_local_days_have_23_and_25_hours_where_clocks_change(tmp_path: Path) -> None:
    spring = datetime(2026, 3, 28, tzinfo=UTC)
    lines = [window(h + 1, start=spring + timedelta(hours=h), cells={"masked_happy": 1}) for h in range(96)]
    with stored(tmp_path, lines) as store:
        period = Period(midnight(date(2026, 3, 28), LISBON), midnight(date(2026, 3, 31), LISBON))
        assert [f.windows for f in local_series(store, period, LISBON)] == [24, 23, 24]
    autumn = Period(midnight(date(2026, 10, 25), LISBON), midnight(date(2026, 10, 26), LISBON))
    ((day, whole),) = local_days(autumn, LISBON)
    assert (day, (whole.end_ms - whole.start_ms) // 3_600_000) == (date(2026, 10, 25), 25)


def test_28_local_days_are_a_month_where_clocks_are_put_forward(tmp_path: Path) -> None:
    with stored(tmp_path, a_day()) as store:
        month = Period(midnight(date(2026, 3, 9), LISBON), midnight(date(2026, 4, 6), LISBON))
        assert len(week(store, "lobby", month, LISBON).hours) == 168


def test_the_period_before_begins_at_a_local_midnight_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for now, then in (((2026, 4, 6), (2026, 3, 9)), ((2026, 11, 2), (2026, 10, 5)), ((2026, 3, 9), (2026, 2, 9))):
        first, earlier = date(*now), date(*then)
        one, before = (
            Period(midnight(day, LISBON), midnight(day + timedelta(days=1), LISBON)) for day in (first, earlier)
        )
        assert one.before(LISBON) == before
    hour = Period(milliseconds(DAY) + 1, milliseconds(DAY) + 3_600_001)
    assert hour.before(LISBON) == Period(*(ms - 28 * 86_400_000 for ms in (hour.start_ms, hour.end_ms)))
    evening = Period(midnight(date(2026, 11, 2), LISBON) - 1_800_000, midnight(date(2026, 11, 2), LISBON))
    before = evening.before(LISBON)
    assert before.end_ms - before.start_ms == 1_800_000, "no whole days: it is as long, over a change of the clocks too"
    cells = {"unmasked_happy": 30, "unmasked_sad": 90}
    lines = [
        window(1, start=datetime(2026, 3, 9, 23, 30, tzinfo=UTC), cells=cells),  # of the 9th in Lisbon
        window(2, start=datetime(2026, 4, 6, 9, tzinfo=UTC), cells=cells),
    ]
    stored(tmp_path, lines).close()
    ask = ["index", "--store", str(tmp_path / "store.db"), "--zone", "Europe/Lisbon", "--compare", "--json"]
    assert main([*ask, "--from", "2026-04-06", "--to", "2026-04-07"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["change"] is not None


def test_the_week_of_a_place_is_by_its_own_clock(tmp_path: Path) -> None:
    lines = [
        window(1, start=DAY.replace(hour=23), cells={"unmasked_happy": 10, "unmasked_sad": 30}),
        window(2, start=DAY + timedelta(days=30)),
    ]
    with stored(tmp_path, lines) as store:
        hours = week(store, "lobby", days(DAY, 28), ZoneInfo("Europe/Paris")).hours
        found = next(hour for hour in hours if hour.n)
        assert (found.weekday, found.hour, found.index) == (1, 0, 0.25), "Monday 23:00 UTC is Tuesday there"
        with pytest.raises(ConfigError, match="28 days"):
            week(store, "lobby", days(DAY, 27), UTC)


def test_a_city_is_weighed_as_it_says(tmp_path: Path) -> None:
    lines = [
        window(1, site="lobby", cells={"unmasked_happy": 10, "unmasked_sad": 90}),
        window(1, site="hall", device="kiosk-2", boot="c" * 32, cells={"unmasked_happy": 200, "unmasked_sad": 200}),
        window(2, start=DAY + timedelta(days=2)),
    ]
    with stored(tmp_path, lines) as store:

        def index(weights: dict[str, Fraction | int] | None) -> float | None:
            found = read(store, days(DAY)).city("town", ["lobby", "hall"], weights)
            return None if found is None else found.figure.index

        assert index(None) == 210 / 500
        assert index({"lobby": 1, "hall": 1}) == pytest.approx(0.3)
        assert index({"lobby": 3, "hall": 1}) == pytest.approx(0.2)


def test_a_city_counts_without_its_silent_sites_and_says_which_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        *a_day(cells={"unmasked_happy": 10, "unmasked_sad": 30}),
        window(1, start=DAY - timedelta(days=3), site="hall", device="kiosk-2", boot="c" * 32),
    ]
    stored(tmp_path, lines).close()
    places = tmp_path / "sites.toml"
    places.write_text(
        "".join(f'[sites.{name}]\ncity = "town"\npopulation = 9\n' for name in ("lobby", "hall", "attic"))
    )
    asked = ["index", "--store", str(tmp_path / "store.db"), "--sites", str(places), "--city", "town", "--json"]
    for weighting in ("votes", "sites", "population"):
        assert main([*asked, "--weighting", weighting, "--from", "2026-03-02", "--to", "2026-03-03"]) == 0
        out, err = capsys.readouterr()
        (figure,) = json.loads(out)
        assert (figure["index"], figure["n"], figure["windows"]) == (0.25, 960, 24)
        assert figure["state"] == "provisional", "what the hall kept may still come"
        assert err == "town: nothing came in this period from attic, hall: the other 1 of 3 sites are counted\n"
    places.write_text('[sites.attic]\ncity = "town"\n')
    assert main([*asked, "--weighting", "votes", "--last", "7d"]) == 2
    assert "no window ever came from a site of town: attic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("2026-13-01", "UTC", "is no time"),
        ("yesterday", "UTC", "is no time"),
        ("2026-03-01", "Atlantis/Main", "no time zone"),
        ("2026-03-01", "../../etc/passwd", "no time zone"),
    ],
)
def test_times_and_zones_that_are_none_are_told(text: str, place: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        moment(text, zone(place))


@pytest.mark.parametrize("text", ["", "7", "d7", "0d", "-3d", "7y", "99999999d"])
def test_last_is_hours_days_or_weeks(text: str) -> None:
    with pytest.raises(ConfigError, match="--last"):
        last(text, 0)


def test_index_as_json_and_the_corrected_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = next(REPO.glob("models/*/manifest.json"))
    models = {entry["role"]: f"sha256:{entry['sha256']}" for entry in json.loads(manifest.read_text())["models"]}
    lines = []
    for line in a_day(cells={"unmasked_happy": 40, "unmasked_neutral": 100, "unmasked_sad": 60}):
        line["payload"]["models"] = {r: models[r] for r in ("gate", "fer_unmasked", "fer_masked")} | {"route": "gate"}
        lines.append(line)
    path = write_log(tmp_path / "log.jsonl", [*lines, window(25, start=DAY + timedelta(days=1), device="kiosk-2")])
    store = str(tmp_path / "store.db")
    assert main(["ingest", "--store", store, "--files", str(path)]) == 0
    ask = ["index", "--store", store, "--site", "lobby", "--from", "2026-03-02", "--to", "2026-03-03", "--json"]
    capsys.readouterr()
    assert main(ask) == 0
    (unknown,) = json.loads(capsys.readouterr().out)
    assert unknown["index_corrected"] is None
    assert main(["calibrate", "--store", store, str(manifest)]) == 0
    capsys.readouterr()
    assert main(ask) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row)[:9] == ["site", "from", "to", "happy", "n", "index", "low", "high", "index_corrected"]
    assert (row["site"], row["from"], row["to"]) == ("lobby", "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z")
    assert (row["happy"], row["n"], row["index"]) == (24 * 40, 24 * 200, 0.2)
    assert row["low_corrected"] < row["index_corrected"] < 0.2 < row["high"], "a happy face is read too often"
    assert main([*ask[:-1]]) == 0
    assert "20.0 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--site", "nowhere"], "no window ever came from a site called 'nowhere'"),
        (["--city", "town"], "--city needs --sites"),
        (["--to", "2026-03-03"], "--to needs --from"),
        (["--from", "2026-03-03", "--to", "2026-03-02"], "must end after it begins"),
        (["--last", "7d", "--from", "2026-03-02"], "not both"),
        (["--by", "hour-of-week"], "of one --site"),
        (["--sites", "none.toml"], "No such file"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path, a_day()).close()
    assert main(["index", "--store", str(tmp_path / "store.db"), *arguments]) in (2, 66)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_export_names_its_zone_and_granularity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path, [*a_day(cells={"masked_happy": 3}), "=cmd()"]).close()
    out = tmp_path / "out.csv"
    ask = ["export", "--store", str(tmp_path / "store.db"), "--from", "2026-03-02", "--to", "2026-03-03"]
    assert main([*ask, "--zone", "Europe/Paris", "--out", str(out)]) == 0
    header, first, *_ = out.read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert (row["zone"], row["granularity"]) == ("Europe/Paris", "day")
    assert row["from"] == "2026-03-02T00:00:00+01:00"
    assert row["masked_happy"] == str(23 * 3), "the last window begins on the next local day"
    capsys.readouterr()
    assert main([*ask[:3], "--dead-letters"]) == 0
    letters = capsys.readouterr().out
    assert "'=cmd()" in letters, "a spreadsheet runs nothing of it"


def test_a_parquet_file_has_the_rows_of_the_csv(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    stored(tmp_path, a_day(cells={"masked_happy": 3})).close()
    ask = ["export", "--store", str(tmp_path / "store.db"), "--from", "2026-03-02", "--to", "2026-03-03"]
    assert main([*ask, "--out", str(tmp_path / "out.parquet")]) == 0
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["site"], row["zone"], row["masked_happy"], row["n"]) == ("lobby", "UTC", 24 * 3, 24 * 3)
