"""Power cuts at every step of an update: what boots is the old release or the new one, with its own configuration."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.edge_release import PYTHON, SOURCE, packed, runs, update

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

STEPS = ("replace", "unlink", "symlink_to", "open")


class PowerCut(BaseException):
    """The step at which the power went is not made."""


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


@pytest.mark.parametrize("step", range(40))
def test_a_power_cut_leaves_the_old_or_the_new_release_never_a_mixture(device: ModuleType, step: int) -> None:
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


def test_the_cuts_reach_from_the_first_step_to_past_the_last(device: ModuleType) -> None:
    assert not cut_at(0, lambda: update(device))
    assert cut_at(39, lambda: update(device))


def test_an_unconfirmed_trial_is_undone_and_a_confirmed_one_can_go_back(device: ModuleType) -> None:
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


def renew(device: ModuleType, name: str, *, maker: str) -> None:
    """As the playbook does: a folder for these certificates, and a candidate that names it."""
    folder = device.TLS / name
    folder.mkdir(parents=True)
    (folder / "device.key").write_text(name)
    device.CANDIDATE.write_text(f'public_key = "{maker}"\nkey = "{folder}/device.key"\n')


def identity(device: ModuleType) -> tuple[str, str, str]:
    """Release, the maker's key and the certificates' key that a boot starts with."""
    release, config = runs(device)
    maker, path = (line.split('"')[1] for line in config.splitlines())
    return release, maker, Path(path).read_text()


FIRST, SECOND = "1" * 16, "2" * 16


@pytest.mark.parametrize("step", range(40))
def test_keys_and_certificates_come_and_go_with_the_trial(device: ModuleType, step: int) -> None:
    renew(device, FIRST, maker="old")
    device.CONFIG.write_text(device.CANDIDATE.read_text())
    renew(device, SECOND, maker="new")  # a check that refuses ends here
    assert identity(device) == ("1", "old", FIRST)
    finished = cut_at(step, lambda: update(device))
    device.revert(boot=True)
    assert identity(device) in {("1", "old", FIRST), ("2", "new", SECOND)}
    assert not finished or [path.name for path in device.TLS.iterdir()] == [SECOND]


def test_a_renewal_is_a_trial_of_its_own(device: ModuleType) -> None:
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
def test_a_rollback_takes_the_key_it_had_and_the_certificates_of_today(device: ModuleType, before: str) -> None:
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


def test_only_the_release_that_is_on_trial_is_confirmed(device: ModuleType) -> None:
    with pytest.raises(device.Refused, match="release 2 is not on trial, nothing is, and 1 runs"):
        device.confirm("2")
    device.switch("2")
    with pytest.raises(device.Refused, match="release 1 is not on trial, 2 is, and 2 runs"):
        device.confirm("1")
    device.revert(boot=True)  # the power went between what the broker saw and this
    with pytest.raises(device.Refused, match="nothing is, and 1 runs"):
        device.confirm("2")
    assert runs(device) == ("1", "config 1")


def test_a_release_that_was_half_pruned_is_none(
    device: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
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
    device: ModuleType,
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
    device: ModuleType,
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


def test_a_first_release_that_fails_leaves_none(device: ModuleType) -> None:
    device.CURRENT.unlink()
    device.CONFIG.unlink()
    device.switch("2")
    device.revert(boot=True)
    assert device.status()["current"] is None
    assert not device.CONFIG.exists()


def test_the_crashes_of_one_release_are_not_held_against_the_next(
    device: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
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


NO_NAMES = ("../../etc", "..", ".", "", "/etc", "1/../../x", "-1", ".new", "1\n", "a" * 65, "é", "1\0", None, 7, ["1"])


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_what_is_no_name_is_no_release(device: ModuleType, tmp_path: Path, name: object) -> None:
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
def test_a_release_that_does_not_say_what_it_is_is_refused(device: ModuleType, tmp_path: Path, about: str) -> None:
    tarball = packed(tmp_path, about)
    with pytest.raises(device.Refused, match=r"has no release.json as build_release.py writes it"):
        device.stage(tarball, hashlib.sha256(tarball.read_bytes()).hexdigest())


def test_the_builder_refuses_the_same_names(tmp_path: Path) -> None:
    builder = SOURCE.parents[3] / "build_release.py"
    for name in ("../x", ".", "-1", "a b"):
        command = [sys.executable, str(builder), f"--name={name}", "--out", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "at first a letter or digit" in done.stderr


def test_what_lies_in_the_services_folder_neither_holds_nor_leads_root(device: ModuleType, tmp_path: Path) -> None:
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
