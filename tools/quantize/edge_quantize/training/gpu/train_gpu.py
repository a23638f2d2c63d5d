"""Training on a GPU machine in plain PyTorch. Each command takes less than ten minutes on a large one.

    python3 tools/quantize/edge_quantize/training/gpu/train_gpu.py check
    python3 tools/quantize/edge_quantize/training/gpu/train_gpu.py teach   --out OUT [--teachers 2]
    python3 tools/quantize/edge_quantize/training/gpu/train_gpu.py student --recipe gpu_unmasked --out OUT
    python3 tools/quantize/edge_quantize/training/gpu/train_gpu.py student --recipe gpu_masked --out OUT

Each reads build/gpu-pack (`edge-quantize gpu-pack`) and files of the earlier commands from --out, or from the
pack, where they were put there. OUT then holds `teacher_logits.npz` (8 views, fp16) and the
students `fer_unmasked.npz`, `fer_masked.npz` under neutral names, kernels in fp16.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[5]


def _find_packages() -> None:
    """Make `edge` and `edge_quantize` importable on a machine where nothing is installed."""
    if importlib.util.find_spec("edge_quantize") is not None:
        return
    sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "quantize")]


_find_packages()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from edge.errors import EdgeError, SourceError  # noqa: E402
from edge.vision.preprocess import to_input  # noqa: E402
from edge_quantize.datasets.fer2013 import load_arrays, load_fer2013, soft_targets  # noqa: E402
from edge_quantize.training.device_augment import warp  # noqa: E402
from edge_quantize.training.labelled import Labelled, Samples  # noqa: E402
from edge_quantize.training.loop import State, estimate_normalisation, run_steps  # noqa: E402
from edge_quantize.training.nets import NETS  # noqa: E402
from edge_quantize.training.recipe import Recipe, load_recipe  # noqa: E402
from edge_quantize.training.run_folder import RunFolder  # noqa: E402
from edge_quantize.training.torch_net import DEVICE, TorchNet, set_torch_weights, torch_net, torch_weights  # noqa: E402
from edge_quantize.training.weights import seeded_weights  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from edge_quantize.datasets.fer2013 import I64, U8, Fer2013

BOUND = 1e-4
"""Largest difference of a logit between the two builders, fp32."""
WATCH_EVERY = 36
"""One chip in so many is held out."""


def check() -> float:
    """Largest |Δlogit| against the committed forward pass; raises SourceError above `BOUND`."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    golden = load_arrays(
        ROOT / "tools/quantize/edge_quantize/frozen/forward.npz", ("chips", "fer-cpu", "fer-gpu", "gate")
    )
    x = _batch(golden["chips"].astype(np.uint8))
    worst = 0.0
    for name in ("fer-cpu", "fer-gpu", "gate"):
        model = TorchNet(NETS[name]).to(DEVICE)
        set_torch_weights(model, seeded_weights(NETS[name]))
        with torch.no_grad():
            logits = model.eval()(x).cpu().numpy()
        worst = max(worst, float(np.abs(logits - golden[name]).max()))
    if not worst <= BOUND:
        msg = f"the PyTorch builder differs from the Keras builder by {worst:.2g} > {BOUND} in a logit"
        raise SourceError(msg)
    return worst


def _batch(chips: U8) -> Tensor:
    """Normalised float (N, 1, 48, 48) on the device, of uint8 chips."""
    return torch.from_numpy(to_input(chips)).permute(0, 3, 1, 2).to(DEVICE)


