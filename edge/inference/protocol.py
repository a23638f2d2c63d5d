"""The protocol every inference backend keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge.types import U8


class Backend(Protocol):
    """Runs the models of one bundle."""

    @property
    def name(self) -> str:
        """What `health.backend` says: `cpu`, `edgetpu`, `edgetpu:1/2` (one of two), `cpu:fallback` (no TPU works)."""
        ...

    restarts: int
    """How often a worker had to be started again."""

    def outputs(self, role: str, chips: U8) -> NDArray[np.int8]:
        """Raw int8 outputs of uint8 inputs: (N, K) of chips (N, 48, 48), the detector's (N, A, 17) of (N, 128, 128, 3).

        Raises BackendError when the model cannot run.
        """
        ...

    def probabilities(self, role: str, chips: U8) -> NDArray[np.float32]:
        """A classifier's float32 (N, K) of uint8 chips (N, 48, 48), each row summing to about 1."""
        ...

    def attend(self) -> None:
        """Start again what failed; to be called a few times a second, returns at once."""
        ...

    def close(self) -> None:
        """Free the runtime; safe to call twice."""
        ...
