"""`edge-quantize keygen` and `sign`: minisign keys and signatures, as the `minisign` tool makes and checks them."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from edge.bundle.manifest import load_bundle
from edge.bundle.signature import SUFFIX, key_id
from edge.config.text import first_line
from edge.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from minisign import SecretKey


def keygen(secret: Path) -> tuple[Path, str]:
    """Make a key pair without a password, like `minisign -G -W`.

    Args:
        secret: file for the secret key, readable by its owner only; the public one gets the same name ending in .pub.

    Returns:
        The public key's file and the key itself, for `models.public_key`.

    Raises:
        ConfigError: a file of that name exists, or cannot be written.

    """
    import minisign

    if secret.suffix == ".pub":
        msg = f"{secret}: .pub is the public key's ending: give another --key, e.g. minisign.key"
        raise ConfigError(msg)
    pair = minisign.KeyPair.generate()
    record = pair.public_key.to_base64()
    pair.public_key.untrusted_comment = f"minisign public key {key_id(record)}"
    public = secret.with_suffix(".pub")
    files = ((secret, bytes(pair.secret_key), 0o600), (public, bytes(pair.public_key), 0o644))
    for path, _, _ in files:
        if path.exists():
            msg = f"{path}: exists: a key is never overwritten, give another --key"
            raise ConfigError(msg)
    try:
        for path, content, mode in files:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content + b"\n")
    except OSError as error:
        msg = f"{error.filename}: {error.strerror}: give --key in a folder that can be written"
        raise ConfigError(msg) from error
    return public, record.decode()


def read_secret_key(path: Path, password_file: Path | None = None) -> SecretKey:
    """Read a minisign secret key; the password of an encrypted one comes from a file or is asked for at a terminal.

    Raises:
        ConfigError: no secret key, or no or a wrong password.

    """
    import minisign

    try:
        key = minisign.SecretKey.from_file(path)
        if key.is_encrypted():
            key.decrypt(_password(path, password_file))
    except OSError as error:
        msg = f"{error.filename}: {error.strerror}: make a key with 'edge-quantize keygen'"
        raise ConfigError(msg) from error
    except ValueError as error:
        msg = f"{path}: no minisign secret key that can be used ({error})"
        raise ConfigError(msg) from error
    return key


def _password(path: Path, file: Path | None) -> str:
    if file is not None:
        return first_line(file, "--password-file")
    if not sys.stdin.isatty():
        msg = f"{path}: the key is encrypted: give its password with --password-file, or sign at a terminal"
        raise ConfigError(msg)
    return getpass.getpass(f"password of {path}: ")


def sign_bundle(folder: Path, key: SecretKey) -> str:
    """Sign a bundle's manifest, and check the result as the device does.

    A manifest from before `golden_sha256` gets it first, since the signature covers what the manifest covers.

    Returns:
        The public key, for `models.public_key`.

    Raises:
        BundleError: the bundle is damaged.

    """
    bundle, path = load_bundle(folder), folder / "manifest.json"
    if bundle.manifest.golden_sha256 is None:
        manifest = json.loads(path.read_bytes())
        manifest["golden_sha256"] = hashlib.sha256(bundle.read_golden()).hexdigest()
        path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    comment = f"timestamp:{int(time.time())}\tfile:{path.name}\tbundle:{bundle.manifest.name}\thashed"
    signature = key.sign(path.read_bytes(), trusted_comment=comment)
    path.with_name(path.name + SUFFIX).write_bytes(bytes(signature) + b"\n")
    public = str(key.get_public_key().to_base64().decode())
    load_bundle(folder, public)
    return public
