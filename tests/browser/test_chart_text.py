"""What is written in charts can be read on a phone: large enough, inside its chart, and not upon another text."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from edge_aggregate.cli import main

from tests.browser.chromium import CHROMIUM, Chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.aggregate,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH; apt-get install chromium"),
]

LEAST_PX = 11.0
WIDTHS = (320, 360, 449, 641, 768, 1280)
"""The narrowest of each rule of the style sheet, a phone, and a desktop."""
CHARTS = {
    "/": {"Where the sites are, and their share of happy as read"},
    "/site/site-0001?last=28d": {
        "Share of happy by day, as read and corrected",
        "Expressions by route",
        "Released votes by hour of the week",
    },
    "/site/site-0001?last=24h": set(),
    "/site/site-0001?last=90d": set(),
}
READ = """[...document.querySelectorAll("svg.chart, svg.map")].map(svg => {
    const box = r => [r.left, r.top, r.right, r.bottom];
    const texts = [...svg.querySelectorAll("text")].filter(text => text.getClientRects().length);
    return [svg.getAttribute("aria-label"), box(svg.getBoundingClientRect()), texts.map(text => [
        text.textContent, parseFloat(getComputedStyle(text).fontSize) * svg.getScreenCTM().a,
        box(text.getBoundingClientRect())])];
})"""
"""Each chart, where it is, and its visible texts with their size on the screen and their place."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of pages over four weeks of nine sites, two of them in one city."""
    folder = tmp_path_factory.mktemp("pages")
    store, log, places = folder / "store.db", folder / "log", folder / "sites.toml"
    fleet = ["--devices=9", "--sites=9", "--minutes=40320", "--windows=7200", "--seed=3"]
    assert main(["simulate", *fleet, "--out", str(log), "--places", str(places)]) == 0
    assert main(["ingest", "--quiet", "--files", str(log / "*.jsonl"), "--store", str(store)]) == 0
    command = [sys.executable, "-m", "edge_aggregate", "serve", "--store", str(store), "--sites", str(places)]
    process = subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip().rstrip("/")
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", CHARTS)
def test_it_can_be_read(pages: str, browser: Chromium, path: str, width: int) -> None:
    url = pages + path
    browser.show(url, width=width, height=800, dark=False, phone=width < 640)
    browser.wait(f"location.href === {url!r} && document.readyState === 'complete'")
    browser.wait("!!document.querySelector('footer') && !!document.querySelector('svg')")
    assert browser.ask("document.documentElement.scrollWidth <= innerWidth"), "only a chart's own frame may scroll"
    found = browser.ask(READ)
    assert {title for title, _, texts in found if texts} >= CHARTS[path]
    for title, (left, top, right, bottom), texts in found:
        for at, (text, size, box) in enumerate(texts):
            assert size >= LEAST_PX, (title, text)
            inside = box[0] > left - 1 and box[1] > top - 1 and box[2] < right + 1 and box[3] < bottom + 0.3 * size
            assert inside, (title, text, box)
            for other, _, place in texts[at + 1 :]:
                across = min(box[2], place[2]) - max(box[0], place[0])
                down = min(box[3], place[3]) - max(box[1], place[1])
                assert across <= 0 or down <= 0.4 * size, (title, text, other)
