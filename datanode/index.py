"""A volume's index: what is on it, the digests of its chunks, and the small blocks themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from ..common.errors import StoreTooNew
from ..common.sqlite import Database

FORMAT_VERSION = 1
SCHEMA = """
-- Finalized replicas. generation, length and digests (32 bytes a chunk, joined) never change for a row, except that
-- recovery may give a replica a later generation. inline: the bytes are in small, else in blocks/XX/blk_ID_GENERATION.
CREATE TABLE IF NOT EXISTS replicas (
    block_id   INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    length     INTEGER NOT NULL,
    inline     INTEGER NOT NULL,
    digests    BLOB    NOT NULL
);
-- Bytes of small blocks: no file each, and one fsync for all that come together.
CREATE TABLE IF NOT EXISTS small (
    block_id INTEGER PRIMARY KEY,
    data     BLOB NOT NULL
);
"""
_ROW = "SELECT block_id, generation, length, inline, digests FROM replicas"


class Replica(NamedTuple):
    """A finalized replica as the index knows it."""

    block_id: int
    generation: int
    length: int
    inline: bool
    digests: bytes


class Index:
    """The SQLite file of one volume. Writes group-commit; reads use a connection of the thread's own."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StoreDamaged, StoreTooNew, DiskFull."""
        self.path = path
        self._database = Database(path)
        self._database.run(_prepare)

    def add(
        self, replicas: Sequence[Replica], data: Sequence[tuple[int, bytes | memoryview]] = ()
    ) -> Future[None]:
        """Record finalized replicas, and the bytes of inline ones; done when durable."""

        def operation(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO replicas (block_id, generation, length, inline, digests)"
                " VALUES (?, ?, ?, ?, ?)",
                replicas,
            )
            if data:
                connection.executemany(
                    "INSERT OR REPLACE INTO small (block_id, data) VALUES (?, ?)", data
                )

        return self._database.submit(operation)

    def remove(self, block_ids: Sequence[int]) -> None:
        """Forget replicas, durably."""

        def operation(connection: sqlite3.Connection) -> None:
            keys = [(block_id,) for block_id in block_ids]
            connection.executemany("DELETE FROM replicas WHERE block_id = ?", keys)
            connection.executemany("DELETE FROM small WHERE block_id = ?", keys)

        self._database.run(operation)

    def get(self, block_id: int) -> Replica | None:
        row = self._database.reader().execute(f"{_ROW} WHERE block_id = ?", (block_id,)).fetchone()
        return None if row is None else Replica(row[0], row[1], row[2], bool(row[3]), row[4])

    def data(self, block_id: int) -> bytes | None:
        """The bytes of an inline replica."""
        row = (
            self._database.reader()
            .execute("SELECT data FROM small WHERE block_id = ?", (block_id,))
            .fetchone()
        )
        return None if row is None else row[0]

    def small(self, block_ids: Sequence[int]) -> dict[int, tuple[int, bytes]]:
        """block id -> (generation, bytes) of the inline ones among *block_ids*."""
        connection = self._database.reader()
        found: dict[int, tuple[int, bytes]] = {}
        for start in range(0, len(block_ids), 500):
            part = block_ids[start : start + 500]
            marks = ", ".join("?" * len(part))
            for row in connection.execute(
                "SELECT r.block_id, r.generation, s.data FROM replicas r"
                f" JOIN small s ON s.block_id = r.block_id WHERE r.block_id IN ({marks})",
                part,
            ):
                found[row[0]] = (row[1], row[2])
        return found

    def page(self, after: int, limit: int) -> list[Replica]:
        """Replicas with a greater id than *after*, ascending."""
        rows = self._database.reader().execute(
            f"{_ROW} WHERE block_id > ? ORDER BY block_id LIMIT ?", (after, limit)
        )
        return [Replica(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows]

    def totals(self) -> tuple[int, int]:
        """(replicas, their bytes)."""
        row = (
            self._database.reader()
            .execute("SELECT COUNT(*), COALESCE(SUM(length), 0) FROM replicas")
            .fetchone()
        )
        return row[0], row[1]

    @property
    def failure(self) -> str:
        """Why the index can't be written any more; "" while it can."""
        broken = self._database.broken
        return "" if broken is None else broken.message

    def release_reader(self) -> None:
        self._database.release_reader()

    def close(self) -> None:
        self._database.close()


def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > FORMAT_VERSION:
        raise StoreTooNew(
            f"the volume's index has format {version}; this TwinFS knows up to {FORMAT_VERSION}"
        )
    for statement in SCHEMA.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
