"""What Home Assistant is told: keys that it documents, at the right times; and the switch that it is given."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge.contract import COMMANDS
from edge.outbox.runtime_files import read_command
from edge.publisher.home_assistant import RESPREAD_S, discovery
from edge.publisher.session import Incoming
from edge.types import CELLS, ROUTES, Vote
from tests.publisher.test_dispatch import BIRTH, TOPICS, Bench
from tests.support.appliance import closing, vision_file

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "homeassistant/device/kiosk-07/config"
SHARED = {"platform", "name", "unique_id", "device_class", "entity_category", "icon"}
DOCUMENTED = {
    "sensor": SHARED | {"state_topic", "value_template", "unit_of_measurement", "state_class", "options"},
    "binary_sensor": SHARED | {"state_topic", "value_template"},
    "switch": SHARED | {"state_topic", "value_template", "command_topic", "payload_on", "payload_off"},
    "button": SHARED | {"command_topic"},
}
"""Of https://www.home-assistant.io/integrations/{sensor,binary_sensor,switch,button}.mqtt/, those in use."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, home_assistant="homeassistant")


@pytest.fixture
def message() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(discovery(TOPICS))
    return told


def test_it_keeps_to_documented_keys(message: dict[str, Any]) -> None:
    assert set(message) == {"device", "origin", "components", "availability", "qos"}
    assert message["device"]["identifiers"] == ["edge-kiosk-07"]
    assert message["origin"]["name"]
    parts = message["components"]
    assert len({part["unique_id"] for part in parts.values()}) == len(parts)
    for part in parts.values():
        assert set(part) <= DOCUMENTED[part["platform"]], part
        assert {"platform", "name", "unique_id"} <= set(part)
        assert ("options" in part) == (part.get("device_class") == "enum")
        for topic in ("state_topic", "command_topic"):
            known = {TOPICS(leaf) for leaf in ("live", "health", *(f"cmd/{c}" for c in COMMANDS))}
            assert part.get(topic) in {None, *known}
    assert set(CELLS) | {"index", "pause", "identify"} < set(parts)
    assert parts["scene"]["entity_category"] == "diagnostic"


def test_every_value_is_a_field_of_what_is_published(bench: Bench, message: dict[str, Any]) -> None:
    bench.turn(0, vision_file())
    health = json.loads(bench.notes.leaf("health")[0])
    for part in message["components"].values():
        place = part.get("value_template", "").removeprefix("{{ value_json.").removesuffix(" }}")
        if part.get("state_topic") == TOPICS("health") and place.replace(".", "").replace("_", "").isalnum():
            found = health
            for name in place.split("."):
                found = found[name]


def test_templates_give_what_home_assistant_may_show(bench: Bench, message: dict[str, Any]) -> None:
    seen = [Vote("unmasked", "happy")] * 6 + [Vote("masked", "happy"), Vote("masked", "sad")] * 3
    bench.writer.commit(closing(seen, end=bench.clock.now, mono_end=bench.clock.mono))
    bench.turn(0, vision_file())
    bench.turn(0, vision_file())
    payloads = {TOPICS(leaf): json.loads(bench.notes.leaf(leaf)[-1]) for leaf in ("live", "health")}
    jinja = ImmutableSandboxedEnvironment()  # what Home Assistant renders with

    def shown(key: str, **changed: object) -> str:
        part = message["components"][key]
        return jinja.from_string(part["value_template"]).render(value_json=payloads[part["state_topic"]] | changed)

    assert (shown("happy"), shown("sad"), shown("index")) == ("9", "3", "75.0")
    assert float(shown("coverage")) == 98
    assert datetime.fromisoformat(shown("window")).tzinfo is not None
    assert shown("scene") in message["components"]["scene"]["options"]
    assert (shown("pause"), shown("pause", paused=True)) == ("false", "true")
    assert (shown("power", under_voltage=True), shown("power", under_voltage=False)) == ("ON", "OFF")
    nothing = {route: dict.fromkeys(CELLS) for route in ROUTES}
    assert {shown(key, counts=nothing) for key in (*CELLS, "index")} == {"None"}, "shown as unknown, not as 0"
    rendered = [shown(key) for key, part in message["components"].items() if "value_template" in part]
    assert all(rendered)


def test_it_is_told_nothing_unless_configured(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.turn(0, vision_file())
    assert not any(topic.startswith("homeassistant") for topic, _, _ in bench.notes.published)
    assert not any(topic.startswith("homeassistant") for topic in bench.notes.subscribed)


def test_it_is_told_at_each_connection_and_when_it_was_born(bench: Bench) -> None:
    def told() -> int:
        return sum(topic == CONFIG for topic, _, _ in bench.notes.published)

    def born(payload: bytes = b"online", *, retained: bool = False) -> None:
        bench.notes.incoming.append(Incoming("homeassistant/status", payload, retained, None, None))
        bench.turn()
        bench.clock.pass_time(RESPREAD_S)
        bench.turn(0, vision_file())

    bench.turn(0, vision_file())
    bench.turn(0, vision_file())
    assert told() == 1
    _, payload, options = next(p for p in bench.notes.published if p[0] == CONFIG)
    assert (json.loads(payload), options) == (json.loads(discovery(TOPICS)), {"retain": True})
    assert "homeassistant/status" in bench.notes.subscribed
    before = len(bench.notes.leaf("health"))
    born()
    assert told() == 2
    assert len(bench.notes.leaf("health")) == before + 1, "what the entities show comes with them"
    born(b"offline")
    born(retained=True)
    assert told() == 2
    bench.dispatcher.greet(bench.session, BIRTH)
    bench.turn()
    assert told() == 3


def test_the_switch(bench: Bench, tmp_path: Path) -> None:
    def sent(payload: bytes) -> bool | None:
        bench.notes.incoming.append(
            Incoming(TOPICS("cmd/paused"), payload, retained=False, response_topic=None, correlation=None)
        )
        bench.turn()
        written = read_command(tmp_path)
        return None if written is None else written.paused

    assert sent(b"maybe") is None
    assert sent(b"true") is True
    assert bench.outbox.paused
    assert sent(b"false") is False
    assert not bench.outbox.paused


def test_a_pause_shows_at_once(bench: Bench) -> None:
    bench.turn(0, vision_file())
    bench.turn(0, vision_file().model_copy(update={"paused": True}))
    bench.turn(0, vision_file().model_copy(update={"paused": True}))
    assert [json.loads(p)["paused"] for p in bench.notes.leaf("health")] == [False, True]
