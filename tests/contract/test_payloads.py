"""The wire: what is encoded is decoded again, nothing undeclared goes out, the documents are the models."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from edge import contract
from edge.contract import PAYLOADS, ContractError, Counts, Topics, asyncapi, decode, decode_counts, encode, parse_topic
from edge.types import CELLS, ROUTES

DOCS = Path(__file__).parents[2] / "docs"

ids = st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True)
boots = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
digests = st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
seqs = st.integers(1, 2**63 - 1)
whole = st.integers(0, 2**63 - 1)
figures = st.floats(0, 1e9)
times = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive bounds
cells = st.fixed_dictionaries({c: st.none() | st.integers(0, 10**6) for c in CELLS})
drawn = st.fixed_dictionaries(dict.fromkeys(CELLS, st.integers(0, 10**6)))
scenes = st.sampled_from(["ok", "dark", "covered", "frozen", "paused"])
qualities = st.sampled_from(["synced", "holdover", "unsynced"])
prevs = st.none() | st.builds(contract.Prev, boot_id=boots, last_seq=seqs)


def built(counts: dict[str, dict[str, int | None]], **fields: Any) -> Counts:  # noqa: ANN401
    """A payload whose visitors are the sum of its cells."""
    released = [value for row in counts.values() for value in row.values() if value is not None]
    return Counts(counts=contract.Rows.model_validate(counts), visitors=sum(released), **fields)


counts = st.builds(
    built,
    site=ids,
    device=ids,
    boot_id=boots,
    seq=seqs,
    prev=prevs,
    window=st.builds(contract.Window, start=times, seconds=st.floats(0, 31 * 86400), time_quality=qualities),
    counts=st.fixed_dictionaries(dict.fromkeys(ROUTES, cells)),
    suppressed_cells=st.integers(0, 16),
    coverage=st.floats(0, 1),
    scene=scenes,
    privacy=st.builds(
        lambda epsilon, **rest: contract.Privacy(
            mechanism="none" if epsilon is None else "discrete-laplace", epsilon=epsilon, **rest
        ),
        epsilon=st.none() | st.floats(1e-6, 1e6),
        unit=st.text(),
        min_count=whole,
    ),
    models=st.builds(
        contract.Models,
        gate=digests,
        fer_unmasked=digests,
        fer_masked=digests,
        route=st.sampled_from(["gate", "highest-probability", "single"]),
    ),
    flush=st.booleans(),
    noise_draws=st.fixed_dictionaries(dict.fromkeys(ROUTES, drawn)).map(contract.Draws.model_validate),
)
words = st.text(max_size=64)
payloads = st.one_of(
    counts,
    st.builds(
        contract.Status,
        state=st.sampled_from(["online", "offline", "stopped"]),
        boot_id=st.none() | boots,
        version=words,
        since=times,
    ),
    st.builds(
        contract.Health,
        boot_id=boots,
        backend=words,
        rate=st.sampled_from(["ok", "slow", "none"]),
        invoke_ms=st.builds(contract.Percentiles, p50=st.none() | figures, p95=st.none() | figures),
        drops=st.dictionaries(st.text(max_size=32), whole, max_size=3),
        restarts=whole,
        outbox=st.builds(contract.OutboxFigures, unsent=whole, oldest_s=figures),
        soc_c=st.none() | st.floats(-50, 150),
        scene=scenes,
        time_quality=qualities,
        paused=st.booleans(),
        versions=st.dictionaries(st.text(max_size=32), words, max_size=3),
    ),
    st.tuples(ids, boots, seqs, seqs).map(
        lambda v: contract.ReplayCommand(id=v[0], boot_id=v[1], from_=min(v[2:]), to=max(v[2:]))
    ),
    st.builds(contract.ReplayAnswer, id=ids, sent=whole, gone=whole),
)


def name_of(payload: BaseModel) -> str:
    """The payload's schema name."""
    return next(name for name, model in PAYLOADS.items() if isinstance(payload, model))


@settings(deadline=None, max_examples=150)
@given(payloads)
def test_round_trip_and_schema(payload: BaseModel) -> None:
    data = encode(payload)
    assert decode(type(payload), data) == payload
    assert encode(decode(type(payload), data)) == data
    jsonschema.validate(json.loads(data), asyncapi.schema(name_of(payload)))


@settings(deadline=None, max_examples=50)
@given(payloads, st.text(min_size=1).map("x-".__add__))
def test_decoder_ignores_what_encoder_refuses(payload: BaseModel, field: str) -> None:
    body = json.loads(encode(payload))
    body[field] = {"any": "thing"}
    later = json.dumps(body)
    assert decode(type(payload), later) == payload
    jsonschema.validate(body, asyncapi.schema(name_of(payload)))
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(payload).model_validate_json(later)


