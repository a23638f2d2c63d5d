"""`config.toml`: every problem at once, each with its line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import ConfigProblems, load
from edge.errors import ConfigError
from tests.support.config_text import HEAD

GOOD = f"""{HEAD}\
[mqtt]
host = "localhost"
"""
EXAMPLE = Path(__file__).resolve().parents[2] / "config.example.toml"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> dict[str, tuple[int | None, str]]:
    with pytest.raises(ConfigProblems) as caught:
        load(written(folder, text))
    assert caught.value.exit_code == 2
    return {p.key: (p.line, p.message) for p in caught.value.problems}


def test_defaults_and_paths_relative_to_the_file(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD + '[storage]\noutbox = "o.db"\n'))
    assert config.window.seconds == 7200
    assert (config.privacy.noise, config.privacy.epsilon, config.privacy.min_count) == ("discrete-laplace", 1.0, 10)
    assert (config.models.strategy, config.detector.kind, config.device.mode) == ("gate", "auto", "production")
    assert config.mqtt is not None
    assert config.mqtt.port == 1883
    assert config.camera[0].source == str(tmp_path / "clip.mp4")
    assert config.models.bundle == tmp_path / "models/x"
    assert config.storage.outbox == tmp_path / "o.db"
    assert config.storage.runtime == Path("/run/edge")


def test_the_example_is_valid() -> None:
    config = load(EXAMPLE)
    assert config.mqtt is not None
    assert config.mqtt.tls is not None
    assert config.mqtt.tls.ca == EXAMPLE.parent / "ca.crt"


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "says"),
    [
        ('site = "lobby"', 'sight = "lobby"', "device.sight", 3, "did you mean site?"),
        ("[mqtt]", "[mqt]", "mqt", 11, "did you mean mqtt?"),
        ('id = "kiosk-07"', 'id = "Kiosk 7"', "device.id", 2, "pattern"),
        ('id = "kiosk-07"', "id = 7", "device.id", 2, "string"),
        ('purpose = "audience-statistics"', 'purpose = "workplace"', "device.purpose", 4, "2024/1689"),
        ('purpose = "audience-statistics"', 'purpose = " Education"', "device.purpose", 4, "prohibited"),
        ('purpose = "audience-statistics"', 'purpose = ""', "device.purpose", 4, "say what"),
        ('purpose = "audience-statistics"\n', "", "device.purpose", 1, "missing"),
        ('source = "clip.mp4"\n', "", "camera", 6, "needs source"),
        ('kind = "replay"', 'kind = "v4l2"\nloop = true', "camera", 6, "replay"),
        ('kind = "replay"', 'kind = "rtsp"', "camera", 6, "needs source, e.g. rtsp://"),
        ('source = "clip.mp4"', 'source = "clip.mp4"\nrotation = 90', "camera", 6, "rotation goes with"),
        ('source = "clip.mp4"', 'source = "clip.mp4"\nsize = [641, 480]', "camera.size.0", 9, "multiple of 2"),
        ('kind = "replay"', 'kind = "film"', "camera.kind", 7, "replay"),
        ('host = "localhost"', 'host = "broker.local"', "mqtt", 11, "insecure"),
        ('host = "localhost"', 'host = "localhost"\nport = 0', "mqtt.port", 13, "greater"),
        ('host = "localhost"', 'host = "localhost"\nroot = "a/#"', "mqtt.root", 13, "pattern"),
        ('host = "localhost"', 'host = "localhost"\npassword_file = "p"', "mqtt", 11, "username"),
        ('host = "localhost"', 'host = "localhost"\ntls = { crt = "c" }', "mqtt.tls.crt", 13, "did you mean cert?"),
        ('host = "localhost"', 'host = "localhost"\ntls = { crt = "c" }', "mqtt.tls.key", 13, "missing"),
        ('source = "clip.mp4"', 'source = "clip.mp4"\nrotatoin = 90', "camera.rotatoin", 9, "did you mean rotation?"),
        ("[mqtt]", '[detector]\nkind = "yolo"\n[mqtt]', "detector.kind", 12, "blazeface"),
        ("[mqtt]", '[detector]\nkind = "haar"\ntiles = 2\n[mqtt]', "detector", 11, "blazeface"),
        ("[mqtt]", "[detector]\nbudget_ms = 0\n[mqtt]", "detector.budget_ms", 12, "greater"),
        ("[mqtt]", "[detector]\nrotations = []\n[mqtt]", "detector", 11, "rotations"),
        ("[mqtt]", "[window]\nseconds = 0\n[mqtt]", "window.seconds", 12, "greater"),
        ("[mqtt]", '[privacy]\nepsilon = "much"\n[mqtt]', "privacy.epsilon", 12, "number"),
        ("[mqtt]", "[privacy]\nepsilon = 2.9e-5\n[mqtt]", "privacy", 11, "at least 2.9e-05: "),
        ("[mqtt]", "[privacy]\ndaily_epsilon = 0.5\n[mqtt]", "privacy", 11, "room for"),
        ("[mqtt]", '[privacy]\nnoise = "off"\ndaily_epsilon = 5\n[mqtt]', "privacy", 11, "needs noise"),
        ("[mqtt]", "[kill_switch]\ngpio = 40\n[mqtt]", "kill_switch.gpio", 12, "27"),
        ('purpose = "audience-statistics"', 'purpose = "school canteen"', "device.purpose", 4, "Art. 5(1)(f)"),
        ('purpose = "audience-statistics"', 'purpose = "employee-mood"', "device.purpose", 4, "Art. 5(1)(f)"),
    ],
)
def test_a_problem_has_its_line_and_key(tmp_path: Path, old: str, new: str, key: str, line: int, says: str) -> None:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new))
    assert key in found
    assert found[key][0] == line
    assert says in found[key][1]


SEVERAL = GOOD.replace("[camera]", "[[camera]]").replace(
    "[models]",
    """[[camera]]
