"""Pull mode runs nothing as root that its operator has not signed: a real repository, fetched over https, real keys."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(__file__).resolve().parents[2] / "ansible/files/edge_pull.py"


def load() -> Any:  # noqa: ANN401 - a module
    spec = importlib.util.spec_from_file_location("edge_pull", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["edge_pull"] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


edge_pull = load()


def key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Fleet:
    """An operator's repository, served by https, and a device that knows the operator's key."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work, self.bare = folder, folder / "work", folder / "served/fleet.git"
        self.key, self.stranger = key(folder / "operator"), key(folder / "stranger")
        self.places = edge_pull.Places(folder / "signers", folder / "cache/fleet", folder / "opt/pulled")
        self.places.signers.write_text(f"fleet {self.key.with_suffix('.pub').read_text()}")
        self.places.signers.chmod(0o644)
        self.git("init", "-q", "-b", "main", str(self.work), at=folder)
        self.git("clone", "-q", "--bare", str(self.work), str(self.bare), at=folder)
        self.url = ""

    def git(self, *arguments: str, at: Path | None = None) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "gpg.format=ssh")
        command = ["git", "-C", str(at or self.work), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, word: str, signer: Path | None) -> str:
        """One more commit, pushed; the playbook says `word`. Signed by a key, or not."""
        (self.work / "ansible").mkdir(exist_ok=True)
        (self.work / "ansible/pull.yml").write_text(word)
        self.git("add", ".")
        sign = ["-c", f"user.signingkey={signer}", "commit", "-S"] if signer else ["commit", "--no-gpg-sign"]
        self.git(*sign, "-q", "--allow-empty", "-m", word)
        self.push("main")
        return self.git("rev-parse", "HEAD")

    def push(self, *refs: str) -> None:
        self.git("push", "-q", "--force", str(self.bare), *refs)
        self.git("update-server-info", at=self.bare)  # what a server of plain files needs

    def pull(self, at_least: str | None = None) -> str:
        """What the device would run."""
        folder = edge_pull.pull(self.url, "main", at_least, self.places)
        return str((folder / "ansible/pull.yml").read_text())


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    certificate(tmp_path, "ca", "authority")
    certificate(tmp_path, "server", "server", "ca")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {"GIT_SSL_CAINFO": tmp_path / "ca.crt", "HOME": tmp_path, "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, str(value))
    fleet = Fleet(tmp_path)
    handler = functools.partial(Quiet, directory=tmp_path / "served")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fleet.url = f"https://127.0.0.1:{server.server_address[1]}/fleet.git"
    yield fleet
    server.shutdown()
    server.server_close()


def test_what_the_operator_signed_is_run_and_noted(fleet: Fleet) -> None:
    first = fleet.commit("one", fleet.key)
    assert fleet.pull() == fleet.pull() == "one"
    assert fleet.places.pulled.read_text() == f"{first}\n"
    second = fleet.commit("two", fleet.key)
    assert fleet.pull(at_least=first) == "two"
    assert fleet.places.pulled.read_text() == f"{second}\n"


@pytest.mark.parametrize("signer", [None, "stranger"])
def test_what_nobody_or_a_stranger_signed_is_not_even_checked_out(fleet: Fleet, signer: str | None) -> None:
    first = fleet.commit("one", fleet.key)
    assert fleet.pull() == "one"
    fleet.commit("evil", fleet.stranger if signer else None)
    for _ in range(2):  # the second night is no other
        with pytest.raises(edge_pull.Refused, match=r"is not signed by a key of .*: nothing of it was run"):
            fleet.pull()
    assert (fleet.places.cache / "ansible/pull.yml").read_text() == "one"
    assert fleet.places.pulled.read_text() == f"{first}\n"


def test_a_key_in_a_keyring_signs_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git would take an OpenPGP signature of any key that this user's keyring knows."""
    home = fleet.folder / "gpg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    made = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "a@b", "ed25519", "sign"]
    try:
        subprocess.run(made, check=True, capture_output=True)
        fleet.commit("one", None)
        sign = ("-c", "gpg.format=openpgp", "-c", "user.signingkey=a@b", "commit", "-S", "-q", "--amend", "-m", "one")
        fleet.git(*sign)
        fleet.git("verify-commit", "HEAD")  # the control: git itself is content
        fleet.push("main")
        with pytest.raises(edge_pull.Refused, match="is not signed by a key of"):
            fleet.pull()
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=False, capture_output=True)


def test_a_tag_named_like_the_branch_vouches_for_nothing(fleet: Fleet) -> None:
    """`git verify-commit main`, which ansible-pull asks, looks at the tag and runs the branch."""
    fleet.commit("one", fleet.key)
    assert fleet.pull() == "one"
    fleet.git("tag", "main")
    (fleet.work / "ansible/pull.yml").write_text("evil")
    fleet.git("commit", "--no-gpg-sign", "-qam", "evil")
    fleet.git("-c", f"gpg.ssh.allowedSignersFile={fleet.places.signers}", "verify-commit", "main")  # the control
    fleet.push("refs/heads/main", "refs/tags/main")
    with pytest.raises(edge_pull.Refused, match="is not signed by a key of"):
        fleet.pull()


