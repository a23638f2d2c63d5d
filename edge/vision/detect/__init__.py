"""Finding faces. One protocol; one file a detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edge.types import U8, FaceBox


class Detector(Protocol):
    """Finds faces in one frame."""

    kind: str
    """Name in the configuration and in the manifest's crop constants."""

    def detect(self, image: U8, *, thorough: bool = False, zoom: float = 1.0) -> list[FaceBox]:
        """Face boxes in pixels of the image, best first, of uint8 (H, W) grey or (H, W, 3) BGR.

        `thorough`: this frame will not be followed by others of the same scene (a still). `zoom`: pixels of the frame
        that one of the image is across, where it is a smaller picture of it; `min_face` is of the frame.
        """
        ...

    def forget(self) -> None:
        """Keep nothing of the frames before."""
        ...
