"""Recipes, run folders and the training loop, on nets and data of a few chips."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edge_quantize import cli
from edge_quantize.training import nets
from edge_quantize.training.augment import Augment
from edge_quantize.training.labelled import Labelled, Samples
from edge_quantize.training.recipe import Recipe, load_recipe
from edge_quantize.training.run_folder import RunFolder, load_all
from edge_quantize.training.weights import deepened, seeded_weights

from edge.errors import ConfigError, EdgeError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

keras = pytest.importorskip("keras", reason="the host extra is not installed")
torch = pytest.importorskip("torch", reason="PyTorch is not installed: make torch")

from edge_quantize.training import loop, predict, teacher, train  # noqa: E402 - after the skips
from edge_quantize.training.torch_net import torch_net, torch_weights  # noqa: E402

STILL = Augment(flip=0, rotate=0, scale=(1, 1), shift=0, p_light=0, p_camera=0, p_erase=0)
TINY = Recipe(
    name="tiny", role="gate", net="gate", budget_minutes=0.002, batch=8, warmup_steps=0, bf16=False, augment=STILL
)


def two_classes(count: int = 32) -> Samples:
    """Dark and bright chips: a task that any net learns in a few steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    chips = (rng.integers(0, 60, (count, 48, 48)) + 180 * labels[:, None, None]).astype(np.uint8)
    seen = Labelled(chips, labels.astype(np.int64))
    return Samples(chips, np.eye(2, dtype=np.float32)[labels], np.arange(count), seen, {"public": seen})


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Samples:
    made = two_classes()
    monkeypatch.setattr(train, "load_samples", lambda _recipe, _masks: made)
    return made