kind = "replay"
source = "other.mp4"
privacy_masks = [[[0, 0], [0.5, 0], [0.5, 1.0]]]
[models]""",
)


def test_several_cameras_each_with_its_masks(tmp_path: Path) -> None:
    config = load(written(tmp_path, SEVERAL))
    assert [c.source for c in config.camera] == [str(tmp_path / "clip.mp4"), str(tmp_path / "other.mp4")]
    assert [c.privacy_masks for c in config.camera] == [(), (((0, 0), (0.5, 0), (0.5, 1.0)),)]
    assert not config.live


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "says"),
    [
        ("[0.5, 1.0]", "[0.5, 1.5]", "camera.1.privacy_masks.0.2.1", 12, "less than"),
        (", [0.5, 1.0]", "", "camera.1.privacy_masks.0", 12, "at least 3"),
        ('source = "other.mp4"', 'sauce = "other.mp4"', "camera.1.sauce", 11, "did you mean source?"),
        ('"replay"\nsource = "other.mp4"', '"v4l2"', "camera", 6, "clocks differ"),
    ],
)
def test_a_problem_of_one_of_several_cameras(
    tmp_path: Path, old: str, new: str, key: str, line: int, says: str
) -> None:
    assert old in SEVERAL
    found = problems(tmp_path, SEVERAL.replace(old, new))
    assert key in found
    assert found[key][0] == line
    assert says in found[key][1]


@pytest.mark.parametrize(
    ("source", "more", "says"),
    [
        ("http://root:secret@192.0.2.1/", "", "needs source"),
        ("rtsp://root:secret@:554/", "", "needs source"),
        ("rtsp://root:secret@192.0.2.1:99999/", "", "needs source"),
        ("rtsp://root:secret@[192.0.2.1/", "", "needs source"),
        ("rtsp://root:secret@192.0.2.1/", 'username = "root"', "give it once"),
        ("rtsp://192.0.2.1/secret", 'password_file = "p"', "needs username"),
    ],
)
def test_a_url_that_will_not_do_is_refused_without_being_repeated(
    tmp_path: Path, source: str, more: str, says: str
) -> None:
    text = GOOD.replace('kind = "replay"\nsource = "clip.mp4"', f'kind = "rtsp"\nsource = "{source}"\n{more}')
    with pytest.raises(ConfigProblems) as caught:
        load(written(tmp_path, text))
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_url_is_no_path_and_its_password_file_is(tmp_path: Path) -> None:
    text = GOOD.replace(
        'kind = "replay"\nsource = "clip.mp4"',
        'kind = "rtsp"\nsource = "rtsp://192.0.2.1/live"\nusername = "u"\npassword_file = "p"\nrotation = 270',
    )
    (camera,) = load(written(tmp_path, text)).camera
    assert (camera.source, camera.password_file) == ("rtsp://192.0.2.1/live", tmp_path / "p")


def test_every_problem_comes_at_once_in_order(tmp_path: Path) -> None:
    text = GOOD.replace("kiosk-07", "K 7").replace("replay", "film").replace("host", "hots") + "[extra]\nx = 1\n"
    found = problems(tmp_path, text)
    assert {"device.id", "camera.kind", "mqtt.hots", "mqtt.host", "extra"} <= set(found)
    lines = [line or 0 for line, _ in found.values()]
    assert lines == sorted(lines)


def test_no_sign_no_production(tmp_path: Path) -> None:
    text = GOOD.replace("signage_acknowledged = true\n", "")
    assert any("Art. 50(3)" in message for _, message in problems(tmp_path, text).values())
    load(written(tmp_path, text.replace("[camera]", 'mode = "development"\n[camera]')))


def test_plain_mqtt_to_another_host_needs_a_word(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD.replace('"localhost"', '"broker.local"\ninsecure = true')))
    assert config.mqtt is not None
    assert config.mqtt.insecure


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD + "host = = 1\n")["TOML"][0] == 13


@pytest.mark.parametrize("given", ["inf", "nan", "-inf"])
@pytest.mark.parametrize(
    ("section", "key"), [("privacy", "daily_epsilon"), ("window", "seconds"), ("clock", "hold_seconds")]
)
def test_no_number_is_infinite(tmp_path: Path, section: str, key: str, given: str) -> None:
    assert f"{section}.{key}" in problems(tmp_path, f"{GOOD}[{section}]\n{key} = {given}\n")


@pytest.mark.parametrize(
    ("old", "key"),
    [
        ("clip.mp4", "camera.source"),
        ("models/x", "models.bundle"),
        ("localhost", "mqtt.host"),
        ("audi", "device.purpose"),
    ],
)
def test_no_text_holds_a_nul(tmp_path: Path, old: str, key: str) -> None:
    (found,) = problems(tmp_path, GOOD.replace(old, old + "\\u0000")).items()
    assert (found[0], "NUL" in found[1][1]) == (key, True)


@pytest.mark.parametrize("text", ["x = " + "9" * 5000, "x = 2026-02-30", "x = " + "[" * 5000, "x = " + "{a=" * 5000])
def test_toml_that_no_parser_takes_is_a_problem(tmp_path: Path, text: str) -> None:
    assert "TOML" in problems(tmp_path, GOOD + text + "\n")


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "config.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "b.toml")
