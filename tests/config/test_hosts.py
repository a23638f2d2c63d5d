"""What may stand in `mqtt.host`, and that nothing else reaches a name's resolution or ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.commands.demo.subscriber import Broker
from edge.commands.doctor.broker import broker as doctor_broker
from edge.config import ConfigProblems, load
from edge.config.hosts import host_problem, is_loopback
from edge.errors import BrokerUnavailable
from edge.publisher.session import open_session
from tests.config.test_config import GOOD, written

if TYPE_CHECKING:
    from pathlib import Path

HOSTS = [
    *("localhost", "broker.example", "broker.example.", "10.0.0.7", "::1", "fe80::1%eth0", "a" * 63, "mqtt_broker"),
    *("bücher.example", "xn--bcher-kva.example", "broker", "1a.2b", "BROKER.local"),
]
NONE = {
    "": "empty",
    "a..b": "between two dots is empty",
    ".local": "between two dots is empty",
    ".": "between two dots is empty",
    "a" * 64: "over 63",
    "a." * 127: "over 253",
    "ü" * 70 + ".example": "a label is empty, over 63",
    "ü..b": "a label is empty",
    "mqtt://broker.local": "is a URL",
    "mqtt://u:secret@broker.local": "is a URL",
    "u:secret@broker.local": "is a URL",
    "broker.local:8883": "the port has a key of its own",
    "1::2::3": "the port has a key of its own",
    "broker.local ": "space",
    " broker.local": "space",
    "broker local": "letters, digits",
    "broker\tlocal": "letters, digits",
    "[::1]": "without",
    "-a.example": "letters, digits",
    "a\x00b": "letters, digits",
    "10.0.0.256": "four numbers",
    "10.0.0": "four numbers",
    "0x7f000001": "four numbers",
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_host(host: str) -> None:
    assert host_problem(host) is None


@pytest.mark.parametrize("host", NONE)
def test_check_config_refuses_what_is_no_host(host: str, tmp_path: Path) -> None:
    told = host_problem(host)
    assert told is not None
    assert NONE[host] in told
    assert "secret" not in told
    if "\x00" in host:
        return  # no TOML
    quoted = host.replace("\t", "\\t")
    with pytest.raises(ConfigProblems) as caught:
        load(written(tmp_path, GOOD.replace("localhost", quoted) + "insecure = true\n"))
    ((line, key, message),) = caught.value.problems
    assert (line, key, message) == (12, "mqtt.host", told)
    assert "secret" not in str(caught.value)


def test_the_one_definition_of_loopback(tmp_path: Path) -> None:
    for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "LOCALHOST"):
        assert is_loopback(host)
        load(written(tmp_path, GOOD.replace("localhost", host)))
    assert not is_loopback("broker.local")
    with pytest.raises(ConfigProblems, match="without tls only a loopback host"):
        load(written(tmp_path, GOOD.replace("localhost", "128.0.0.1")))


@pytest.mark.parametrize("host", ["a..b", ".local", "a" * 64, "ü" * 70])
def test_a_name_that_python_will_not_even_ask_for_is_a_broker_that_cannot_be_reached(host: str, tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="cannot be reached"):
        open_session(Broker(host, 1883, insecure=True), "x")
    config = load(written(tmp_path, GOOD))
    assert config.mqtt is not None
    past_the_check = config.model_copy(update={"mqtt": config.mqtt.model_copy(update={"host": host})})
    (found,) = doctor_broker(past_the_check)
    assert found.level == "error"
    assert "is not resolved" in found.what
