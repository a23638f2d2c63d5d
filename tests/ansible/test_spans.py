"""What `broker.yml` refuses to install, and what it says ends soon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.support.certificates import certificate

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = ROOT / "ansible/roles/broker/files/spans.py"
NAME = "broker.example"


def spans(folder: Path, *more: str) -> tuple[int, str]:
    command = [sys.executable, str(PROGRAM), str(folder), NAME, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def lab(script: str, folder: Path, *names: str, **environ: str) -> None:
    command = ["sh", str(ROOT / f"ansible/lab_{script}.sh"), str(folder), *names]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | environ)


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A lab's."""
    lab("ca", tmp_path / "pki", NAME)
    return tmp_path / "pki"


def test_all_is_well_with_what_a_lab_has_made(pki: Path) -> None:
    assert spans(pki, "--lists") == spans(pki) == (0, "")


def test_what_ends_soon_is_said_and_what_has_ended_is_refused(pki: Path, tmp_path: Path) -> None:
    lab("ca", pki, NAME, DAYS="29")
    lab("crl", pki, DAYS="28")
    code, said = spans(pki, "--lists")
    assert code == 0
    assert f"{NAME}.crt ends in 29 days: renew it by lab_ca.sh" in said
    assert "the list of the CA CN=Edge lab CA" in said
    assert "ends in 28 days: renew it by lab_crl.sh" in said
    assert spans(pki)[1].count("\n") == 1
    shutil.rmtree(tmp_path / "pki")
    pki.mkdir()
    certificate(pki, "ca", "ending CA", days=20)
    certificate(pki, NAME, NAME, "ca", days=-1)
    code, said = spans(pki)
    assert code == 1
    assert f"{NAME}.crt has ended: renew it" in said
    assert "the CA CN=ending CA" in said
    certificate(pki, "ca", "another CA", days=-1)  # it made nothing here
    certificate(pki, NAME, NAME, days=90)
    code, said = spans(pki)
    assert code == 0
    assert "another CA in" in said
    assert "has ended: take it out" in said


def test_each_ca_has_its_list(pki: Path, tmp_path: Path) -> None:
    """`openssl verify` asks for the list of one certificate's CA; devices of the other would all be refused."""
    other = tmp_path / "other"
    lab("ca", other, "kiosk-01")
    for path in (pki / "ca.crt", pki / "crl.pem"):
        path.with_suffix(".kept").write_bytes(path.read_bytes())
    (pki / "ca.crt").write_bytes((pki / "ca.kept").read_bytes() + (other / "ca.crt").read_bytes())
    code, said = spans(pki, "--lists")
    assert code == 1
    assert "crl.pem has no list of the CA CN=Edge lab CA" in said
    assert spans(pki)[0] == 0, "broker_crl: false"
    (pki / "crl.pem").write_bytes((pki / "crl.kept").read_bytes() + (other / "crl.pem").read_bytes())
    assert spans(pki, "--lists") == (0, "")
    lab("crl", other, DAYS="20")
    (pki / "crl.pem").write_bytes((pki / "crl.kept").read_bytes() + (other / "crl.pem").read_bytes())
    assert "ends in 20 days" in spans(pki, "--lists")[1]
    (pki / "ca.crt").write_text("no certificate")
    assert spans(pki, "--lists")[0] == 0  # openssl, which was asked before, refuses it
    (pki / "crl.pem").unlink()
    code, said = spans(pki, "--lists")
    assert code == 1
    assert "cannot be read" in said


def test_a_root_that_only_signs_other_cas_needs_no_list(pki: Path) -> None:
    root = pki / "root"
    root.mkdir()
    certificate(root, "ca", "root CA", days=90)
    request = ["openssl", "req", "-new", "-key", str(pki / "ca.key"), "-subj"]
    subject = subprocess.run(
        ["openssl", "x509", "-in", str(pki / "ca.crt"), "-noout", "-subject", "-nameopt", "multiline"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.rpartition("= ")[2]
    csr = subprocess.run([*request, f"/CN={subject.strip()}"], capture_output=True, check=True).stdout
    sign = ["openssl", "x509", "-req", "-CA", str(root / "ca.crt"), "-CAkey", str(root / "ca.key"), "-days", "90"]
    made = subprocess.run(sign, input=csr, capture_output=True, check=True).stdout
    (pki / "ca.crt").write_bytes(made + (root / "ca.crt").read_bytes())
    assert spans(pki, "--lists") == (0, "")
