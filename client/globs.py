"""Globs over the cluster's paths."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import AsyncIterator
from typing import Protocol

from ..common.errors import InvalidRequest, NotADirectory, PathNotFound
from ..common.model import FileStatus

MAGIC = re.compile(r"[*?\[{]")
MAX_ALTERNATIVES = 1_000


class Tree(Protocol):
    """What globbing needs of a file system."""

    async def stat(self, path: str) -> FileStatus: ...

    def list(self, path: str) -> AsyncIterator[FileStatus]: ...


def has_magic(pattern: str) -> bool:
    return MAGIC.search(pattern) is not None


def alternatives(pattern: str) -> list[str]:
    """*pattern* with its `{a,b}` written out; braces without a comma mean themselves.

    InvalidRequest if there are more than MAX_ALTERNATIVES: a part of them would be a wrong answer.
    """
    found = [pattern]
    index = 0
    while index < len(found):
        if len(found) > MAX_ALTERNATIVES:
            raise InvalidRequest(f"the pattern has more than {MAX_ALTERNATIVES} alternatives")
        match = re.search(r"\{([^{}]*,[^{}]*)\}", found[index])
        if match is None:
            index += 1
            continue
        whole = found.pop(index)
        found[index:index] = [
            whole[: match.start()] + part + whole[match.end() :] for part in match[1].split(",")
        ]
    return found


def matches(name: str, pattern: str) -> bool:
    """Whether one name matches one part of a pattern. Hidden names need a pattern that begins with a dot."""
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return fnmatch.fnmatchcase(name, pattern.replace("[^", "[!"))


async def glob(tree: Tree, pattern: str) -> list[FileStatus]:
    """What matches, in order, each path once."""
    found: dict[str, FileStatus] = {}
    for simple in alternatives(pattern):
        parts = [part for part in simple.split("/") if part]
        async for status in _expand(tree, "/", parts):
            found.setdefault(status.path, status)
    return [found[path] for path in sorted(found)]


async def _expand(tree: Tree, base: str, parts: list[str]) -> AsyncIterator[FileStatus]:
    literal = 0
    while literal < len(parts) and not has_magic(parts[literal]):
        literal += 1
    base = "/".join([base.rstrip("/"), *parts[:literal]]) or "/"
    try:
        if literal == len(parts):
            yield await tree.stat(base)
            return
        part, rest = parts[literal], parts[literal + 1 :]
        if part == "**":
            if rest:
                async for status in _expand(tree, base, rest):
                    yield status
            async for status in tree.list(base):
                if status.name.startswith(".") or status.path == base:
                    continue
                if not rest:
                    yield status
                if status.is_directory:
                    async for below in _expand(tree, status.path, parts[literal:]):
                        yield below
            return
        async for status in tree.list(base):
            if status.path == base or not matches(status.name, part):
                continue
            if not rest:
                yield status
            elif status.is_directory:
                async for below in _expand(tree, status.path, rest):
                    yield below
    except (PathNotFound, NotADirectory):
        return
