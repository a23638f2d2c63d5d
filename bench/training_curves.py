"""bench/training/curves.png: validation over processor-hours, of every curve that lies as CSV in bench/training/."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "training"
FACES: Final = 800
"""Faces of validation: half a 95 % interval is drawn around where each run began."""


def main() -> None:
    """Draw the curves."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    files = sorted(FOLDER.glob("*.csv"))
    figure, axes = plt.subplots(1, len(files), figsize=(6 * len(files), 3.6), squeeze=False, layout="constrained")
    for axis, path in zip(axes[0], files, strict=True):
        with path.open(encoding="utf-8") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        hours, share = [row["processor_hours"] for row in rows], [100 * row["validation"] for row in rows]
        half = 196 * (share[0] / 100 * (1 - share[0] / 100) / FACES) ** 0.5
        axis.axhspan(share[0] - half, share[0] + half, color="0.93", label="95 % interval of where it began")
        axis.plot(hours, share, linewidth=1.2, label="averaged weights")
        axis.set(title=path.stem, xlabel="processor-hours", ylabel="validation, % right")
        axis.legend(fontsize="small")
    figure.savefig(FOLDER / "curves.png", dpi=90)


if __name__ == "__main__":
    main()