WINDOW = {"start": "2026-11-21T10:00:00Z", "seconds": 3600, "time_quality": "synced"}
PRIVACY = {"mechanism": "discrete-laplace", "epsilon": 1.0, "unit": "one class per track per window", "min_count": 10}


def example() -> dict[str, Any]:
    """The contract page's example."""
    row = dict.fromkeys(CELLS)
    return {
        "schema": "edge.counts/1",
        "site": "lobby",
        "device": "kiosk-07",
        "boot_id": "9f0c" * 8,
        "seq": 42,
        "prev": {"boot_id": "71aa" * 8, "last_seq": 130},
        "window": {"start": "2026-11-21T10:00:00Z", "seconds": 3600, "time_quality": "synced"},
        "counts": {"unmasked": row | {"happy": 14, "neutral": 31}, "masked": row},
        "suppressed_cells": 14,
        "visitors": 45,
        "coverage": 0.98,
        "scene": "ok",
        "privacy": {
            "mechanism": "discrete-laplace",
            "epsilon": 1.0,
            "unit": "one class per track per window",
            "min_count": 10,
        },
        "models": dict.fromkeys(("gate", "fer_unmasked", "fer_masked"), "sha256:" + "0f" * 32) | {"route": "gate"},
    }


def test_the_pages_example_decodes_with_defaults() -> None:
    read = decode_counts(json.dumps(example()))
    assert read.key == ("kiosk-07", "9f0c" * 8, 42)
    assert not read.flush
    assert read.noise_draws.unmasked.happy == 1
    assert read.noise_draws.unmasked.angry == 0
    body = json.loads(encode(read))
    assert body["privacy"].pop("exhausted") is False
    assert {k: body[k] for k in example()} == example()
    assert list(body)[:3] == ["schema", "site", "device"]
    assert dict(contract.cloudevents(read)) == {
        "specversion": "1.0",
        "id": f"{'9f0c' * 8}/42",
        "source": "/lobby/kiosk-07",
        "type": "edge.counts.v1",
        "time": "2026-11-21T11:00:00Z",
    }


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"schema": "edge.counts/2"}, "schema"),
        ({"site": "Lobby"}, "site"),
        ({"device": "x" * 65}, "device"),
        ({"boot_id": "9F0C" * 8}, "boot_id"),
        ({"seq": 0}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": "42"}, "seq"),
        ({"coverage": 1.5}, "coverage"),
        ({"scene": "bright"}, "scene"),
        (
            {"window": {"start": "2026-11-21T10:00:00", "seconds": 1, "time_quality": "synced"}},
            "window.start",
        ),
        ({"window": {"start": 1790000000, "seconds": 1, "time_quality": "synced"}}, "window.start"),
        (
            {"window": {"start": "2026-11-21T10:00:00Z", "seconds": -1, "time_quality": "synced"}},
            "window.seconds",
        ),
        ({"counts": {"unmasked": {}, "masked": {}}}, "counts.unmasked.angry"),
        (
            {"counts": {r: dict.fromkeys(CELLS, 10**6 + 1) for r in ROUTES}, "flush": True},
            "counts.unmasked.angry",
        ),
        ({"counts": {r: dict.fromkeys(CELLS, -1) for r in ROUTES}}, "negative"),
        ({"visitors": 44}, "visitors is 44, the released cells add up to 45"),
        ({"visitors": 10**400}, "visitors"),
        ({"seq": 2**63}, "seq"),
        ({"prev": {"boot_id": "0" * 32, "last_seq": 2**63}}, "prev.last_seq"),
        ({"window": WINDOW | {"start": "2019-12-31T23:59:59Z"}}, "2019-12-31T23:59:59Z is no window's start"),
        ({"window": WINDOW | {"start": "9999-12-31T23:59:59Z"}}, "is no window's start"),
        ({"window": WINDOW | {"start": "0001-01-01T00:00:00+14:00"}}, "window.start: a time beyond"),
        ({"window": WINDOW | {"start": "9999-12-31T23:59:59-14:00"}}, "window.start: a time beyond"),
        ({"window": WINDOW | {"seconds": 1e300}}, "window.seconds"),
        ({"privacy": PRIVACY | {"epsilon": 0}}, "privacy.epsilon"),
        ({"privacy": PRIVACY | {"epsilon": -1}}, "privacy.epsilon"),
        ({"privacy": PRIVACY | {"epsilon": 1e-300}}, "privacy.epsilon"),
        ({"privacy": PRIVACY | {"epsilon": None}}, "discrete-laplace does not go with epsilon None"),
        ({"privacy": PRIVACY | {"mechanism": "none"}}, "none does not go with epsilon 1"),
        ({"noise_draws": {r: dict.fromkeys(CELLS, 10**6 + 1) for r in ROUTES}}, "noise_draws.unmasked.angry"),
    ],
)
def test_errors_name_the_field(change: dict[str, object], where: str) -> None:
    with pytest.raises(ContractError, match=where.replace(".", r"\.")):
        decode_counts(json.dumps(example() | change))


