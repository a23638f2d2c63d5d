"""A trial that nobody ends undoes itself; what a trial and its end leave behind on the device."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.edge_release import PYTHON, packed, runs, update

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def asked(device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What the program has run, as it goes on."""
    commands: list[tuple[str, ...]] = []

    def run(*command: str, **_: object) -> CompletedProcess[str]:
        commands.append(command)
        return CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(device, "_run", run)
    return commands


def timers(asked: list[tuple[str, ...]]) -> list[str]:
    """The timers that were begun, and those that were stopped with a minus before them."""
    begun = {command: word[len("--unit=") :] for command in asked for word in command if word.startswith("--unit=")}
    return [
        begun[command] if command in begun else f"-{command[2].removesuffix('.timer')}"
        for command in asked
        if command in begun or (command[:2] == ("systemctl", "stop") and command[2].startswith("edge-trial-"))
    ]


def test_a_trial_that_nobody_ends_undoes_itself(
    device: ModuleType,
    asked: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A control host that goes away rescues nobody: systemd does, and a boot forgets this timer."""
    monkeypatch.setattr(sys, "argv", ["edge-release", "switch", "2", "--within", "4711"])
    assert device.main() == 0
    capsys.readouterr()
    (began,) = [command for command in asked if command[0] == "systemd-run"]
    name = json.loads(device.TRIAL.read_text())["name"]
    assert {f"--unit=edge-trial-{name}", "--on-active=4711", "--collect"} <= set(began)
    program, *arguments = began[began.index(str(device.PROGRAM)) :]
    assert program == "/opt/edge/bin/edge-release"
    monkeypatch.setattr(sys, "argv", ["edge-release", *arguments])  # the timer fires
    assert device.main() == 0
    assert runs(device) == ("1", "config 1")
    assert timers(asked) == [f"edge-trial-{name}", f"-edge-trial-{name}"]
    monkeypatch.setattr(sys, "argv", ["edge-release", "rollback"])
    device._link(device.PREVIOUS, device.RELEASES / "2")
    (device.RELEASES / "2/config.toml").write_text("config 2")
    assert device.main() == 0
    assert [command for command in asked if "--on-active=1800" in command], "unless it is told"


def test_the_end_of_a_trial_that_is_over_leaves_another_alone(device: ModuleType, asked: list[tuple[str, ...]]) -> None:
    device.switch("2")
    first = json.loads(device.TRIAL.read_text())["name"]
    device.confirm("2")
    device.switch("1")
    second = json.loads(device.TRIAL.read_text())["name"]
    assert timers(asked) == [f"edge-trial-{first}", f"-edge-trial-{first}", f"edge-trial-{second}"]
    device.revert(boot=False, trial=first)
    assert device.status()["trial"] == "1"
    device.revert(boot=False, trial=second)
    assert device.status()["trial"] is None
    device.revert(boot=False, trial=second)
    assert runs(device)[0] == "2"


def test_a_trial_from_before_they_had_names_ends_too(device: ModuleType) -> None:
    device.switch("2")
    device.TRIAL.write_text('{"from": "1", "to": "2"}')
    device.revert(boot=False, trial="4711")
    assert runs(device) == ("2", "config 2")
    device.revert(boot=True)
    assert runs(device) == ("1", "config 1")


def test_nothing_is_touched_for_a_trial_that_would_have_no_end(
    device: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_run", lambda *command, **_: CompletedProcess(command, 1, "", "no bus"))
    with pytest.raises(device.Refused, match=r"systemd-run: no bus: nothing was switched"):
        device.switch("2")
    assert (runs(device), device.TRIAL.exists()) == (("1", "config 1"), False)


def test_a_confirmation_and_the_end_of_the_same_trial_do_not_meet(device: ModuleType) -> None:
    device.switch("2")
    confirming = threading.Thread(target=device.confirm, args=("2",))
    with device._alone():
        confirming.start()
        confirming.join(0.2)
        assert device.TRIAL.exists()
    confirming.join()
    device.revert(boot=False)
    assert runs(device) == ("2", "config 2")


def test_releases_that_failed_do_not_pile_up(device: ModuleType, tmp_path: Path) -> None:
    """Only a confirmation removed any: after some that failed the card was full."""
    for version in ("3", "4"):
        (device.RELEASES / version).mkdir()
        (device.RELEASES / version / "complete").write_text(version)
    tarball = packed(tmp_path, json.dumps({"python": PYTHON, "version": "4", "bundle": "b"}))
    sha256 = hashlib.sha256(tarball.read_bytes()).hexdigest()
    (device.RELEASES / "4/complete").write_text(sha256)
    device.switch("3")
    assert device.stage(tarball, sha256) == "4"
    assert set(device.status()["releases"]) == {"1", "2", "3", "4"}, "nothing is removed under a trial"
    assert not tarball.exists(), "used up, though it was there already"
    device.revert(boot=True)
    packed(tmp_path, json.dumps({"python": PYTHON, "version": "4", "bundle": "b"}))
    device.stage(tarball, sha256)
    assert set(device.status()["releases"]) == {"1", "4"}


def test_journald_begins_anew_where_what_is_wanted_of_it_changed(
    device: ModuleType, asked: list[tuple[str, ...]]
) -> None:
    """It reads its drop-in at its start only: until the next boot logs went to the card."""
    anew = ("systemctl", "try-restart", "systemd-journald.service")

    def restarts() -> int:
        count = asked.count(anew)
        asked.clear()
        return count

    for version, storage in (("1", "volatile"), ("2", "volatile")):
        (device.RELEASES / version / "systemd").mkdir()
        (device.RELEASES / version / "systemd/journald.conf").write_text(storage)
    device.switch("1")
    assert restarts() == 1, "the first that wants anything"
    device.revert(boot=True)
    update(device)
    assert restarts() == 0
    (device.RELEASES / "1/systemd/journald.conf").write_text("auto")
    device.switch("1")
    device.revert(boot=True)
    assert restarts() == 2


def test_a_check_runs_no_code_from_the_home_of_its_user(device: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def run(*command: str, **options: Any) -> CompletedProcess[str]:  # noqa: ANN401 - subprocess's own
        given.append(options)
        return CompletedProcess(command, 0, "ok", "")

    monkeypatch.setattr(device, "_run", run)
    assert device.check("2") == "ok"
    assert given[0]["env"]["PYTHONNOUSERSITE"] == "1"
    assert given[0]["env"]["PATH"] == os.environ["PATH"]
