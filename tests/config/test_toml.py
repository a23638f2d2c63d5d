"""TOML: what is too deep is said with its line; brackets in strings and comments are none."""

from __future__ import annotations

import tomllib

import pytest

from edge.toml import DEPTH_LIMIT, read_toml


@pytest.mark.parametrize(
    "deep",
    [
        "x = " + "[" * 5000,
        "x = " + "{a=" * 5000,
        "[" * 5000,
        'y = "\\""\nx = ' + "[{a=" * 60,
        'x = ["""a"""", ' + "[" * 5000 + "]" * 5000 + ', "b"]',
        "x = ['''a''''', " + "[" * 5000 + "]" * 5000 + ", 'b']",
    ],
)
def test_what_is_too_deep_is_told_with_its_line(deep: str) -> None:
    line = deep.count("\n") + 2
    with pytest.raises(ValueError, match=rf"more than {DEPTH_LIMIT} deep \(line {line}\)"):
        read_toml("a = 1\n" + deep)


@pytest.mark.parametrize(
    "text",
    [
        f"x = {'[' * DEPTH_LIMIT}{']' * DEPTH_LIMIT}",
        'x = "' + "[" * 500 + '"',
        'x = "\\"' + "[" * 500 + '"',
        "x = '\\" + "'\ny = '" + "{" * 500 + "'",
        'x = """\n"' + "[" * 500 + '\\""""',
        "x = '''it's " + "[" * 500 + "'''",
        "# it's " + "[" * 500,
        'x = ["""a""""", ' + "[" * 90 + "]" * 90 + ', "b"]',
        "\n".join(f"[[t]]\nx = [{n}]" for n in range(500)),
    ],
)
def test_what_is_not_deep_is_read_as_tomllib_reads_it(text: str) -> None:
    assert read_toml(text) == tomllib.loads(text)


@pytest.mark.parametrize("text", ["\\" + '"""' * 3 + "\n", "x\\" + "'''" + "[[[\n"])
def test_text_that_is_no_toml_takes_no_longer_for_being_long(text: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        read_toml(text * 100_000)
