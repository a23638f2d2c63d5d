"""With `models.public_key` set, a bundle is used only if that key signed it; the files are those of `minisign`."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from edge_quantize.bundling.sign import keygen, read_secret_key, sign_bundle
from edge_quantize.cli import main as quantize
from minisign import Signature

from edge.bundle.manifest import load_bundle
from edge.bundle.signature import is_key, verify_signature
from edge.cli import main
from edge.config import load
from edge.errors import BundleError, ConfigError, EdgeError
from tests.support.config_text import GOOD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

needs_minisign = pytest.mark.skipif(
    shutil.which("minisign") is None, reason="the real tool is missing: apt-get install minisign"
)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    secret = tmp_path / "maker.key"
    keygen(secret)
    return secret


@pytest.fixture
def signed(bundle_folder: Path, tmp_path: Path, key: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in bundle_folder.iterdir():
        if path.suffix in {".json", ".npz", ".tflite"}:
            shutil.copyfile(path, folder / path.name)
    sign_bundle(folder, read_secret_key(key))
    return folder


def public(key: Path) -> str:
    return str(key.with_suffix(".pub"))


def minisign(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["minisign", *map(str, arguments)], capture_output=True, text=True, check=False, input="\n\n")


def flip(path: Path, bit: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    at = len(content) * 4 if bit is None else bit
    content[at // 8] ^= 1 << at % 8
    path.write_bytes(content)


def test_a_signed_bundle_is_taken_by_file_and_by_key(signed: Path, key: Path) -> None:
    by_file = load_bundle(signed, public(key))
    text = key.with_suffix(".pub").read_text(encoding="utf-8")
    by_key = load_bundle(signed, text.splitlines()[1])
    assert by_file.signed is not None
    assert by_file.signed == by_key.signed
    assert text.startswith(f"untrusted comment: minisign public key {by_file.signed.key_id}\n")
    assert f"bundle:{by_file.manifest.name}" in by_file.signed.comment
    assert load_bundle(signed).signed is None


def test_without_a_signature(signed: Path, key: Path) -> None:
    (signed / "manifest.json.minisig").unlink()
    load_bundle(signed)
    with pytest.raises(BundleError, match=r"manifest\.json: is not signed .*by key [0-9A-F]{16}"):
        load_bundle(signed, public(key))


def test_another_key_is_named_beside_the_one_expected(signed: Path, key: Path, tmp_path: Path) -> None:
    keygen(tmp_path / "other.key")
    ours = load_bundle(signed, public(key)).signed
    assert ours is not None
    with pytest.raises(BundleError) as caught:
        load_bundle(signed, public(tmp_path / "other.key"))
    wanted = (tmp_path / "other.pub").read_text(encoding="utf-8").splitlines()[0].split()[-1]
    assert f"signed by key {ours.key_id}, models.public_key is key {wanted}" in str(caught.value)


def test_a_key_that_borrows_our_id_does_not_pass(signed: Path, key: Path, tmp_path: Path) -> None:
    forged = read_secret_key(key)
    other = tmp_path / "forger.key"
    keygen(other)
    forged._keynum_sk.secret_key[:] = read_secret_key(other)._keynum_sk.secret_key
    with pytest.raises(BundleError, match="was changed after key"):
        load_bundle(_signed_by(signed, forged), public(key))


def _signed_by(folder: Path, key: object) -> Path:
    manifest = folder / "manifest.json"
    signature = key.sign(manifest.read_bytes())  # type: ignore[attr-defined] # minisign has no types
    (folder / "manifest.json.minisig").write_bytes(bytes(signature))
    return folder


def test_flipped_bits_of_the_signature_are_seen(signed: Path, key: Path) -> None:
    """Every eleventh; not those of the untrusted comment, which nobody vouches for, or base64's unused ones."""
    manifest, path = signed / "manifest.json", signed / "manifest.json.minisig"
    content, whole = manifest.read_bytes(), path.read_bytes()
    record = key.with_suffix(".pub").read_text(encoding="utf-8").splitlines()[1]
    verify_signature(content, manifest, record)
    seen = 0
    for bit in range(8 * (whole.index(b"\n") + 1), 8 * (len(whole) - 1), 11):
        flip(path, bit)
        try:
            same = Signature.from_bytes(path.read_bytes()) == Signature.from_bytes(whole)
        except ValueError:
            same = False
        if not same:
            with pytest.raises(BundleError, match=r"manifest\.json"):
                verify_signature(content, manifest, record)
            seen += 1
        path.write_bytes(whole)
    assert seen > 150


