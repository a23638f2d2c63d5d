"""What may be shown: no secret of a URL, nothing that a terminal obeys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.process.logs import event
from edge.process.shown import shown


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://u:secret@h:99999/x",
        "RTSP://u:secret@h",
        "cannot open rtsp://secret@h/x: no route",
        "/home/me/rtsp:/u:secret@h/x: No such file",
        "mqtts://u:se@secret@h",
        "rtsp://u:/secret@h/x",
        "rtsp://u:a secret@h/x",
        "a=rtsp://u:1 b=rtsp://u:secret@h",
    ],
)
def test_no_secret_of_a_url(text: str) -> None:
    for made in (shown(text), event("x", why=text)):
        assert "secret" not in made
        assert "…@" in made
        assert "h" in made


@pytest.mark.parametrize("text", ["rtsp://192.0.2.1:554/live", "mail to a@b", "/srv/ö ä/clip.mp4", "10:00:00.mp4"])
def test_the_rest_stays(text: str) -> None:
    assert shown(text) == text


@given(st.text(st.characters()))
def test_one_printable_line_of_anything(text: str) -> None:
    assert shown(text).isprintable()
    shown(text).encode()


def test_what_a_terminal_obeys_is_escaped() -> None:
    assert shown("a\x1b[2Jb\n\u202ec\udcff") == r"a\x1b[2Jb\n\u202ec\udcff"
