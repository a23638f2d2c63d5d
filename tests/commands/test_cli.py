"""The command line: exit codes and one sentence, never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import edge
from edge import config as config_package
from edge.cli import main
from edge.errors import ConfigError
from edge.outbox.runtime_files import write_vision
from tests.support.appliance import vision, vision_file
from tests.support.config_text import GOOD

PORTRAIT = Path(edge.__file__).parent / "demo_material" / "hopper.png"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        *((command, "config.toml (without: development defaults)") for command in ("run", "vision", "bench")),
        *(
            (command, "the configuration (without: config.toml in this folder)")
            for command in ("check-config", "doctor")
        ),
        *((command, "config.toml; needed") for command in ("publish", "status")),
    ],
)
def test_the_help_says_what_a_command_does_without_a_configuration(
    command: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"--config FILE {says}" in " ".join(capsys.readouterr().out.split())
    monkeypatch.chdir(tmp_path)
    if "without" not in says:
        assert main([command]) == 2
        assert f"edge {command} needs --config FILE" in capsys.readouterr().err
    elif "this folder" in says:
        assert main([command]) == 2
        assert "config.toml: No such file" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--drain-timeout", "nan"], "--drain-timeout: 'nan' is no number of seconds from 0 on"),
        (["run", "--drain-timeout", "-1"], "--drain-timeout: '-1' is no number of seconds from 0 on"),
        (["demo", "--seconds", "soon"], "--seconds: 'soon' is no number of seconds from 0 on"),
        (["bench", "--frames", "0"], "--frames: '0' is no whole number above 0"),
        (["bench", "--invocations", "many"], "--invocations: 'many' is no whole number above 0"),
    ],
)
def test_a_number_that_is_none_is_named(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert says in capsys.readouterr().err


LONG = "x" * 300
"""A name that the system does not look for: it answers as for a folder that keeps this user out, root included."""


TLS = f'[mqtt]\nhost = "localhost"\ntls = {{ca = "{LONG}", cert = "c", key = "k"}}\n[storage]'


@pytest.mark.parametrize(
    ("command", "old", "new", "code", "says"),
    [
        ("vision", "clip.mp4", LONG, 66, "mend camera.source or its rights"),
        ("doctor", "clip.mp4", LONG, 2, "mend camera.source or its rights"),
        ("status", "outbox.db", LONG, 74, "cannot be opened"),
        ("doctor", "outbox.db", LONG, 2, "cannot be opened"),
        ("doctor", '"run"', f'"{LONG}"', 2, "does not run, or cannot write"),
        ("publish", "[storage]", TLS, 2, "mqtt.tls.ca"),
        ("check-config", "[storage]", TLS, 2, "mqtt.tls.ca"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_looked_at_is_one_line(
    config: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str],
    command: str, old: str, new: str, code: int, says: str,
) -> None:  # fmt: skip
    config.write_text(GOOD.replace("models/x", str(bundle_folder)).replace(old, new), encoding="utf-8")
    assert main([command, "--config", str(config)]) == code
    assert says in "".join(capsys.readouterr())


def test_an_annotation_where_nobody_can_look_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vision", "--source", LONG, "--annotate", f"{LONG}/out.png"]) == 66
    assert "no such folder" in capsys.readouterr().err
    assert main(["vision", "--source", f"no://{LONG}"]) == 2
    assert "only rtsp://" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("run",), ("vision",), ("demo",), ("bench", "--invocations", "1")])
def test_no_temporary_folder_is_one_line(
    command: tuple[str, ...], bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = config_package.development().models.model_copy(update={"bundle": bundle_folder})
    made = config_package.development().model_copy(update={"models": models})
    monkeypatch.setattr(config_package, "development", lambda *_: made)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    assert main(command) == 74
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("edge: No usable temporary directory found in ['/nowhere']: mend the path")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert main(command) == 74
    assert "edge: /nowhere/edge-" in capsys.readouterr().err


def test_an_error_of_the_system_that_names_nothing_is_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = "no number, no name"
        raise OSError(msg)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", fail)
    with pytest.raises(OSError, match="no number"):
        main(["vision"])


@pytest.mark.parametrize("command", ["doctor", "vision", "publish"])
def test_no_command_leaves_a_core_dump(command: str) -> None:
    """`edge doctor` takes a picture too."""
    program = (
        "import resource, edge.cli as cli, sys\ncli.main(sys.argv[1:])\nprint(resource.getrlimit(resource.RLIMIT_CORE))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, command, "--config", "none.toml"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "(0, 0)"


def test_run_without_a_broker_prints_its_own_windows(
    config: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GOOD.replace("models/x", str(bundle_folder)).replace("clip.mp4", str(PORTRAIT))
    config.write_text(text.replace('site = "lobby"', 'site = "lobby"\nmode = "development"'), encoding="utf-8")
    seen = []
    for _ in range(2):
        assert main(["run", "--config", str(config)]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        seen.append(json.loads(line))
    assert [(m["site"], m["seq"]) for m in seen] == [("lobby", 1)] * 2
    assert seen[0]["boot_id"] != seen[1]["boot_id"], "not those of the run before, which the outbox still holds"


def test_what_run_watches_by_its_source_is_left_to_no_publisher(
    config: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GOOD.replace("models/x", str(bundle_folder)) + '[mqtt]\nhost = "localhost"\n'
    config.write_text(text.replace('site = "lobby"', 'site = "lobby"\nmode = "development"'), encoding="utf-8")
    assert main(["run", "--config", str(config), "--source", str(PORTRAIT)]) == 0
    assert json.loads(capsys.readouterr().out)["site"] == "lobby"
    assert not (config.parent / "outbox.db").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--annotate", "out.png"], "--annotate is refused"), (["--source", "x.png"], "--source is refused")],
)
def test_production_shows_no_faces(
    config: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vision", "--config", str(config), *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["vision", "--config", "gone.toml"], 2),
        (["check-config", "--config", "gone.toml"], 2),
        (["publish"], 2),
        (["status"], 2),
    ],
)
def test_an_error_is_a_sentence(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert err.startswith("edge: ")
    assert "Traceback" not in err


def test_a_missing_bundle_is_65(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vision", "--config", str(config)]) == 65
    assert "manifest.json" in capsys.readouterr().err


def test_a_missing_clip_is_66(config: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(GOOD.replace("models/x", str(bundle_folder)), encoding="utf-8")
    assert main(["vision", "--config", str(config)]) == 66
    assert "clip.mp4: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["vision", "--speed", "9"]])
def test_an_unknown_command_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_status_before_the_first_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == {"running": False, "vision": None, "outbox": None}


def test_bench_times_each_model_and_the_chain(
    config: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(GOOD.replace("models/x", str(bundle_folder)), encoding="utf-8")
    counts = ["--invocations", "3", "--frames", "4"]
    assert main(["bench", "--config", str(config), "--accelerator", "cpu", *counts]) == 0
    said = capsys.readouterr().out
    assert re.search(r"on cpu +p50 ms +p95 ms\ndetector +[\d.]+ +[\d.]+\ngate +[\d.]+ +[\d.]+\nfer_unmasked ", said)
    assert re.search(
        r"whole chain +[\d.]+ frames a second, detector blazeface on cpu; ms a frame: classify [\d.]+, detect ", said
    )
    assert main(["bench", "--config", str(config), "--json", *counts]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["invoke_ms"]) == {"detector", "gate", "fer_unmasked", "fer_masked"}
    assert told["detector"] == "blazeface on cpu"
    assert told["fps"] > 0
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--frames", "0"])


def test_status(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(**changes: object) -> str:
        write_vision(config.parent / "run", vision_file().model_copy(update=changes))
        assert main(["status", "--config", str(config)]) == 0
        return capsys.readouterr().out

    assert main(["status", "--config", str(config)]) == 0
    assert "has not run since boot" in capsys.readouterr().out
    (config.parent / "run").mkdir()
    vision(config.parent).close()
    assert "running, rate ok on cpu, scene ok" in said()
    assert "running, rate ok on cpu, paused" in said(paused=True)
    assert "\ndetector haar on cpu\n" in said(detector="haar on cpu")
    assert re.search(r"does not run, last heard of 6\d s ago", said(updated=time.monotonic() - 60))
    assert "does not run, last heard of before this boot" in said(updated=time.monotonic() + 1e6)
    assert "ended" in said(state="ended")
    assert main(["status", "--config", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["running"], told["outbox"]) == (False, {"unsent": 0, "oldest_s": 0.0})


SECRET = "rtsp://u:secret@h:99999/x"  # noqa: S105 - what must not be printed


@pytest.mark.parametrize("command", ["run", "vision", "demo"])
@pytest.mark.parametrize("source", ["", SECRET, "rtsp://u:secret@", "rtsp://u:secret@[/x", "rtsp://u:pa/secret@h/x"])
def test_a_source_that_will_not_do_is_one_line_without_its_secret(
    command: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--source", source]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("edge: --source: ")
    assert err.count("\n") == 1
    assert "secret" not in out + err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "replay"\nsource = "clip.mp4"', f'kind = "picamera2"\nsource = "{SECRET}"'),
        ('kind = "replay"\nsource = "clip.mp4"', f'kind = "rtsp"\nsource = "{SECRET}"'),
        ('source = "clip.mp4"', f'source = "{SECRET}"'),
        ('source = "clip.mp4"', f'source = "clip.mp4"\n"{SECRET}" = 1'),
        ("[storage]", f'[mqtt]\nhost = "{SECRET}"\n[storage]'),
        ('bundle = "models/x"', f'bundle = "{SECRET}"'),
        ('bundle = "models/x"', f'bundle = "models/x"\npublic_key = "{SECRET}"'),
        ('"audience-statistics"', f'"work {SECRET}"'),
    ],
)
def test_whatever_the_command_no_secret_is_printed(
    config: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GOOD.replace("signage", 'mode = "development"\nsignage')
    assert old in text
    config.write_text(text.replace(old, new), encoding="utf-8")
    for command in ("check-config", "check-config --json", "doctor", "doctor --json", "vision", "run", "bench"):
        main([*command.split(), "--config", str(config)])
        out, err = capsys.readouterr()
        assert out + err
        assert "secret" not in out + err, command


def test_an_argument_that_nobody_asked_for_is_not_repeated_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["vision", "--sourc3", SECRET, "\x1b[2J"])
    err = capsys.readouterr().err
    assert "unrecognized arguments" in err
    assert "secret" not in err
    assert "\x1b" not in err


def test_a_name_cannot_speak_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = tmp_path / "a\x1b[2J\nedge: all is well\udcff.toml"
    name.write_text("[device]\n")
    for arguments in (["check-config", "--config", str(name)], ["vision", "--config", str(name) + "x"]):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err
        assert "\nedge: all" not in out + err


def test_a_source_whose_name_is_no_utf8_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vision", "--source", os.fsdecode(b"caf\xe9.mp4")]) == ConfigError.exit_code
    assert capsys.readouterr().err == (
        "edge: --source: the name is no UTF-8: rename the file, or give the folder it lies in\n"
    )


def test_status_shows_nothing_that_is_no_word_of_visions(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    figures = vision_file().model_copy(update={"detector": "\x1b]0;title\x07", "updated": time.monotonic()})
    write_vision(tmp_path / "run", figures)
    assert main(["status", "--config", str(config)]) == 74
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "vision.json is not what it should be" in said.err
