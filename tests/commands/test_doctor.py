"""What `edge doctor` finds: each trouble is made for real, where that needs no hardware."""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edge.commands.doctor import device, run_doctor, service
from edge.commands.doctor import tpu as tpu_module
from edge.commands.doctor.broker import broker
from edge.commands.doctor.tpu import library, tpu
from edge.errors import install
from edge.inference.coral import Device
from edge.outbox.runtime_files import VisionFile, write_vision
from edge.outbox.writer import open_for_vision
from tests.conftest import MATERIAL, ROOT
from tests.support.appliance import closing, vision, vision_file
from tests.support.broker import MOSQUITTO, Mosquitto, free_port, needs_mosquitto
from tests.support.certificates import certificate, mutual_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edge.commands.doctor.finding import Finding
    from edge.config import Config
    from tests.support.edgetpu import StandIn

    Make = Callable[..., Config]

FILE = """\
[device]
id = "kiosk-07"
site = "lobby"
purpose = "audience-statistics"
signage_acknowledged = true
[camera]
kind = "replay"
source = "{clip}"
[models]
bundle = "{bundle}"
[storage]
outbox = "outbox.db"
runtime = "run"
"""


def worst(findings: Iterable[Finding], check: str = "") -> Finding:
    """The gravest finding, of one check if that is named; every one that is not ok says why and how to mend it."""
    found = [f for f in findings if f.check == check or not check]
    for finding in found:
        assert bool(finding.why) == bool(finding.mend) == (finding.level != "ok"), finding
    return max(found, key=lambda f: ("ok", "warning", "error").index(f.level))


def figures(**changes: object) -> VisionFile:
    """What a running vision service says."""
    return vision_file().model_copy(update=changes)


