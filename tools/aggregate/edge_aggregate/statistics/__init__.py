"""From sums of released cells to shares with bands: as the classifier reads them, and corrected for how it reads.

Whole numbers come in, and every float is made here, by sums that are rounded once (`math.fsum`) and by operations that
IEEE 754 fixes to the bit: whoever counted, and in whatever order, the figures are the same. Why these bands, and what
they cover: docs/decisions/0029-bands.md.
"""

from edge_aggregate.statistics.changes import Change, Difference, changed, discoveries
from edge_aggregate.statistics.estimates import corrected
from edge_aggregate.statistics.parts import Band, Part, counted
from edge_aggregate.statistics.shares import as_read
from edge_aggregate.statistics.sites import CityBands, bare_share, city, full_share

__all__ = [
    "Band",
    "Change",
    "CityBands",
    "Difference",
    "Part",
    "as_read",
    "bare_share",
    "changed",
    "city",
    "corrected",
    "counted",
    "discoveries",
    "full_share",
]
