"""Patterns find what a shell's would, in order and once."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfs.client import globs
from twinfs.common.errors import InvalidRequest, NotADirectory, PathNotFound, PermissionDenied
from twinfs.common.model import FileStatus, INodeId


class MemoryTree:
    """A file system of paths; a path that ends in a slash is a directory. Counts what it is asked."""

    def __init__(self, *paths: str, forbidden: str = "", vanishing: str = "") -> None:
        self.paths = {"/": True}
        for path in paths:
            parts = path.strip("/").split("/")
            for depth in range(1, len(parts)):
                self.paths["/" + "/".join(parts[:depth])] = True
            self.paths["/" + "/".join(parts)] = path.endswith("/")
        self.forbidden = forbidden
        self.vanishing = vanishing  # is listed, and gone when it is looked at
        self.listed: list[str] = []
        self.asked: list[str] = []

    def status(self, path: str) -> FileStatus:
        return FileStatus(
            path=path,
            type="directory" if self.paths[path] else "file",
            length=0,
            owner="o",
            group="g",
            mode=0o755,
            mtime_ms=0,
            atime_ms=0,
            inode_id=INodeId(1),
        )

    async def stat(self, path: str) -> FileStatus:
        self.asked.append(path)
        above = path.rpartition("/")[0]
        if above and self.paths.get(above) is False:
            raise NotADirectory(above)
        if path not in self.paths:
            raise PathNotFound(path)
        return self.status(path)

    async def list(self, path: str) -> AsyncIterator[FileStatus]:
        self.listed.append(path)
        if path not in self.paths or path == self.vanishing:
            raise PathNotFound(path)
        if path == self.forbidden:
            raise PermissionDenied(path)
        if not self.paths[path]:
            yield self.status(path)  # as `ls FILE` does
            return
        base = path.rstrip("/")
        for name in sorted(self.paths):
            if name != "/" and name.rpartition("/")[0] == base:
                yield self.status(name)


TREE = (
    "/a/x.txt",
    "/a/y.txt",
    "/a/z.log",
    "/a/.hidden",
    "/a/sub/x.txt",
    "/a/sub/deep/x.txt",
    "/b/x.txt",
    "/b/.git/x.txt",
    "/c/",
    "/top.txt",
    "/{odd}",
    "/[1]",
)


async def find(pattern: str, *paths: str) -> list[str]:
    return [status.path for status in await globs.glob(MemoryTree(*(paths or TREE)), pattern)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/a/*.txt", ["/a/x.txt", "/a/y.txt"]),
        ("/a/?.*", ["/a/x.txt", "/a/y.txt", "/a/z.log"]),
        ("/*/x.txt", ["/a/x.txt", "/b/x.txt"]),
        ("/[ab]", ["/a", "/b"]),
        ("/[!a]", ["/b", "/c"]),
        ("/[^a]", ["/b", "/c"]),
        ("/[a-c]/x*", ["/a/x.txt", "/b/x.txt"]),
        ("/[a-c]/", ["/a", "/b", "/c"]),
        ("/a/{x,z}.*", ["/a/x.txt", "/a/z.log"]),
        ("/{a,b}/x.txt", ["/a/x.txt", "/b/x.txt"]),
        ("/{b,a,{c,b}}", ["/a", "/b", "/c"]),
        ("/a/x.txt", ["/a/x.txt"]),
        ("/", ["/"]),
        ("//a///x.txt", ["/a/x.txt"]),
        ("/nothing", []),
        ("/nothing/*", []),
        ("/top.txt/x", []),
        ("/top.txt/*", []),
        ("/*/*/nothing*", []),
        ("/{odd}", ["/{odd}"]),
        ("/[[]1]", ["/[1]"]),
    ],
)
async def test_patterns(pattern: str, found: list[str]) -> None:
    assert await find(pattern) == found


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/a/*", ["/a/sub", "/a/x.txt", "/a/y.txt", "/a/z.log"]),
        ("/a/.*", ["/a/.hidden"]),
        ("/b/.git/*", ["/b/.git/x.txt"]),
        ("/b/*/x.txt", []),
        ("/b/**/x.txt", ["/b/x.txt"]),
        ("/b/.*/x.txt", ["/b/.git/x.txt"]),
    ],
)
async def test_hidden_names_have_to_be_asked_for(pattern: str, found: list[str]) -> None:
    assert await find(pattern) == found


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/a/**/x.txt", ["/a/sub/deep/x.txt", "/a/sub/x.txt", "/a/x.txt"]),
        ("/**/deep", ["/a/sub/deep"]),
        ("/a/sub/**", ["/a/sub/deep", "/a/sub/deep/x.txt", "/a/sub/x.txt"]),
        ("/**/**/deep/*", ["/a/sub/deep/x.txt"]),
        ("/c/**", []),
    ],
)
async def test_two_stars_stand_for_any_depth(pattern: str, found: list[str]) -> None:
    assert await find(pattern) == found


async def test_upper_and_lower_case_differ() -> None:
    assert await find("/A*", "/a1", "/A1") == ["/A1"]


async def test_only_directories_that_matter_are_listed() -> None:
    tree = MemoryTree(*TREE)
    await globs.glob(tree, "/a/sub/*.txt")
    assert (tree.listed, tree.asked) == (["/a/sub"], [])
    tree = MemoryTree(*TREE)
    await globs.glob(tree, "/*/sub/deep")
    assert tree.listed == ["/"]
    assert set(tree.asked) == {"/a/sub/deep", "/b/sub/deep", "/c/sub/deep"}


async def test_what_vanishes_meanwhile_is_not_found() -> None:
    tree = MemoryTree(*TREE, vanishing="/a")
    assert [s.path for s in await globs.glob(tree, "/*/x.txt")] == ["/a/x.txt", "/b/x.txt"]
    assert [s.path for s in await globs.glob(tree, "/*/x*")] == ["/b/x.txt"]


async def test_what_may_not_be_listed_is_an_error() -> None:
    with pytest.raises(PermissionDenied):
        await globs.glob(MemoryTree(*TREE, forbidden="/a"), "/*/x*")


@pytest.mark.parametrize(
    ("pattern", "written_out"),
    [
        ("plain", ["plain"]),
        ("{a,b}", ["a", "b"]),
        ("x{a,b}y{1,2}", ["xay1", "xay2", "xby1", "xby2"]),
        ("{a,{b,c}d}", ["a", "bd", "cd"]),
        ("{,x}", ["", "x"]),
        ("{a}", ["{a}"]),
        ("{}", ["{}"]),
        ("{a", ["{a"]),
        ("a,b}", ["a,b}"]),
        ("{a}{b,c}", ["{a}b", "{a}c"]),
    ],
)
def test_braces_are_written_out(pattern: str, written_out: list[str]) -> None:
    assert set(globs.alternatives(pattern)) == set(written_out)


@given(st.lists(st.lists(st.sampled_from(["a", "bc", ""]), min_size=2, max_size=3), max_size=4))
def test_braces_give_every_combination(groups: list[list[str]]) -> None:
    pattern = "".join("{" + ",".join(group) + "}-" for group in groups)
    wanted = ["".join(f"{part}-" for part in parts) for parts in itertools.product(*groups)]
    assert sorted(globs.alternatives(pattern)) == sorted(wanted)


def test_alternatives_are_bounded() -> None:
    """A pattern of a hundred characters must not become a million patterns, nor be cut short."""
    assert len(globs.alternatives("{a,b}" * 9)) == 512
    with pytest.raises(InvalidRequest, match="alternatives"):
        globs.alternatives("{a,b}" * 20)
    with pytest.raises(InvalidRequest, match="alternatives"):
        globs.alternatives("{" + "," * globs.MAX_ALTERNATIVES + "}")


@pytest.mark.parametrize("pattern", ["*", "a?", "[a]", "{a,b}"])
def test_a_pattern_is_known_by_its_characters(pattern: str) -> None:
    assert globs.has_magic(pattern)
    assert not globs.has_magic("a-b_c.d]}")
