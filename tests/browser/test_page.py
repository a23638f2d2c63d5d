"""The status page in a real browser: nothing scrolls sideways, it refreshes, and it says when nobody answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge.config import WebSection
from edge.publisher.web import Web
from tests.browser.chromium import CHROMIUM, Chromium
from tests.publisher.test_web import Bench
from tests.support.appliance import vision_file

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH; apt-get install chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def test_the_page_shows_and_refreshes(browser: Chromium, tmp_path: Path) -> None:
    """`EDGE_SHOTS=<folder>` keeps pictures of it."""
    bench, web = Bench(tmp_path), Web(WebSection(port=0))
    url = f"http://127.0.0.1:{web.port}/"
    bench.commit(14, 31)
    figures = vision_file().model_copy(update={"versions": {"edge": "<b>1</b>", "bundle": "fer-2027.09"}})
    web.tell(bench.take(figures))
    for phone in (True, False):
        for dark in (True, False):
            browser.show(url, width=390 if phone else 1280, height=844 if phone else 800, dark=dark, phone=phone)
            browser.wait("document.getElementById('state')?.textContent === 'counting'")
            assert browser.ask("document.title") == "lobby / kiosk-07"
            assert browser.ask("document.documentElement.scrollWidth <= innerWidth")
            red = int(browser.ask("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0])
            assert (red < 128) is dark
            if "EDGE_SHOTS" in os.environ:
                name = f"{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}.png"
                browser.shoot(Path(os.environ["EDGE_SHOTS"]) / name)
    text = browser.ask("document.body.innerText")
    assert "31 %" in text
    assert "happy of 45 classified, 1 window since midnight UTC" in text
    assert "<b>1</b>" in text, "what comes is shown, not obeyed"
    assert browser.troubles == []
    bench.commit(55, 0)
    web.tell(bench.take(figures.model_copy(update={"scene": "covered", "paused": True})))
    browser.wait("document.getElementById('index').textContent === '69 %'")
    assert "paused: the camera is closed" in browser.ask("document.body.innerText")
    web.tell(bench.take(figures, trouble="read-only"))
    browser.wait("document.body.innerText.includes('cannot be used: read-only')")
    web.tell(bench.take(None))
    browser.wait("document.getElementById('state')?.textContent === 'the vision service does not run'")
    web.close()
    browser.wait("document.getElementById('state')?.textContent === 'the publisher does not answer'")
    bench.outbox.close()
