"""Shuffled, augmented batches, made by a thread while the last batch is being learned."""

from __future__ import annotations

from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

import numpy as np

from edge_quantize.training.augment import augment

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from edge_quantize.training.augment import Augment
    from edge_quantize.training.labelled import F32, U8, Samples


def batches(
    samples: Samples,
    size: int,
    seed: int,
    spec: Callable[[], Augment],
    ahead: int = 4,
) -> Generator[tuple[U8, F32], None, None]:
    """Endless augmented batches: uint8 (size, 48, 48) and targets, each epoch in a new order.

    A thread works `ahead` batches in advance; `spec` is asked for each batch, so that it may change as
    training goes on. Close the iterator to end the thread. An error in the thread is raised here.
    """
    queue: Queue[tuple[U8, F32] | BaseException] = Queue(ahead)
    stop = Event()

    def work() -> None:
        rng = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                order = rng.permutation(len(samples.chips))
                for start in range(0, max(1, len(order) - size + 1), size):
                    if stop.is_set():
                        return
                    chosen = order[start : start + size]
                    queue.put((augment(samples.chips[chosen], spec(), rng), samples.targets[chosen]))
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            queue.put(error)

    thread = Thread(target=work, name="augment", daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while thread.is_alive():
            while not queue.empty():
                queue.get_nowait()
            thread.join(0.05)
