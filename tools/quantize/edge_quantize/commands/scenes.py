"""`edge-quantize scenes`: training faces as the device finds and cuts them, for expression nets to train on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize scenes`."""
    import numpy as np

    from edge.bundle.manifest import load_bundle
    from edge.errors import SourceError
    from edge.inference.cpu import CpuBackend
    from edge.vision.detect.choose import detector_roles, open_detector
    from edge_quantize.datasets.fer2013 import SEEN, Rendered, load_fer2013, load_rendered
    from edge_quantize.evaluation import in_scene
    from edge_quantize.progress import bar

    bundle, fer = load_bundle(args.bundle), load_fer2013()
    rooms = in_scene.squares(in_scene.backgrounds(first=5))  # others than `evaluate` sets faces into
    everyone = fer.train_rows()
    masked = load_rendered(args.folder / "fer2013-train-0.npz")
    inside = np.isin(masked.index, everyone)
    faces = {
        "fer_unmasked": Rendered(fer.images[everyone], everyone.astype(np.int32), np.zeros(len(everyone), np.uint8)),
        "fer_masked": Rendered(masked.images[inside], masked.index[inside], masked.kind[inside]),
    }
    for seed, (role, those) in enumerate(faces.items(), in_scene.TRAIN_SEED):
        path = args.folder / SEEN[role]
        if path.exists() and not args.again:
            continue
        # Each its own: a detector remembers faces from frame to frame.
        detector = open_detector(bundle, "blazeface", CpuBackend(bundle, detector_roles(bundle, "blazeface")))
        with bar(path.stem) as show:
            seen = in_scene.look(those.images, rooms, detector, [bundle.crop(detector.kind)], show, seed)
        found = seen.found
        if not found.any():
            msg = f"{args.bundle}: its detector found none of {len(found)} faces"
            raise SourceError(msg)
        Rendered(seen.chips[0], those.index[found], those.kind[found]).save(path)
        sys.stdout.write(f"{path}: {found.sum()} of {len(found)} faces found\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `scenes`."""
    parser = subparsers.add_parser("scenes", help="set training faces into scenes and cut them as the device does")
    parser.add_argument("--bundle", type=Path, required=True, help="whose detector looks, e.g. models/fer-2027.09")
    parser.add_argument("--folder", type=Path, default=Path("build/masks"), help="of the masked renderings")
    parser.add_argument("--again", action="store_true", help="write anew what is there already")
    parser.set_defaults(func=command)
