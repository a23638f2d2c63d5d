"""One distribution, three import packages, hashed locks."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import edge_aggregate
import edge_quantize
import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the tree's packages (no network: the build backend is installed)."""
    out = tmp_path_factory.mktemp("wheel")
    tree = out / "tree"
    tree.mkdir()
    for name in ("edge", "tools", "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", str(REPO / name), str(tree)], check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("edge_fer-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_three_packages_and_their_data(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {
        "edge/py.typed",
        "edge/cli.py",
        "edge/vision/camera/replay.py",
        "edge/demo_material/astronaut_masked.png",
        "edge/publisher/web/page.html",
        "edge_quantize/cli.py",
        "edge_quantize/recipes/gate.toml",
        "edge_quantize/gpu/train_gpu.py",
        "edge_aggregate/cli.py",
    } <= names
    assert any(name.startswith("edge_quantize/frozen/") for name in names)
    assert not any(name.startswith(("tests", "tools", "bench")) for name in names)


def test_every_module_of_the_tree_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for folder, package in (
        ("edge", "edge"),
        ("tools/quantize", "edge_quantize"),
        ("tools/aggregate", "edge_aggregate"),
    ):
        for path in (REPO / folder).rglob("*.py"):
            assert f"{package}/{path.relative_to(REPO / folder)}" in names


def test_the_unpacked_wheel_imports_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import edge.contract, edge.config, edge_quantize.cli, edge_aggregate.cli\n"
        "print(edge.__file__, edge_quantize.__file__, edge_aggregate.__file__)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert all(place.startswith(str(tmp_path)) for place in done.stdout.split())


def test_the_editable_install_maps_the_tools() -> None:
    assert Path(edge_quantize.__file__).parent == REPO / "tools" / "quantize"
    assert Path(edge_aggregate.__file__).parent == REPO / "tools" / "aggregate"


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


@pytest.mark.parametrize(
    ("module", "missing", "install"),
    [
        ("edge.cli", "numpy", "edge-fer[device]"),
        ("edge_quantize.cli", "tensorflow", "edge-fer[host]"),
        ("edge_aggregate.cli", "pydantic", "edge-fer[aggregate]"),
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
