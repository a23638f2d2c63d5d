"""One reader of strangers' lines, in two speeds that say the same."""

from __future__ import annotations

import json
import random
from datetime import timedelta

import pytest
from edge_aggregate import decode
from edge_aggregate.decode import LINE_LIMIT, Dead, Row, _decode_parts, decode_fast, decode_line, decode_message

from edge.contract import decode_counts, encode
from tests.support.windows import BOOT, DAY, window

LINE = json.dumps(window(7, cells={"unmasked_happy": 12, "masked_sad": 11}, prev=("b" * 32, 3)))
BITS = (
    '"',
    "{",
    "}",
    "[",
    ":",
    ",",
    "-",
    "0",
    "1",
    ".5",
    "e9",
    "null",
    "true",
    "NaN",
    "Infinity",
    "\\ud800",
    "\\u0000",
    "Z",
)


def changed(seed: int) -> bytes:
    """A line with a few things wrong: characters lost or put in, fields twice, values swapped."""
    r = random.Random(seed)  # noqa: S311 - no secret
    text = LINE
    for _ in range(r.choice([1, 1, 1, 2, 5])):
        place = r.randrange(len(text))
        found = r.randrange(4)
        if found == 0:
            text = text[:place] + text[place + r.randrange(1, 4) :]
        elif found == 1:
            text = text[:place] + r.choice(BITS) + text[place:]
        elif found == 2:
            fields = r.choice(['"seq": 9, ', '"site": "hall", ', '"payload": 3, ', '"x": [NaN], ', '"x": 1e999, '])
            at = text.find('"', text.find(r.choice(["{", '"payload": {', '"window": {'])) + 1)
            text = text[:at] + fields + text[at:]
        else:
            values = ["0", "-3", "2.0", "1e400", "9" * 400, '"1"', "null", "[]", "{}", "true", "9223372036854775808"]
            parts = text.split(": ")
            at = r.randrange(1, len(parts))
            parts[at] = r.choice(values) + parts[at][len(parts[at].split(",")[0].rstrip("}")) :]
            text = ": ".join(parts)
    return text.encode("utf-8", "surrogatepass")


def test_the_usual_way_and_the_way_of_parts_agree_on_every_line() -> None:
    kinds: dict[str, int] = {}
    for seed in range(4000):
        line = changed(seed)
        found = decode_line(line)
        assert found == _decode_parts(line), line
        kind = found.kind if isinstance(found, Dead) else type(found).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
    assert {"Row", "payload", "envelope", "topic"} <= kinds.keys(), kinds


FIELDS = (
    *(
        b'"privacy": "\xff"',
        b'"unit": "\xff"',
        b'"unit": "\xed\xa0\x80"',
        b'"unit": "a\\u0000b"',
        b'"unit": "\xc2\x85"',
    ),
    *(b'"x": ' + b"[" * 210 + b"]" * 210, b'"models": [1e999]', b'"schema_": "edge.counts/2"', b'"exhausted": 1'),
    *(b'"mechanism": "none"', b'"epsilon": null', b'"epsilon": 1e-7', b'"epsilon": 1000000', b'"gate": "sha256:1"'),
    *(b'"coverage": -0.0', b'"coverage": 1.0000000000000002', b'"seconds": 2678400.0', b'"seconds": 2678401'),
    *(b'"start": "2019-12-31T23:59:59Z"', b'"start": "9999-01-01T00:00:00Z"', b'"start": "2026-03-02 00:00:00Z"'),
    *(b'"start": "2026-03-02T00:00:00.1239999-03:30:15"', b'"start": "0001-01-01T00:00:00+05:00"'),
    *(b'"received": "2026-03-02t00:00:00z"', b'"received": "9999-12-31T23:59:59-23:59"', b'"boot_id": "\\n"'),
    *(b'"happy": -3', b'"happy": 1000001', b'"visitors": -3', b'"flush": true', b'"noise_draws": null', b'"seq": 1E0'),
    *(b'"min_count": 9223372036854775808', b'"seq": 9223372036854775807', b'"min_count": true', b'"topic": "counts"'),
)


@pytest.mark.parametrize("field", FIELDS)
def test_so_they_do_on_each_field_that_another_takes_the_place_of(field: bytes) -> None:
    name, line = field.split(b":")[0], LINE.encode()
    for place in (place for place, byte in enumerate(line) if byte == ord("{")):  # before the one that is there
        twice = line[: place + 1] + field + b", " + line[place + 1 :]
        assert repr(decode_line(twice)) == repr(_decode_parts(twice)), twice
    for place in (place for place, byte in enumerate(line) if byte == ord("}")):  # and after, where it counts
        twice = line[:place] + b", " + field + line[place:]
        assert repr(decode_line(twice)) == repr(_decode_parts(twice)), twice
    assert name in line or name in (b'"x"', b'"schema_"', b'"exhausted"')


def test_what_a_device_sends_is_read_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = encode(decode_counts(json.loads(LINE)["payload"]))
    topic, received_ms = "edge/v1/lobby/kiosk-1/counts", decode.milliseconds(DAY + timedelta(hours=2))
    assert decode_fast(topic, received_ms, payload) == decode_message(topic, received_ms, payload)
    assert isinstance(decode_fast(topic, received_ms, payload), Row), "a field of the contract is not in `fast_decode`"
    monkeypatch.setattr(decode, "_decode_parts", lambda _: None)
    assert isinstance(decode_line(LINE.encode()), Row)


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        (window(1) | {"topic": "edge/v1/hall/kiosk-1/counts"}, "topic", "topic says hall/kiosk-1, payload says lobby"),
        (window(1, received=DAY - timedelta(days=2)), "future", "over a day ahead"),
        (window(1) | {"received": "9999-01-01T00:00:00Z"}, "future", "received 9999-01-01T00:00:00Z: mend the clock"),
        (window(1) | {"received": "noon"}, "envelope", "received: expected an RFC 3339 time"),
        (window(1) | {"payload": {"base64": "!"}}, "envelope", "base64"),
        (window(1) | {"payload": [1]}, "envelope", "neither an object nor a text"),
        (window(1) | {"payload": {}}, "payload", "not a counts payload"),
        (window(1) | {"topic": "weather"}, "topic", "none of this contract's"),
        ({"x": 1}, "envelope", "topic, received and payload"),
    ],
)
def test_what_is_no_window_says_why(line: dict[str, object], kind: str, reason: str) -> None:
    found = decode_line(json.dumps(line).encode())
    assert isinstance(found, Dead)
    assert found.kind == kind
    assert reason in found.reason


def test_a_window_is_read_whole_and_another_topic_is_none() -> None:
    found = decode_line(LINE.encode())
    assert isinstance(found, Row)
    assert (found.device, found.boot_id, found.seq, found.prev_seq) == ("kiosk-1", BOOT, 7, 3)
    assert (found.cells[3], sum(cell or 0 for cell in found.cells)) == (12, 23)
    assert decode_line(json.dumps(window(1) | {"topic": "edge/v1/lobby/kiosk-1/health"}).encode()) is None
    assert decode_line(b" \n") is None


def test_a_line_that_does_not_end_is_a_dead_letter() -> None:
    found = decode_line(b'{"topic": "' + b"x" * LINE_LIMIT)
    assert isinstance(found, Dead)
    assert "allowed" in found.reason
    assert len(found.excerpt) <= 1000
