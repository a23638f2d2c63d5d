"""The process that talks to one Edge TPU: `python -m edge.inference.worker ORDER`, started by `worker_process`.

libedgetpu aborts the process that called it when a USB transfer fails, and hangs it when the stick does. So that
process holds nothing but interpreters; it may be killed at any time.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from edge.errors import EdgeError
from edge.inference.coral import Device, open_model, option
from edge.inference.shared_memory import DONE, FAILED, REQUEST, Plan, rows
from edge.inference.tflite import runtime, runtime_name

if TYPE_CHECKING:
    from edge.inference.coral import Run
    from edge.inference.shared_memory import Rows

PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Open the models, compute their golden outputs, then whatever is asked, until the service hangs up."""
    order = json.loads(sys.argv[1])
    _bind(order["parent"])
    with socket.socket(fileno=order["link"]) as link:
        try:
            _serve(link, order)
        except ConnectionError:
            pass  # the service has gone
        except Exception as error:  # noqa: BLE001 - the service is told, whatever it is
            text = str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"
            link.send(FAILED + text.encode()[:4000])


def _serve(link: socket.socket, order: dict[str, Any]) -> None:
    plans = [Plan.parse(fields) for fields in order["plans"]]
    store = mmap.mmap(order["store"], 0, prot=mmap.PROT_READ)
    exchange = mmap.mmap(order["exchange"], 0)
    device = option(Device(*order["device"]), order["number"])
    models: list[tuple[Run, Rows, Rows]] = []
    for plan in plans:
        at, size = plan.content
        run = open_model(plan.file, store[at : at + size], device, (plan.input, plan.output), order["runtime"])
        models.append((run, *plan.exchange(exchange)))
    for plan, (run, _, outputs) in zip(plans, models, strict=True):
        for row, one in enumerate(rows(plan.input, store, *plan.golden)):
            outputs[row] = run(one)
    link.send(DONE + runtime_name(runtime(order["runtime"], delegate=True)).encode())
    while request := link.recv(REQUEST.size):
        number, count = REQUEST.unpack(request)
        run, inputs, outputs = models[number]
        for row in range(count):
            outputs[row] = run(inputs[row])
            link.send(DONE)


def _bind(parent: int) -> None:
    """Die with the service, but never before it; and never leave a dump, which would hold faces."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a hung library sees no end of file
    if os.getppid() != parent:
        sys.exit()
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the service, which still has a frame in hand
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
