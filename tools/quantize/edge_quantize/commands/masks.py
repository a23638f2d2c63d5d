"""`edge-quantize masks`: what training and testing read, or a mask on one photograph."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edge.errors import ConfigError, SourceError, refuse_options

if TYPE_CHECKING:
    import argparse

    from edge.types import U8
    from edge_quantize.datasets.fer2013 import Fer2013
    from edge_quantize.masks.landmarks import Landmarks

_OF_DATA_SET = ("folder", "renderings", "freeze")
_OF_PHOTO = ("kind", "tone", "hue", "saturation", "slip")


def _photo(args: argparse.Namespace) -> int:
    """Put a mask on the face of one photograph and write it at the same size."""
    from edge_quantize.masks import landmarks
    from edge_quantize.masks import synthesis as masks
    from edge_quantize.masks.templates import KINDS, TRAIN_VARIANTS, read_template

    if args.out is None:
        msg = "--image needs --out FILE"
        raise ConfigError(msg)
    # OpenCV's types do not say that it gives None for what it cannot read.
    image: Any = cv2.imread(str(args.image), cv2.IMREAD_COLOR)
    if image is None:
        msg = f"{args.image}: not a readable picture"
        raise SourceError(msg)
    photo: U8 = image
    points = landmarks.find_in_photo(landmarks.open_face_mesh(), photo)
    if points is None:
        msg = f"{args.image}: no face found: give a picture with one upright face"
        raise SourceError(msg)
    rng = np.random.default_rng(args.seed)
    lots = masks.Lots(kinds=(KINDS.index(args.kind),), variants=TRAIN_VARIANTS, neutral=0.0, jitter=0.0)
    params = masks.draw_params(0, photo, points, rng, lots)
    params["quad"] = masks.worn(points, args.slip)
    params["noise"], params["blur"] = 1.0, 0.0
    if args.tone is not None:
        params["tone"], params["strap"], params["gradient"] = args.tone, args.tone, 0.0
    if args.hue is not None:
        params["hue"], params["saturation"] = args.hue, args.saturation
    template = read_template(str(args.template)) if args.template else None
    if not cv2.imwrite(str(args.out), masks.render(photo, params, template)):
        msg = f"{args.out}: cannot be written"
        raise SourceError(msg)
    return 0


def contact_sheet(faces: U8, made: U8, columns: int = 16, rows: int = 6) -> U8:
    """Rows of faces, each above its masked rendering, enlarged twice, for looking at."""
    columns = min(columns, len(made))
    count = min(len(made), columns * rows) // columns * columns
    pairs = np.concatenate([faces[:count], made[:count]], axis=1)
    sheet = pairs.reshape(-1, columns, 96, 48).swapaxes(1, 2).reshape(-1, columns * 48)
    large: U8 = cv2.resize(sheet, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    return large


def _data_set(args: argparse.Namespace) -> int:
    """Write landmarks, renderings, the frozen test set, real chips, contact sheets and the reject log."""
    from edge.types import EMOTIONS
    from edge_quantize.datasets import real_photos as real_masks
    from edge_quantize.datasets.fer2013 import data_root, load_fer2013
    from edge_quantize.masks import landmarks
    from edge_quantize.masks import sets as mask_sets
    from edge_quantize.masks.templates import KINDS
    from edge_quantize.progress import bar

    folder: Path = args.folder
    fer = load_fer2013()
    with bar("landmarks") as show:
        marks = landmarks.find_all(fer.images, folder / "landmarks.npz", processes=args.processes, progress=show)
    for number in range(args.renderings):
        path = folder / f"fer2013-train-{number}.npz"
        if path.exists() and not args.again:
            continue
        with bar(path.stem) as show:
            made = mask_sets.render_set(fer.images, np.flatnonzero(~fer.public), marks, args.seed + number,
                                        processes=args.processes, progress=show)  # fmt: skip
        made.save(path)
        _note(folder, path.stem, mask_sets.reject_log(made.rejects, fer.labels, EMOTIONS))
        for kind, name in enumerate(KINDS):
            of_kind = made.params["kind"] == kind
            if number == 0 and of_kind.any():
                faces = fer.images[made.params["index"][of_kind]]
                cv2.imwrite(str(folder / f"sheet-{name}.png"), contact_sheet(faces, made.images[of_kind]))
    if not (folder / "real.npz").exists() or args.again:
        with bar("real photographs") as show:
            real_masks.cut_chips(data_root() / "masks_real", progress=show).save(folder / "real.npz")
    if args.freeze:
        with bar("freezing") as show:
            made = mask_sets.render_set(fer.images, fer.public_rows(), marks, mask_sets.FROZEN_SEED, frozen=True,
                                        processes=args.processes, progress=show)  # fmt: skip
        mask_sets.freeze(made)
        _note(folder, "fer2013-public", mask_sets.reject_log(made.rejects, fer.labels, EMOTIONS))
    frozen = mask_sets.render_frozen(fer.images)
    frozen.save(folder / "fer2013-public.npz")
    cv2.imwrite(str(folder / "sheet-frozen.png"),
                contact_sheet(fer.images[frozen.params["index"]], frozen.images))  # fmt: skip
    _worn(args, fer, marks)
    sys.stdout.write(f"masked faces in {folder}: {len(frozen.images)} of {int(fer.public.sum())} of PublicTest\n")
    return 0


def _note(folder: Path, name: str, rejects: dict[str, dict[str, int]]) -> None:
    """Write into `rejects.json` who got no mask in a rendering; those of earlier ones stay."""
    path = folder / "rejects.json"
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        log = {}
    draft = path.with_suffix(".part.json")
    draft.write_text(json.dumps(log | {name: rejects}, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _worn(args: argparse.Namespace, fer: Fer2013, marks: Landmarks) -> None:
    """Write the masks on turned heads that gate and masked net are trained and scored on, and sheets of them."""
    from edge_quantize.masks import worn
    from edge_quantize.masks.families import FAMILIES
    from edge_quantize.progress import bar

    # What `evaluate` scores comes first: whoever trains on bare faces alone may stop there.
    sets: dict[str, dict[str, Any]] = {
        "worn-public": {"rows": fer.public_rows(), "seed": worn.TEST_SEED, "test": True},
        "worn-never-seen": {"rows": fer.public_rows(), "seed": worn.TEST_SEED, "never_seen": True},
        "worn-validation": {"rows": fer.train_val()[1], "seed": worn.TEST_SEED, "test": True},
    }
    for number in range(args.renderings):
        sets[f"worn-train-{number}"] = {"rows": fer.train_rows(), "seed": args.seed + number}
    for name, what in sets.items():
        path = args.folder / f"{name}.npz"
        if path.exists() and not args.again:
            continue
        with bar(name) as show:
            made = worn.render_worn(fer.images, marks=marks, processes=args.processes, progress=show, **what)
        made.save(path)
        if name in {"worn-train-0", "worn-never-seen"}:
            for kind, family in enumerate(FAMILIES):
                some = np.flatnonzero(made.kind == kind)
                if len(some):
                    # The most turned heads below, where masks are hardest to place.
                    some = some[:: max(1, len(some) // 96)]
                    some = some[np.argsort(made.turned[some], kind="stable")][:96]
                    sheet = contact_sheet(fer.images[made.index[some]], made.images[some])
                    cv2.imwrite(str(args.folder / f"sheet-worn-{family}.png"), sheet)


def command(args: argparse.Namespace) -> int:
    """Run `edge-quantize masks`."""
    if args.image is not None:
        refuse_options(
            args, (*_OF_DATA_SET, "again", "processes", "input"), "leave out with --image, which is one photograph"
        )
        if args.template is not None:
            refuse_options(args, ("kind",), "is of the masks that are drawn: leave it out with --template")
        if args.hue is None:
            refuse_options(args, ("saturation",), "is of a colour: give --hue too")
        return _photo(args)
    if args.input is not None:
        refuse_options(args, (*_OF_DATA_SET, *_OF_PHOTO), "leave out with --input, whose masks are drawn by lot")
        return _tree(args)
    refuse_options(args, ("out", "template", *_OF_PHOTO), "of your own pictures: give --image or --input, or leave out")
    return _data_set(args)


def _tree(args: argparse.Namespace) -> int:
    """Put masks on the faces of a folder tree or CSV."""
    from edge_quantize.masks.folder_tree import mask_tree
    from edge_quantize.progress import bar

    if args.out is None:
        msg = "--input needs --out FOLDER"
        raise ConfigError(msg)
    with bar(args.input.name) as show:
        done = mask_tree(args.input, args.out, seed=args.seed, templates=args.template, processes=args.processes,
                         again=args.again, progress=show)  # fmt: skip
    sys.stdout.write(f"{done.made} of {done.faces} faces masked ({done.share:.1%}) in {args.out}\n")
    for label, reasons in done.refused.items():
        if reasons:
            why = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
            sys.stdout.write(f"  {label}: without a mask {why}\n")
    return 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `masks`."""
    parser = subparsers.add_parser("masks", help="put synthetic masks on faces: the data set's, or one photograph's")
    parser.add_argument("--folder", type=Path, default=Path("build/masks"), help="where the renderings go")
    parser.add_argument("--renderings", type=int, default=2, help="different renderings of the training split")
    parser.add_argument("--seed", type=int, default=1, help="of the lots drawn")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="write masks anew that are there already")
    parser.add_argument("--freeze", action="store_true", help="draw the masked PublicTest anew: figures from before "
                        "are then no longer comparable")  # fmt: skip
    own = parser.add_argument_group("your own faces")
    own.add_argument("--input", type=Path, help="a folder with a folder for each class, or a CSV as FER2013's; --out "
                     "is the folder of the masked faces")  # fmt: skip
    photo = parser.add_argument_group("one photograph")
    photo.add_argument("--image", type=Path, help="a picture with one upright face")
    photo.add_argument("--out", type=Path, help="where the masked picture (or folder) goes")
    photo.add_argument("--kind", default="surgical", choices=("surgical", "cloth", "n95", "kn95", "gaiter"))
    photo.add_argument("--template", type=Path, help="your own mask: a PNG with transparency, or a folder of them")
    photo.add_argument("--tone", type=float, help="grey level of the fabric, 0 to 255")
    photo.add_argument("--hue", type=float, help="degrees")
    photo.add_argument("--saturation", type=float, default=0.2, help="0 to 1")
    photo.add_argument("--slip", type=float, default=0.0, help="how far down the nose, 0 worn right to 1 under it")
    parser.set_defaults(func=command, default_of=parser.get_default)
