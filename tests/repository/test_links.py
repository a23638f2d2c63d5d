"""What documents point at is there; and the checker finds what is not."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.repository.links import anchors, broken

if TYPE_CHECKING:
    from pathlib import Path


def test_every_link_path_and_module_in_the_documents_is_there() -> None:
    assert broken() == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small one: a package, a document with headings and a picture."""
    for name, text in {
        "edge/vision/pipeline.py": "SIDE = 48\n",
        "edge/__init__.py": "",
        "docs/other.md": "# Past some *thousand* `kiosks`\n\n## Twice\n\n## Twice\n\n```sh\n# no heading\n```\n",
        "docs/picture.png": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def said(repository: Path, text: str, name: str = "docs/page.md") -> list[str]:
    (repository / name).write_text(text)
    subprocess.run(["git", "-C", str(repository), "add", "."], check=True)
    return broken(repository, [name])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[x](gone.md)", "gone.md leads nowhere"),
        ("![x](gone.png)", "gone.png leads nowhere"),
        ("[x](../../outside.md)", "leads nowhere"),
        ("[x](other.md#no-heading)", "has no such heading"),
        ("[x](other.md#twice-2)", "has no such heading"),
        ("[x](#nothing)", "has no such heading"),
        ("`edge/detect/haar.py`", "is not in the repository"),
        ("`edge/detect/`", "is not in the repository"),
        ("`edge/vision/*.toml`", "is not in the repository"),
        ("`desk.py`", "is the name of no file"),
        ("`edge.desk`", "is no module"),
        ("`edge.vision.pipeline.GONE`", "is no module"),
        ("| a | b |\n|---|---|\n| x | `edge/gone.py` |", "is not in the repository"),
        ("```sh\npython edge/gone.py\n```", "edge/gone.py is not in the repository"),
        ("```sh\npython -m edge.desk --write\n```", "edge.desk is no module"),
    ],
)
def test_what_is_not_there_is_named_with_its_line(repository: Path, text: str, why: str) -> None:
    (line,) = said(repository, f"# Page\n\n{text}\n")
    assert line.startswith("docs/page.md:")
    assert why in line


def test_what_is_there_or_elsewhere_is_left_alone(repository: Path) -> None:
    text = """# Page

[a](other.md) [b](other.md#past-some-thousand-kiosks) [c](other.md#twice-1) [d](#page) [e](https://a.example/x#y)
![f](picture.png) `edge/vision/pipeline.py` `edge/*/pipeline.py` `pipeline.py` `edge.vision.pipeline`
`edge.vision.pipeline.SIDE` `edge/v1/lobby/kiosk-07/counts` `/etc/edge/x.toml` `build/x.py` `edge-vision.service`

```sh
python -m edge.vision.pipeline edge/vision/pipeline.py build/x.toml
```
"""
    assert said(repository, text) == []


def test_the_changelog_may_tell_of_what_was(repository: Path) -> None:
    assert said(repository, "`edge/desk.py` [x](gone.md)\n", "CHANGELOG.md") == [
        "CHANGELOG.md:1: gone.md leads nowhere"
    ]


def test_what_looks_like_a_heading_in_an_example_is_none(repository: Path) -> None:
    assert anchors(repository / "docs/other.md") == {"past-some-thousand-kiosks", "twice", "twice-1"}
