"""The systemd units: `systemd-analyze` finds nothing wrong, and the sandbox is as tight as promised."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "systemd"
RELEASE = UNITS.parent / "ansible/roles/edge/files/edge_release.py"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on PATH")


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )


def test_every_file_says_at_its_top_where_it_is_installed() -> None:
    """A release's are links below /etc; the drop-in is written by hand, where a camera needs it."""
    spec = importlib.util.spec_from_file_location("edge_release", RELEASE)
    assert spec is not None
    assert spec.loader is not None
    release = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(release)
    places = {file: f"/etc/{place}" for place, file in release.LINKS.items()}
    places["rtsp.conf"] = "/etc/systemd/system/edge-vision.service.d/rtsp.conf"
    assert {path.name for path in UNITS.iterdir()} == set(places)
    for file, place in places.items():
        top = (UNITS / file).read_text().splitlines()[0]
        assert re.match(rf"#.* {re.escape(place)}(:|$)", top), file


@needs_systemd
def test_units_are_verified() -> None:
    said = _analyze("verify", *(str(u) for u in sorted(UNITS.glob("edge*"))))
    others = [
        line for line in said.stderr.splitlines() if not re.search(r"Command /opt/edge/\S+ is not executable", line)
    ]
    assert not others


@needs_systemd
def test_a_unit_with_a_mistake_is_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "edge-vision.service"
    wrong.write_text((UNITS / "edge-vision.service").read_text().replace("ProtectHome=yes", "ProtectHouse=yes"))
    assert "ProtectHouse" in _analyze("verify", str(wrong)).stderr


@needs_systemd
@pytest.mark.parametrize(("service", "exposure"), [("vision", 0.6), ("publisher", 1.1), ("clock", 0.7)])
def test_exposure(service: str, exposure: float) -> None:
    said = _analyze("security", "--offline=true", "--no-pager", str(UNITS / f"edge-{service}.service"))
    found = re.search(r"Overall exposure level.*: ([\d.]+)", said.stdout)
    assert found, said.stderr
    assert float(found[1]) <= exposure


@pytest.mark.parametrize("service", ["vision", "publisher"])
def test_services_keep_their_side_of_the_wall(service: str) -> None:
    text = (UNITS / f"edge-{service}.service").read_text()
    assert "Type=notify" in text
    assert "LimitCORE=0" in text
    assert "MemorySwapMax=0" in text
    assert "StartLimitIntervalSec=0" in text
    assert not re.search(r"^(DynamicUser|StateDirectory|RuntimeDirectory)", text, re.MULTILINE)
    assert ("PrivateNetwork=yes" in text) == (service == "vision")
    assert ("PrivateDevices=yes" in text) == (service == "publisher")


@pytest.mark.parametrize("service", ["vision", "publisher", "clock"])
def test_no_service_runs_what_the_other_lays_into_its_home(service: str) -> None:
    """The virtual environment sees Debian's packages, so the user's own would be on: usercustomize.py, any *.pth."""
    assert "PYTHONNOUSERSITE=1" in _values(f"edge-{service}.service", "Environment")
    homes = re.findall(rf"^u edge-{service} .* (\S+)$", (UNITS / "sysusers.conf").read_text(), re.MULTILINE)
    assert homes == ([] if service == "clock" else ["/nonexistent"])


@pytest.mark.parametrize(
    "device",
    [
        'ATTR{idVendor}=="1a6e", ATTR{idProduct}=="089a"',
        'ATTR{idVendor}=="18d1", ATTR{idProduct}=="9302"',
        'SUBSYSTEM=="apex"',
    ],
)
def test_udev_gives_each_form_of_the_edge_tpu_to_vision(device: str) -> None:
    (rule,) = [line for line in (UNITS / "99-edge-tpu.rules").read_text().splitlines() if device in line]
    assert 'OWNER="edge-vision"' in rule


def test_no_socket_that_is_a_file_speaks_to_the_network_for_vision() -> None:
    """`PrivateNetwork` hides abstract sockets only: D-Bus and avahi would still be reached by their path."""
    hidden = set(re.findall(r"-(/\S+)", " ".join(_values("edge-vision.service", "InaccessiblePaths"))))
    assert {"/run/dbus", "/run/avahi-daemon", "/run/systemd/resolve", "/run/docker.sock", "/etc/edge/tls"} <= hidden
    for needed in ("/run/systemd/notify", "/run/systemd/journal/socket", "/run/udev", "/run/edge"):
        assert not any(needed == path or needed.startswith(f"{path}/") for path in hidden), needed


def test_each_writer_has_a_folder_that_nobody_else_writes_to() -> None:
    lines = [line.split() for line in (UNITS / "tmpfiles.conf").read_text().splitlines() if line.startswith("d ")]
    made = {path: (mode, owner) for _, path, mode, owner, *_ in lines}
    assert made["/run/edge/vision"] == ("2750", "edge-vision")
    assert made["/run/edge/publisher"] == ("2750", "edge-publisher")
    assert made["/var/lib/edge/outbox.db.ledger"] == ("0700", "edge-vision")
    shared = [mode for path, (mode, _) in made.items() if path.count("/") == made_of_two(path)]
    assert shared
    assert all(mode == "3770" for mode in shared), "sticky: nobody renames what is another's"
    assert "-/var/lib/edge/outbox.db.ledger" in _values("edge-publisher.service", "InaccessiblePaths")


def made_of_two(path: str) -> int:
    """Slashes of the folder that both services share: /run/edge has two, /var/lib/edge three."""
    return 2 if path.startswith("/run") else 3


def _values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
