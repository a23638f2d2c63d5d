"""Edge TPUs behind worker processes, and the CPU for whatever they do not answer: no frame is lost to a TPU."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from edge.bundle.flatbuffer import Malformed
from edge.bundle.golden import golden_answers
from edge.bundle.model_check import check_model
from edge.errors import BundleError
from edge.inference import coral
from edge.inference.shared_memory import ROWS, Store
from edge.inference.tflite import dequantise, stated, to_int8
from edge.inference.worker_process import Died, Held, WorkerFailed, WorkerProcess, Wrong
from edge.process.logs import event

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge.bundle.golden import Judge
    from edge.bundle.manifest import Bundle
    from edge.inference.coral import Device
    from edge.inference.protocol import Backend
    from edge.inference.shared_memory import Model, Rows
    from edge.inference.tflite import Choice
    from edge.types import F32, U8

log = logging.getLogger("edge.backend")

LOOK_S: Final = 1.0
"""How often sysfs is read: a TPU that was plugged in is used soon."""
STABLE: Final = 100
"""Inputs that a worker has to answer before its device's failures are forgotten."""


class Patience(NamedTuple):
    """How long, in seconds, and how often a TPU is waited for."""

    start_s: float = 30.0
    """From the start of a worker to its golden answers; the first, longer invocations are among them."""
    invoke_s: float = 1.0
    """Each later invocation; ordinary ones take milliseconds, one that swaps models up to 0.2 s."""
    retry_s: float = 0.5
    """Pause after the first failure; it doubles with each."""
    failures: int = 3
    """After as many in a row the device is left alone …"""
    return_s: float = 60.0
    """… and tried again only this often."""
    hold_s: float = 5.0
    """After a pause, for a killed worker that is not gone, until that counts as a failure."""
    check_s: float = 10.0
    """How often a golden input of each model rides along."""


@dataclass(slots=True)
class _Seat:
    """One device, and the worker that has it."""

    device: Device
    worker: WorkerProcess | None = None
    number: int = 0
    failures: int = 0
    held: bool = False
    served: int = 0
    retry_at: float = 0.0
    check_at: dict[str, float] = field(default_factory=dict)
    checks: int = 0

    @property
    def ready(self) -> WorkerProcess | None:
        return self.worker if self.worker is not None and self.worker.ready else None


@dataclass(slots=True)
class _Share:
    """Rows of a request that one worker computes, and the golden input that rides along."""

    seat: _Seat
    worker: WorkerProcess
    rows: list[int]
    golden: int | None = None
    answers: list[Rows] = field(default_factory=list)


