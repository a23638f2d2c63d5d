"""A share that cannot be corrected is never shown in the place of one that is; what hinders is named."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from edge_aggregate.cli import main
from edge_aggregate.ingest import ingest_files
from edge_aggregate.sites import read_sites
from edge_aggregate.store import open_store
from edge_aggregate.web.app import make_app
from starlette.testclient import TestClient

from tests.support.windows import DAY, MODELS, window, write_log

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = Path(__file__).with_name("frozen_manifest.json")
KNOWN = {entry["role"]: f"sha256:{entry['sha256']}" for entry in json.loads(MANIFEST.read_text())["models"]}
LACKS = ["fer_masked sha256:333333333333… on kiosk-9", "fer_unmasked sha256:222222222222… on kiosk-9"]
SITES = '[sites.lobby]\ncity = "lisbon"\n[sites.hall]\ncity = "lisbon"\n'


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Two sites of a city whose models are registered; at one of them a window of a kiosk whose models are not."""
    lines = []
    for hour in range(24):
        for device, site, boot in (("kiosk-1", "lobby", "a" * 32), ("kiosk-2", "hall", "b" * 32)):
            cells = {"unmasked_happy": 40, "unmasked_neutral": 100, "unmasked_sad": 60}
            line = window(hour + 1, start=DAY + timedelta(hours=hour), site=site, device=device, boot=boot, cells=cells)
            line["payload"]["models"] = {r: KNOWN[r] for r in ("gate", "fer_unmasked", "fer_masked")} | {
                "route": "gate"
            }
            lines.append(line)
    path = str(tmp_path / "store.db")
    with open_store(path, create=True) as opened:
        ingest_files(opened, [write_log(tmp_path / "log.jsonl", lines)])
    assert main(["calibrate", "--store", path, str(MANIFEST)]) == 0
    (tmp_path / "sites.toml").write_text(SITES)
    return path


@pytest.fixture
def client(store: str, tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(make_app(store, read_sites(tmp_path / "sites.toml"))) as client:
        yield client


def one_window_more(store: str, folder: Path) -> None:
    stranger = window(1, device="kiosk-9", boot="c" * 32, start=DAY + timedelta(hours=12), cells={"unmasked_happy": 12})
    assert stranger["payload"]["models"] == MODELS
    with open_store(store) as opened:
        ingest_files(opened, [write_log(folder / "more.jsonl", [stranger])])


def card_of(text: str) -> str:
    return text.partition("<h2>lisbon</h2>")[2].partition("</article>")[0]


def test_the_headline_of_a_city_is_corrected_or_none(store: str, client: TestClient, tmp_path: Path) -> None:
    before = card_of(client.get("/?last=7d").text)
    assert "happy, corrected, of" in before
    assert '<p class="big">20 %' not in before
    one_window_more(store, tmp_path)
    card = card_of(client.get("/?last=7d").text)
    assert '<p class="big">–</p>' in card
    assert card.index("As read") > card.index('class="big"')
    assert "<strong>20.1 %</strong>" in card.partition("As read")[2]
    for lacks in LACKS:
        assert lacks in card


def test_every_page_names_the_models_and_devices_that_hinder(store: str, client: TestClient, tmp_path: Path) -> None:
    assert "no confusion table" not in client.get("/?last=7d").text
    one_window_more(store, tmp_path)
    table = client.get("/?last=7d").text.partition("Table of sites")[2]
    assert table.count("not registered") == 1, "the hall's is"
    site = client.get("/site/lobby?last=7d").text.partition("<h2>Corrected</h2>")[2].partition("</article>")[0]
    assert '<p class="big">–</p><p class="quiet">As read <strong>20.2 %' in site
    for lacks in LACKS:
        assert lacks in table
        assert lacks in site
    assert "no confusion table" not in client.get("/site/hall?last=7d").text


def test_a_change_that_is_as_read_says_so(store: str, client: TestClient, tmp_path: Path) -> None:
    then = DAY - timedelta(days=28) + timedelta(hours=5)
    earlier = window(1, device="kiosk-9", boot="c" * 32, start=then, cells={"unmasked_happy": 30})
    with open_store(store) as opened:
        ingest_files(opened, [write_log(tmp_path / "before.jsonl", [earlier])])
    lobby = client.get("/?last=24h").text.partition('href="/site/lobby"')[2].partition("</tr>")[0]
    assert "points, as read" in lobby


def test_the_command_names_them_too(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    city = ["--city", "lisbon", "--weighting", "sites"]
    asked = [["--last", "7d"], ["--last", "7d", "--by", "day"], ["--last", "7d", *city]]
    whole = ["index", "--store", store, "--sites", str(tmp_path / "sites.toml")]
    for more in asked:
        assert main([*whole, *more]) == 0
        assert "confusion" not in capsys.readouterr().out
    one_window_more(store, tmp_path)
    for more in asked:
        assert main([*whole, *more]) == 0
        out = capsys.readouterr().out
        for lacks in LACKS:
            assert f"– corrected: no confusion table of {lacks}: `edge-aggregate calibrate`" in out, more
    assert main([*whole, "--last", "7d", "--site", "hall"]) == 0
    assert "confusion" not in capsys.readouterr().out


def test_many_devices_are_counted_and_a_model_that_is_not_named_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for number in range(7):
        line = window(1, device=f"kiosk-{number}", boot=f"{number}" * 32, epsilon=None, cells={"masked_happy": 20})
        line["payload"]["models"] = {**MODELS, "fer_masked": None}
        lines.append(line)
    path = str(tmp_path / "store.db")
    with open_store(path, create=True) as opened:
        ingest_files(opened, [write_log(tmp_path / "log.jsonl", lines)])
    assert main(["index", "--store", path, "--last", "24h"]) == 0
    out = capsys.readouterr().out
    devices = "kiosk-0, kiosk-1, kiosk-2, kiosk-3, kiosk-4 and 2 more"
    assert f"fer_unmasked sha256:222222222222… on {devices}" in out
    assert f"fer_masked (a model that is not named) on {devices}" in out
