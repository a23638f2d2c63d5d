"""minisign signatures of a bundle: `manifest.json.minisig` beside the manifest, which holds every file's SHA-256.

Format: https://jedisct1.github.io/minisign/ (Ed25519 over BLAKE2b-512, trusted comment signed too), so the `minisign`
tool checks and makes the same files.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from edge.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from minisign import PublicKey

SUFFIX: Final = ".minisig"
_KEY: Final = re.compile(r"RW[A-Za-z0-9+/]{54}")


class Signed(NamedTuple):
    """Who signed, and the comment that is signed with it."""

    key_id: str
    comment: str


def is_key(given: str) -> bool:
    """Tell whether a setting is a public key itself (56 base64 characters) rather than the path of one."""
    return _KEY.fullmatch(given) is not None


def key_id(record: bytes) -> str:
    """Key id as `minisign` writes it: 16 hex digits of a public key's or signature's second line, in base64.

    Raises ValueError when it is no such line.
    """
    raw = base64.b64decode(record, validate=True)
    if len(raw) < 10:
        msg = "too short"
        raise ValueError(msg)
    return f"{int.from_bytes(raw[2:10], 'little'):016X}"


def read_public_key(given: str) -> PublicKey:
    """Read a public key: the key itself, or the path of a `minisign.pub` file.

    Raises:
        ConfigError: it cannot be read or is no minisign public key.

    """
    import minisign

    try:
        if is_key(given):
            return minisign.PublicKey.from_base64(given)
        content = Path(given).read_bytes()
        if b"secret key" in content.partition(b"\n")[0]:
            msg = f"models.public_key: {given} holds a secret key: keep it off the device, name the .pub file instead"
            raise ConfigError(msg)
        return minisign.PublicKey.from_bytes(content)
    except OSError as error:
        msg = f"models.public_key: {given}: {error.strerror}: give a minisign .pub file, or the key itself"
        raise ConfigError(msg) from error
    except (ValueError, binascii.Error) as error:
        msg = f"models.public_key: {given} is no minisign public key ({error}): give a .pub file, or the key itself"
        raise ConfigError(msg) from error


def verify_signature(content: bytes, path: Path, public_key: str) -> Signed:
    """Check the signature that lies beside a file.

    Args:
        content: the file's bytes, as they will be used.
        path: the file; its signature is `path` with `.minisig` appended.
        public_key: see `read_public_key`.

    Raises:
        ConfigError: the key is none.
        BundleError: there is no signature, it is damaged, made by another key, or the file was changed.

    """
    import minisign

    key = read_public_key(public_key)
    wanted, beside = key_id(key.to_base64()), path.with_name(path.name + SUFFIX)
    try:
        raw = beside.read_bytes()
    except FileNotFoundError:
        msg = (
            f"{path}: is not signed ({beside.name} is missing), models.public_key asks for a signature by key {wanted}"
        )
        raise BundleError(msg) from None
    except OSError as error:
        msg = f"{beside}: {error.strerror}: install the bundle again"
        raise BundleError(msg) from error
    try:
        signature = minisign.Signature.from_bytes(raw)
        found = key_id(raw.splitlines()[1])
    except ValueError as error:
        msg = f"{beside}: is no minisign signature ({error}): install the bundle again"
        raise BundleError(msg) from error
    if found != wanted:
        msg = f"{beside}: signed by key {found}, models.public_key is key {wanted}: install a bundle signed by that key"
        raise BundleError(msg)
    try:
        key.verify(content, signature)
    except ValueError as error:
        msg = (
            f"{path}: was changed after key {wanted} signed it, or {beside.name} was, or another key bears that id: "
            "install the bundle again"
        )
        raise BundleError(msg) from error
    return Signed(wanted, signature.trusted_comment)
