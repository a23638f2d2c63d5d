"""Power cuts at every step of an update: what boots is the old release or the new one, with its own configuration."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(__file__).resolve().parents[2] / "ansible/roles/edge/files/edge_release.py"
PYTHON = ".".join(map(str, sys.version_info[:2]))
STEPS = ("replace", "unlink", "symlink_to", "open")


class PowerCut(BaseException):
    """The step at which the power went is not made."""


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a module
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


def cut_at(step: int, action: Callable[[], object]) -> bool:
    """Run an action whose `step`-th change to the disk is not made; whether it got to its end."""
    count = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def change(self: Path, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - as it comes
            nonlocal count
            if original.__name__ != "open" or "w" in (args[0] if args else kwargs.get("mode", "r")):
                count += 1
                if count > step:
                    raise PowerCut
            return original(self, *args, **kwargs)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(Path, name, counted(getattr(Path, name)))
        try:
            action()
        except PowerCut:
            return False
    return True


def runs(device: Any) -> tuple[str, str]:  # noqa: ANN401
    """Release and configuration that a boot starts."""
    return device.CURRENT.readlink().name, device.CONFIG.read_text()


def update(device: Any) -> None:  # noqa: ANN401
    device.switch("2")
    device.confirm("2")


@pytest.mark.parametrize("step", range(40))
def test_a_power_cut_leaves_the_old_or_the_new_release_never_a_mixture(device: Any, step: int) -> None:  # noqa: ANN401
    finished = cut_at(step, lambda: update(device))
    for second in range(step % 7):  # and the power goes again, while the boot reverts
        cut_at(second, lambda: device.revert(boot=True))
    device.revert(boot=True)
    assert runs(device) in {("1", "config 1"), ("2", "config 2")}
    assert not device.TRIAL.exists()
    if finished:
        assert runs(device) == ("2", "config 2")
    device.CANDIDATE.write_text("config 2")
    update(device)
    assert runs(device) == ("2", "config 2")


def test_the_cuts_reach_from_the_first_step_to_past_the_last(device: Any) -> None:  # noqa: ANN401
    assert not cut_at(0, lambda: update(device))
    assert cut_at(39, lambda: update(device))


def test_an_unconfirmed_trial_is_undone_and_a_confirmed_one_can_go_back(device: Any) -> None:  # noqa: ANN401
    device.switch("2")
    assert runs(device) == ("2", "config 2")
    with pytest.raises(device.Refused, match="another trial"):
        device.switch("1")
    device.revert(boot=True)
    assert runs(device) == ("1", "config 1")
    update(device)
    assert device.status()["previous"] == "1"
    device.rollback()
    device.confirm("1")
    assert runs(device) == ("1", "config 1")
    with pytest.raises(device.Refused, match="not on this device"):
        device.switch("3")


def renew(device: Any, name: str, *, maker: str) -> None:  # noqa: ANN401
    """As the playbook does: a folder for these certificates, and a candidate that names it."""
    folder = device.TLS / name
    folder.mkdir(parents=True)
    (folder / "device.key").write_text(name)
    device.CANDIDATE.write_text(f'public_key = "{maker}"\nkey = "{folder}/device.key"\n')


def identity(device: Any) -> tuple[str, str, str]:  # noqa: ANN401
    """Release, the maker's key and the certificates' key that a boot starts with."""
    release, config = runs(device)
    maker, path = (line.split('"')[1] for line in config.splitlines())
    return release, maker, Path(path).read_text()


FIRST, SECOND = "1" * 16, "2" * 16


@pytest.mark.parametrize("step", range(40))
def test_keys_and_certificates_come_and_go_with_the_trial(device: Any, step: int) -> None:  # noqa: ANN401
    renew(device, FIRST, maker="old")
    device.CONFIG.write_text(device.CANDIDATE.read_text())
    renew(device, SECOND, maker="new")  # a check that refuses ends here
    assert identity(device) == ("1", "old", FIRST)
    finished = cut_at(step, lambda: update(device))
    device.revert(boot=True)
    assert identity(device) in {("1", "old", FIRST), ("2", "new", SECOND)}
    assert not finished or [path.name for path in device.TLS.iterdir()] == [SECOND]


def test_a_renewal_is_a_trial_of_its_own(device: Any) -> None:  # noqa: ANN401
    renew(device, FIRST, maker="old")
    assert not device.status()["candidate_in_use"]
    device.switch("1")
    device.confirm("1")
    assert device.status()["candidate_in_use"]
    renew(device, SECOND, maker="old")
    assert not device.status()["candidate_in_use"]
    device.switch("1")
    assert identity(device) == ("1", "old", SECOND)
    device.revert(boot=False)
    assert identity(device) == ("1", "old", FIRST)


@pytest.mark.parametrize("before", ["", f"/{FIRST}"])
def test_a_rollback_takes_the_key_it_had_and_the_certificates_of_today(device: Any, before: str) -> None:  # noqa: ANN401
    """Its own may have ended; until there were folders, they lay in one place."""
    renew(device, FIRST, maker="old")
    (device.TLS / "device.key").write_text("from before")
    old = device.CANDIDATE.read_text().replace(f"/{FIRST}/", f"{before}/")
    device.CONFIG.write_text(old)
    renew(device, SECOND, maker="new")
    update(device)
    assert [path.name for path in device.TLS.iterdir()] == [SECOND]
    device.rollback()
    assert identity(device) == ("1", "old", SECOND)
    device.revert(boot=True)
    assert identity(device) == ("2", "new", SECOND)
    device.rollback()
    device.confirm("1")
    assert identity(device) == ("1", "old", SECOND)


def test_only_the_release_that_is_on_trial_is_confirmed(device: Any) -> None:  # noqa: ANN401
    with pytest.raises(device.Refused, match="release 2 is not on trial, nothing is, and 1 runs"):
        device.confirm("2")
    device.switch("2")
    with pytest.raises(device.Refused, match="release 1 is not on trial, 2 is, and 2 runs"):
        device.confirm("1")
    device.revert(boot=True)  # the power went between what the broker saw and this
    with pytest.raises(device.Refused, match="nothing is, and 1 runs"):
        device.confirm("2")
    assert runs(device) == ("1", "config 1")


def test_a_release_that_was_half_pruned_is_none(device: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: ANN401
    old = device.RELEASES / "0"
    old.mkdir()
    (old / "complete").write_text("0")

    def half(_: Path, **__: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(device.shutil, "rmtree", half)
        with pytest.raises(PowerCut):
            update(device)
        assert old.exists()
        with pytest.raises(device.Refused, match="release 0 is not on this device"):
            device.switch("0")
        (old / "complete").write_text("0")
        tarball = packed(tmp_path, json.dumps({"python": PYTHON, "version": "0", "bundle": "b"}))
        with pytest.raises(PowerCut):
            device.stage(tarball, hashlib.sha256(tarball.read_bytes()).hexdigest())
    assert "0" not in device.status()["releases"]


def test_a_boot_that_reverts_takes_units_folders_and_rules_of_the_old_release(
    device: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str]] = []

    def run(*command: str, **_: object) -> CompletedProcess[str]:
        asked.append((" ".join(command), runs(device)[0]))
        return CompletedProcess(command, 0, "", "")

    device.switch("2")
    monkeypatch.setattr(device, "_run", run)
    device.revert(boot=True)
    folders = f"systemd-tmpfiles --create {device.ETC / 'tmpfiles.d/edge.conf'}"
    for command in ("systemctl daemon-reload", folders, "udevadm control --reload"):
        assert (command, "1") in asked


@pytest.mark.parametrize("step", range(40))
def test_a_removal_that_is_cut_off_can_be_asked_for_again(
    device: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    step: int,
) -> None:
    program, state, cache = device.RELEASES.parent / "bin/edge-release", tmp_path / "state", tmp_path / "cache"
    places = {
        "OPT": device.RELEASES.parent,
        "GPIO_MADE": device.RELEASES.parent / "made-group-gpio",
        "STATE": state,
        "PULL_CACHE": cache,
        "VISION_FILE": tmp_path / "run/vision.json",
    }
    for name, path in places.items():
        monkeypatch.setattr(device, name, path)
    for path in (program, device.GPIO_MADE, state / "outbox.db", cache / "release.tar", device.VISION_FILE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    there, count = {"edge-vision", "edge-publisher", "edge", "gpio"}, 0

    def counted(action: Callable[..., object]) -> Callable[..., Any]:
        def change(*arguments: Any, **keywords: Any) -> object:  # noqa: ANN401 - as it comes
            nonlocal count
            count += 1
            if count > step:
                raise PowerCut
            return action(*arguments, **keywords)

        return change

    def run(*command: str, **_: object) -> CompletedProcess[str]:
        if command[0] in ("userdel", "groupdel"):
            there.discard(command[1])
        return CompletedProcess(command, 0, "", "")

    with monkeypatch.context() as patch:
        patch.setattr(device, "_run", counted(run))
        patch.setattr(device.shutil, "rmtree", counted(device.shutil.rmtree))
        with suppress(PowerCut):
            device.remove()
    left = [path for path in (state, cache, device.CONFIG.parent, device.RELEASES) if path.exists()]
    assert program.exists() or not (left or there)
    assert step < 39 or not program.exists()
    monkeypatch.setattr(device, "_run", run)
    device.remove()
    assert not there
    assert not [path for path in (state, cache, device.CONFIG.parent, device.OPT) if path.exists()]


def test_a_first_release_that_fails_leaves_none(device: Any) -> None:  # noqa: ANN401
    device.CURRENT.unlink()
    device.CONFIG.unlink()
    device.switch("2")
    device.revert(boot=True)
    assert device.status()["current"] is None
    assert not device.CONFIG.exists()


def test_the_crashes_of_one_release_are_not_held_against_the_next(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    restarts = "2"

    def systemctl(verb: str, *_: str) -> CompletedProcess[str]:
        nonlocal restarts
        if verb == "reset-failed":
            restarts = "0"
        if verb == "show":  # asked before the start that was queued has begun
            device.VISION_FILE.write_text('{"boot_id": "new"}')
            return CompletedProcess(verb, 0, f"{restarts}\n", "")
        return CompletedProcess(verb, 0, "", "")

    monkeypatch.setattr(device, "_systemctl", systemctl)
    assert device.start() == "new"


@pytest.fixture
def asked(device: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:  # noqa: ANN401
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
    device: Any,  # noqa: ANN401
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


def test_the_end_of_a_trial_that_is_over_leaves_another_alone(device: Any, asked: list[tuple[str, ...]]) -> None:  # noqa: ANN401
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


def test_a_trial_from_before_they_had_names_ends_too(device: Any) -> None:  # noqa: ANN401
    device.switch("2")
    device.TRIAL.write_text('{"from": "1", "to": "2"}')
    device.revert(boot=False, trial="4711")
    assert runs(device) == ("2", "config 2")
    device.revert(boot=True)
    assert runs(device) == ("1", "config 1")


def test_nothing_is_touched_for_a_trial_that_would_have_no_end(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    monkeypatch.setattr(device, "_run", lambda *command, **_: CompletedProcess(command, 1, "", "no bus"))
    with pytest.raises(device.Refused, match=r"systemd-run: no bus: nothing was switched"):
        device.switch("2")
    assert (runs(device), device.TRIAL.exists()) == (("1", "config 1"), False)


def test_a_confirmation_and_the_end_of_the_same_trial_do_not_meet(device: Any) -> None:  # noqa: ANN401
    device.switch("2")
    confirming = threading.Thread(target=device.confirm, args=("2",))
    with device._alone():
        confirming.start()
        confirming.join(0.2)
        assert device.TRIAL.exists()
    confirming.join()
    device.revert(boot=False)
    assert runs(device) == ("2", "config 2")


def test_releases_that_failed_do_not_pile_up(device: Any, tmp_path: Path) -> None:  # noqa: ANN401
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


def test_journald_begins_anew_where_what_is_wanted_of_it_changed(device: Any, asked: list[tuple[str, ...]]) -> None:  # noqa: ANN401
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


def test_a_check_runs_no_code_from_the_home_of_its_user(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    given: list[Any] = []

    def run(*command: str, **options: Any) -> CompletedProcess[str]:  # noqa: ANN401 - subprocess's own
        given.append(options)
        return CompletedProcess(command, 0, "ok", "")

    monkeypatch.setattr(device, "_run", run)
    assert device.check("2") == "ok"
    assert given[0]["env"]["PYTHONNOUSERSITE"] == "1"
    assert given[0]["env"]["PATH"] == os.environ["PATH"]


NO_NAMES = ("../../etc", "..", ".", "", "/etc", "1/../../x", "-1", ".new", "1\n", "a" * 65, "é", "1\0", None, 7, ["1"])


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_what_is_no_name_is_no_release(device: Any, tmp_path: Path, name: Any) -> None:  # noqa: ANN401
    outside = tmp_path / "etc/complete"  # what `releases/../../etc` would find
    outside.write_text("")
    with pytest.raises(device.Refused, match="is no name of a release"):
        device.check(name)
    with pytest.raises(device.Refused, match="is no name of a release"):
        device.switch(name)
    assert runs(device) == ("1", "config 1")
    before = sorted(tmp_path.rglob("*"))
    for about, of in (({"version": name, "bundle": "b"}, "release"), ({"version": "9", "bundle": name}, "bundle")):
        tarball = packed(tmp_path, json.dumps({"python": PYTHON} | about))
        with pytest.raises(device.Refused, match=f"is no name of a {of}"):
            device.stage(tarball, hashlib.sha256(tarball.read_bytes()).hexdigest())
        tarball.unlink()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("about", ["{}", "[]", "7", "{", '{"version": "9"}'])
def test_a_release_that_does_not_say_what_it_is_is_refused(device: Any, tmp_path: Path, about: str) -> None:  # noqa: ANN401
    tarball = packed(tmp_path, about)
    with pytest.raises(device.Refused, match=r"has no release.json as build_release.py writes it"):
        device.stage(tarball, hashlib.sha256(tarball.read_bytes()).hexdigest())


def packed(folder: Path, about: str) -> Path:
    """A release that holds nothing but what it says of itself."""
    tarball = folder / "release.tar"
    with tarfile.open(tarball, "w") as archive:
        info = tarfile.TarInfo("release.json")
        info.size = len(about.encode())
        archive.addfile(info, io.BytesIO(about.encode()))
    return tarball


def test_the_builder_refuses_the_same_names(tmp_path: Path) -> None:
    builder = SOURCE.parents[3] / "build_release.py"
    for name in ("../x", ".", "-1", "a b"):
        command = [sys.executable, str(builder), f"--name={name}", "--out", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "at first a letter or digit" in done.stderr


def test_what_lies_in_the_services_folder_neither_holds_nor_leads_root(device: Any, tmp_path: Path) -> None:  # noqa: ANN401
    place = device.VISION_FILE
    place.write_text('{"boot_id": "b1"}')
    assert device.status()["boot_id"] == "b1"
    elsewhere = place.rename(tmp_path / "elsewhere.json")
    place.symlink_to(elsewhere)
    assert device.status()["boot_id"] is None
    place.unlink()
    os.mkfifo(place)
    assert device.status()["boot_id"] is None  # and it came back at all
    place.unlink()
    place.mkdir()
    assert device.status()["boot_id"] is None
    place.rmdir()
    for text in (
        "[" * 60_000,
        '{"boot_id": 7}',
        '{"boot_id": "{{ x }}"}',
        "[]",
        " " * 2**20 + '{"boot_id": "b"}',
        "\xff",
    ):
        place.write_text(text, encoding="latin-1")
        assert device.status()["boot_id"] is None
