"""The tree in docs/architecture.md names the modules that git has, and no others."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pytest

REPO = Path(__file__).resolve().parents[2]
ROOTS = ("edge", "tools/quantize/edge_quantize", "tools/aggregate/edge_aggregate")


def told(text: str) -> dict[str, set[str]]:
    """Folder to what the listing names in it: modules without `.py`, folders with a slash.

    A line at the margin is a root. Below it, two spaces in, stands a folder, two spaces and what is in it, or what is
    in the root itself; a line that is further in goes on with the one before. Brackets hold remarks.
    """
    found: dict[str, set[str]] = defaultdict(set)
    root = folder = ""
    for line in filter(None, text.splitlines()):
        rest = re.sub(r"\(.*?\)", "", line)
        if not line.startswith(" "):
            root = folder = rest.strip().rstrip("/")
            continue
        if not line.startswith("   "):
            name, _, after = rest.strip().partition("  ")
            folder = root
            if name.endswith("/") and "·" not in name:
                found[root].add(name)
                folder, rest = f"{root}/{name.rstrip('/')}", after
        found[folder] |= {part.strip().removesuffix(".py") for part in rest.split("·") if part.strip()}
    return dict(found)


def kept(paths: list[PurePosixPath], *, data: bool) -> dict[str, set[str]]:
    """The same of files: modules but `__init__` and its like, and folders with a module in them, or with any `data`."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        module = path.suffix == ".py" and not path.stem.startswith("__")
        if module:
            found[str(path.parent)].add(path.stem)
        for folder in path.parents if module or data else ():
            found[str(folder.parent)].add(f"{folder.name}/")
    return dict(found)


def test_a_listing_is_read_as_it_is_written() -> None:
    text = "a/\n  cli.py · one\n  sub/      deep/ · x ·\n            y\n  data/     (its own files)\n\nb/c/\n  z\n"
    read = {"a": {"cli", "one", "sub/", "data/"}, "a/sub": {"deep/", "x", "y"}, "a/data": set(), "b/c": {"z"}}
    assert told(text) == read


def test_files_are_modules_and_folders() -> None:
    files = [PurePosixPath("a", name) for name in ("__init__.py", "cli.py", "sub/x.py", "sub/deep/y.py", "data/f.npz")]
    for data in (False, True):
        found = kept(files, data=data)
        assert found["a"] == {"cli", "sub/", *(["data/"] if data else [])}
        assert found["a/sub"] == {"x", "deep/"}
        assert "a/data" not in found


@pytest.mark.parametrize("root", ROOTS)
def test_the_tree_is_what_git_has(root: str) -> None:
    text = (REPO / "docs/architecture.md").read_text(encoding="utf-8")
    fence = re.search(r"^## The tree\n.*?^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert fence is not None
    listed = {folder: names for folder, names in told(fence[1]).items() if f"{folder}/".startswith(f"{root}/")}
    assert root in listed
    tracked = subprocess.run(["git", "ls-files", "-z", root], cwd=REPO, capture_output=True, text=True, check=True)
    files = [PurePosixPath(name) for name in tracked.stdout.split("\0") if name and (REPO / name).is_file()]
    needed, there = kept(files, data=False), kept(files, data=True)
    missing = {f: some for f, names in listed.items() if (some := sorted(needed.get(f, set()) - names))}
    gone = {f: some for f, names in listed.items() if (some := sorted(names - there.get(f, set())))}
    assert not missing, "docs/architecture.md, The tree, does not name them"
    assert not gone, "docs/architecture.md, The tree, names what is not there"
