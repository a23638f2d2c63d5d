"""One distribution, three import packages, hashed locks."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import edge_aggregate
import edge_quantize
import pydantic
import pytest
from edge_aggregate.cli import EXTRAS

import edge
from edge import contract

REPO = Path(__file__).resolve().parents[2]


PACKAGES = {
    "edge": "edge",
    "edge_quantize": "tools/quantize/edge_quantize",
    "edge_aggregate": "tools/aggregate/edge_aggregate",
}
"""Import package: its folder. Folder and package have one name, so no table maps one to the other."""
COMMANDS = (("edge", "--version"), ("edge-quantize", "--help"), ("edge-aggregate", "--help"))
SOURCES = ("edge", "tools", "pyproject.toml", "README.md", "LICENSE")


def tracked(*folders: str) -> list[Path]:
    """The files that git has, relative to the repository: no caches, nothing that a run left behind."""
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=REPO, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0") if name and (REPO / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a clean copy of what git has (no network: the build backend is installed)."""
    out = tmp_path_factory.mktemp("wheel")
    tree = out / "tree"
    tree.mkdir()
    for path in tracked(*SOURCES):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / path, tree / path)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("edge_fer-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = {
        str(package / path.relative_to(folder))
        for package, folder in ((Path(name), Path(place)) for name, place in PACKAGES.items())
        for path in tracked(str(folder))
        if path.suffix != ".md"  # what is said about a folder stays with it
    }
    assert names == wanted


def test_the_data_that_code_reads_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert {
        "edge/py.typed",
        "edge/demo_material/astronaut_masked.png",
        "edge/publisher/web/page.html",
        "edge_quantize/frozen/fer2013-public.npz",
        "edge_quantize/training/recipes/gate.toml",
        "edge_quantize/training/gpu/train_gpu.py",
    } <= set(wheel.namelist())


def test_the_unpacked_wheel_imports_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import edge.contract, edge.config, edge_quantize.cli, edge_aggregate.cli\n"
        "print(edge.__file__, edge_quantize.__file__, edge_aggregate.__file__)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert all(place.startswith(str(tmp_path)) for place in done.stdout.split())


def test_the_vision_service_imports_nothing_that_it_does_not_run() -> None:
    """Payloads of the wire take a tenth of its start to build, and it sends nothing."""
    code = "import sys, edge.config, edge.vision.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "edge.contract.strangers_json" in loaded
    assert not {"edge.contract.payloads", "edge.contract.codec", "edge.publisher", "paho", "ssl", "PIL"} & loaded


def test_every_name_of_the_contract_is_there_and_no_other() -> None:
    assert all(getattr(contract, name) is not None for name in contract.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'payload'"):
        _ = contract.payload  # type: ignore[attr-defined]


def test_the_installed_wheel_has_its_three_commands(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--no-index"]
    subprocess.run([*pip, "--no-deps", str(wheel.filename)], check=True, capture_output=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    # What it depends on is borrowed; this project's own editable install is not, since a .pth reads no other.
    (site / "borrowed.pth").write_text(f"{Path(pydantic.__file__).parents[1]}\n")
    code = f"import {', '.join(PACKAGES)}; print({', '.join(f'{name}.__file__' for name in PACKAGES)})"
    ran = [[python, "-c", code], *([str(venv / "bin" / c), a] for c, a in COMMANDS)]
    places, *said = [
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout for command in ran
    ]
    assert all(place.startswith(str(site)) for place in places.split())
    version = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    assert version in said[0]
    assert all(text.startswith("usage: ") for text in said[1:])


def test_every_module_that_units_playbooks_and_targets_run_is_there() -> None:
    texts = [REPO / path for path in tracked("systemd", "ansible", "Makefile", ".ci")]
    found = {name for path in texts for name in re.findall(r"python3? -m ([\w.]+)", path.read_text())}
    assert {"edge.process.clock", "edge.contract.asyncapi", "tests.faults.soak"} <= found
    assert [name for name in found if importlib.util.find_spec(name) is None] == []


def test_folders_bear_the_names_of_their_packages() -> None:
    for package in (edge, edge_quantize, edge_aggregate):
        assert Path(package.__file__ or "").parent == REPO / PACKAGES[package.__name__]


@pytest.mark.parametrize("lock", sorted((REPO / "requirements").glob("*.txt")), ids=lambda p: p.name)
def test_locks_are_pinned_hashed_and_name_no_place(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"https?:|file:|/(home|root|work|tmp)\b", text)
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert blocks
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+==\S+ \\\n", block), block
        assert "--hash=sha256:" in block, block


def test_the_pins_that_were_tried() -> None:
    bookworm = (REPO / "requirements" / "device-bookworm.txt").read_text()
    trixie = (REPO / "requirements" / "device-trixie.txt").read_text()
    for pin in ("ai-edge-litert==2.3.0", "numpy==1.26.4", "opencv-python-headless==4.11.0.86"):
        assert pin in bookworm
    for pin in ("ai-edge-litert==2.3.0", "numpy==2.", "opencv-python-headless==4.14.0.94"):
        assert pin in trixie


def test_what_is_said_to_install_exists_and_comes_from_a_clone() -> None:
    """No index has this package: `pip install "edge-fer[…]"` finds nothing, or a stranger's."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]
    named = set(EXTRAS.values())
    for path in tracked("edge", "tools", "tests", "examples", "config.example.toml", "README.md", "docs"):
        if path.suffix in {".py", ".toml", ".md"} and path != Path(__file__).relative_to(REPO):
            text = (REPO / path).read_text(encoding="utf-8")
            assert f"{project['name']}[" not in text.replace("\\", ""), path  # nor as an expected pattern
            found = re.findall(r"""\binstall\(["']([\w-]+)["']\)|pip install (?:-e )?["']\.\[([\w-]+)\]""", text)
            named |= {one or other for one, other in found}
    assert {"device", "host", "hog", "tflite-runtime", "demo"} <= named <= set(project["optional-dependencies"])


@pytest.mark.parametrize(
    ("module", "missing", "install"),
    [
        ("edge.cli", "numpy", '.venv/bin/pip install -e ".[device]"; on a device: install another release'),
        ("edge_quantize.cli", "tensorflow", '.venv/bin/pip install -e ".[host]"'),
        ("edge_aggregate.cli", "pydantic", '.venv/bin/pip install -e ".[aggregate]"'),
    ],
)
def test_a_missing_extra_is_one_line_and_exit_2(module: str, missing: str, install: str, tmp_path: Path) -> None:
    arguments = {
        "edge.cli": ["vision", "--source", str(REPO / "edge/demo_material/hopper.png")],
        "edge_quantize.cli": ["train", "--recipe", "gate"],
        "edge_aggregate.cli": ["check", "none"],
    }[module]
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from {module} import main\nsys.argv = ['x', *{arguments!r}]\nsys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=False, env={"HOME": str(tmp_path)}
    )
    assert done.returncode == 2, done.stderr
    assert install in done.stderr
    assert "Traceback" not in done.stderr