@pytest.fixture(autouse=True)
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves on by 10 ms whenever it is asked, so that a budget is a number of steps."""
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 100))


def drawn(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, samples: Samples, folder: Path) -> list[tuple[Any, Any]]:
    """The batches (grey levels, targets) that a run trains on."""
    seen: list[tuple[Any, Any]] = []

    def noting(*_: Any) -> Any:  # noqa: ANN401
        def step(x: Any, targets: Any, _rate: float) -> Any:  # noqa: ANN401
            seen.append(((x[:, 0] * 128 + 128).numpy(), targets.numpy()))
            return torch.tensor(0.0), torch.tensor(0.0)

        return step

    monkeypatch.setattr(loop, "make_step", noting)
    net = nets.NETS["gate"]
    run = RunFolder(folder / "run")
    run.start(recipe)
    loop.run_steps(recipe, run, samples, torch_net(net), torch_net(net), loop.State())
    return seen


def test_an_epoch_draws_every_chip_once_with_its_target(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = drawn(monkeypatch, TINY, samples, tmp_path)[: len(samples.chips) // 8]
    epoch = np.concatenate([chips for chips, _ in batches]).astype(np.uint8)
    assert sorted(chip.tobytes() for chip in epoch) == sorted(chip.tobytes() for chip in samples.chips)
    for chips, targets in batches:
        assert np.array_equal(chips.mean(axis=(1, 2)) > 120, targets[:, 1] == 1)


def test_mixup_mixes_chips_and_targets_alike(samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bright = 200 * (samples.chips.mean(axis=(1, 2)) > 120)
    flat = replace(samples, chips=np.broadcast_to(bright[:, None, None], samples.chips.shape).astype(np.uint8))
    batches = drawn(monkeypatch, replace(TINY, mixup=1.0, geometry_only_tail=0.0), flat, tmp_path)
    shares = np.concatenate([targets[:, 1] for _, targets in batches])
    levels = np.concatenate([chips.mean(axis=(1, 2)) for chips, _ in batches])
    assert np.abs(levels - 200 * shares).max() < 1e-3
    assert ((shares > 0.05) & (shares < 0.95)).any()


def test_a_run_learns_and_leaves_all_that_is_needed(samples: Samples, tmp_path: Path) -> None:
    recipe = replace(TINY, budget_minutes=0.02, peak_rate=0.05)
    run = RunFolder(tmp_path / "run")
    result = train.train(recipe, run, tmp_path)
    assert result["scores"]["public"]["accuracy"] == 1.0
    assert run.recipe() == recipe
    assert {"commit", "python", "torch", "keras"} <= json.loads((run.path / "origin.json").read_text()).keys()
    with (run.path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert int(rows[-1]["step"]) <= result["steps"]
    # the saved model is the scored one, in both forms
    model = keras.models.load_model(run.path / "final.keras", compile=False)
    logits = np.asarray(model((samples.chips[..., None].astype(np.float32) - 128) / 128))
    assert (logits.argmax(1) == samples.tests["public"].labels).all()
    again = predict.probabilities(teacher.load_run(run.path), samples.chips)
    assert again == pytest.approx(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), abs=1e-5)


def test_resuming_goes_on_where_the_run_stood(samples: Samples, tmp_path: Path) -> None:
    assert len(samples.chips)
    run = RunFolder(tmp_path / "run")
    first = train.train(TINY, run, tmp_path)
    longer = replace(TINY, budget_minutes=0.004)
    second = train.train(longer, run, tmp_path, resume=True)
    assert second["steps"] > first["steps"]
    assert second["seconds"] >= first["seconds"]
    with pytest.raises(ConfigError, match="nothing to resume"):
        train.train(TINY, RunFolder(tmp_path / "none"), tmp_path, resume=True)


def test_a_resumed_run_is_the_one_that_was_begun(samples: Samples, tmp_path: Path) -> None:
    assert len(samples.chips)
    run = RunFolder(tmp_path / "run")
    train.train(TINY, run, tmp_path)
    for change, named in (({"seed": 5}, "seed = 1, not 5"), ({"data": "faces"}, "data = None, not 'faces'")):
        with pytest.raises(ConfigError, match=f"was begun with {named}"):
            train.train(replace(TINY, **change), run, tmp_path, resume=True)
    train.train(replace(TINY, budget_minutes=0.003), run, tmp_path, resume=True)
    assert run.recipe().budget_minutes == 0.003


def test_resuming_takes_what_is_not_given_from_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Recipe] = []

    def note(recipe: Recipe, *_: Any, **__: Any) -> dict[str, Any]:  # noqa: ANN401
        asked.append(recipe)
        return {}

    monkeypatch.setattr(train, "train", note)
    begun = replace(load_recipe("gate"), seed=5, data=str(tmp_path), budget_minutes=120.0)
    RunFolder(tmp_path / "run").start(begun)
    command = ["train", "--recipe", "gate", "--out", str(tmp_path / "run"), "--resume"]
    assert cli.main(command) == 0
    assert cli.main([*command, "--budget-minutes", "130"]) == 0
    assert asked == [begun, replace(begun, budget_minutes=130.0)]


def test_a_run_is_not_removed_unasked(samples: Samples, tmp_path: Path) -> None:
    assert len(samples.chips)
    run = RunFolder(tmp_path / "run")
    train.train(TINY, run, tmp_path)
    for name in ("final.npz", "checkpoint.npz"):  # finished, and stopped before its end
        with pytest.raises(ConfigError, match="holds a run: --resume goes on with it, --again removes it"):
            train.train(replace(TINY, seed=2), run, tmp_path)
        assert run.recipe() == TINY
        (run.path / name).unlink()
    train.train(TINY, run, tmp_path)
    train.train(replace(TINY, seed=2), run, tmp_path, again=True)
    assert run.recipe().seed == 2


def test_two_trainings_do_not_write_into_one_folder(samples: Samples, tmp_path: Path) -> None:
    assert len(samples.chips)
    run = RunFolder(tmp_path / "run")
    with run.locked():
        for _ in range(2):  # the second that is refused takes the folder from under nobody
            with pytest.raises(ConfigError, match="another training writes there"):
                train.train(TINY, run, tmp_path)
        assert run.path.exists()
    assert not run.path.exists(), "nothing came of it"


def test_a_loss_that_is_no_number_ends_the_run_before_a_checkpoint_holds_it(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(samples.chips)
    run = RunFolder(tmp_path / "run")
    train.train(TINY, run, tmp_path)
    monkeypatch.setattr(loop, "make_step", lambda *_: lambda *_: (torch.tensor(torch.nan), torch.tensor(0.0)))
    with pytest.raises(ConfigError, match=r"tiny: the loss is nan after .* steps: lower peak_rate"):
        train.train(replace(TINY, budget_minutes=0.004), run, tmp_path, resume=True)
    assert all(np.isfinite(array).all() for array in run.load_checkpoint()[0].values())


def test_a_resumed_average_goes_on_and_does_not_begin_anew() -> None:
    net = replace(nets.NETS["gate"], dropout=0.0)
    start, x, targets = seeded_weights(net), torch.zeros(4, 1, 48, 48), torch.eye(2)[[0, 1, 0, 1]]
    moved = []
    for done in (0, 1_000_000):
        model, average = torch_net(net, start), torch_net(net, start)
        loop.make_step(replace(TINY, ema=0.999, momentum=0.0), model, average, done)(x, targets, 0.5)
        change = torch_weights(average)["head/bias"] - start["head/bias"]
        moved.append(np.abs(change / (torch_weights(model)["head/bias"] - start["head/bias"])).max())
    assert moved == pytest.approx([9 / 11, 0.001], rel=0.01)


def test_a_resumed_run_finds_hard_the_faces_that_fooled_what_it_began_from(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def with_hard(_recipe: Recipe, those: Samples, model: Any) -> Samples:  # noqa: ANN401
        asked.append(torch_weights(model))
        return those

    monkeypatch.setattr(train, "with_hard", with_hard)
    (tmp_path / "begun").mkdir()
    RunFolder(tmp_path / "begun").save_final(seeded_weights(nets.NETS["gate"]))
    recipe, run = replace(TINY, init="begun", hard_repeats=2), RunFolder(tmp_path / "run")
    train.train(recipe, run, tmp_path)
    train.train(replace(recipe, budget_minutes=0.004), run, tmp_path, resume=True)
    assert all(np.array_equal(asked[0][key], asked[1][key]) for key in asked[0])
    assert len(samples.chips)


def test_weights_that_do_not_fit_leave_the_run_before_as_it_was(samples: Samples, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    train.train(TINY, run, tmp_path)
    before = run.result()
    for name, net in (("one", "fer-cpu"), ("two", "fer-gpu")):
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).save_final(seeded_weights(nets.NETS[net]))
    for init in ("one", "one + two"):
        with pytest.raises(ConfigError, match="are not of gate"):
            train.train(replace(TINY, init=init), run, tmp_path, again=True)
    for change in ({"init": "none"}, {"teacher": "none", "teacher_weight": 0.5, "teacher_views": "agreeing"}):
        with pytest.raises(SourceError, match="none"):
            train.train(replace(TINY, **change), run, tmp_path, again=True)
    assert run.result() == before
    assert run.final_weights()
    assert len(samples.chips)


def test_a_run_begun_anew_holds_nothing_of_the_one_before(samples: Samples, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    train.train(TINY, run, tmp_path)
    run.start(replace(TINY, seed=2))
    assert {path.name for path in run.path.iterdir()} <= {
        "recipe.json", "origin.json", "log.csv", "curves.png", "public_scores.jsonl",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="nothing to resume"):
        train.train(TINY, run, tmp_path, resume=True)
    assert len(samples.chips)


def test_a_run_can_start_from_the_mean_of_several(tmp_path: Path) -> None:
    net = nets.NETS["gate"]
    one = seeded_weights(net)
    for name, factor in (("a", 1.0), ("b", 3.0)):
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).save_final({key: factor * array for key, array in one.items()})
    mean = train._weights_of("a + b", tmp_path)
    assert mean.keys() == one.keys()
    assert all(np.allclose(mean[key], 2 * array) for key, array in one.items())


def test_sigterm_saves_a_checkpoint(samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(samples.chips)
    before = signal.getsignal(signal.SIGTERM)
    real = loop.make_step

    def stopping(*arguments: Any) -> Any:  # noqa: ANN401
        step = real(*arguments)

        def once(*inner: Any) -> Any:  # noqa: ANN401
            os.kill(os.getpid(), signal.SIGTERM)
            return step(*inner)

        return once

    monkeypatch.setattr(loop, "make_step", stopping)
    run = RunFolder(tmp_path / "run")
    result = train.train(replace(TINY, budget_minutes=60), run, tmp_path)
    assert result == {"stopped_at_step": 1}
    assert run.load_checkpoint()[2] == 1
    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(SourceError):
        run.final_weights()


def test_a_checkpoint_of_a_fer_net_stays_small_and_exact_enough(tmp_path: Path) -> None:
    weights = seeded_weights(nets.NETS["fer-cpu"])
    run = RunFolder(tmp_path)
    run.save_checkpoint(weights, weights, 7, 12.5)
    assert (tmp_path / "checkpoint.npz").stat().st_size <= 7.5e6
    live, averaged, step, seconds = run.load_checkpoint()
    assert (step, seconds) == (7, 12.5)
    assert live.keys() == averaged.keys() == weights.keys()
    for name, array in weights.items():
        assert np.abs(live[name] - array).max() <= 1e-3 * np.abs(array).max()


def test_decay_acts_on_kernels_only() -> None:
    net = replace(nets.NETS["gate"], dropout=0.0)
    start = seeded_weights(net)
    x, targets = torch.zeros(4, 1, 48, 48), torch.eye(2)[[0, 1, 0, 1]]
    after = []
    for l2 in (1.0, 0.0):
        model, average = torch_net(net, start), torch_net(net, start)
        loop.make_step(replace(TINY, l2=l2, momentum=0.0), model, average)(x, targets, 0.5)
        after.append(torch_weights(model))
    decayed, kept = after
    for name, old in start.items():
        expected = kept[name] - 0.5 * old if name.endswith("kernel") else kept[name]
        assert decayed[name] == pytest.approx(expected, abs=1e-4), name


def test_statistics_are_the_plain_mean_of_the_batches(samples: Samples) -> None:
    net = nets.NETS["gate"]
    model = torch_net(net, seeded_weights(net))
    flat = replace(samples, chips=np.full_like(samples.chips, 200))
    loop.estimate_normalisation(model, flat, seed=0, batch=8)
    kernel = seeded_weights(net)["conv1/kernel"]
    inside = kernel.sum(axis=(0, 1, 2)) * (200 - 128) / 128
    mean = torch_weights(model)["conv1/mean"]
    # all but the padded edge of the map (23 of 24 rows and columns) sees the full kernel
    assert np.abs(mean - inside).max() < 0.1 * np.abs(inside).max() + 0.1
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(m.momentum == pytest.approx(1 - nets.BN_MOMENTUM) for m in norms)


@pytest.mark.parametrize(("name", "deeper"), [("fer-cpu", "fer-deep"), ("gate", "gate-deep")])
def test_a_deepened_net_begins_with_the_answers_of_the_shallow_one(samples: Samples, name: str, deeper: str) -> None:
    shallow, deep = nets.NETS[name], nets.NETS[deeper]
    weights = seeded_weights(shallow)
    one = predict.probabilities(torch_net(shallow, weights), samples.chips)
    other = predict.probabilities(torch_net(deep, deepened(deep, weights)), samples.chips)
    assert np.abs(one - other).max() < 1e-5
    with pytest.raises(ValueError, match="no place for"):
        deepened(shallow, seeded_weights(deep))


def test_a_teacher_with_agreeing_views_answers_the_students_own_chip(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nets.NETS["gate"]
    run = RunFolder(tmp_path / "teacher")
    run.start(TINY)
    run.save_final(seeded_weights(net))
    recipe = replace(TINY, teacher="teacher", teacher_weight=0.5, teacher_views="agreeing", augment=Augment())
    assert teacher.with_teacher(recipe, samples, tmp_path) is samples
    asked: list[Any] = []
    answering = teacher.consistent_teacher(recipe, tmp_path)
    assert answering is not None

    def noting(*_: Any) -> Any:  # noqa: ANN401
        def step(x: Any, targets: Any, _rate: float) -> Any:  # noqa: ANN401
            with torch.no_grad():
                asked.append((targets, torch.softmax(answering(x), 1)))
            return torch.tensor(0.0), torch.tensor(0.0)

        return step

    monkeypatch.setattr(loop, "make_step", noting)
    loop.run_steps(recipe, run, samples, torch_net(net), torch_net(net), loop.State(), answering)
    for targets, answer in asked:
        rest = 2 * (targets - 0.5 * answer)
        assert torch.allclose(rest, rest.round(), atol=1e-5), "half the answer, half a label of 0 and 1"


def test_several_teachers_answer_together(tmp_path: Path) -> None:
    net, x = nets.NETS["gate"], torch.randn(4, 1, 48, 48)
    for name, seed in (("a", 1), ("b", 2)):
        RunFolder(tmp_path / name).start(TINY)
        RunFolder(tmp_path / name).save_final(seeded_weights(net, seed))
    said = []
    for named in ("a", "b", "a + b"):
        recipe = replace(TINY, teacher=named, teacher_weight=0.5, teacher_views="agreeing")
        answering = teacher.consistent_teacher(recipe, tmp_path)
        assert answering is not None
        with torch.no_grad():
            said.append(answering(x))
    assert not torch.allclose(said[0], said[1])
    assert torch.allclose(said[2], (said[0] + said[1]) / 2, atol=1e-5)


def test_the_teacher_enters_the_targets(tmp_path: Path) -> None:
    samples = two_classes(4)
    logits = np.zeros((2, 40, 2), np.float32)
    logits[:, 10] = [[0, np.log(3)], [0, np.log(3)]]
    np.savez(tmp_path / "t.npz", logits=logits)
    samples = replace(samples, row=np.array([10, 3, 10, 5]))
    recipe = replace(TINY, teacher=str(tmp_path / "t.npz"), teacher_weight=0.5)
    mixed = teacher.with_teacher(recipe, samples, tmp_path).targets
    assert mixed[0] == pytest.approx([0.5 + 0.125, 0.375])
    assert mixed[1] == pytest.approx([0.25, 0.75])
    sharp = teacher.with_teacher(replace(recipe, teacher_temperature=0.5), samples, tmp_path).targets
    assert sharp[0] == pytest.approx([0.5 + 0.05, 0.45])
    assert teacher.with_teacher(TINY, samples, tmp_path) is samples


def test_an_unfinished_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not a run folder"):
        teacher.load_run(tmp_path)
    RunFolder(tmp_path).start(TINY)
    with pytest.raises(SourceError, match=r"final\.npz"):
        teacher.load_run(tmp_path)
    np.savez(tmp_path / "whole.npz", a=np.zeros(100))
    for content in (b"no archive", (tmp_path / "whole.npz").read_bytes()[:-40]):
        (tmp_path / "final.npz").write_bytes(content)
        with pytest.raises(SourceError, match="cannot be read"):
            load_all(tmp_path / "final.npz")


def test_the_command_line_prints_one_line_for_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli.main(["train", "--recipe", "none-such"]) == ConfigError.exit_code
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv("EDGE_DATA", str(tmp_path))
    assert cli.main(["train", "--recipe", "gate", "--out", str(tmp_path / "run")]) == SourceError.exit_code
    assert "EDGE_DATA" in capsys.readouterr().err
    assert issubclass(SourceError, EdgeError)


def test_the_command_line_says_how_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "tensorflow" else object())
    assert cli.main(["train"]) == 2
    told = 'edge-quantize needs TensorFlow and more: in a clone: .venv/bin/pip install -e ".[host]"\n'
    assert capsys.readouterr().err == told
