"""The progress bars of long commands."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error; yields a function that takes (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield show


@contextmanager
def training_bar(
    name: str, budget: float, spent: float
) -> Iterator[Callable[[float, int, float, float, dict[str, float] | None], None]]:
    """Show how a run goes; yields a function to call after each step (seconds, step, loss, rate, last validation).

    A bar with the time left on a terminal, otherwise a line a minute on standard error. `budget` and `spent` are
    seconds of training; validation scores hold `accuracy` and `loss`, or are None before the first.
    """

    def text(step: int, loss: float, rate: float, seen: dict[str, float] | None) -> str:
        found = f", validation {seen['accuracy']:.1%} loss {seen['loss']:.3f}" if seen else ""
        return f"{name} step {step} loss {loss:.3f} rate {rate:.4f}{found}"

    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as shown:
            task = shown.add_task(name, total=budget, completed=int(spent))

            def draw(seconds: float, step: int, loss: float, rate: float, seen: dict[str, float] | None) -> None:
                shown.update(task, completed=min(seconds, budget), description=text(step, loss, rate, seen))

            yield draw
        return
    last = time.monotonic()

    def line(seconds: float, step: int, loss: float, rate: float, seen: dict[str, float] | None) -> None:
        nonlocal last
        if time.monotonic() - last >= 60:
            last = time.monotonic()
            left = max(0.0, budget - seconds) / 60
            print(f"{text(step, loss, rate, seen)}, {left:.0f} min left", file=sys.stderr, flush=True)

    yield line