def fit(recipe: Recipe, model: TorchNet, chips: U8, targets: NDArray[np.float32], out: Path) -> tuple[TorchNet, int]:
    """Train on uint8 chips (N, 48, 48) and targets (N, classes); the averaged model and the steps done.

    The run folder `out`/<recipe> holds log and checkpoints; one chip in `WATCH_EVERY` is held out to watch it by.
    """
    if len(chips) < recipe.batch:
        msg = f"{len(chips)} chips are fewer than one batch of {recipe.batch}"
        raise SourceError(msg)
    watched = np.arange(len(chips)) % WATCH_EVERY == 0
    seen = Labelled(chips[watched], targets[watched].argmax(1))
    nobody = np.full(int((~watched).sum()), -1)
    samples = Samples(chips[~watched], targets[~watched], nobody, seen, {})
    average, state, run = torch_net(model.net, torch_weights(model)), State(), RunFolder(out / recipe.name)
    run.start(recipe)
    run_steps(recipe, run, samples, model, average, state)
    estimate_normalisation(average, samples, recipe.seed)
    return average, state.step


@torch.no_grad()  # type: ignore[untyped-decorator]
def logits_of(model: TorchNet, chips: U8, views: int = 1) -> NDArray[np.float32]:
    """Logits (views, N, classes): as it is, mirrored, then slightly moved and turned."""
    from edge_quantize.training.augment import Augment

    moved = Augment(rotate=6, scale=(0.93, 1.07), shift=0.04)
    found = []
    for view in range(views):
        parts = []
        for i in range(0, len(chips), 2048):
            x = torch.from_numpy(chips[i : i + 2048]).to(DEVICE)[:, None].float()
            if view == 1:
                x = x.flip(3)
            elif view > 1:
                x = warp(x, moved)
            parts.append(model((x - 128) / 128).float().cpu().numpy())
        found.append(np.concatenate(parts))
    return np.stack(found)


def teach(recipe: Recipe, fer: Fer2013, out: Path, teachers: int) -> dict[str, Any]:
    """Train teachers and write the mean of their logits for all faces: `teacher_logits.npz`."""
    rows = fer.train_rows()
    chips, targets = fer.images[rows], _labels(recipe, fer, rows)
    wanted = np.flatnonzero(fer.usable | fer.public)
    total, scores = np.zeros((8, len(fer.images), 7), np.float32), []
    for k in range(teachers):
        torch.manual_seed(recipe.seed + k)
        model, steps = fit(recipe, torch_net(NETS[recipe.net]), chips, targets, out)
        logits = np.zeros_like(total)
        logits[:, wanted] = logits_of(model, fer.images[wanted], views=8)
        scores.append({"steps": steps, "public": _accuracy(logits[0], fer)})
        total += logits / teachers
    np.savez_compressed(out / "teacher_logits.npz", logits=total.astype(np.float16))
    return {"teachers": scores, "together": _accuracy(total.mean(axis=0), fer)}


def student(recipe: Recipe, fer: Fer2013, pack: Path, out: Path, processes: int) -> dict[str, Any]:
    """Train a student by its recipe and write it as `<role>.npz`; returns its scores on PublicTest."""
    torch.manual_seed(recipe.seed)
    if recipe.role == "fer_masked":
        chips, rows, tested, tested_rows = render(fer, pack, processes)
    else:
        rows, tested_rows = fer.train_rows(), fer.public_rows()
        chips, tested = fer.images[rows], fer.images[tested_rows]
    labels = _labels(recipe, fer, rows)
    if recipe.teacher and recipe.teacher_weight:
        logits = load_arrays(_earlier(recipe.teacher, out, pack), ("logits",))["logits"].astype(np.float32)
        answer = torch.softmax(torch.from_numpy(logits) / recipe.teacher_temperature, -1).mean(0).numpy()
        labels = (1 - recipe.teacher_weight) * labels + recipe.teacher_weight * answer[rows]
    model = torch_net(NETS[recipe.net])
    if recipe.init:
        with np.load(_earlier(recipe.init, out, pack), allow_pickle=False) as archive:
            set_torch_weights(model, {name: archive[name] for name in archive.files})
    model, steps = fit(recipe, model, chips, labels, out)
    halved = {k: v.astype(np.float16) if v.ndim > 1 else v for k, v in torch_weights(model).items()}
    np.savez(out / f"{recipe.role}.npz", **halved)
    set_torch_weights(model, halved)
    if not len(tested):
        return {"steps": steps, "n": 0}
    right = logits_of(model, tested)[0].argmax(1) == fer.labels[tested_rows]
    return {"steps": steps, "accuracy": float(right.mean()), "n": len(right)}


