"""The folder of one training run: recipe, origin, log, checkpoint, final weights, curves, progress."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import json
import os
import platform
import subprocess
import sys
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import ConfigError, SourceError
from edge_quantize.datasets.fer2013 import load_arrays
from edge_quantize.training.recipe import Recipe, recipe_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from edge_quantize.training.weights import Weights

LOG_COLUMNS = ("step", "seconds", "rate", "loss", "agreement", "val_loss", "val_accuracy")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run folder at `path`; made by `start`."""

    path: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, which is made, against a second training. Raises ConfigError while another holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        held = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                msg = f"{self.path}: another training writes there: wait for its end, or give another --out"
                raise ConfigError(msg) from None
            try:
                yield
            finally:
                with suppress(OSError):  # stays, unless nothing came of it
                    self.path.rmdir()
        finally:
            os.close(held)

    def refuse_taken(self) -> None:
        """Raise ConfigError where a run is that `start` would remove."""
        if any((self.path / name).exists() for name in ("final.npz", "checkpoint.npz")):
            msg = (
                f"{self.path} holds a run: --resume goes on with it, --again removes it and begins anew, --out names "
                "another folder"
            )
            raise ConfigError(msg)

    def go_on_with(self, recipe: Recipe) -> None:
        """Take another time budget for the run.

        Raises ConfigError where there is nothing to resume, or where anything else is not as it was begun.
        """
        self._checkpoint()
        begun = self.recipe()
        for key in (one.name for one in dataclasses.fields(Recipe) if one.name not in {"name", "budget_minutes"}):
            was, now = getattr(begun, key), getattr(recipe, key)
            if was != now:
                msg = f"{self.path} was begun with {key} = {was!r}, not {now!r}: give the same, or another --out"
                raise ConfigError(msg)
        _write_json(self.path / "recipe.json", dataclasses.asdict(recipe))

    def start(self, recipe: Recipe) -> None:
        """Create the folder with the recipe as used and what is needed to repeat the run."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.clear()
        _write_json(self.path / "recipe.json", dataclasses.asdict(recipe))
        _write_json(self.path / "origin.json", origin())
        with (self.path / "log.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(LOG_COLUMNS)

    def clear(self) -> None:
        """Remove what a run before has left: weights and result."""
        for old in ("result.json", "best.npz", "checkpoint.npz", "final.npz", "final.keras"):
            (self.path / old).unlink(missing_ok=True)

    def recipe(self) -> Recipe:
        """The recipe as used. Raises SourceError when the folder holds no run."""
        path = self.path / "recipe.json"
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"{self.path} is not a run folder: {error}"
            raise SourceError(msg) from None
        name = table.pop("name")
        return recipe_from({k: v for k, v in table.items() if v is not None}, name, str(path))

    def log(self, step: int, seconds: float, rate: float, means: NDArray[np.float64], seen: dict[str, float]) -> None:
        """Append one line: training means (loss, agreement) since the last, validation scores."""
        row = [step, round(seconds), f"{rate:.5f}", *(f"{m:.4f}" for m in means)]
        row += [f"{seen['loss']:.4f}", f"{seen['accuracy']:.4f}"]
        with (self.path / "log.csv").open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)
        if not sys.stderr.isatty():
            print("epoch", dict(zip(LOG_COLUMNS, row, strict=True)), file=sys.stderr, flush=True)

    def save_checkpoint(self, live: Weights, averaged: Weights, step: int, seconds: float) -> None:
        """One file, replaced atomically: kernels as fp16 (≤ 7.5 MB for a FER net), no optimiser state."""
        arrays: dict[str, Any] = {f"live:{k}": _half(v) for k, v in live.items()}
        arrays |= {f"average:{k}": _half(v) for k, v in averaged.items()}
        _write_npz(self.path / "checkpoint.npz", arrays | {"step": step, "seconds": seconds})

    def load_checkpoint(self) -> tuple[Weights, Weights, int, float]:
        """Live weights, averaged weights, step and seconds. Raises ConfigError when there is none."""
        found = load_all(self._checkpoint())
        live = {k.removeprefix("live:"): v for k, v in found.items() if k.startswith("live:")}
        averaged = {k.removeprefix("average:"): v for k, v in found.items() if k.startswith("average:")}
        return live, averaged, int(found["step"]), float(found["seconds"])

    def _checkpoint(self) -> Path:
        path = self.path / "checkpoint.npz"
        if not path.exists():
            msg = f"nothing to resume in {self.path}"
            raise ConfigError(msg)
        return path

    def rewind(self, step: int) -> list[tuple[float, float]]:
        """Forget what was logged after a step; returns (seconds, validation loss) of the lines that stay.

        A run killed between checkpoints has logged steps that a resume does again. Raises SourceError when the log
        is missing or damaged.
        """
        path = self.path / "log.csv"
        rows = read_log(path)
        kept = [k for k, row in enumerate(rows) if row[0] <= step]
        head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        fresh = path.with_suffix(".part.csv")
        fresh.write_text(head + "".join(lines[k] for k in kept), encoding="utf-8")
        fresh.replace(path)
        return [(rows[k][LOG_COLUMNS.index("seconds")], rows[k][LOG_COLUMNS.index("val_loss")]) for k in kept]

    def save_best(self, averaged: Weights) -> None:
        """Keep the averaged weights of the best validation so far, kernels as fp16."""
        _write_npz(self.path / "best.npz", {k: _half(v) for k, v in averaged.items()})

    def best_weights(self) -> Weights:
        """Averaged weights of the best validation. Raises SourceError when there are none."""
        return load_all(self.path / "best.npz")

    def save_final(self, weights: Weights) -> None:
        """Write the finished weights under neutral names, fp32."""
        _write_npz(self.path / "final.npz", weights)

    def final_weights(self) -> Weights:
        """Finished weights. Raises SourceError when the run is not finished."""
        return load_all(self.path / "final.npz")

    def result(self) -> dict[str, Any] | None:
        """What `write_result` wrote; None while the run is not finished."""
        try:
            found: dict[str, Any] = json.loads((self.path / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def write_result(self, result: dict[str, Any]) -> None:
        """Write `result.json`, add a line to the log of scores on PublicTest, draw the curves."""
        _write_json(self.path / "result.json", result)
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **result})
        with (self.path / "public_scores.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        draw_curves(self.path)


def load_all(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every array of an npz file as float32. Raises SourceError when absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = tuple(archive.files)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        msg = f"{path} cannot be read: {error}"
        raise SourceError(msg) from None
    return {name: array.astype(np.float32) for name, array in load_arrays(path, names).items()}


def origin() -> dict[str, str]:
    """Commit, versions and machine kind, as far as they can be told."""
    found = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.machine()}
    found |= {"python": platform.python_version(), "cpus": str(os.cpu_count())}
    for package in ("torch", "tensorflow-cpu", "tensorflow", "keras", "numpy", "opencv-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    here = Path(__file__).parents[1]
    for key, arguments in {"commit": ("rev-parse", "HEAD"), "changed": ("status", "--porcelain", ".")}.items():
        try:
            done = subprocess.run(  # noqa: S603 - fixed arguments
                ("git", *arguments),  # noqa: S607 - whichever git is on PATH
                cwd=here,
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            )
            found[key] = done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            found[key] = "unknown"
    return found


def curves(folder: Path) -> Any:  # noqa: ANN401 - matplotlib is only there with the extra
    """Draw `log.csv` as a matplotlib figure; None when it holds fewer than two lines, or columns of another version."""
    from matplotlib.figure import Figure

    with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    if tuple(head) != LOG_COLUMNS or len(rows) <= 1:
        return None
    columns = dict(zip(LOG_COLUMNS, np.array(rows, float).T, strict=True))
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, names in ((left, ("loss", "val_loss")), (right, ("agreement", "val_accuracy"))):
        for name in names:
            axes.plot(columns["seconds"] / 60, columns[name], label=name)
        axes.set_xlabel("minutes of training")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def read_log(path: Path) -> list[list[float]]:
    """Rows of a `log.csv`, columns as `LOG_COLUMNS`. Raises SourceError when it is missing or damaged."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {error}"
        raise SourceError(msg) from None
    if any(len(row) != len(LOG_COLUMNS) for row in rows):
        msg = f"{path} is damaged: {len(LOG_COLUMNS)} columns are expected in each line"
        raise SourceError(msg)
    return rows


def draw_curves(folder: Path) -> None:
    """Draw `curves.png` from `log.csv` where matplotlib is installed."""
    try:
        figure = curves(folder)
    except ImportError:
        return
    if figure is not None:
        figure.savefig(folder / "curves.png", dpi=110)


def _half(array: NDArray[np.float32]) -> NDArray[np.generic]:
    """Kernels as fp16; vectors stay fp32, for a variance may be beyond what fp16 holds."""
    return array.astype(np.float16) if array.ndim > 1 else array


def _write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    fresh = path.with_suffix(".part.npz")
    np.savez(fresh, **arrays)
    fresh.replace(path)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