@pytest.mark.parametrize("name", ["manifest.json", "gate_int8.tflite", "fer_masked_int8.tflite", "golden.npz"])
def test_a_flipped_bit_of_a_file_is_named(signed: Path, key: Path, name: str) -> None:
    flip(signed / name)
    with pytest.raises(BundleError, match=name.replace(".", r"\.") + ": (sha256 is|was changed after)"):
        load_bundle(signed, public(key))


def test_a_forged_checksum_does_not_help(signed: Path, key: Path) -> None:
    flip(signed / "gate_int8.tflite")
    manifest = json.loads((signed / "manifest.json").read_text(encoding="utf-8"))
    manifest["models"][0]["sha256"] = hashlib.sha256((signed / "gate_int8.tflite").read_bytes()).hexdigest()
    (signed / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match=r"manifest\.json: was changed after key"):
        load_bundle(signed, public(key))


def test_a_signature_that_does_not_cover_the_golden_answers(signed: Path, key: Path) -> None:
    manifest = json.loads((signed / "manifest.json").read_text(encoding="utf-8"))
    del manifest["golden_sha256"]
    (signed / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match="does not cover golden"):
        load_bundle(_signed_by(signed, read_secret_key(key)), public(key))


@pytest.mark.parametrize(
    "content", [b"", b"\n\n\n\n", b"untrusted comment: x\nRW\ntrusted comment: y\nz\n", b"\xff" * 300]
)
def test_a_signature_file_that_is_none(signed: Path, key: Path, content: bytes) -> None:
    (signed / "manifest.json.minisig").write_bytes(content)
    with pytest.raises(BundleError, match=r"minisig: is no minisign signature"):
        load_bundle(signed, public(key))


@pytest.mark.parametrize("content", [None, b"", b"RW", b"untrusted comment: x\nRWQ\n"])
def test_a_public_key_that_is_none(signed: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "wrong.pub"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"models\.public_key: .*wrong\.pub"):
        load_bundle(signed, str(path))


def test_a_secret_key_on_a_device_is_refused(signed: Path, key: Path) -> None:
    with pytest.raises(ConfigError, match="keep it off the device"):
        load_bundle(signed, str(key))


CONFIG = GOOD.replace('"models/x"', '"bundle"\npublic_key = "maker.pub"')


@pytest.mark.parametrize(
    ("harm", "line", "says"),
    [
        (lambda f: (f / "manifest.json.minisig").unlink(), 10, "is not signed"),
        (lambda f: flip(f / "manifest.json"), 10, "manifest.json: was changed"),
        (lambda f: flip(f / "fer_unmasked_int8.tflite"), 10, "fer_unmasked_int8.tflite: sha256"),
        (lambda f: flip(f / "golden.npz"), 10, "golden.npz: sha256"),
        (lambda f: keygen(f.parent / "other.key")[0].replace(f.parent / "maker.pub"), 10, "signed by key"),
        (lambda f: (f.parent / "maker.pub").write_text("no key"), 11, "no minisign public key"),
        (lambda f: (f.parent / "maker.pub").unlink(), 11, "No such file"),
    ],
)
def test_check_config_and_start_say_what_is_wrong(
    signed: Path,
    harm: Callable[[Path], object],
    line: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = signed.parent / "config.toml"
    config.write_text(CONFIG, encoding="utf-8")
    assert main(["check-config", "--config", str(config)]) == 0
    assert "ok: lobby" in capsys.readouterr().out
    harm(signed)
    assert main(["check-config", "--config", str(config)]) == 2
    out = capsys.readouterr().out
    assert out.startswith(f"{config}:{line}: models.")
    assert says in out
    assert main(["vision", "--config", str(config)]) == (2 if line == 11 else 65)
    assert says in capsys.readouterr().err


def test_a_key_in_the_configuration_is_no_path(tmp_path: Path, key: Path) -> None:
    record = key.with_suffix(".pub").read_text(encoding="utf-8").splitlines()[1]
    assert is_key(record)
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.replace("maker.pub", record), encoding="utf-8")
    assert load(path).models.public_key == record
    path.write_text(CONFIG, encoding="utf-8")
    assert load(path).models.public_key == str(tmp_path / "maker.pub")


