"""Rows of FER2013's training split that are no bare faces, found by looking at what the gate called masked."""

from __future__ import annotations

from typing import Final

PLACEHOLDERS: Final = (
    2976, 3018, 3775, 4013, 5068, 5827, 6255, 6282, 7261, 10306, 11351, 13192, 14759, 14862, 16564, 16743, 18385, 20783,
    20972, 22096, 23649, 24823, 24992, 25972, 26050, 27703, 28398,
)  # fmt: skip
"""Signs, texts and clothes: "this person moved or deleted this image"."""
MASKED: Final = (659, 921, 9083, 12370, 20118, 22082)
"""Mouth and nose behind a mask, a scarf or tape."""
NOT_BARE: Final = PLACEHOLDERS + MASKED
