"""The program `edge-release` on a device of its own folders, without systemd."""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    import pytest

SOURCE = Path(__file__).resolve().parents[2] / "ansible/roles/edge/files/edge_release.py"
PYTHON = ".".join(map(str, sys.version_info[:2]))


def edge_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, on a device of its own folders: release 1 runs confirmed, 2 is staged. systemd is not there."""
    spec = importlib.util.spec_from_file_location("edge_release", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    opt, etc = tmp_path / "opt", tmp_path / "etc"
    places = {
        "RELEASES": opt / "releases",
        "CURRENT": opt / "current",
        "PREVIOUS": opt / "previous",
        "TRIAL": opt / "trial.json",
        "KEPT_CONFIG": opt / "trial-config.toml",
        "CONFIG": etc / "edge/config.toml",
        "CANDIDATE": etc / "edge/candidate.toml",
        "TLS": etc / "edge/tls",
        "ETC": etc,
        "VISION_FILE": tmp_path / "vision.json",
    }
    for name, path in places.items():
        monkeypatch.setattr(module, name, path)
        path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(module, "_run", lambda *command, **_: CompletedProcess(command, 0, "", ""))
    vars(module)["start"] = module._start
    monkeypatch.setattr(module, "_start", lambda: "boot")
    monkeypatch.setattr(module, "_sync", lambda: None)
    monkeypatch.setattr(module.shutil, "chown", lambda *_: None)
    for version in ("1", "2"):
        (opt / "releases" / version).mkdir(parents=True)
        (opt / "releases" / version / "complete").write_text(version)
    (etc / "edge/config.toml").write_text("config 1")
    (etc / "edge/candidate.toml").write_text("config 2")
    (opt / "current").symlink_to("releases/1")
    return module


def runs(device: ModuleType) -> tuple[str, str]:
    """Release and configuration that a boot starts."""
    return device.CURRENT.readlink().name, device.CONFIG.read_text()


def update(device: ModuleType) -> None:
    device.switch("2")
    device.confirm("2")


def packed(folder: Path, about: str) -> Path:
    """A release that holds nothing but what it says of itself."""
    tarball = folder / "release.tar"
    with tarfile.open(tarball, "w") as archive:
        info = tarfile.TarInfo("release.json")
        info.size = len(about.encode())
        archive.addfile(info, io.BytesIO(about.encode()))
    return tarball
