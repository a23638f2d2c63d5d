"""`edge check-config`: every problem of a configuration, and of the files it names."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization

from edge.cli import main
from edge.errors import install
from tests.support.certificates import certificate
from tests.support.config_text import GOOD

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_check_config_says_ok(config: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(GOOD.replace("models/x", str(bundle_folder)), encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 0
    assert "ok: lobby/kiosk-07" in capsys.readouterr().out


def test_check_config_lists_every_problem(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(GOOD.replace("lobby", "L O").replace("bundle", "bundel"), encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 2
    out = capsys.readouterr().out
    assert f"{config}:3: device.site" in out
    assert "did you mean bundle?" in out
    assert "3 problems" in out


def test_check_config_for_a_program(config: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(GOOD.replace("models/x", str(bundle_folder)), encoding="utf-8")
    assert main(["check-config", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(config), "ok": True, "problems": []}
    config.write_text(GOOD.replace("lobby", "L O"), encoding="utf-8")
    assert main(["check-config", "--json", "--config", str(config)]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert (answer["problems"][0]["line"], answer["problems"][0]["key"]) == (3, "device.site")


def test_check_config_tells_a_program_of_a_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-config", "--json", "--config", str(tmp_path / "none.toml")]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert "No such file" in answer["problems"][0]["message"]


def test_check_config_names_a_missing_bundle(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(config)]) == 2
    assert capsys.readouterr().out.startswith(f"{config}:10: models.bundle: ")


def test_check_config_knows_that_an_edge_tpu_needs_compiled_models(
    config: Path, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = shutil.copytree(bundle_folder, tmp_path / "bundle", ignore=shutil.ignore_patterns("*.keras"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    for entry in manifest["models"]:
        entry["edgetpu"] = None
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    config.write_text(GOOD.replace('"models/x"', f'"{bundle}"\naccelerator = "edgetpu"'))
    assert main(["check-config", "--config", str(config)]) == 2
    assert "models.bundle: " in (said := capsys.readouterr().out)
    assert "no model of role detector is compiled for the Edge TPU: run edge-quantize compile" in said


def test_check_config_without_a_runtime_says_what_it_left_out(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine with the base install only, the configuration itself is still checked."""
    monkeypatch.setitem(sys.modules, "edge.inference.cpu", None)
    assert main(["check-config", "--config", str(config)]) == 0
    said = capsys.readouterr()
    assert "ok: lobby/kiosk-07" in said.out
    assert "the bundle was not checked" in said.err
    assert said.err.endswith(f": {install('device')}\n")


def test_check_config_reads_the_certificates(
    tmp_path: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f"""[device]
id = "kiosk-07"
site = "lobby"
purpose = "test"
mode = "development"
[camera]
kind = "v4l2"
[models]
bundle = '{bundle_folder}'
[mqtt]
host = "broker.local"
tls = {{ ca = "ca.crt", cert = "device.crt", key = "device.key" }}
"""
    )

    def told() -> str:
        main(["check-config", "--config", str(config)])
        return capsys.readouterr().out

    places = [f"{config}:12: mqtt.tls.{key}: {tmp_path}/" for key in ("ca", "cert", "key")]
    for place, name, line in zip(places, ("ca.crt", "device.crt", "device.key"), told().splitlines()[:3], strict=True):
        assert line == f"{place}{name} does not exist: put it there, or mend the path"
    certificate(tmp_path, "ca", "test CA")
    certificate(tmp_path, "device", "kiosk-07", "ca")
    assert ": ok: " in told()
    key = (tmp_path / "device.key").read_bytes()
    (tmp_path / "device.key").write_bytes((tmp_path / "ca.key").read_bytes())
    assert f"{config}:12: mqtt.tls.cert: {tmp_path}/device.crt and its key cannot be used" in told()
    loaded = serialization.load_pem_private_key(key, None)
    secret = serialization.BestAvailableEncryption(b"secret")
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "device.key").write_bytes(loaded.private_bytes(*pem, secret))
    assert "need no password" in told()
    certificate(tmp_path, "device", "kiosk-07", "ca", days=-1)
    assert "ended on" in told()
    (tmp_path / "ca.crt").write_text("no certificate")
    (tmp_path / "device.key").write_text("no key")
    *lines, last = told().splitlines()
    for place, why, line in zip(
        (places[0], places[1], places[1]), ("PEM certificate", "no password", "renew it"), lines, strict=True
    ):
        assert line.startswith(place)
        assert line.endswith(why)
    assert last == "3 problems"


def test_check_config_names_a_kill_switch_that_the_unit_would_not_see(
    config: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An update asks for this before anything is switched."""
    text = GOOD.replace("models/x", str(bundle_folder)) + '[kill_switch]\nfile = "/tmp/pause"\n'
    config.write_text(text, encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 2
    line = text.splitlines().index('file = "/tmp/pause"') + 1
    assert f"{config}:{line}: kill_switch.file: /tmp/pause lies below /tmp" in capsys.readouterr().out
