"""The pages: what they show is what the command line says, hostile texts stay texts, strangers are asked their name."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import timedelta
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from edge_aggregate.cli import main
from edge_aggregate.export import dead_letters
from edge_aggregate.figures import figures
from edge_aggregate.ingest import ingest_files
from edge_aggregate.periods import last
from edge_aggregate.sites import read_sites
from edge_aggregate.store import open_store
from edge_aggregate.store.upkeep import retain
from edge_aggregate.web import atlas, charts, views
from edge_aggregate.web.app import make_app
from edge_aggregate.web.auth import hash_password, read_passwords
from starlette.testclient import TestClient

from edge.errors import ConfigError
from tests.support.windows import DAY, window, write_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SITES = """
[sites.lobby]
name = "Main <lobby>"
zone = "Europe/Lisbon"
city = "lisbon"
latitude = 38.7
longitude = -9.1
[sites.hall]
city = "lisbon"
latitude = 41.1
longitude = -8.6
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of two sites over three days, one hostile line, and a sites file."""
    lines: list[dict[str, object] | str] = ['{"topic": "<script>alert(1)</script>", "received": 3, "payload": {}}']
    for hour in range(72):
        for device, site in (("kiosk-1", "lobby"), ("kiosk-2", "hall")):
            cells = {"unmasked_happy": 10 + hour % 7, "unmasked_sad": 30, "masked_neutral": 12}
            boot = ("a" if site == "lobby" else "b") * 32
            start = DAY + timedelta(hours=hour)
            lines.append(
                window(hour + 1, start=start, site=site, device=device, boot=boot, cells=cells, flush=hour % 24 == 23)
            )
    with open_store(str(tmp_path / "store.db"), create=True) as store:
        ingest_files(store, [write_log(tmp_path / "log.jsonl", lines)])
    (tmp_path / "sites.toml").write_text(SITES)
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(make_app(str(folder / "store.db"), read_sites(folder / "sites.toml"))) as client:
        yield client


def test_a_page_shows_the_figures_of_the_command_line(folder: Path, client: TestClient) -> None:
    with open_store(str(folder / "store.db"), read_only=True) as store:
        hall, lobby = figures(store, last("7d", store.newest_ms))
    text = client.get("/").text
    for figure in (hall, lobby):
        assert figure.index is not None
        assert f"{100 * figure.index:.1f} %" in text
        assert f">{figure.n}<" in text
    assert "Main &lt;lobby&gt;" in text
    assert "Main <lobby>" not in text, "a name is text"
    assert "of a period that is not over" in text.partition('aria-label="Map"')[2].partition("<table>")[0]
    text = client.get("/site/lobby?last=7d").text
    assert f"{lobby.happy} of {lobby.n} votes" in text
    assert "edge-aggregate calibrate" in text, "why there is no corrected share"


def test_every_page_answers_and_carries_its_headers(client: TestClient) -> None:
    for path in ("/", "/site/lobby", "/fleet", "/quality", "/static/style.css", "/static/htmx.min.js"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert " style=" not in answer.text or path.startswith("/static"), "the policy forbids it"


def test_hostile_lines_are_shown_and_not_obeyed(client: TestClient) -> None:
    text = client.get("/quality").text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text


def test_the_newest_dead_letters_come_first_whatever_they_are(folder: Path, client: TestClient) -> None:
    def topic_of_another(hours: int) -> dict[str, Any]:
        line = window(90 + hours, received=DAY + timedelta(hours=hours))
        return {**line, "topic": "edge/v1/hall/other/counts"}

    again = window(1, boot="c" * 32, cells={"unmasked_sad": 11}, received=DAY + timedelta(hours=101))
    lines = [topic_of_another(100), window(1, boot="c" * 32), again, topic_of_another(102)]
    with open_store(str(folder / "store.db")) as store:
        ingest_files(store, [write_log(folder / "refused.jsonl", lines)])
        found = [(letter["received"], letter["kind"]) for letter in dead_letters(store)][-3:]
    assert found == sorted(found)
    assert [kind for _, kind in found] == ["topic", "conflict", "topic"]
    text = client.get("/quality").text.partition("newest dead letters")[2]
    assert [part[:5] for part in text.split("<td>2026-03-06T")[1:4]] == ["06:00", "05:00", "04:00"]


def test_a_part_is_given_where_htmx_asks_for_one(client: TestClient) -> None:
    for path in ("/", "/site/lobby", "/fleet", "/quality"):
        part = client.get(path, headers={"HX-Request": "true"}).text
        assert "<html" not in part
        assert part.strip() in client.get(path).text


def test_what_came_too_late_is_told_on_the_fleets_page(folder: Path, client: TestClient) -> None:
    assert "No figure of the last 90 days changed" in client.get("/fleet").text
    late = [
        window(73, start=DAY + timedelta(days=40), boot="a" * 32, cells={"unmasked_happy": 10}),
        window(74, start=DAY + timedelta(hours=71, minutes=30), boot="a" * 32, received=DAY + timedelta(days=40)),
    ]
    with open_store(str(folder / "store.db")) as store:
        ingest_files(store, [write_log(folder / "late.jsonl", late)])
    text = client.get("/fleet").text.partition("Restated</h2>")[2]
    assert "2026-03-04" in text
    assert "2026-03-03" not in text
    assert "Main &lt;lobby&gt;" in text


def test_times_are_those_of_utc_wherever_the_server_stands(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert "Up to 05 Mar 2026 00:00 UTC" in client.get("/").text
        assert "before 05 Mar 2026 00:00 UTC" in client.get("/fleet").text
        assert "<td>05 Mar 2026 00:00</td>" in client.get("/fleet").text
    finally:
        monkeypatch.undo()
        time.tzset()


def test_days_that_were_dropped_are_holes(folder: Path, client: TestClient) -> None:
    """In Lisbon, from when the clocks are changed on no day is a day of UTC; what is left of those before are sums."""
    cells = {"unmasked_happy": 30, "unmasked_sad": 70}
    lines = [
        window(day + 73, start=DAY + timedelta(days=day), hours=24, boot="a" * 32, cells=cells) for day in range(3, 100)
    ]
    with open_store(str(folder / "store.db")) as store:
        ingest_files(store, [write_log(folder / "more.jsonl", lines)])
        retain(store, 65)
    text = client.get("/site/lobby?last=90d").text
    days = text.partition('aria-label="Table by day"')[2].partition("</table>")[0]
    dropped = [row[:6] for row in days.split('<th scope="row">')[1:] if ">dropped<" in row]
    assert dropped == [f"{day} Mar" for day in (29, 30, 31)] + [f"0{day} Apr" for day in range(1, 7)]
    assert text.partition('id="series"')[2].partition("</svg>")[0].count("<polyline") == 2, "no line across the hole"
    assert client.get("/?last=90d").status_code == 200, "its first day, of which a part is asked for, is left out"


@pytest.mark.parametrize("named", [True, False])
def test_many_sites_come_page_by_page(folder: Path, monkeypatch: pytest.MonkeyPatch, *, named: bool) -> None:
    monkeypatch.setattr(views, "PAGE_SITES", 1)
    places = read_sites(folder / "sites.toml" if named else None)
    with TestClient(make_app(str(folder / "store.db"), places)) as client:
        table = client.get("/?last=7d&page=1").text.partition("<table>")[2]
        assert "/site/hall" in table
        assert 'href="/site/lobby"' not in table
        assert 'href="/?last=7d&amp;weighting=votes&amp;page=2"' in table
        assert "Sites 1 to 1 of 2" in table
        for asked in ("2", "99"):
            last_page = client.get(f"/?last=7d&page={asked}").text.partition("<table>")[2]
            assert "/site/lobby" in last_page
            assert 'href="/site/hall"' not in last_page
        assert client.get("/?last=7d&page=-1").text.partition("<table>")[2] == table, "what is no page is the first"
        assert ("/site/lobby" in client.get("/?last=7d&page=1").text.partition("<table>")[0]) == named, "on the map"


def test_a_city_says_which_of_its_sites_are_silent(folder: Path) -> None:
    (folder / "sites.toml").write_text(SITES + '[sites.attic]\nname = "The <attic>"\ncity = "lisbon"\n')
    with TestClient(make_app(str(folder / "store.db"), read_sites(folder / "sites.toml"))) as client:
        text = client.get("/?last=7d").text
    assert "Nothing came in this period from The &lt;attic&gt;." in text
    assert "votes at 2 sites" in text


def test_what_came_since_is_shown(folder: Path, client: TestClient) -> None:
    before = client.get("/site/lobby?last=7d").text
    more = [window(73, start=DAY + timedelta(hours=72), cells={"unmasked_happy": 500})]
    with open_store(str(folder / "store.db"), create=True) as store:
        ingest_files(store, [write_log(folder / "more.jsonl", more)])
    assert client.get("/site/lobby?last=7d").text != before


def test_a_site_of_which_nobody_heard_and_a_store_that_is_gone(folder: Path, client: TestClient) -> None:
    answer = client.get("/site/nowhere")
    assert (answer.status_code, "no window ever came" in answer.text) == (404, True)
    for file in folder.glob("store.db*"):
        file.unlink()
    answer = client.get("/fleet")
    assert (answer.status_code, "no store is there" in answer.text) == (503, True)


def test_an_empty_store_says_how_to_fill_it(tmp_path: Path) -> None:
    open_store(str(tmp_path / "store.db"), create=True).close()
    with TestClient(make_app(str(tmp_path / "store.db"), read_sites(None))) as client:
        assert "edge-aggregate ingest --store" in client.get("/").text


def test_only_those_with_a_password_look(folder: Path) -> None:
    (folder / "passwords").write_text(f"# who\nanna:{hash_password('right')}\n")
    app = make_app(str(folder / "store.db"), read_sites(None), read_passwords(folder / "passwords"))
    with TestClient(app) as client:
        assert client.get("/").status_code == 401
        assert "Content-Security-Policy" in client.get("/").headers
        assert client.get("/", auth=("anna", "wrong")).status_code == 401
        assert client.get("/", auth=("otto", "right")).status_code == 401
        assert client.get("/static/style.css").status_code == 401
        assert client.get("/", headers={"Authorization": "Basic ????"}).status_code == 401
        for _ in range(2):  # the second is remembered
            assert client.get("/", auth=("anna", "right")).status_code == 200
        assert client.get("/", auth=("anna", "wrong")).status_code == 401


@pytest.mark.parametrize(
    ("text", "message"), [("", "nobody is in it"), ("anna:right", ":1: no hash"), ("\n:$x", ":2: no hash")]
)
def test_a_password_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "passwords").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_passwords(tmp_path / "passwords")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "0.0.0.0:0"], "give --passwords"),
        (["--listen", "example.org:80"], "give --passwords"),
        (["--listen", "[::]:0"], "give --passwords"),
        (["--listen", "here"], "give HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "give HOST:PORT"),
        (["--tls-cert", "x"], "go together"),
        (["--tls-cert", "none.crt", "--tls-key", "none.key"], "no such file"),
    ],
)
def test_where_strangers_could_look_is_refused(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--store", str(folder / "store.db"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_it_ends_when_told_with_a_stream_open(folder: Path) -> None:
    command = [sys.executable, "-m", "edge_aggregate", "serve", "--store", str(folder / "store.db")]
    server = subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        with urlopen(f"{server.stdout.readline().strip()}live", timeout=60) as stream:
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) in (0, -signal.SIGTERM)
            assert b"data" not in stream.read(), "ended, with nothing to tell"
    finally:
        server.kill()
        server.wait()


def test_charts_have_holes_where_nothing_is_known_and_never_leave_their_frame() -> None:
    points = [(0.2, 0.1, 0.3), (None, None, None), (0.9, 0.8, 1.0)]
    svg = charts.line_chart("<t>", ["a", "b", "c"], [charts.Line("read", points)], [False, False, True])
    assert svg.count("<polyline") == 2, "no line across the hole"
    assert svg.count('class="unfinished"') == 1
    assert "&lt;t&gt;" in svg
    assert charts.line_chart("t", [], [], [])
    assert charts.heat_map("t", [("mon", [None] * 24)]).count("h-none") == 24


def test_a_map_keeps_every_place_inside_and_apart() -> None:
    dots = [atlas.Dot(lat, lon, f"p{lat}", "/", 0.5) for lat, lon in ((38.70, -9.10), (38.71, -9.11), (52.5, 13.4))]
    svg = atlas.draw("where", dots)
    assert 'class="land"' in svg
    for css, size in atlas.LABELLED:
        heights = [float(label.split('y="')[1].split('"')[0]) for label in svg.split(f'<text class="{css}"')[1:]]
        assert len(heights) == 3
        assert all(abs(a - b) >= size for a, b in combinations(heights, 2)), "labels do not lie on one another"
    same = atlas.draw("where", [atlas.Dot(48.2, 16.4, f"p{n}", "/", 0.5) for n in range(20)])
    assert same.count('<text class="wide"') == same.count('<text class="narrow"') == 1 + atlas.MOST_ROWS
    assert same.count("<title>") == 20, "a dot whose label finds no room near it says its name itself"
    assert 'class="land"' not in atlas.draw("where", dots[:2]), "too coarse for a city"
    assert atlas.draw("where", dots[:1])
    many = [atlas.Dot(n % 60, n % 90, f"p<{n}>", f"/site/{n}", 0.5) for n in range(2000)]
    crowded = atlas.draw("where", many)
    assert crowded.count("<a href") == crowded.count("aria-label=") - 1 == 2000, "all of them lead somewhere"
    assert "p&lt;7&gt; 50 %" in crowded
    assert "<text" not in crowded.partition("<a href")[2], "no name hides another"


def test_land_that_crosses_the_date_line_is_not_drawn_across_the_map() -> None:
    for ring in atlas._land():
        assert all(abs(a[0] - b[0]) < 180 or a[1] == b[1] == -90 for a, b in pairwise(ring))
    dots = [atlas.Dot(lat, lon, "p", "/", 0.5) for lat, lon in ((60.2, 24.9), (38.7, -9.1), (40.7, -74.0))]
    for path in atlas.draw("where", dots).split('class="land" d="M')[1:]:
        places = [float(place.split()[0]) for place in path.split("Z")[0].split("L")]
        assert all(abs(a - b) < atlas.WIDTH / 2 for a, b in pairwise(places)), "no coast is so straight"
    # From Alaska one sees Chukotka, whose ring goes on beyond 180° now.
    dots = [atlas.Dot(lat, lon, "p", "/", 0.5) for lat, lon in ((64.5, -165.4), (66.9, -162.6))]
    paths = [path.split("Z")[0].split("L") for path in atlas.draw("where", dots).split('class="land" d="M')[1:]]
    seen = [[float(number) for number in place.split()] for path in paths for place in path]
    assert any(0 < x < 80 and 0 < y < atlas.HEIGHT for x, y in seen)
