"""`edge-quantize train`: one net by a recipe, alone or fold by fold."""

from __future__ import annotations

import dataclasses
import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ConfigError
from edge_quantize.training.recipe import check_recipe, load_recipe
from edge_quantize.training.run_folder import RunFolder

if TYPE_CHECKING:
    import argparse


def _command(args: argparse.Namespace) -> int:
    if find_spec("torch") is None:
        msg = "training needs PyTorch: make torch (pip install torch==2.13.0; the CPU build is enough)"
        raise ConfigError(msg)
    from edge_quantize.training.train import train, train_folds

    recipe = load_recipe(args.recipe)
    out = args.out or Path("build/train") / recipe.name
    data = None if args.data is None else str(args.data.resolve())
    changes = {"budget_minutes": args.budget_minutes, "seed": args.seed, "data": data}
    begun = RunFolder(out if args.folds is None else out / "fold-0")
    if args.resume and (begun.path / "recipe.json").exists():  # what is not given is as it was begun
        changes = {key: getattr(begun.recipe(), key) if given is None else given for key, given in changes.items()}
    recipe = dataclasses.replace(recipe, **{k: v for k, v in changes.items() if v is not None})
    if not 0 < recipe.budget_minutes < math.inf:
        msg = f"--budget-minutes must be a positive number, not {recipe.budget_minutes}"
        raise ConfigError(msg)
    check_recipe(recipe, recipe.name)
    how = {"resume": args.resume, "again": args.again}
    if args.folds is not None:
        result = train_folds(recipe, args.folds, out, args.masks, **how)
    else:
        result = train(recipe, RunFolder(out), args.masks, **how)
    print(json.dumps(result, indent=1))
    return 1 if "stopped_at_step" in result else 0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`edge-quantize train`."""
    parser = subparsers.add_parser("train", help="train one net by a recipe")
    parser.add_argument("--recipe", required=True, help="name in recipes/ or a .toml file")
    parser.add_argument("--budget-minutes", type=float, help="time to train, instead of the recipe's")
    parser.add_argument("--seed", type=int, help="seed, instead of the recipe's")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    what.add_argument("--again", action="store_true", help="remove the run that the folder holds, and begin anew")
    parser.add_argument("--out", type=Path, help="run folder (build/train/<recipe>)")
    parser.add_argument("--masks", type=Path, default=Path("build/masks"), help="folder of rendered masks")
    parser.add_argument("--data", type=Path, help="your own faces in FER2013's place: a folder with a folder for each "
                        "class, or a CSV as FER2013's")  # fmt: skip
    parser.add_argument("--folds", type=int, help="train so many times, each with another part of the faces held out")
    parser.set_defaults(func=_command)
