"""Every decoder of a stranger's bytes: an answer, or the one error that it names. About a minute together.

EDGE_FUZZ_SECONDS gives them longer, EDGE_FUZZ_SEED other inputs; a failure shows its input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from edge_aggregate.check import check_log

from edge.bundle.manifest import load_bundle
from edge.bundle.newest import newest_bundle
from edge.config import ConfigProblems, load
from edge.config.hosts import host_problem
from edge.config.text import decode_text, first_line
from edge.contract import PAYLOADS, ContractError, cloudevents, counts_payload, decode, encode, parse_topic
from edge.contract.payloads import Counts
from edge.errors import BundleError, ConfigError, SourceError, StorageError
from edge.outbox.rows import REPORT, Row
from edge.outbox.runtime_files import read_command, read_vision
from edge.process.shown import shown
from tests.contract.test_payloads import example
from tests.fuzz.mutation import try_all
from tests.support.appliance import EXACT, vision_file
from tests.support.appliance import closing as closed_window

EXAMPLE: Final = Path(__file__).parents[2] / "config.example.toml"
SHARE: Final = 1 / 8
"""Of the time, for each of the tests below."""


def one_line(error: Exception, longest: int = 1_000_000) -> str:
    """What was said, fit to be shown: one line, nothing a terminal obeys, no secret."""
    said = str(error)
    assert shown(said) == said
    assert len(said) <= longest
    return type(error).__name__


STATUS: Final = {"state": "online", "boot_id": "a" * 32, "version": "1", "since": "2026-11-21T10:00:00Z"}
REPLAY: Final = {"id": "r-1", "boot_id": "a" * 32, "from": 1, "to": 2}
ANSWER: Final = {"id": "r-1", "sent": 1, "gone": 0}


def seeds_of(name: str) -> list[bytes]:
    """Right payloads of a kind; health is made of what is required, whatever that is today."""
    known: dict[str, dict[str, Any]] = {
        "status": STATUS,
        "counts": example(),
        "replay-command": REPLAY,
        "replay-answer": ANSWER,
    }
    return [json.dumps(known.get(name, STATUS)).encode()]


def test_payloads() -> None:
    def decoded(data: bytes) -> str:
        for model in PAYLOADS.values():
            try:
                payload = decode(model, data)
            except ContractError as error:
                told = one_line(error, longest=1000)
            else:
                again = decode(model, encode(payload))
                assert encode(again) == encode(payload)
                if isinstance(payload, Counts):
                    assert dict(cloudevents(payload))["time"].endswith("Z")
                told = "payload"
        return told

    seeds = [seed for name in PAYLOADS for seed in seeds_of(name)]
    answers = try_all(seeds, decoded, SHARE)
    assert answers.keys() <= {"ContractError", "payload"}
    assert answers["ContractError"]


def test_topics() -> None:
    def parsed(data: bytes) -> str:
        try:
            topics, leaf = parse_topic(data.decode("utf-8", "surrogateescape"))
        except ContractError as error:
            return "ContractError" if str(error).isprintable() else str(error)
        assert topics(leaf) == data.decode("utf-8", "surrogateescape")
        return "topic"

    seeds = [b"edge/v1/lobby/kiosk-07/counts", b"a/b/v1/x/y/reply/r-1", b"edge/v1/x/y/cmd/replay"]
    assert try_all(seeds, parsed, SHARE / 4, is_json=False).keys() == {"ContractError", "topic"}


def test_ingest_log(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def entry(seq: int) -> bytes:
        line = {"topic": "edge/v1/lobby/kiosk-07/counts", "received": "2026-11-21T11:00:00Z"}
        return json.dumps(line | {"payload": example() | {"seq": seq}}).encode()

    def checked(data: bytes) -> str:
        path.write_bytes(entry(1) + b"\n" + data + b"\n" + entry(2))
        found = check_log(path)
        assert found.windows >= 2, "the lines around it are read"
        for _, reason in found.dead:
            assert reason.isprintable(), reason
        return "dead" if found.dead else "read"

    assert try_all([entry(3)], checked, SHARE)["dead"]
    path.write_bytes(b"\xff\xfe" + entry(1))
    with pytest.raises(SourceError):
        check_log(path)


def test_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"

    def loaded(data: bytes) -> str:
        path.write_bytes(data)
        try:
            load(path)
        except ConfigProblems as error:
            for line in str(error).split("\n"):
                one_line(ConfigError(line))
            return "problems"
        except ConfigError as error:
            return one_line(error)
        return "config"

    seed = EXAMPLE.read_bytes()
    answers = try_all([seed], loaded, SHARE, is_json=False)
    assert answers.keys() == {"problems", "config", "ConfigError"}


def test_text_and_hosts(tmp_path: Path) -> None:
    path = tmp_path / "password"

    def read(data: bytes) -> str:
        path.write_bytes(data)
        try:
            line = first_line(path, "mqtt.password_file")
        except ConfigError as error:
            return one_line(error)
        assert "\n" not in line
        if host_problem(line) is None and "%" not in line:
            line.encode("idna")  # what a resolver does first: no error is left
        assert decode_text(line.encode()) == line.removeprefix("\ufeff")
        return "line"

    seeds = [b"broker.example\n", "bücher.example".encode(), b"192.0.2.7", b"::1\r\nx"]
    assert try_all(seeds, read, SHARE / 2, is_json=False).keys() == {"ConfigError", "line"}


def test_manifest(tmp_path: Path, bundle_folder: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    seed = (bundle_folder / "manifest.json").read_bytes()

    def loaded(data: bytes) -> str:
        (folder / "manifest.json").write_bytes(data)
        newest_bundle(tmp_path)
        with pytest.raises(BundleError) as caught:
            load_bundle(folder)
        shown(caught.value)
        return "missing" if "No such file" in str(caught.value) else "refused"

    assert try_all([seed], loaded, SHARE).keys() == {"missing", "refused"}


def test_runtime_files(tmp_path: Path) -> None:
    def read(data: bytes) -> str:
        for name in ("vision.json", "command.json"):
            (tmp_path / name).write_bytes(data)
        told = "file"
        for reader in (read_vision, read_command):
            try:
                reader(tmp_path)
            except StorageError:
                told = "StorageError"
        return told

    seeds = [vision_file().model_dump_json().encode(), b'{"number": 1, "command": "pause", "paused": true}']
    assert try_all(seeds, read, SHARE)["StorageError"]


def test_outbox_rows() -> None:
    report, _ = closed_window((), EXACT)({}, None)

    def sent(data: bytes) -> str:
        row = Row("a" * 32, 1, None, "k", data.decode("utf-8", "surrogateescape"), 0.0, 0.0, None, sent=False)
        try:
            again = row.report()
            payload = counts_payload(again, site="lobby", device="kiosk-07", boot_id="a" * 32, seq=1, prev=None)
        except (ValueError, ContractError):
            return "refused"
        assert decode(Counts, encode(payload)) == payload
        return "sent"

    assert try_all([REPORT.dump_json(report)], sent, SHARE).keys() == {"refused", "sent"}
