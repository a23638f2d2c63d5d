"""The sites file: every error at once, opening hours, weights."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from edge_aggregate.sites import read_sites

from edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
[sites.lobby]
name = "Main lobby"
zone = "Europe/Lisbon"
city = "lisbon"
latitude = 38
longitude = -9.14
population = 5000
hours = { mon-fri = "08:00-12:00, 13:00-20:00", sat-sun = "00:00-24:00" }
[sites.hall]
city = "lisbon"
"""


def test_a_site_is_open_by_its_own_clock(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(GOOD)
    sites = read_sites(tmp_path / "sites.toml")
    lobby = sites["lobby"]
    assert lobby.is_open(datetime(2026, 7, 6, 7, 30, tzinfo=UTC)), "08:30 in Lisbon's summer"
    assert not lobby.is_open(datetime(2026, 1, 5, 7, 30, tzinfo=UTC)), "07:30 in its winter"
    assert not lobby.is_open(datetime(2026, 1, 5, 12, 30, tzinfo=UTC)), "noon break"
    assert lobby.is_open(datetime(2026, 1, 10, 23, 59, tzinfo=UTC)), "all of Saturday"
    assert sites["hall"].is_open(datetime(2026, 1, 5, 3, tzinfo=UTC))
    assert (sites.name("lobby"), sites.name("hall"), sites.name("else")) == ("Main lobby", "hall", "else")


def test_weights_are_named_or_refused(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(GOOD)
    sites = read_sites(tmp_path / "sites.toml")
    assert sites.weighed("lisbon", "votes") == (["hall", "lobby"], None)
    assert sites.weighed("lisbon", "sites") == (["hall", "lobby"], {"hall": 1, "lobby": 1})
    with pytest.raises(ConfigError, match="has none for hall"):
        sites.weighed("lisbon", "population")
    with pytest.raises(ConfigError, match="it has lisbon"):
        sites.weighed("porto", "sites")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sites.Lobby]", "sites.Lobby"),
        ('[sites.a]\nzone = "Nowhere"', "sites.a.zone: no time zone"),
        ("[sites.a]\nlatitude = 91", "sites.a.latitude"),
        ("[sites.a]\ncolour = 1", "sites.a.colour"),
        ("[sites.a]\npopulation = 0", "sites.a.population"),
        ('[sites.a.hours]\nmon = "8-20"', "give hours as in 08:00-20:00"),
        ('[sites.a.hours]\nmon = "20:00-08:00"', "closes before it opens"),
        ('[sites.a.hours]\nmonday = "08:00-20:00"', "give days as in"),
        ("[sites", "sites.toml: "),
        ("x = " + "[" * 5000, "sites.toml: brackets within brackets"),
        ("[place.a]", "place: unknown key: there is [sites.<id>] and nothing else"),
        (
            "[sites.a]\ncolour = 1",
            "sites.a.colour: unknown key: there is name, zone, city, latitude, longitude, population",
        ),
        ("[sites.a]\nlatitude = 38.7", "sites.a: latitude and longitude go together"),
        ("sites = 3", "sites: must be a table, as in [sites.lobby]"),
        ("[sites]\na = 3", "sites.a: must be a table"),
        ('[sites."l b"]', "sites.l b: an id has small letters, digits and -"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sites.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_sites(tmp_path / "sites.toml")
    assert message in str(caught.value)


def test_all_errors_at_once(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text('[sites.a]\nzone = "Nowhere"\n[sites.b]\nlatitude = 100\n')
    with pytest.raises(ConfigError) as caught:
        read_sites(tmp_path / "sites.toml")
    assert len(str(caught.value).splitlines()) == 2


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"sites\.toml"):
        read_sites(tmp_path / "sites.toml")
