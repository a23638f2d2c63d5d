"""Wrong inputs made of right ones: bytes turned over, and values put where others are meant."""

from __future__ import annotations

import copy
import json
import os
import random
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SECONDS: Final = float(os.environ.get("EDGE_FUZZ_SECONDS", "60"))
"""For all decoders together; `make soak` gives more."""
SEED: Final = int(os.environ.get("EDGE_FUZZ_SEED", "20261121"))
AT_LEAST: Final = 200
"""Inputs a decoder gets however slow the machine is."""

WORDS: Final = (
    *(
        b"[" * 300,
        b"{" * 300,
        b'{"a":' * 300,
        b"]",
        b"}",
        b'"',
        b"\\",
        b",",
        b":",
        b"\n",
        b"\r",
        b"\0",
        b"\xef\xbb\xbf",
    ),
    *(b"\xff\xfe", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\x1b[2J", b"\xe2\x80\xae"),
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e308", b"-0", b"0.1", b"true", b"null", b"9" * 5000),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"0001-01-01T00:00:00+14:00"),
    *(b"9999-12-31T23:59:59-14:00", b"2026-02-30T00:00:00Z", b"rtsp://u:secret@h:99999/x", b"../../etc/passwd"),
)
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**400),
    *(0.5, -0.0, 1e-300, 1e308, "", " ", "\0", "\ud800", "\u202e\x1b[2J", "x" * 70_000, "²", "٣", "1e3"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-21T10:00:00", "1970-01-01T00:00:00Z"),
    *("../x", "/etc/passwd", "a..b", "rtsp://u:secret@h:99999/x", [], {}, [[]], {"": {}}, [1] * 100, {"\x1b": 1}),
)


def bent(seed: bytes, rng: random.Random) -> bytes:
    """Up to four changes of its bytes."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randint(0, len(data)), rng.choice((1, 1, 2, 8, 64))
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length] * rng.randint(1, 20)
            case 3:
                data[at : at + length] = rng.choice(WORDS)
            case 4:
                data[at:at] = rng.choice(WORDS)
            case _:
                data[at:at] = rng.randbytes(length)
    return bytes(data)


def swapped(seed: bytes, rng: random.Random) -> bytes:
    """JSON with up to three of its values, or the keys of them, replaced by others."""
    body = {"": copy.deepcopy(json.loads(seed))}
    for _ in range(rng.randint(1, 3)):
        holder, key = rng.choice(list(_places(body)))
        match rng.randrange(4):
            case 0 if isinstance(holder, dict) and key:
                holder[rng.choice(("", "x", "\x1b[2J", str(key).upper()))] = holder.pop(key)
            case 1 if key != "":
                del holder[key]
            case _:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(body[""], ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(node: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - any JSON
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)


def try_all(
    seeds: Sequence[bytes], decode: Callable[[bytes], object], share: float, *, is_json: bool = True
) -> dict[str, int]:
    """Decode bent seeds for `share` of the time. Whatever `decode` raises fails the test, with the input shown.

    Returns how often `decode` gave which answer, for tests that want to know that both kinds came.
    """
    rng = random.Random(SEED)  # noqa: S311 - inputs, no secrets
    answers: dict[str, int] = {}
    end, done = time.monotonic() + share * SECONDS, 0
    while done < AT_LEAST or time.monotonic() < end:
        seed = rng.choice(seeds)
        given = swapped(seed, rng) if is_json and rng.random() < 0.5 else bent(seed, rng)
        try:
            answer = str(decode(given))
        except BaseException as error:
            error.add_note(f"input {done} of seed {SEED} ({len(given)} bytes): {given[:2000]!r}")
            raise
        answers[answer] = answers.get(answer, 0) + 1
        done += 1
    return answers
