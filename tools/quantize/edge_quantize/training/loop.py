"""The training loop, in PyTorch on a CPU or a GPU: steps until the time budget is spent, validation, checkpoints."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own usage

from edge.errors import ConfigError
from edge_quantize.progress import training_bar
from edge_quantize.training.augment import Augment
from edge_quantize.training.device_augment import augment
from edge_quantize.training.predict import score
from edge_quantize.training.schedule import Watch
from edge_quantize.training.torch_net import DEVICE, on_device, torch_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from edge_quantize.training.labelled import Samples
    from edge_quantize.training.recipe import Recipe
    from edge_quantize.training.run_folder import RunFolder
    from edge_quantize.training.torch_net import TorchNet

Teacher: TypeAlias = "Callable[[Tensor], Tensor]"
"""From chips float (N, 1, 48, 48) to logits (N, classes)."""

SAVE_EVERY: Final = 180.0
"""Seconds between checkpoints."""
BN_IMAGES: Final = 4096
"""Chips on which the normalisation statistics of the averaged weights are estimated anew."""


@dataclass(slots=True)
class State:
    """Where a run stands: steps done, seconds spent in training, what validation said, whether to stop."""

    step: int = 0
    seconds: float = 0.0
    watch: Watch = field(default_factory=Watch)
    stopping: bool = False
    """Asked to stop by a signal."""
    threshold: float = 0.5
    """Probability of the gate at which its answer changed before its bias was moved."""


def knows_bf16() -> bool:
    """Whether bf16 products are fast here: on a GPU, or a processor that has them; elsewhere they are emulated."""
    if DEVICE.type == "cuda":
        return True
    try:
        return any(word in Path("/proc/cpuinfo").read_text(encoding="utf-8") for word in ("avx512_bf16", "amx_bf16"))
    except OSError:
        return False


def make_step(
    recipe: Recipe, model: TorchNet, average: TorchNet, done: int = 0
) -> Callable[[Tensor, Tensor, float], Any]:
    """Training step (x, targets, rate) → (loss, share right): SGD with Nesterov momentum, L2 on kernels, EMA.

    `done` steps have gone into the average already.
    """
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": kernels, "weight_decay": recipe.l2}, {"params": others, "weight_decay": 0.0}]
    nesterov = recipe.momentum > 0
    optimiser = torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=nesterov)
    live = [t for t in model.state_dict().values() if t.is_floating_point()]
    kept = [t for t in average.state_dict().values() if t.is_floating_point()]
    half = recipe.bf16 and knows_bf16()
    count = done

    def step(x: Tensor, targets: Tensor, rate: float) -> Any:  # noqa: ANN401
        nonlocal count
        model.train()
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        count += 1
        # A young average forgets faster, or it would remember the random start.
        keep = min(recipe.ema, (1 + count) / (10 + count))
        with torch.no_grad():
            torch._foreach_lerp_(kept, live, 1 - keep)
        return loss.detach(), (logits.argmax(1) == targets.argmax(1)).float().mean()

    return step


def run_steps(
    recipe: Recipe,
    run: RunFolder,
    samples: Samples,
    model: TorchNet,
    average: TorchNet,
    state: State,
    teacher: Teacher | None = None,
) -> None:
    """Train `model`, and the running `average` of its weights, until the budget, the patience or a signal ends it.

    SIGTERM and SIGINT set `state.stopping`. A checkpoint is written every `SAVE_EVERY` seconds and at the end. A
    `teacher` sees the very chip that the student sees (Beyer et al. 2022, "Knowledge distillation: a good teacher is
    patient and consistent"), mixed and degraded like it.

    Raises ConfigError when the loss is no number any more; the last checkpoint is from before.
    """
    budget = recipe.budget_minutes * 60
    step = make_step(recipe, model, average, state.step)
    feed = batches(recipe, samples, state, teacher)
    epoch = max(1, len(samples.chips) // recipe.batch)

    def save() -> None:
        run.save_checkpoint(torch_weights(model), torch_weights(average), state.step, state.seconds)

    def ask_to_stop(_signal: int, _frame: object) -> None:
        state.stopping = True

    before = {s: signal.signal(s, ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
    saved = last = time.monotonic()
    sums = np.zeros(3)
    seen: dict[str, float] | None = None
    try:
        with training_bar(recipe.name, budget, state.seconds) as progress:
            while state.seconds < budget and not (state.stopping or state.watch.ended):
                x, targets = next(feed)
                rate = recipe.rate(state.step, state.seconds / budget, state.watch.falls)
                loss, right = step(x, targets, rate)
                if not math.isfinite(loss):  # before a checkpoint holds it
                    msg = f"{recipe.name}: the loss is {float(loss)} after {state.step} steps: lower peak_rate, --again"
                    raise ConfigError(msg)
                sums += (float(loss), float(right), 1)
                state.step += 1
                now = time.monotonic()
                state.seconds, last = state.seconds + now - last, now
                progress(state.seconds, state.step, sums[0] / sums[2], rate, seen)
                if state.step % epoch == 0:
                    seen = score(average, samples.validation)
                    run.log(state.step, state.seconds, rate, sums[:2] / sums[2], seen)
                    if state.watch.see(recipe, state.seconds, seen["loss"]) and recipe.patience:
                        run.save_best(torch_weights(average))
                    sums[:] = 0
                    last = time.monotonic()
                if now - saved > SAVE_EVERY:
                    save()
                    saved = last = time.monotonic()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    save()


def batches(recipe: Recipe, samples: Samples, state: State, teacher: Teacher | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches as the recipe wants them now: chips float (N, 1, 48, 48) and targets (N, classes)."""
    chips, labels = torch.from_numpy(samples.chips).to(DEVICE), torch.from_numpy(samples.targets).to(DEVICE)
    rng = np.random.default_rng(recipe.seed + state.step)
    torch.manual_seed(recipe.seed + state.step)
    half = recipe.bf16 and knows_bf16()
    order = torch.empty(0, dtype=torch.long, device=DEVICE)
    while True:
        if len(order) < min(recipe.batch, len(chips)):
            order = torch.randperm(len(chips), device=DEVICE)
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        spent = state.seconds / (60 * recipe.budget_minutes)
        x, targets = augment(chips[chosen], recipe.ranges(spent)), labels[chosen]
        if recipe.mixup and spent < 1 - recipe.geometry_only_tail:
            x, targets = mixed(x, targets, float(rng.beta(recipe.mixup, recipe.mixup)))
        x = on_device(x)
        if teacher is not None:
            with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=half):
                answer = F.softmax(teacher(x).float() / recipe.teacher_temperature, 1)
            targets = (1 - recipe.teacher_weight) * targets + recipe.teacher_weight * answer
        yield x, targets


def mixed(x: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018): each chip and its target with a share of another's, the larger share its own."""
    own = max(share, 1 - share)
    return own * x + (1 - own) * x.flip(0), own * targets + (1 - own) * targets.flip(0)


@torch.no_grad()  # type: ignore[untyped-decorator]
def estimate_normalisation(model: TorchNet, samples: Samples, seed: int, batch: int = 128) -> None:
    """Set every BN layer's statistics to the plain mean of those of lightly moved batches."""
    torch.manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    usual = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # the plain mean of all batches
    model.train()
    spec = Augment(rotate=10, scale=(0.9, 1.1), shift=0.05, p_light=0, p_camera=0, p_erase=0)
    chosen = np.random.default_rng(seed).permutation(len(samples.chips))[:BN_IMAGES]
    for start in range(0, max(1, len(chosen) - batch + 1), batch):
        rows = torch.from_numpy(samples.chips[chosen[start : start + batch]]).to(DEVICE)
        model(on_device(augment(rows, spec)))
    for m, momentum in zip(norms, usual, strict=True):
        m.momentum = momentum
    model.eval()
