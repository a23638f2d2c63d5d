"""What of the broker's certificates and lists has ended or will soon, and which CA has no list: before they go there.

spans.py FOLDER NAME [--lists]: of FOLDER/ca.crt, FOLDER/NAME.crt and, with --lists, FOLDER/crl.pem. What ends within 30
days is said and let pass. What has ended is refused, and so is a CA without a list: the broker would let nobody of that
CA in. `openssl verify` asks for the list of one certificate's CA, and during a change of the CA there are two.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

SOON_DAYS = 30
PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


def _blocks(path: Path) -> list[bytes]:
    return [found[0] for found in PEM.finditer(path.read_bytes())]


def _days(thing: x509.Certificate | x509.CertificateRevocationList, end: str) -> float:
    """Until it ends. Before cryptography 42 its times were UTC that did not say so."""
    time: datetime | None = getattr(thing, f"{end}_utc", None) or getattr(thing, end)
    utc = timezone.utc  # noqa: UP017 - a control host may have Python 3.10
    return 1e9 if time is None else (time.replace(tzinfo=utc) - datetime.now(utc)).total_seconds() / 86400


def _made(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether it issued the other; with cryptography before 40, by its name alone."""
    if other.issuer != one.subject or not hasattr(other, "verify_directly_issued_by"):
        return other.issuer == one.subject
    try:
        other.verify_directly_issued_by(one)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _lists(one: x509.Certificate, lists: list[x509.CertificateRevocationList]) -> list[x509.CertificateRevocationList]:
    return [crl for crl in lists if crl.issuer == one.subject and crl.is_signature_valid(one.public_key())]  # type: ignore[arg-type]


def judge(folder: Path, name: str, *, lists: bool) -> tuple[list[str], list[str]]:
    """What must not be installed, and what ends soon; a line each. Raises OSError and ValueError for what is no PEM."""
    wrong: list[str] = []
    soon: list[str] = []

    def ends(what: str, days: float, mend: str) -> None:
        if days <= 0:
            wrong.append(f"{what} has ended: {mend}")
        elif days < SOON_DAYS:
            soon.append(f"{what} ends in {days:.0f} days: {mend}, then run this playbook again")

    own = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
    authorities = [x509.load_pem_x509_certificate(block) for block in _blocks(folder / "ca.crt")]
    revoked = [x509.load_pem_x509_crl(block) for block in _blocks(folder / "crl.pem")] if lists else []
    ends(f"{folder / name}.crt", _days(own, "not_valid_after"), "renew it by lab_ca.sh, or your PKI")
    for one in authorities:
        called = f"the CA {one.subject.rfc4514_string()} in {folder / 'ca.crt'}"
        left = _days(one, "not_valid_after")
        if left <= 0 and not _made(one, own):
            soon.append(f"{called} has ended: take it out, nobody of it gets in")
            continue
        ends(called, left, "make a new one, as docs/operate.md says")
        its = _lists(one, revoked)
        # One that only signs other CAs has no devices, and may have no list.
        if lists and not its and not any(_made(one, other) for other in authorities if other != one):
            wrong.append(
                f"{folder / 'crl.pem'} has no list of {called}: whoever has its certificate would be refused: "
                "put its list there too, one after the other"
            )
        if its:
            last = max(_days(crl, "next_update") for crl in its)
            ends(f"the list of {called}", last, "renew it by lab_crl.sh, or your PKI")
    return wrong, soon


def main() -> int:
    """0, with a line for each thing that ends soon; 1 where something has ended, lacks or cannot be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("name", help="the broker's")
    parser.add_argument("--lists", action="store_true", help="there are revocation lists")
    arguments = parser.parse_args()
    try:
        wrong, soon = judge(arguments.folder, arguments.name, lists=arguments.lists)
    except (OSError, ValueError) as error:
        wrong, soon = [f"{arguments.folder}: a certificate or list cannot be read: {error}"], []
    print("".join(f"{line}\n" for line in soon), end="")
    print("".join(f"spans: {line}\n" for line in wrong), end="", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