def test_an_old_state_that_was_signed_is_not_gone_back_to(fleet: Fleet) -> None:
    first = fleet.commit("one", fleet.key)
    second = fleet.commit("two", fleet.key)
    assert fleet.pull() == "two"
    fleet.push(f"+{first}:refs/heads/main")
    with pytest.raises(edge_pull.Refused, match=f"{first[:12]} does not follow {second[:12]}"):
        fleet.pull()
    fleet.places.pulled.unlink()  # a new device knows what its operator laid there with the card
    with pytest.raises(edge_pull.Refused, match="does not follow"):
        fleet.pull(at_least=second)
    with pytest.raises(edge_pull.Refused, match="no full commit id"):
        fleet.pull(at_least="main")
    assert fleet.pull(at_least=first) == "one"


def lock(git: Path) -> None:
    (git / "index.lock").touch()


def empty_objects(git: Path) -> None:
    for path in (path for path in (git / "objects").glob("??/*") if path.is_file()):
        path.chmod(0o644)
        path.write_bytes(b"")


def empty_head(git: Path) -> None:
    (git / "HEAD").write_bytes(b"")


@pytest.mark.parametrize("damage", [lock, empty_objects, empty_head])
def test_what_a_power_cut_leaves_of_the_cache_is_made_anew(fleet: Fleet, damage: Callable[[Path], None]) -> None:
    first = fleet.commit("one", fleet.key)
    assert fleet.pull() == "one"
    fleet.commit("two", fleet.key)
    damage(fleet.places.cache / ".git")
    assert fleet.pull() == "two"
    damage(fleet.places.cache / ".git")  # and it vouches for no more than an undamaged one
    fleet.push(f"+{first}:refs/heads/main")
    with pytest.raises(edge_pull.Refused, match="does not follow"):
        fleet.pull()
    fleet.commit("evil", fleet.stranger)
    with pytest.raises(edge_pull.Refused, match="is not signed by a key of"):
        fleet.pull()


@pytest.mark.parametrize(
    "url",
    ["http://git.example/fleet.git", "git://git.example/f", "file:///srv/f", "/srv/f", "ext::sh -c id", "-x"],
)
def test_only_https_and_ssh_are_asked(fleet: Fleet, url: str) -> None:
    fleet.url = url
    with pytest.raises(edge_pull.Refused, match="must begin with https:// or ssh://"):
        fleet.pull()
    assert not fleet.places.cache.exists()


def test_an_address_that_ssh_takes_is_one() -> None:
    for url in ("ssh://git@git.example:2222/fleet.git", "git@git.example:fleet.git", "https://git.example/fleet.git"):
        assert edge_pull.ADDRESS.fullmatch(url)


def test_the_keys_are_there_and_only_root_s_to_write(fleet: Fleet) -> None:
    fleet.commit("one", fleet.key)
    fleet.places.signers.chmod(0o666)
    with pytest.raises(edge_pull.Refused, match="may be written by others"):
        fleet.pull()
    fleet.places.signers.unlink()
    with pytest.raises(edge_pull.Refused, match="lay the keys that may sign there"):
        fleet.pull()


def test_the_command_runs_the_playbook_or_says_why_not(fleet: Fleet, tmp_path: Path) -> None:
    stand_in = tmp_path / "bin/ansible-playbook"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$@"; cat ansible/pull.yml\n')
    stand_in.chmod(0o755)
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); import edge_pull; from pathlib import Path\n"
        f"places = edge_pull.Places(*map(Path, {[str(place) for place in fleet.places]!r}))\n"
        "sys.exit(edge_pull.main(places))"
    )
    command = [sys.executable, "-c", code, fleet.url, "--limit", "kiosk-01"]

    def run() -> subprocess.CompletedProcess[str]:
        path = f"{stand_in.parent}:{os.environ['PATH']}"
        return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path})

    said = run()
    assert said.returncode == 1
    first, last = said.stderr.splitlines()
    assert first.startswith("edge-pull: git fetch: ")
    assert "once more" in first
    assert last.startswith("edge-pull: git fetch: ")
    commit = fleet.commit("one", fleet.key)
    said = run()
    arguments = "-c local -i inventory -l kiosk-01 ansible/pull.yml"
    assert said.stdout == f"edge-pull: running {commit[:12]} of main\n{arguments}\none"
    kept = fleet.places.cache / "kept by a run without a network"
    kept.touch()
    command[3] = f"{fleet.url}-gone"
    assert run().returncode == 1
    assert kept.exists()
    fleet.places.cache.rename(fleet.places.cache.with_name(f"{fleet.places.cache.name}.old"))  # cut off in the middle
    assert run().returncode == 1
    assert kept.exists()
