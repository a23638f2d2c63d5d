"""What the documents point at is there: `python -m tests.repository.links`, which `make lint` calls.

Links between files with their anchors, paths in backticks (`edge/vision/pipeline.py`), names of files (`worker.py`) and
of modules (`edge.vision.camera`). What lies elsewhere (https, a device's /etc, build/) is not asked for. CHANGELOG.md
tells of what was, so only its links are looked at.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REPO: Final = Path(__file__).resolve().parents[2]
HISTORY: Final = "CHANGELOG.md"
_PATH: Final = re.compile(r"[\w.*-]+(/[\w.*-]+)*/?")
_MODULE: Final = re.compile(r"(edge|edge_quantize|edge_aggregate)(\.\w+)+")
_SHOWN: Final = re.compile(r"(?<![\w/.-])(?:[\w-]+/)+[\w-]+\.(?:py|sh|yml|toml)\b|(?<=-m )edge[\w.]+")
"""In an example: paths of programs and settings, and what `python -m` runs."""
_HOMES: Final = {
    "edge": "edge",
    "edge_quantize": "tools/quantize/edge_quantize",
    "edge_aggregate": "tools/aggregate/edge_aggregate",
}
_NO_MODULES: Final = (".json", ".service", ".target", ".timer", ".toml")
_PARSER: Final = MarkdownIt("commonmark").enable("table")


class Tree:
    """The files of a repository: those that git has."""

    def __init__(self, root: Path) -> None:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
        self.root = root
        self.files = {name for name in listed.stdout.split("\0") if name and (root / name).exists()}
        self.folders = {str(parent) for name in self.files for parent in PurePosixPath(name).parents} - {"."}
        self.tops = {name.partition("/")[0] for name in self.folders}
        self.names = {PurePosixPath(name).name for name in self.files}

    def has(self, path: str) -> bool:
        """Whether a path, or anything of a pattern, is there."""
        place = PurePosixPath(path.rstrip("/"))
        if "*" in path:
            return any(PurePosixPath(name).match(str(place)) for name in self.files | self.folders)
        return str(place) in self.files or str(place) in self.folders

    def has_module(self, name: str) -> bool:
        """Whether a dotted name is a module, or may be something in one."""
        package, *parts = name.split(".")
        home = "/".join((_HOMES[package], *parts))
        if self.has(f"{home}.py") or self.has(home):
            return True
        outer = PurePosixPath(home).parent
        file = next((f for f in (f"{outer}.py", f"{outer}/__init__.py") if f in self.files), None)
        return file is not None and bool(re.search(rf"\b{re.escape(parts[-1])}\b", (self.root / file).read_text()))


def _inline(text: str) -> Iterator[tuple[int, Token]]:
    for block in _PARSER.parse(text):
        line = (block.map or [0])[0] + 1
        for token in block.children or ():
            yield line, token
        if block.type == "fence":
            for n, content in enumerate(block.content.splitlines(), line + 1):
                yield from ((n, Token("code_inline", "", 0, content=word)) for word in _SHOWN.findall(content))


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a document's headings, as the hosts of repositories make them."""
    found: dict[str, int] = {}
    tokens = _PARSER.parse(path.read_text(encoding="utf-8"))
    for opened, content in itertools.pairwise(tokens):
        if opened.type == "heading_open":
            words = "".join(t.content for t in content.children or ())
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return frozenset(f"{slug}-{n}" if n else slug for slug, most in found.items() for n in range(most + 1))


def _broken_link(tree: Tree, document: str, target: str) -> str | None:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None
    path = tree.root / document
    if parts.path:
        path = (path.parent / unquote(parts.path)).resolve()
        if not path.is_relative_to(tree.root) or not tree.has(str(path.relative_to(tree.root))):
            return "leads nowhere"
    if parts.fragment and path.suffix == ".md" and unquote(parts.fragment) not in anchors(path):
        return "has no such heading"
    return None


def _broken_name(tree: Tree, document: str, name: str) -> str | None:
    if _MODULE.fullmatch(name) and not name.endswith(_NO_MODULES) and not re.search(r"\.v\d", name):
        return None if tree.has_module(name) else "is no module"
    if not _PATH.fullmatch(name):
        return None
    if "/" in name.rstrip("/"):
        beside = str(PurePosixPath(document).parent / name)
        ours = name.partition("/")[0] in tree.tops and not re.match(r"edge/v\d", name)  # a topic, not a path
        return "is not in the repository" if ours and not tree.has(name) and not tree.has(beside) else None
    return "is the name of no file" if name.endswith(".py") and name not in tree.names and "*" not in name else None


def broken(root: Path = REPO, documents: Iterable[str] | None = None) -> list[str]:
    """One line for each thing that is not there: `docs/x.md:12: …`."""
    tree = Tree(root)
    found = []
    for document in sorted(documents or (name for name in tree.files if name.endswith(".md"))):
        for line, token in _inline((root / document).read_text(encoding="utf-8")):
            target = token.attrGet("href") or token.attrGet("src")
            if isinstance(target, str):
                why = _broken_link(tree, document, target)
            elif token.type == "code_inline" and document != HISTORY:
                target, why = token.content, _broken_name(tree, document, token.content)
            else:
                continue
            if why is not None:
                found.append(f"{document}:{line}: {target} {why}")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(broken()) or 0)
