"""Directories that a transaction has resolved: rows by parent and name, and the way to them by path."""

from __future__ import annotations

from typing import Final

from .base import Row

CACHED: Final = 20_000  # of each kind; when full, it begins anew
Way = tuple[tuple[str, ...], list[Row]]  # components, and the directories from the root on


class Directories:
    """`DirectoryCache` in two bounded maps."""

    __slots__ = ("_rows", "_ways", "get", "hits", "misses", "way")

    def __init__(self) -> None:
        self._rows: dict[tuple[int, str], Row] = {}
        self._ways: dict[str, Way] = {}
        self.hits = 0
        self.misses = 0
        # Called for every path.
        self.get = self._rows.get
        self.way = self._ways.get

    def put(self, key: tuple[int, str], row: Row) -> None:
        if len(self._rows) >= CACHED:
            self.clear()
        self._rows[key] = row

    def put_way(self, path: str, way: Way) -> None:
        if len(self._ways) >= CACHED:
            self._ways.clear()
        self._ways[path] = way
        # So that `drop` can tell by the rows whether a way may lead through a directory.
        for row in way[1]:
            self._rows[row[0], row[1]] = row

    def drop(self, key: tuple[int, str]) -> None:
        if self._rows.pop(key, None) is not None:
            self._ways.clear()

    def clear(self) -> None:
        self._rows.clear()
        self._ways.clear()
