"""The status page's and the metrics' server: what is served, what never is, and what a snapshot says."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

import edge.publisher.web
from edge.config import WebSection
from edge.contract import Topics
from edge.outbox.runtime_files import Development
from edge.process.clock import ClockError, SystemClock
from edge.publisher.delivery_stats import Delivery
from edge.publisher.timestamps import Labels
from edge.publisher.web import Web, open_web
from edge.publisher.web.metrics import metrics
from edge.publisher.web.snapshot import Photographer, Snapshot
from edge.types import Vote
from tests.support.appliance import closing, vision, vision_file
from tests.support.processes import on_one_day

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.outbox.runtime_files import VisionFile

TOPICS = Topics("edge", "lobby", "kiosk-07")


class Bench:
    """What a publisher has at hand."""

    def __init__(self, folder: Path) -> None:
        on_one_day()
        self.clock = SystemClock()
        self.outbox, self.delivery = vision(folder), Delivery(self.clock)
        self.photographer = Photographer(TOPICS, self.clock, Labels(TOPICS, self.clock, 0).message)

    def commit(self, happy: int, neutral: int, *, end: datetime | None = None) -> None:
        """One window, released."""
        votes = [Vote("unmasked", "happy")] * happy + [Vote("masked", "neutral")] * neutral
        self.outbox.commit(closing(votes, end=end, seconds=1))
        self.outbox.mark_sent([row.key for row in self.outbox.unsent()])

    def take(self, figures: VisionFile | None = None, *, outbox: bool = True, trouble: str | None = None) -> Snapshot:
        """A snapshot."""
        return self.photographer.take(
            self.outbox if outbox else None,
            figures,
            self.delivery,
            connected=True,
            clock_error=ClockError(0.25e-3, 0.5),
            certificate_days=12.5,
            trouble=trouble,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.outbox.close()


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web(WebSection(port=0))
    yield web
    web.close()


def get(web: Web, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    request = Request(f"http://127.0.0.1:{web.port}{path}", headers=headers)
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def families(snapshot: Snapshot) -> dict[str, dict[tuple[str, ...], float]]:
    """Metric name → label values → value, as Prometheus' own parser reads them."""
    found = text_string_to_metric_families(metrics(snapshot).decode())
    return {f.name: {tuple(s.labels.values()): s.value for s in f.samples} for f in found}


def test_metrics(bench: Bench) -> None:
    bench.delivery.connected()
    bench.delivery.sent(1)
    bench.delivery.answered(1, taken=True)
    bench.commit(3, 1)
    bench.outbox.commit(closing())
    said = families(bench.take(vision_file()))
    assert said["edge_frame_rate"] == {("ok",): 1, ("slow",): 0, ("none",): 0}
    assert said["edge_invoke_seconds"] == {("0.5",): 0.0015, ("0.95",): 0.0025}
    assert said["edge_dropped_frames"] == {("camera_lost",): 3}
    assert said["edge_scene"] == {(s,): float(s == "ok") for s in ("ok", "dark", "covered", "frozen", "paused")}
    assert said["edge_outbox_unsent"] == {(): 1}
    assert said["edge_outbox_unusable"] == {(): 0}
    assert said["edge_publishes_taken"] == {(): 1}
    assert set(said["edge_puback_seconds"]) == {("0.5",), ("0.95",), ("0.99",)}
    assert said["edge_clock_offset_seconds"] == {(): 0.25e-3}
    assert said["edge_certificate_days"] == {(): 12.5}
    assert "edge_stage_seconds" not in said, "what a stage takes grows with the faces"


def test_an_outbox_that_cannot_be_used_is_said(bench: Bench) -> None:
    mine = bench.take(vision_file(), outbox=False, trouble="read-only")
    visions = bench.take(vision_file().model_copy(update={"trouble": "full"}))
    for shown, why in ((mine, "read-only"), (visions, "full")):
        assert families(shown)["edge_outbox_unusable"] == {(): 1}
        assert shown.json()["trouble"] == why


def test_what_scales_with_faces_is_there_in_development_only(bench: Bench) -> None:
    verbose = Development(frames=9, faces=4, routes={}, stage_ms={"detect": 31.5})
    said = families(bench.take(vision_file().model_copy(update={"development": verbose})))
    assert said["edge_stage_seconds"] == {("detect",): 0.0315}
    assert not any("face" in name for name in said)


def test_before_there_is_anything(bench: Bench) -> None:
    said = families(bench.take(outbox=False))
    assert "edge_frame_rate" not in said, "unknown is not 0"
    shown = bench.take(outbox=False).json()
    assert (shown["running"], shown["health"], shown["latest"], shown["today"]) == (False, None, None, None)


def test_the_day_s_sums_are_of_what_was_released_today(bench: Bench) -> None:
    bench.commit(100, 0, end=datetime.now(UTC) - timedelta(days=1))
    bench.commit(3, 1)
    bench.commit(0, 4)
    bench.outbox.commit(closing([Vote("unmasked", "happy")] * 50))  # not published yet
    today = bench.take().today
    assert today is not None
    assert (today.windows, today.cells["happy"], today.classified, today.index) == (2, 3, 8, 0.375)
    latest = bench.take().latest
    assert latest is not None
    assert latest.seq == 3
    bench.commit(8, 0)
    again = bench.take().today
    assert again is not None
    assert again.index == pytest.approx(61 / 66), "a window that is released counts from then on"


def test_what_is_served(bench: Bench, web: Web) -> None:
    assert get(web, "/metrics")[0] == get(web, "/status.json")[0] == 503
    bench.commit(3, 1)
    web.tell(bench.take(vision_file()))
    status, page, headers = get(web, "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not re.search(r"(src|href)=\"?(https?:)?//", page), "nothing from elsewhere"
    size = sum(len(get(web, path)[1].encode()) for path in ("/", "/page.css", "/page.js"))
    assert size <= 50_000
    shown = json.loads(get(web, "/status.json")[1])
    assert (shown["site"], shown["today"]["index"], shown["running"]) == ("lobby", 0.75, True)
    assert 'edge_frame_rate{rate="ok"} 1.0' in get(web, "/metrics?x=1")[1]
    for path in ("/page.py", "/../config.toml", "/page.js/"):
        assert get(web, path)[0] == 404
    assert get(web, "/", Host="evil.example:9464")[0] == 421
    for host in ("localhost", "[::1]:9464"):
        assert get(web, "/", Host=host)[0] == 200
    with pytest.raises(HTTPError, match="501"):
        urlopen(Request(f"http://127.0.0.1:{web.port}/", data=b"x"), timeout=60)


def test_each_part_can_be_left_out(bench: Bench) -> None:
    for section, missing in (
        (WebSection(port=0, page=False), "/status.json"),
        (WebSection(port=0, metrics=False), "/metrics"),
    ):
        web = Web(section)
        web.tell(bench.take(vision_file()))
        codes = {path: get(web, path)[0] for path in ("/", "/status.json", "/metrics")}
        web.close()
        assert codes[missing] == 404
        assert set(codes.values()) == {200, 404}


def test_a_taken_port_ends_nothing(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    assert open_web(None) is None
    with caplog.at_level(logging.WARNING):
        assert open_web(WebSection(port=web.port)) is None
    assert "event=web-unavailable" in caplog.text
    assert 'next="choose web.port"' in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])  # noqa: S104 - refused
def test_it_never_listens_beyond_the_device(host: str) -> None:
    with pytest.raises(ValidationError):
        WebSection(host=host)  # type: ignore[arg-type]


def test_the_page_sets_text_never_markup() -> None:
    script = Path(edge.publisher.web.__file__).with_name("page.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)