class EdgeTpuBackend:
    """See `edge.inference.protocol.Backend`. Several TPUs share the inputs of a request."""

    def __init__(
        self,
        bundle: Bundle,
        roles: tuple[str, ...],
        fallback: Backend,
        judge: Judge,
        patience: Patience | None = None,
        choice: Choice = "auto",
    ) -> None:
        """Check the compiled models; `wait` then starts the workers, whose golden answers `judge` compares.

        Raises BundleError when a compiled model is missing or none that can be run.
        """
        self.restarts = 0
        self.trouble = "no Edge TPU on USB or PCIe"
        """Why no TPU, or not every one, is in use: the last reason."""
        self._bundle, self._fallback, self._judge = bundle, fallback, judge
        self._patience, self._choice = patience or Patience(), choice
        self._models = {role: number for number, role in enumerate(roles)}
        self._golden = golden_answers(bundle, roles)
        self._store = Store([self._compiled(role) for role in roles])
        self._seats: dict[str, _Seat] = {}
        self._dying: list[WorkerProcess] = []
        self._most = self._turn = 0
        self._look_at = 0.0
        self._said: str | None = None

    def _compiled(self, role: str) -> Model:
        entry, content = self._bundle.entry(role), self._bundle.read_edgetpu(role)
        try:
            check_model(content)
        except Malformed as error:
            msg = f"{self._bundle.folder / str(entry.edgetpu)}: no model that can be run: {error}: compile it again"
            raise BundleError(msg) from error
        return str(entry.edgetpu), stated(entry.input), stated(entry.output), content, to_int8(self._golden[role][0])

    @property
    def name(self) -> str:
        """`edgetpu`, `edgetpu:1/2` where there are more, `cpu:fallback` where none works, `cpu` before one was seen."""
        ready = sum(seat.ready is not None for seat in self._seats.values())
        if not ready:
            return "cpu:fallback" if self._most else "cpu"
        return "edgetpu" if self._most == 1 else f"edgetpu:{ready}/{self._most}"

    def wait(self, attempts: int = 1) -> bool:
        """Start a worker for each TPU, wait until it works or has failed `attempts` times; says whether one works."""
        self.attend()
        while any(seat.ready is None and seat.failures < attempts for seat in self._seats.values()):
            time.sleep(0.02)
            self.attend()
        self._said = self.name
        return any(seat.ready for seat in self._seats.values())

    # ---- asking

    def outputs(self, role: str, chips: U8) -> NDArray[np.int8]:
        """See `Backend.outputs`. What a worker that fails has not answered goes to the others, at last to the CPU."""
        inputs = to_int8(chips)
        answers = np.empty((len(chips), *self._golden[role][1].shape[1:]), np.int8)
        left = list(range(len(chips)))
        while left and (shares := self._deal(role, left)):
            for share in shares:
                self._ask(role, share, inputs)
            for share in shares:
                if self._collect(role, share):
                    answers[share.rows] = share.answers
                    done = set(share.rows)
                    left = [row for row in left if row not in done]
        if left:
            answers[left] = self._fallback.outputs(role, chips[left])
        return answers

    def probabilities(self, role: str, chips: U8) -> F32:
        """See `Backend.probabilities`."""
        return dequantise(self.outputs(role, chips), self._bundle.entry(role).output)

    def _deal(self, role: str, rows: list[int]) -> list[_Share]:
        """Even shares for all TPUs that work, the longer ones for another each time."""
        ready = [(seat, worker) for seat in self._seats.values() if (worker := seat.ready)]
        self._turn += 1
        shares, now = [], time.monotonic()
        for place in range(min(len(ready), len(rows))):
            seat, worker = ready[(self._turn + place) % len(ready)]
            share = _Share(seat, worker, rows[place :: len(ready)][: ROWS - 1])
            if now >= seat.check_at[role]:
                seat.check_at[role] = now + self._patience.check_s
                seat.checks += 1
                share.golden = seat.checks % len(self._golden[role][0])
            shares.append(share)
        return shares

    def _ask(self, role: str, share: _Share, inputs: NDArray[np.int8]) -> None:
        asked = inputs[share.rows]
        if share.golden is not None:
            asked = np.concatenate([asked, to_int8(self._golden[role][0][share.golden : share.golden + 1])])
        try:
            share.worker.ask(self._models[role], asked)
        except WorkerFailed as error:
            self._failed(share.seat, error)

    def _collect(self, role: str, share: _Share) -> bool:
        """Take a share's answers; none is believed when one fails."""
        model, limit = self._models[role], self._patience.invoke_s
        if share.seat.worker is not share.worker:
            return False
        try:
            for row in range(len(share.rows)):
                share.answers.append(share.worker.answer(model, row, limit).copy())
            if share.golden is not None:
                answer = share.worker.answer(model, len(share.rows), limit)
                self._compare(role, answer[None], slice(share.golden, share.golden + 1))
        except WorkerFailed as error:
            self._failed(share.seat, error)
            return False
        share.seat.served += len(share.rows)
        if share.seat.served >= STABLE:
            share.seat.failures = 0
        return True

    def _compare(self, role: str, got: Rows, which: slice) -> None:
        try:
            self._judge(self._bundle, role, "edgetpu", got, self._golden[role][1][which])
        except BundleError as error:
            raise Wrong(str(error)) from error

    # ---- starting, failing, coming back

    def attend(self) -> None:
        """See `Backend.attend`."""
        for seat in self._seats.values():
            try:
                self._visit(seat)
            except WorkerFailed as error:
                self._failed(seat, error)
        self._dying = [worker for worker in self._dying if not worker.gone()]
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look(coral.list_devices())
        for seat in self._seats.values():
            if seat.worker is None and now >= seat.retry_at:
                self._start(seat)
        self._announce()

    def _visit(self, seat: _Seat) -> None:
        if seat.worker is None:
            return
        if seat.worker.ready:
            seat.worker.check()
            return
        golden = seat.worker.started()
        if golden is None:
            return
        for role, got in zip(self._models, golden, strict=True):
            self._compare(role, got, slice(None))
        seat.served, seat.check_at = 0, dict.fromkeys(self._models, time.monotonic() + self._patience.check_s)
        took, device = time.monotonic() - seat.worker.began, seat.device
        runtime = seat.worker.runtime
        log.info(
            event("edgetpu_ready", device=device.path, start_s=round(took, 1), runtime=runtime, detail=device.detail)
        )

    def _look(self, listed: list[Device]) -> None:
        """Take a seat for each device the kernel shows; one that is gone, and whose worker is, loses its seat."""
        self._most = max(self._most, len(listed))
        for path, seat in list(self._seats.items()):
            if seat.worker is None and path not in {device.path for device in listed}:
                self.trouble = f"{path} is gone: check cable and power"
                log.warning(event("edgetpu_gone", device=path, next="check cable and power"))
                del self._seats[path]
        for device in listed:
            self._seats.setdefault(device.path, _Seat(device)).device = device

    def _start(self, seat: _Seat) -> None:
        """Start a worker with the first number of its kind that is free: numbers shift when a device goes."""
        # What holds a killed worker would hold the next as well, one a minute, until vision's memory is theirs.
        if any(worker.device.path == seat.device.path for worker in self._dying):
            if time.monotonic() - seat.retry_at >= self._patience.hold_s:
                self._failed(seat, Held("killed, and its driver holds it: no other is started until it lets go"))
            return
        kind = seat.device.kind
        same = [s for s in self._seats.values() if s.device.kind == kind]
        held = {s.number for s in same if s.worker is not None}
        seat.number = next(n for n in range(len(same)) if n not in held)
        try:
            seat.worker = WorkerProcess(seat.device, seat.number, self._store, self._patience.start_s, self._choice)
        except OSError as error:
            self._failed(seat, Died(f"cannot be started: {error.strerror}"))
            return
        self.restarts += seat.failures > 0

    def _failed(self, seat: _Seat, error: WorkerFailed) -> None:
        if seat.worker is not None:
            seat.worker.kill()
            self._dying.append(seat.worker)
            seat.worker = None
        seat.failures += 1
        p = self._patience
        left_alone = seat.failures >= p.failures
        pause = p.return_s if left_alone else p.retry_s * 2 ** (seat.failures - 1)
        known, seat.held = seat.held, isinstance(error, Held)
        seat.retry_at = time.monotonic() + pause
        self._look_at = 0.0  # it may have been pulled out: look before it is started again
        self.trouble = f"{seat.device.path}: {error}"
        if known and seat.held:
            return  # it was said
        log.warning(
            event(
                "edgetpu_failed",
                device=seat.device.path,
                cause=type(error).__name__.lower(),
                failures=seat.failures,
                retry_s=pause,
                next="check cable, power and port" if left_alone or seat.held else "none, it is started again",
                reason=error,
            )
        )
        self._announce()

    def _announce(self) -> None:
        if self._said not in (None, self.name):
            level = logging.WARNING if self.name.startswith("cpu") else logging.INFO
            log.log(level, event("backend", now=self.name, before=self._said))
            self._said = self.name

    def close(self) -> None:
        """End the workers: at once where they hang, within a second where a library closes its device in order."""
        workers = [seat.worker for seat in self._seats.values() if seat.worker is not None]
        for worker in workers:
            worker.hang_up()
        until = time.monotonic() + 1.0
        for worker in workers:
            if not worker.gone(max(0.0, until - time.monotonic())):
                worker.kill()
                self._dying.append(worker)
        for worker in self._dying:
            worker.gone(0.2)
        self._store.close()
        self._fallback.close()