def test_the_command_says_everything_and_answers_by_severity(
    tmp_path: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = MATERIAL / "astronaut.png"
    path = tmp_path / "config.toml"
    path.write_text(FILE.format(clip=clip, bundle=bundle_folder))
    code = run_doctor(path)
    lines = capsys.readouterr().out
    assert code in {1, 2}, "no key, vision not running; an unset clock is an error"
    assert "models.public_key is not set" in lines
    assert "camera   replay" in lines
    path.write_text(FILE.format(clip="gone.mp4", bundle=bundle_folder).replace("lobby", "L O"))
    assert run_doctor(path, as_json=True) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["worst"] == "error"
    assert f"{path}:3: device.site" in said["findings"][0]["what"]
    assert all(f["why"] and f["mend"] for f in said["findings"] if f["level"] != "ok")


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    assert run_doctor(tmp_path / "gone.toml") == 2


def test_camera(settings: Make, tmp_path: Path) -> None:
    absent = settings(tmp_path / "x.mp4", camera={"kind": "v4l2", "source": str(tmp_path / "video9")})
    assert worst(device.cameras(absent, running=False)).level == "error"
    assert "in use" in worst(device.cameras(absent, running=True)).what
    assert "no such file" in worst(device.cameras(settings(tmp_path / "gone.mp4"), running=False)).what


def test_a_camera_s_password_is_not_shown(settings: Make, tmp_path: Path) -> None:
    url = f"rtsp://127.0.0.1:{free_port()}/x?secret=hunter2"
    config = settings(tmp_path / "x.mp4", camera={"kind": "rtsp", "source": url})
    for running in (True, False):
        assert "hunter2" not in repr(list(device.cameras(config, running=running)))


def test_an_rtsps_camera_that_nobody_verifies_is_named(settings: Make, tmp_path: Path) -> None:
    url = f"rtsps://kiosk:hunter2@127.0.0.1:{free_port()}/x"
    config = settings(tmp_path / "x.mp4", camera={"kind": "rtsp", "source": url, "unverified_tls": True})
    found = list(device.cameras(config, running=True))
    assert worst(found).level == "warning"
    assert "nobody verifies which camera answers" in worst(found).what
    assert "hunter2" not in repr(found)


def test_models_without_a_runtime(settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edge.inference.cpu", None)
    found = worst(service.models(settings(tmp_path / "x.mp4")))
    assert (found.level, found.mend) == ("error", install("device"))


def test_models(settings: Make, tmp_path: Path, bundle_folder: Path) -> None:
    assert worst(service.models(settings(tmp_path / "x.mp4"))).level == "ok"
    broken = tmp_path / "bundle"
    broken.mkdir()
    for file in bundle_folder.iterdir():
        if file.is_file():
            (broken / file.name).write_bytes(file.read_bytes())
    gate = next(broken.glob("*gate*.tflite"))
    gate.write_bytes(gate.read_bytes()[:-1] + b"?")
    assert gate.name in worst(service.models(settings(tmp_path / "x.mp4", models={"bundle": broken}))).what


def test_vision(settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path / "x.mp4", kill_switch={"file": tmp_path / "pause"})
    config.storage.runtime.mkdir()
    assert service.figures(config) is None
    assert "does not run" in worst(service.vision(config, None)).what
    write_vision(config.storage.runtime, figures(updated=time.monotonic() - 60))
    assert service.figures(config) is None, "too old"
    write_vision(config.storage.runtime, figures())
    told = service.figures(config)
    assert worst(service.vision(config, told)).level == "ok"
    for change, says in (({"scene": "covered"}, "covered"), ({"paused": True}, "paused")):
        assert says in worst(service.vision(config, figures(**change))).what
    (tmp_path / "pause").touch()
    seen = worst(service.vision(config, figures(paused=True)))
    assert (seen.level, seen.what) == ("warning", f"the kill switch {tmp_path / 'pause'} is there")
    assert worst(service.vision(config, told)).level == "warning", "it was laid there just now"
    monkeypatch.setattr(service, "_SEEN_S", -1)
    unseen = worst(service.vision(config, told))
    assert unseen.level == "error"
    assert "vision does not see it" in unseen.what


@pytest.mark.parametrize(
    ("file", "mode", "level"),
    [
        ("etc/edge/pause", "production", "ok"),
        ("tmp/pause", "production", "error"),
        ("var/tmp/edge/pause", "production", "error"),
        ("run/../tmp/pause", "production", "error"),
        ("tmpfiles/pause", "production", "ok"),
        ("tmp/pause", "development", "ok"),
    ],
)
def test_a_kill_switch_that_the_unit_would_never_see(
    settings: Make, tmp_path: Path, file: str, mode: str, level: str
) -> None:
    """PrivateTmp: the service has a /tmp of its own, and a bench has not."""
    given = {"mode": mode, "signage_acknowledged": True, "purpose": "test"}
    config = settings(tmp_path / "x.mp4", kill_switch={"file": Path("/", file)}, device=given)
    grave = [found for found in service.configuration(tmp_path / "config.toml", config) if found.level == "error"]
    assert ["kill_switch.file" in found.what and bool(found.mend) for found in grave] == [True] * (level == "error")


def test_a_release_that_nobody_has_confirmed(tmp_path: Path) -> None:
    file = tmp_path / "trial.json"
    assert list(service.trial(file)) == []
    for text, says in (('{"from": "1.0", "to": "1.1"}', "1.1 is on trial"), ("[", "a release is on trial")):
        file.write_text(text)
        assert says in worst(service.trial(file), "release").what
    file.write_text('{"from": "1.0", "to": "1.1"}')
    assert "back to 1.0 by itself" in worst(service.trial(file)).why


def test_board(tmp_path: Path) -> None:
    assert worst(device.board(tmp_path)).level == "ok"
    throttled = tmp_path / "devices/platform/soc/soc:firmware/get_throttled"
    throttled.parent.mkdir(parents=True)
    for text, level in (("0\n", "ok"), ("50005\n", "error"), ("50000\n", "warning")):
        throttled.write_text(text)
        assert worst(device.board(tmp_path), "power").level == level
    throttled.unlink()
    sensor = tmp_path / "class/hwmon/hwmon1"
    sensor.mkdir(parents=True)
    (sensor / "name").write_text("rpi_volt\n")
    for text, level in (("0\n", "ok"), ("1\n", "error")):
        (sensor / "in0_lcrit_alarm").write_text(text)
        assert worst(device.board(tmp_path), "power").level == level
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("81500\n")
    assert worst(device.board(tmp_path), "heat").what == "81.5 °C"


def test_tpu(settings: Make, tmp_path: Path, tpus: StandIn, bundle_folder: Path, compiled_bundle: Path) -> None:
    def asked(told: VisionFile | None = None, **models: object) -> Finding:
        config = settings(tmp_path / "x.mp4", models={"bundle": compiled_bundle, "strategy": "single", **models})
        return worst(tpu(config, told, (tmp_path / "rules",)))

    assert asked(accelerator="cpu").level == asked().level == "ok"
    assert "none on USB" in asked(accelerator="edgetpu").what
    assert "none on USB" in asked(figures(backend="cpu:fallback")).what
    stick, used = tpus.plug(), figures(backend="edgetpu")
    assert "no udev rule names 18d1:9302 or 1a6e:089a" in asked(used).what
    (tmp_path / "rules").mkdir()
    rules = (ROOT / "systemd" / "99-edge-tpu.rules").read_text()
    installed = tmp_path / "rules" / "99-edge-tpu.rules"
    installed.write_text(rules.replace("18d1", "18d2"))
    assert "no udev rule names 18d1:9302" in asked(used).what
    installed.write_text(rules)
    assert asked().level == "ok"
    *_, computes = tpu(settings(tmp_path / "x.mp4", models={"bundle": compiled_bundle}), None, (tmp_path / "rules",))
    assert computes.what == "edgetpu: golden answers right (detector, gate, fer_unmasked, fer_masked)"
    assert "not compiled" in asked(bundle=bundle_folder).what
    for word, says in (("segv", "another runtime"), ("refuse", "see the message"), ("misplace", "see the message")):
        tpus.tell(word)
        assert says in asked().mend
    assert asked(used).level == "ok", "the service has it"
    assert asked(figures(backend="cpu:fallback")).level == "error"
    (stick / "speed").write_text("480\n")
    assert "480 Mbit/s" in asked(used).what


@pytest.mark.parametrize(
    ("version", "runtime", "level"),
    [
        ("16.0", "auto", "error"),
        ("16.0", "litert", "error"),
        ("16.0tf2.9.1-1", "litert", "error"),
        ("16.0tf2.19.1-1.bookworm", "auto", "ok"),
        ("16.0tf2.19.1-1.bookworm", "litert", "ok"),
        ("16.0~own", "auto", "ok"),
    ],
)
def test_a_libedgetpu_that_does_not_fit_the_worker_s_runtime_is_named(
    settings: Make, tmp_path: Path, version: str, runtime: str, level: str
) -> None:
    config = settings(tmp_path / "x.mp4", models={"runtime": runtime})
    assert list(library(config, tmp_path)) == [], "no package"
    dpkg_database(tmp_path, "libedgetpu1-std", version)
    found = worst(library(config, tmp_path))
    taken = "tflite 2.14.0" if runtime == "auto" and find_spec("tflite_runtime") else "litert 2."
    assert found.level == level
    assert f"libedgetpu1-std {version}" in found.what
    assert taken in found.what
    if level == "error":
        assert "16.0tf2.19.1-1" in found.mend
    dpkg_database(tmp_path, "libedgetpu1-std", version, "deinstall ok config-files")
    assert list(library(config, tmp_path)) == [], "a package that was removed"


def dpkg_database(folder: Path, name: str, version: str, status: str = "install ok installed") -> None:
    """A database of dpkg's with one package, as `dpkg-query` reads it."""
    (folder / "info").mkdir(exist_ok=True)
    (folder / "updates").mkdir(exist_ok=True)
    fields = f"Package: {name}\nStatus: {status}\nMaintainer: x <x@example.org>\nArchitecture: arm64\n"
    (folder / "status").write_text(f"{fields}Version: {version}\nDescription: x\n")


def test_a_runtime_that_is_named_and_not_installed(
    settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path / "x.mp4", models={"runtime": "tflite"})
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    said = worst(service.models(config))
    assert said.level == "error"
    assert 'models.runtime = "tflite"' in said.what
    assert said.mend == "see the message"


def test_the_runtime_that_runs_the_models_is_said(settings: Make, tmp_path: Path) -> None:
    config = settings(tmp_path / "x.mp4", models={"runtime": "litert"})
    assert "golden answers right with litert 2." in next(iter(service.models(config))).what


def test_who_may_open_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "apex_0"
    node.touch(0o600)
    monkeypatch.setattr(tpu_module, "USER", "nobody")
    closed = worst(tpu_module._device(Device("pci", str(node), "driver apex")))
    assert "closed to user nobody" in closed.what
    node.chmod(0o666)
    assert worst(tpu_module._device(Device("pci", str(node), "driver apex"))).level == "ok"


def test_clock(settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path / "x.mp4")
    for synced, level in ((True, "ok"), (False, "error")):
        monkeypatch.setattr(device, "SystemClock", lambda _, *, remember, s=synced: _Clock(s and not remember))
        assert worst(device.clock(config)).level == level


class _Clock:
    def __init__(self, synced: bool) -> None:  # noqa: FBT001
        self.synced = synced

    def time_quality(self) -> str:
        return "synced" if self.synced else "unsynced"


def test_storage(settings: Make, tmp_path: Path) -> None:
    config = settings(tmp_path / "x.mp4", mqtt={"host": "127.0.0.1"})
    assert worst(device.storage(config)).level == "ok"
    big = settings(tmp_path / "x.mp4", storage={"max_bytes": 2**60})
    assert "the outbox may grow" in worst(device.storage(big)).what
    with vision(tmp_path) as outbox:
        outbox.commit(closing())
    assert worst(device.storage(config), "outbox").what.startswith("1 windows wait")
    opened, _ = open_for_vision(tmp_path / "outbox.db")
    with opened:
        opened._db.execute("UPDATE rows SET committed_mono = committed_mono - 1e6, committed = committed - 1e6")
    assert worst(device.storage(config), "outbox").level == "warning"
    (tmp_path / "outbox.db.damaged-1").touch()
    (tmp_path / "outbox.db.moved-2").touch()
    aside = [found for found in device.storage(config) if "put aside" in found.what]
    assert ["damaged-1 " in aside[0].what, "moved-2 " in aside[1].what] == [True, True]
    assert "another site or id" in aside[1].mend
    (tmp_path / "outbox.db").write_bytes(b"no database" * 1000)
    assert worst(device.storage(config), "outbox").level == "error"
    nowhere = settings(tmp_path / "x.mp4", storage={"outbox": tmp_path / "gone" / "outbox.db"})
    assert "not there" in worst(device.storage(nowhere)).what


def test_broker_that_cannot_be_reached(settings: Make, tmp_path: Path) -> None:
    assert worst(broker(settings(tmp_path / "x.mp4"))).level == "ok"
    port = free_port()
    assert (
        f"tcp: 127.0.0.1:{port} cannot"
        in worst(broker(settings(tmp_path / "x.mp4", mqtt={"host": "127.0.0.1", "port": port}))).what
    )
    unknown = settings(tmp_path / "x.mp4", mqtt={"host": "nobody.invalid", "insecure": True})
    assert "nobody.invalid is not resolved" in worst(broker(unknown)).what


ACL_DENIES = "topic read #\n"
ACL_SILENT = "topic write #\n"


@needs_mosquitto
def test_broker_tls(settings: Make, tmp_path: Path) -> None:
    certificate(tmp_path, "ca", "test CA")
    certificate(tmp_path, "other", "another CA")
    certificate(tmp_path, "server", "localhost", "ca", days=100)
    certificate(tmp_path, "soon", "localhost", "ca", days=29)
    certificate(tmp_path, "late", "localhost", "ca", days=-1)
    certificate(tmp_path, "device", "kiosk-07", "ca", days=100)
    certificate(tmp_path, "ending", "kiosk-07", "ca", days=3)

    def grave(there: Mosquitto, ca: str = "ca", device: str = "device") -> Finding:
        files = {"ca": tmp_path / f"{ca}.crt", "cert": tmp_path / f"{device}.crt", "key": tmp_path / f"{device}.key"}
        return worst(broker(settings(tmp_path / "x.mp4", mqtt={"host": "localhost", "port": there.port, "tls": files})))

    with Mosquitto(tmp_path, mutual_tls(tmp_path)) as there:
        assert grave(there).level == "ok"
        assert "ends in 3 days" in grave(there, device="ending").what
        assert "must be the CA that signed" in grave(there, ca="other").mend
        assert "signer: " in grave(there, ca="other").what
        assert "tls.cert" in grave(there, device="gone").what
    with Mosquitto(tmp_path, mutual_tls(tmp_path).replace("server.", "soon.")) as there:
        assert grave(there).level == "warning"
        assert "the broker's certificate is good and ends in 29 days" in grave(there).what
    with Mosquitto(tmp_path, mutual_tls(tmp_path).replace("server.", "late.")) as there:
        assert "needs a new certificate" in grave(there).mend
        assert "expiry: " in grave(there).what
    with Mosquitto(tmp_path) as plain:
        assert "is this the TLS port?" in grave(plain).mend


@needs_mosquitto
@pytest.mark.parametrize(
    ("lines", "protocol", "home_assistant", "level", "says"),
    [
        ("", "5", "homeassistant", "ok", ""),
        ("max_packet_size 4096", "5", "homeassistant", "warning", "over the broker's limit of 4096"),
        ("max_packet_size 4096", "3.1.1", "homeassistant", "warning", "or the broker hung up on it"),
        ("message_size_limit 4096", "5", "homeassistant", "warning", "was not answered, or"),
        ("max_packet_size 5000", "5", None, "ok", ""),
        ("max_packet_size 2000", "5", None, "error", "(counts, 4096 bytes) is over"),
    ],
)
def test_the_largest_message_is_tried(
    settings: Make, tmp_path: Path, lines: str, protocol: str, home_assistant: str | None, level: str, says: str
) -> None:
    with Mosquitto(tmp_path, lines) as there:
        mqtt = {"host": "127.0.0.1", "port": there.port, "protocol": protocol}
        more = {} if home_assistant is None else {"home_assistant": home_assistant}
        grave = worst(broker(settings(tmp_path / "x.mp4", mqtt=mqtt | more)))
    assert (grave.level, says in grave.what) == (level, True), grave


@needs_mosquitto
@pytest.mark.parametrize(
    ("lines", "acl", "protocol", "level", "says"),
    [
        ("", "topic readwrite #\n", "5", "ok", ""),
        ("", ACL_DENIES, "5", "error", "was not taken (0x87"),
        ("", ACL_DENIES, "3.1.1", "error", "thrown away"),
        ("", ACL_SILENT, "5", "warning", "did not come back"),
        ("allow_anonymous false\npassword_file {folder}/none", None, "5", "error", "login: "),
    ],
)
def test_broker_publish_right_by_delivery(
    settings: Make, tmp_path: Path, lines: str, acl: str | None, protocol: str, level: str, says: str
) -> None:
    assert MOSQUITTO
    if acl is not None:
        (tmp_path / "acl").write_text(acl)
        lines = f"acl_file {tmp_path / 'acl'}"
    (tmp_path / "none").touch(0o600)
    with Mosquitto(tmp_path, lines.format(folder=tmp_path)) as there:
        config = settings(tmp_path / "x.mp4", mqtt={"host": "127.0.0.1", "port": there.port, "protocol": protocol})
        found = list(broker(config))
    grave = worst(found)
    assert grave.level == level, found
    assert says in grave.what + grave.why
