"""The PyTorch builder against the Keras builder, the device's augmentation, and the pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from edge_quantize.datasets import fer2013 as data
from edge_quantize.training import nets
from edge_quantize.training.augment import Augment
from edge_quantize.training.gpu import pack

from edge.errors import SourceError
from edge.vision.preprocess import to_input

if TYPE_CHECKING:
    from types import ModuleType

FORWARD = Path(nets.__file__).parents[1] / "frozen" / "forward.npz"


@pytest.fixture
def torch() -> ModuleType:
    found: ModuleType = pytest.importorskip("torch", reason="PyTorch is not installed: it is needed on a GPU only")
    return found


@pytest.mark.parametrize("name", ["fer-cpu", "fer-gpu", "gate"])
def test_torch_gives_the_committed_logits(torch: ModuleType, name: str) -> None:
    from edge_quantize.training.gpu.torch_net import TorchNet, set_torch_weights, torch_weights

    weights = nets.seeded_weights(nets.NETS[name])
    model = TorchNet(nets.NETS[name]).eval()
    set_torch_weights(model, weights)
    with np.load(FORWARD) as golden, torch.no_grad():
        found = model(torch.from_numpy(to_input(golden["chips"])).permute(0, 3, 1, 2)).numpy()
        assert np.abs(found - golden[name]).max() <= 1e-4
    back = torch_weights(model)
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[key], weights[key]) for key in weights)


def test_the_device_moves_chips_as_opencv_does(torch: ModuleType) -> None:
    from edge_quantize.training.augment import warp
    from edge_quantize.training.gpu import device_augment

    y, x = np.mgrid[:48, :48]
    chip = (128 + 60 * np.sin(x / 5) + 50 * np.cos(y / 7)).astype(np.uint8)
    for spec in (
        Augment(flip=1, rotate=0, scale=(1, 1), shift=0),
        Augment(flip=0, rotate=0, scale=(0.8, 0.8), shift=0),
    ):
        there = device_augment.warp(torch.from_numpy(chip)[None, None].float(), spec)[0, 0].numpy()
        here = warp(chip, spec, np.random.default_rng(0))
        assert np.abs(there - here)[2:-2, 2:-2].max() <= 3


def test_the_device_effects_stay_in_range(torch: ModuleType) -> None:
    from edge_quantize.training.gpu.device_augment import augment

    torch.manual_seed(0)
    chips = torch.randint(0, 256, (64, 48, 48), dtype=torch.uint8)
    out = augment(chips, Augment(p_light=1, p_camera=1, p_erase=1))
    assert out.shape == (64, 1, 48, 48)
    assert float(out.min()) >= -1
    assert float(out.max()) <= 127 / 128
    assert torch.equal(out * 128, (out * 128).round())


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
