"""A fleet on a real broker, a subscriber, the pages in a real browser: what is read there is the truth file's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from edge_aggregate.store import open_store

from tests.browser.chromium import CHROMIUM, Chromium
from tests.support.broker import Mosquitto

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.aggregate,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH; apt-get install chromium"),
]

AXE = "axe-core@4.14.1"
DEVICES, SITES = 200, 40
PAGES = ("/", "/site/site-0001", "/fleet", "/quality")
AGGREGATE = [sys.executable, "-m", "edge_aggregate"]
MANIFEST = next(Path(__file__).resolve().parents[2].glob("models/*/manifest.json"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of the pages over a store that a subscriber filled from a broker, and the truth about it."""
    folder = tmp_path_factory.mktemp("fleet")
    store, landing, truth = folder / "store.db", folder / "landing", folder / "truth.json"
    with Mosquitto(folder) as broker:
        address = f"127.0.0.1:{broker.port}"
        ingest = ["ingest", "--broker", address, "--store", str(store), "--landing", str(landing)]
        told = folder / "subscriber.log"
        with told.open("w") as log:
            subscriber = subprocess.Popen([*AGGREGATE, *ingest], stderr=log)
        try:
            while "subscribed" not in told.read_text():
                assert subscriber.poll() is None, told.read_text()
                time.sleep(0.1)
            simulate = ["simulate", f"--devices={DEVICES}", f"--sites={SITES}", "--minutes=2880", "--seed=3"]
            simulate += [f"--broker={address}", f"--truth={truth}", f"--places={folder / 'sites.toml'}"]
            subprocess.run([*AGGREGATE, *simulate, f"--manifest={MANIFEST}"], check=True, timeout=600)
            whole = json.loads(truth.read_text())
            wait_for(store, whole["whole"]["windows"])
            subscriber.send_signal(signal.SIGTERM)
            assert subscriber.wait(60) == 0
        finally:
            subscriber.kill()
            subscriber.wait()
    subprocess.run([*AGGREGATE, "calibrate", "--store", str(store), str(MANIFEST)], check=True, timeout=60)
    serve = ["serve", "--store", str(store), "--sites", str(folder / "sites.toml"), "--listen", "127.0.0.1:0"]
    pages = subprocess.Popen([*AGGREGATE, *serve], stdout=subprocess.PIPE, text=True)
    try:
        assert pages.stdout is not None
        yield pages.stdout.readline().strip().rstrip("/"), whole
    finally:
        pages.terminate()
        pages.wait(60)


def wait_for(store: Path, windows: int) -> None:
    """Until the store holds so many windows."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if store.exists():
            with open_store(str(store), read_only=True) as opened:
                if opened.engine.fetch("SELECT COUNT(*) FROM windows")[0][0] == windows:
                    return
        time.sleep(0.2)
    pytest.fail(f"the store does not reach {windows} windows")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def opened(browser: Chromium, url: str, *, phone: bool, dark: bool) -> None:
    browser.show(url, width=375 if phone else 1280, height=800, dark=dark, phone=phone)
    browser.wait(
        f"location.href === {url!r} && document.readyState === 'complete' && !!document.querySelector('footer')"
    )


def test_every_site_reads_as_the_truth_file_says(fleet: tuple[str, dict[str, Any]], browser: Chromium) -> None:
    url, truth = fleet
    opened(browser, f"{url}/?last=90d", phone=False, dark=False)
    rows = browser.ask(
        "[...document.querySelectorAll('tbody tr')].map(row => [row.querySelector('a').getAttribute('href'),"
        " row.querySelector('td strong')?.textContent, row.querySelectorAll('td')[3].textContent])"
    )
    assert len(rows) == SITES
    cut = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert browser.ask(cut) == 0, "a desktop shows the whole table"
    for link, share, votes in rows:
        row = truth["sites"][link.removeprefix("/site/")]
        assert (share, int(votes)) == (f"{100 * row['happy'] / row['n']:.1f} %", row["n"]), link
    opened(browser, f"{url}/quality", phone=False, dark=False)
    text = browser.ask("document.querySelector('section').innerText")
    for count in (truth["whole"]["duplicates"], truth["whole"]["missing"], truth["whole"]["conflicts"]):
        assert f"\n{count}\n" in f"\n{text}\n"
    assert browser.troubles == []


def axe(folder: Path) -> str | None:
    """The accessibility checker, from npm; None where there is no npm or no registry."""
    if shutil.which("npm") is None:
        return None
    packed = subprocess.run(
        ["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    if packed.returncode:
        return None
    subprocess.run(["tar", "xf", packed.stdout.strip().splitlines()[-1]], cwd=folder, check=True)
    return (folder / "package" / "axe.min.js").read_text()


def test_every_page_is_for_everybody(fleet: tuple[str, dict[str, Any]], browser: Chromium, tmp_path: Path) -> None:
    """Phone and desktop, dark and light: no scrolling sideways, nothing for axe. `EDGE_SHOTS=<folder>`: pictures."""
    url, _ = fleet
    checker = axe(tmp_path)
    if checker is None:
        pytest.skip("axe-core cannot be had from npm")
    for path in PAGES:
        for phone in (True, False):
            for dark in (True, False):
                opened(browser, url + path, phone=phone, dark=dark)
                assert browser.ask("document.documentElement.scrollWidth <= innerWidth"), path
                browser.ask(f"(() => {{ {checker}; return true; }})()")
                found = browser.ask("axe.run().then(r => r.violations.map(v => v.id + ': ' + v.nodes[0].html))")
                assert found == [], (path, phone, dark)
                if "EDGE_SHOTS" in os.environ:
                    name = f"{path.strip('/').replace('/', '-') or 'sites'}-{'phone' if phone else 'desktop'}"
                    browser.shoot(Path(os.environ["EDGE_SHOTS"]) / f"{name}-{'dark' if dark else 'light'}.png")


def test_what_comes_is_shown_and_closes_nothing(browser: Chromium, tmp_path: Path) -> None:
    from edge_aggregate.ingest import ingest_files

    from tests.support.windows import DAY, window, write_log

    store = str(tmp_path / "store.db")
    with open_store(store, create=True) as opened_store:
        ingest_files(opened_store, [write_log(tmp_path / "one", [window(1, cells={"unmasked_happy": 41})])])
    serve = [*AGGREGATE, "serve", "--store", store, "--listen", "127.0.0.1:0"]
    pages = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    try:
        assert pages.stdout is not None
        opened(browser, f"{pages.stdout.readline().strip()}site/lobby", phone=False, dark=False)
        browser.ask("document.querySelector('details').open = true")
        assert "41 of 41 votes" in browser.ask("document.body.innerText")
        more = [window(2, start=DAY.replace(hour=1), cells={"unmasked_sad": 9})]
        with open_store(store, create=True) as opened_store:
            ingest_files(opened_store, [write_log(tmp_path / "two", more)])
        browser.wait("document.body.innerText.includes('41 of 50 votes')")
        assert browser.ask("document.querySelector('details').open"), "what a reader has opened stays open"
        assert browser.troubles == []
    finally:
        pages.terminate()
        pages.wait(60)
