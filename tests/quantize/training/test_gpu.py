"""The PyTorch builder against the Keras builder, and the pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from edge_quantize.cli import main
from edge_quantize.datasets import fer2013 as data
from edge_quantize.training import nets
from edge_quantize.training.gpu import pack
from edge_quantize.training.weights import seeded_weights

from edge.errors import SourceError
from edge.vision.preprocess import to_input

if TYPE_CHECKING:
    from types import ModuleType

FORWARD = Path(nets.__file__).parents[1] / "frozen" / "forward.npz"


@pytest.fixture
def torch() -> ModuleType:
    found: ModuleType = pytest.importorskip("torch", reason="PyTorch is not installed: make torch")
    return found


@pytest.mark.parametrize("name", ["fer-cpu", "fer-gpu", "fer-pair", "gate"])
def test_torch_gives_the_committed_logits(torch: ModuleType, name: str) -> None:
    from edge_quantize.training.torch_net import TorchNet, set_torch_weights, torch_weights

    weights = seeded_weights(nets.NETS[name])
    model = TorchNet(nets.NETS[name]).eval()
    set_torch_weights(model, weights)
    with np.load(FORWARD) as golden, torch.no_grad():
        found = model(torch.from_numpy(to_input(golden["chips"])).permute(0, 3, 1, 2)).numpy()
        assert np.abs(found - golden[name]).max() <= 1e-4
    back = torch_weights(model)
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[key], weights[key]) for key in weights)


def _sources(folder: Path) -> tuple[Path, Path]:
    fer, masks = folder / "data" / "fer2013", folder / "masks"
    fer.mkdir(parents=True)
    masks.mkdir()
    for name in ("meta.npz", *(f"tiles-{k}.webp" for k in range(data.TILE_FILES))):
        (fer / name).write_bytes(name.encode())
    points = np.random.default_rng(0).random((5, 31, 2)).astype(np.float32) * 48
    np.savez(masks / "landmarks.npz", points=points, found=np.ones(5, bool))
    return folder / "data", masks


def test_the_pack_holds_tiles_meta_and_landmarks(tmp_path: Path) -> None:
    source, masks = _sources(tmp_path)
    out = tmp_path / "out"
    size, total = pack.pack(source, masks, out)
    assert size == total == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert sorted(p.name for p in (out / "fer2013").iterdir()) == sorted(
        ["meta.npz", *(f"tiles-{k}.webp" for k in range(8))]
    )
    with np.load(out / "landmarks.npz") as packed, np.load(masks / "landmarks.npz") as full:
        assert np.abs(packed["points"].astype(np.float32) - full["points"]).max() < 1 / 64 + 1e-6


def test_the_command_finds_its_own_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, masks = _sources(tmp_path)
    monkeypatch.setenv("EDGE_DATA", str(source))
    if not (Path(__file__).parents[3] / ".git").exists():
        pytest.skip("not in a git checkout")
    assert main(["gpu-pack", "--masks", str(masks), "--out", str(tmp_path / "out")]) == 0
    assert "with the repository" in capsys.readouterr().out


def test_a_pack_above_its_limit_fails_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, masks = _sources(tmp_path)
    monkeypatch.setattr(pack, "PACK_LIMIT", 100)
    with pytest.raises(SourceError, match="limit"):
        pack.pack(source, masks, tmp_path / "out")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    source, masks = _sources(tmp_path)
    (source / "fer2013" / "tiles-3.webp").unlink()
    with pytest.raises(SourceError, match=r"tiles-3\.webp"):
        pack.pack(source, masks, tmp_path / "out")
    (masks / "landmarks.npz").unlink()
    (source / "fer2013" / "tiles-3.webp").write_bytes(b"")
    with pytest.raises(SourceError, match=r"landmarks\.npz"):
        pack.pack(source, masks, tmp_path / "out")