def test_keygen_never_overwrites_and_hides_the_secret(tmp_path: Path, key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    for name in ("maker.key", "maker.other"):  # the second would overwrite maker.pub
        with pytest.raises(ConfigError, match="exists"):
            keygen(tmp_path / name)
    with pytest.raises(ConfigError, match="public key's ending"):
        keygen(tmp_path / "new.pub")


def test_sign_from_the_command_line(signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (signed / "manifest.json.minisig").unlink()
    assert quantize(["keygen", "--key", str(tmp_path / "new.key")]) == 0
    assert quantize(["sign", "--bundle", str(signed), "--key", str(tmp_path / "new.key")]) == 0
    record = (tmp_path / "new.pub").read_text(encoding="utf-8").splitlines()[1]
    assert capsys.readouterr().out.count(f"public_key = '{record}'") == 2
    assert quantize(["bundle", "--verify", str(signed), "--public-key", str(tmp_path / "new.pub")]) == 0
    assert quantize(["bundle", "--verify", str(signed), "--public-key", str(tmp_path / "maker.pub")]) == 65
    assert "signed by key" in capsys.readouterr().err
    assert quantize(["sign", "--bundle", str(signed), "--key", str(tmp_path / "gone.key")]) == 2
    flip(signed / "golden.npz")
    assert quantize(["sign", "--bundle", str(signed), "--key", str(tmp_path / "new.key")]) == 65


def test_a_damaged_bundle_is_not_signed(bundle_folder: Path, tmp_path: Path, key: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(bundle_folder, folder)
    flip(folder / "gate_int8.tflite")
    with pytest.raises(EdgeError, match="gate_int8"):
        sign_bundle(folder, read_secret_key(key))
    assert not (folder / "manifest.json.minisig").exists()


@needs_minisign
def test_minisign_verifies_what_we_sign(signed: Path, key: Path) -> None:
    said = minisign("-Vm", signed / "manifest.json", "-p", public(key))
    assert said.returncode == 0, said.stderr
    assert "Signature and comment signature verified" in said.stdout
    assert "file:manifest.json" in said.stdout
    flip(signed / "manifest.json")
    assert minisign("-Vm", signed / "manifest.json", "-p", public(key)).returncode != 0


@needs_minisign
@pytest.mark.parametrize("legacy", [False, True])
def test_we_verify_what_minisign_signs(signed: Path, tmp_path: Path, *, legacy: bool) -> None:
    secret, ours = tmp_path / "real.key", tmp_path / "real.pub"
    assert minisign("-G", "-W", "-s", secret, "-p", ours).returncode == 0
    flags = ["-l"] if legacy else []
    said = minisign("-S", "-W", *flags, "-s", secret, "-m", signed / "manifest.json", "-t", "by hand")
    assert said.returncode == 0, said.stderr
    bundle = load_bundle(signed, str(ours))
    assert bundle.signed is not None
    assert bundle.signed.comment == "by hand"
    # minisign prints the number without its leading zeros
    assert bundle.signed.key_id.lstrip("0") in ours.read_text(encoding="utf-8")
    sign_bundle(signed, read_secret_key(secret))
    assert minisign("-Vm", signed / "manifest.json", "-p", ours).returncode == 0