def test_a_missing_field_a_wrong_type_no_json() -> None:
    body = example()
    del body["prev"]
    with pytest.raises(ContractError, match="prev: Field required"):
        decode_counts(json.dumps(body))
    for data in (b"", b"\xff\xfe", b"[]", b"null", b'{"schema":', b"NaN"):
        with pytest.raises(ContractError):
            decode_counts(data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 60_000, "recursion limit"),
        ('{"x":' + "[" * 201 + "]" * 201 + "}", "recursion limit"),
        (" " * 65_537, "65537 bytes, 65536 are allowed"),
        ('{"x": ' + "9" * 5000 + "}", "number out of range"),
        ('"\ud800"', "half a surrogate pair"),
        (b'"\\ud800"', "not JSON"),
        (b"\xff", "not JSON"),
        (b"NaN", "not JSON"),
    ],
)
def test_json_beyond_its_bounds_is_a_contract_error(text: bytes | str, says: str) -> None:
    for model in PAYLOADS.values():
        with pytest.raises(ContractError, match=says):
            decode(model, text)


def test_what_is_deep_within_bounds_is_ignored_like_every_unknown_field() -> None:
    body = example() | {"x": json.loads("[" * 100 + "]" * 100)}
    assert decode_counts(json.dumps(body)) == decode_counts(body) == decode_counts(example())


def test_a_replay_beyond_what_a_row_number_can_be() -> None:
    body = {"id": "r-1", "boot_id": "0" * 32, "from": 1, "to": 2**63 - 1}
    assert decode(contract.ReplayCommand, json.dumps(body)).to == 2**63 - 1
    with pytest.raises(ContractError, match="to: Input should be less"):
        decode(contract.ReplayCommand, json.dumps(body | {"to": 2**63}))
    with pytest.raises(ContractError, match="from 5 lies after to 4"):
        decode(contract.ReplayCommand, json.dumps(body | {"from": 5, "to": 4}))


def test_a_strangers_key_reaches_no_terminal_as_it_is() -> None:
    health = {"drops": {"\x1b[2J" + "x" * 100: -1}}
    with pytest.raises(ContractError) as caught:
        decode(contract.Health, json.dumps(health))
    assert str(caught.value).isprintable()


def test_negative_cells_are_legal_in_a_flush() -> None:
    body = example() | {"counts": {r: dict.fromkeys(CELLS, -3) for r in ROUTES}, "flush": True, "visitors": -48}
    assert decode_counts(json.dumps(body)).counts.masked.sad == -3


def test_topics() -> None:
    topics = Topics("edge", "lobby", "kiosk-07")
    assert topics("counts") == "edge/v1/lobby/kiosk-07/counts"
    for leaf in ("status", "health", "counts", "live", "reply/r-1", *(f"cmd/{c}" for c in contract.COMMANDS)):
        assert parse_topic(Topics("city/edge", "a", "b")(leaf)) == (Topics("city/edge", "a", "b"), leaf)
    for bad in (
        "edge/v2/a/b/counts",
        "edge/v1/A/b/counts",
        "edge/v1/a/b/counts/x",
        "edge/v1/a/counts",
        "/v1/a/b",
    ):
        with pytest.raises(ContractError):
            parse_topic(bad)
    for parts in (("edge", "Lobby", "k"), ("edge", "lobby", ""), ("ed#ge", "a", "b"), ("edge/", "a", "b")):
        with pytest.raises(ContractError):
            Topics(*parts)


def test_the_committed_documents_are_what_the_models_say() -> None:
    for name, text in asyncapi.files().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, (
            f"{name}: run python -m edge.contract.asyncapi --write docs"
        )
    assert asyncapi.main(["--check", str(DOCS)]) == 0
    for name in PAYLOADS:
        jsonschema.Draft202012Validator.check_schema(json.loads((DOCS / f"schema/{name}.schema.json").read_text()))


def test_the_yaml_says_what_was_meant(tmp_path: Path) -> None:
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    assert document == asyncapi.document("1.0.0")
    assert document["channels"]["counts"]["address"] == "{root}/v1/{site}/{device}/counts"
    for name in document["operations"]:
        assert document["operations"][name]["channel"]["$ref"] == f"#/channels/{name}"
    assert asyncapi.main(["--check", str(tmp_path)]) == 1
    assert asyncapi.main(["--write", str(tmp_path)]) == 0
    assert asyncapi.main(["--check", str(tmp_path)]) == 0
