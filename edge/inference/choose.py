"""Which backend a configuration gets, said in the log with its reason."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from edge.bundle.golden import check_golden
from edge.errors import BackendError
from edge.inference.cpu import CpuBackend
from edge.inference.edgetpu import EdgeTpuBackend, Patience
from edge.process.logs import event

if TYPE_CHECKING:
    from edge.bundle.golden import Judge
    from edge.bundle.manifest import Bundle
    from edge.inference.protocol import Backend
    from edge.inference.tflite import Choice

log = logging.getLogger("edge.backend")


def open_backend(
    bundle: Bundle,
    roles: tuple[str, ...],
    accelerator: Literal["auto", "edgetpu", "cpu"],
    judge: Judge,
    patience: Patience | None = None,
    *,
    runtime: Choice = "auto",
) -> Backend:
    """The backend that `models.accelerator` asks for, its golden answers checked by `judge`.

    `auto` takes the Edge TPUs that work, now and whenever one comes, and the CPU meanwhile; `edgetpu` does too but does
    not start without one. `runtime` as `models.runtime`.

    Raises:
        BundleError: a model is damaged or computes wrongly; with `edgetpu`, is not compiled.
        BackendError: no runtime; with `edgetpu`, no Edge TPU that works.

    """
    cpu = CpuBackend(bundle, roles, choice=runtime)
    log.info(event("runtime", cpu=cpu.runtime))
    check_golden(bundle, cpu, roles, judge)
    if accelerator == "cpu":
        log.info(event("backend", chosen="cpu", reason="so configured"))
        return cpu
    lacking = [role for role in roles if bundle.entry(role).edgetpu is None]
    if accelerator == "auto" and lacking:
        log.info(event("backend", chosen="cpu", reason=f"the bundle's {lacking[0]} is not compiled for the Edge TPU"))
        return cpu
    patience = patience or Patience()
    tpu = EdgeTpuBackend(bundle, roles, cpu, judge, patience, runtime)
    required = accelerator == "edgetpu"
    works = tpu.wait(patience.failures if required else 1)
    if required and not works:
        tpu.close()
        msg = f'models.accelerator = "edgetpu", but none works ({tpu.trouble}): mend it, or use "auto"'
        raise BackendError(msg)
    log.info(event("backend", chosen=tpu.name, reason="golden answers are right" if works else tpu.trouble))
    return tpu
