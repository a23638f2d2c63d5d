"""Fixtures of all tests: where data and the bundle lie, portraits, a configuration that runs in a folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import hypothesis
import numpy as np
import pytest

from edge.bundle.newest import newest_bundle
from edge.config import Config, StorageSection, development
from edge.inference import coral
from tests.support.edgetpu import COMPILER, StandIn, build_library, compile_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge.types import U8

hypothesis.settings.register_profile("edge", deadline=None)  # no test depends on speed
hypothesis.settings.load_profile("edge")

ROOT = Path(__file__).resolve().parents[1]
MATERIAL = ROOT / "edge" / "demo_material"


def _absent(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with clips (EDGE_DATA); skips where it is absent, fails in CI."""
    folder = Path(os.environ.get("EDGE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "clips").is_dir():
        _absent(f"no clips in {folder}: set EDGE_DATA")
    return folder


@pytest.fixture(scope="session")
def bundle_folder() -> Path:
    """The newest committed bundle, else the one being built; skips where there is none, fails in CI."""
    folder = newest_bundle(ROOT / "models")
    interim = ROOT / "build" / "bundle-interim"
    if folder is None and (interim / "manifest.json").exists():
        folder = interim
    if folder is None:
        _absent("no model bundle under models/")
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def portraits() -> dict[str, U8]:
    """The demo's portraits, BGR, by file stem."""
    found = {p.stem: cv2.imread(str(p), cv2.IMREAD_COLOR) for p in sorted(MATERIAL.glob("*.png"))}
    return {name: image.astype(np.uint8) for name, image in found.items() if image is not None}


@pytest.fixture
def settings(tmp_path: Path, bundle_folder: Path) -> Callable[..., Config]:
    """A development configuration whose files all lie in `tmp_path`; sections can be given in part."""

    def make(source: Path, **sections: dict[str, object]) -> Config:
        base = development(str(source), bundle_folder.parent)
        base = base.model_copy(
            update={
                "models": base.models.model_copy(update={"bundle": bundle_folder}),
                "storage": StorageSection(outbox=tmp_path / "outbox.db", runtime=tmp_path / "run"),
            }
        )
        whole = base.model_dump()
        (whole["camera"],) = whole["camera"]
        for name, values in sections.items():
            whole[name] = {**(whole[name] or {}), **values}
        return Config.model_validate(whole)

    return make


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """A service manager with a watchdog of an hour: call it for the messages since the last call."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3600000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

        def messages() -> list[str]:
            found = []
            while True:
                try:
                    found.append(sock.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield messages


@pytest.fixture(scope="session")
def compiled_bundle(tmp_path_factory: pytest.TempPathFactory, bundle_folder: Path) -> Path:
    """The bundle with models that only the stand-in Edge TPU can run."""
    return compile_bundle(bundle_folder, tmp_path_factory.mktemp("compiled") / "bundle")


@pytest.fixture(scope="session")
def tpu_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in's library; skips where there is no C compiler, fails in CI."""
    if COMPILER is None:
        _absent("no C compiler; install one with: apt-get install gcc libc6-dev")
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def tpus(tmp_path: Path, tpu_library: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Stand-in Edge TPUs for this process and its children; none is plugged in yet."""
    (tmp_path / "tpu").mkdir()
    standin = StandIn(tmp_path / "tpu", tpu_library)
    monkeypatch.setattr(coral, "SYSFS", standin.sysfs)
    for name, value in standin.environment.items():
        monkeypatch.setenv(name, value)
    return standin