def render(fer: Fer2013, pack: Path, processes: int) -> tuple[U8, I64, U8, I64]:
    """Three masked renderings of the train faces, and the frozen masked PublicTest: chips and rows of each.

    Where another OpenCV renders other pixels than were frozen, there is nothing to score on: no test chips.
    """
    from edge_quantize.masks import sets as mask_sets
    from edge_quantize.masks.landmarks import Landmarks

    found = load_arrays(pack / "landmarks.npz", ("points", "found"))
    marks = Landmarks(found["points"].astype(np.float32), found["found"].astype(np.bool_))
    sets = [mask_sets.render_set(fer.images, fer.train_rows(), marks, seed, processes=processes) for seed in (1, 2, 3)]
    chips = np.concatenate([made.images for made in sets])
    rows = np.concatenate([made.params["index"] for made in sets]).astype(np.int64)
    try:
        frozen = mask_sets.render_frozen(fer.images)
    except SourceError as error:
        print(f"not scored: {error}", file=sys.stderr)
        return chips, rows, fer.images[:0], rows[:0]
    tested = frozen.params["index"].astype(np.int64)
    kept = fer.public[tested]
    return chips, rows, frozen.images[kept], tested[kept]


def _labels(recipe: Recipe, fer: Fer2013, rows: I64) -> NDArray[np.float32]:
    """Smoothed soft targets (N, 7) of rows."""
    soft = soft_targets(fer.labels[rows], fer.votes[rows], recipe.votes_weight)
    return ((1 - recipe.smoothing) * soft + recipe.smoothing / soft.shape[1]).astype(np.float32)


def _earlier(name: str, out: Path, pack: Path) -> Path:
    """A file that an earlier command made, in `out` or carried back into the pack."""
    return out / name if (out / name).exists() else pack / name


def thinned(fer: Fer2013, every: int) -> Fer2013:
    """The data with only every so many rows to train and to score on: for a rehearsal."""
    kept = np.arange(len(fer.labels)) % every == 0
    return dataclasses.replace(fer, usable=fer.usable & kept, public=fer.public & kept)


def _accuracy(logits: NDArray[np.float32], fer: Fer2013) -> float:
    rows = fer.public_rows()
    return float((logits[rows].argmax(1) == fer.labels[rows]).mean())


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("check", "teach", "student"))
    parser.add_argument("--recipe", help="name in recipes/ or a .toml file")
    parser.add_argument("--pack", type=Path, default=ROOT / "build/gpu-pack")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build/gpu-out")))
    parser.add_argument("--budget-minutes", type=float, help="of one net, instead of the recipe's")
    parser.add_argument("--batch", type=int, help="instead of the recipe's")
    parser.add_argument("--teachers", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="rehearse on every so many rows only")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="for rendering masks")
    args = parser.parse_args(argv)
    torch.backends.cudnn.benchmark = True
    try:
        if args.command == "check":
            print(f"largest difference of a logit: {check():.2g}")
            return 0
        name = args.recipe or ("gpu_teacher" if args.command == "teach" else "gpu_unmasked")
        changes = {"budget_minutes": args.budget_minutes, "batch": args.batch}
        recipe = dataclasses.replace(load_recipe(name), **{k: v for k, v in changes.items() if v is not None})
        fer = thinned(load_fer2013(args.pack), args.every)
        args.out.mkdir(parents=True, exist_ok=True)
        if args.command == "teach":
            result = teach(recipe, fer, args.out, args.teachers)
        else:
            result = student(recipe, fer, args.pack, args.out, args.processes)
        record = {"recipe": dataclasses.asdict(recipe), "torch": torch.__version__, **result}
        (args.out / f"{recipe.name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(result))
    except EdgeError as error:
        print(f"train_gpu: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
