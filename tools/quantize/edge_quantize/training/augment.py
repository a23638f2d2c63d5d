"""What chips are augmented by: ranges to draw from, as recipes give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SIDE_LIT: Final = 0.4
"""Share of the relit chips that are lit from one side, where `side` allows any."""


@dataclass(frozen=True, slots=True)
class Augment:
    """Ranges to draw from. Lengths are shares of the chip's side, angles degrees, noise in grey levels.

    `p_light`, `p_camera` and `p_erase` are the shares of chips that get a light change, camera effects (one
    of noise, blur, motion, resolution, JPEG) and an erased rectangle. `gain` multiplies the grey levels; `side`
    is the largest share of light that one edge of the chip loses when the light comes from the other.
    """

    flip: float = 0.5
    rotate: float = 20.0
    scale: tuple[float, float] = (0.8, 1.2)
    shift: float = 0.1
    p_light: float = 0.5
    gamma: tuple[float, float] = (0.5, 2.0)
    contrast: tuple[float, float] = (0.4, 1.3)
    gain: tuple[float, float] = (1.0, 1.0)
    side: float = 0.0
    p_camera: float = 0.3
    noise: float = 12.0
    p_erase: float = 0.25
    erase: tuple[float, float] = (0.02, 0.15)

    def geometry_only(self) -> Augment:
        """The same geometry without light, camera effects and erasing."""
        return Augment(
            flip=self.flip,
            rotate=self.rotate,
            scale=self.scale,
            shift=self.shift,
            p_light=0.0,
            p_camera=0.0,
            p_erase=0.0,
        )
