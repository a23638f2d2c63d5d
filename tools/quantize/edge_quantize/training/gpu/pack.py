"""`edge-quantize gpu-pack`: what a GPU machine needs to be brought, in one ignored folder."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import numpy as np

from edge.errors import SourceError
from edge_quantize.datasets.fer2013 import TILE_FILES, load_arrays

if TYPE_CHECKING:
    from pathlib import Path

MIB: Final = 1 << 20
PACK_LIMIT: Final = 60 * MIB
TOTAL_LIMIT: Final = 62 * MIB
"""Pack and repository together: those who lend a machine often take 64 MiB at most."""


def pack(data: Path, masks: Path, out: Path, repository: Path | None = None) -> tuple[int, int]:
    """Fill `out` with tiles, meta and landmarks; returns the bytes of the pack and of pack and repository.

    Landmarks go as fp16 (within 1/64 pixel). Masks are not in it: the script draws and renders them there.
    Files of earlier training that lie in `out` (teacher's logits, a student) stay and are counted.

    Raises SourceError when something is missing or the limits are passed.
    """
    out.mkdir(parents=True, exist_ok=True)
    fer = out / "fer2013"
    fer.mkdir(exist_ok=True)
    for name in ("meta.npz", *(f"tiles-{k}.webp" for k in range(TILE_FILES))):
        try:
            shutil.copyfile(data / "fer2013" / name, fer / name)
        except OSError as error:
            msg = f"cannot pack {data / 'fer2013' / name}: {error.strerror}"
            raise SourceError(msg) from None
    marks = load_arrays(masks / "landmarks.npz", ("points", "found"))
    np.savez_compressed(
        out / "landmarks.npz", points=marks["points"].astype(np.float16), found=marks["found"].astype(np.bool_)
    )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    total = size + (repository_bytes(repository) if repository else 0)
    if size > PACK_LIMIT or total > TOTAL_LIMIT:
        msg = (
            f"{out} holds {size / MIB:.1f} MiB (limit {PACK_LIMIT // MIB}), "
            f"with the repository {total / MIB:.1f} MiB (limit {TOTAL_LIMIT // MIB}): take files out of it"
        )
        raise SourceError(msg)
    return size, total


def repository_bytes(root: Path) -> int:
    """Bytes of all files of a git repository that are tracked, or new and not ignored; without its history."""
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            listed, cwd=root, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        msg = f"{root} is no git repository that can be listed: {error}"
        raise SourceError(msg) from None
    files = (root / name for name in done.stdout.split("\0") if name)
    return sum(path.stat().st_size for path in files if path.is_file())
