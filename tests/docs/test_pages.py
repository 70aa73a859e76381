"""What README and docs show is what happens."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.docs.error_texts import TEXTS
from twinfs.common import errors

from .page import blocks_of, commands_of, matches, run_page

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [
    "README.md",
    "docs/start.md",
    "docs/guides.md",
    "docs/backup.md",
    "docs/python.md",
    "docs/fsspec.md",
    "docs/monitoring.md",
    "docs/events.md",
    "docs/failure-injection.md",
    "docs/content.md",
    "docs/peers.md",
    "docs/operations.md",
    "docs/recovery.md",
    "docs/upgrade.md",
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*PAGES, "docs/webhdfs.md"])
def test_every_command_of_the_page_works(name: str, tmp_path: Path) -> None:
    assert shutil.which("dfs", path=str(Path(sys.executable).parent)), "dfs is not installed here"
    folder = tmp_path / "home"
    folder.mkdir()
    try:
        checkout = ROOT if name == "docs/failure-injection.md" else None
        run_page((ROOT / name).read_text(encoding="utf-8"), folder, checkout=checkout)
    finally:
        # A cluster that a failed page left behind.
        subprocess.run(
            [Path(sys.executable).parent / "dfs", "cluster", "stop"],
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=False,
        )


def test_no_page_with_commands_is_forgotten() -> None:
    pages = ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
    shown = {name for name in pages if blocks_of((ROOT / name).read_text(encoding="utf-8"))}
    assert shown == {*PAGES, "docs/webhdfs.md"}


def test_a_page_that_is_wrong_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run_page("```console\n$ echo one\ntwo\n```\n", tmp_path)


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="failed: 3"):
        run_page("```console\n$ (exit 3)\n```\n", tmp_path)


def test_a_session_that_prints_something_else_is_found(tmp_path: Path) -> None:
    right = "```pycon\n>>> one = 1\n```\n\n```pycon\n>>> one\n1\n```\n"
    run_page(right, tmp_path / "right")
    with pytest.raises(AssertionError, match="Expected"):
        run_page(right.replace("\n1\n", "\n2\n"), tmp_path / "wrong")


def test_commands_and_what_they_print() -> None:
    first, second = commands_of("$ a \\\n> b\nx\n$ c\n")
    assert (first.text, first.expected, second.text) == ("a \\\nb", ["x"], "c")
    assert matches(["a ... c"], ["a b c"]) and not matches(["a"], ["b"])


def test_the_reference_says_what_every_error_means() -> None:
    assert set(TEXTS) == {cls.code for cls in errors.all_errors()}


def test_pictures_are_whole_and_say_what_they_show() -> None:
    """They have a text for those who can't see them, colours for the dark, and load nothing."""
    pictures = sorted((ROOT / "docs" / "images").glob("*.svg"))
    assert len(pictures) == 3
    for path in pictures:
        root = ElementTree.parse(path).getroot()
        names = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert {"title", "desc", "style"} <= names
        assert not names & {"script", "image", "use", "foreignObject"}
        assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")
