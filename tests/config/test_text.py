"""Text files as editors leave them: with a mark they are read, in another encoding they are named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge.config import load
from edge.config.text import decode_text, first_line
from edge.errors import ConfigError
from edge.publisher.broker import password
from edge.vision.camera.rtsp import with_credentials
from tests.config.test_config import GOOD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEFT = {
    "latin-1": "Latin-1",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16",
    "utf-32": "UTF-32",
}
"""Encoding → what the line calls it."""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nsecond line\n"])
def test_the_password_is_the_first_line(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(f" pä ss{end}".encode(encoding))
    assert password(path) == first_line(path, "mqtt.password_file") == " pä ss"
    assert with_credentials("rtsp://h/x", "u", path) == "rtsp://u:%20p%C3%A4%20ss@h/x"


@pytest.mark.parametrize("encoding", LEFT)
def test_a_password_in_another_encoding_is_one_line_without_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "password"
    path.write_bytes("geheimnäs\n".encode(encoding))
    readers: dict[str, Callable[[], object]] = {
        "mqtt.password_file": lambda: password(path),
        "camera.password_file": lambda: with_credentials("rtsp://h/x", "u", path),
    }
    for key, read in readers.items():
        with pytest.raises(ConfigError) as caught:
            read()
        said = str(caught.value)
        assert said.startswith(f"{key}: {path} ")
        assert LEFT[encoding] in said
        assert "save it as UTF-8" in said
        assert "geheim" not in said
        assert said.isprintable()


def test_no_password_is_as_long_as_that(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"x" * 70_000)
    with pytest.raises(ConfigError, match="over 65536 bytes"):
        password(tmp_path / "password")


def test_a_configuration_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert load(path).device.id == "kiosk-07"


@pytest.mark.parametrize("encoding", LEFT)
def test_a_configuration_in_another_encoding_is_one_line(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(GOOD.replace("[device]", "# für\n[device]").encode(encoding))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: not UTF-8 text")
    assert LEFT[encoding] in str(caught.value)


def test_the_line_of_the_first_byte_that_is_wrong() -> None:
    with pytest.raises(ValueError, match="line 3;"):
        decode_text(b"a\nb\n\xe9\nd")
