"""A volume's index: what is on it, the digests of its chunks, and the small blocks themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
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
-- Hashes of CID blocks that do not follow from the digests: sha2-256 ones, and those of blocks of more than one chunk.
-- key: the code of the hash function (one byte), then the digest. Rows go with their replica.
CREATE TABLE IF NOT EXISTS names (
    key      BLOB    NOT NULL,
    block_id INTEGER NOT NULL,
    start    INTEGER NOT NULL,
    length   INTEGER NOT NULL,
    PRIMARY KEY (key, block_id, start)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS names_by_block ON names (block_id);
"""
_ROW = "SELECT block_id, generation, length, inline, digests FROM replicas"


# Ids from here on are of content that a peer keeps for itself: no NameNode gave them, and none is told of them.
FIRST_LOCAL_BLOCK = 1 << 62
Name = tuple[bytes, int, int, int]  # key, block id, start, length


class Replica(NamedTuple):
    """A finalized replica as the index knows it."""

    block_id: int
    generation: int
    length: int
    inline: bool
    digests: bytes


Observer = Callable[[Sequence[Replica], Sequence[Name], Sequence[Replica]], None]


class Index:
    """The SQLite file of one volume. Writes group-commit; reads use a connection of the thread's own."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StoreDamaged, StoreTooNew, DiskFull."""
        self.path = path
        self._observer: Observer | None = None
        self._database = Database(path)
        self._database.run(_prepare)

    def observe(self, observer: Observer) -> None:
        """Have *observer* told of (added, their names, removed) replicas once that is durable."""
        self._observer = observer

    def add(
        self,
        replicas: Sequence[Replica],
        data: Sequence[tuple[int, bytes | memoryview]] = (),
        names: Sequence[Name] = (),
    ) -> Future[None]:
        """Record finalized replicas, the bytes of inline ones, further hashes of what is in them; done when durable."""

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
            if names:
                connection.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", names)

        future = self._database.submit(operation)
        if (observer := self._observer) is not None:

            def tell(done: Future[None]) -> None:
                if done.exception() is None:
                    observer(replicas, names, ())

            future.add_done_callback(tell)
        return future

    def remove(self, block_ids: Sequence[int]) -> None:
        """Forget replicas, durably."""

        gone: list[Replica] = []

        def operation(connection: sqlite3.Connection) -> None:
            keys = [(block_id,) for block_id in block_ids]
            gone.clear()
            for key in keys if self._observer is not None else ():
                row = connection.execute(f"{_ROW} WHERE block_id = ?", key).fetchone()
                if row is not None:
                    gone.append(Replica(row[0], row[1], row[2], bool(row[3]), row[4]))
            connection.executemany("DELETE FROM replicas WHERE block_id = ?", keys)
            connection.executemany("DELETE FROM small WHERE block_id = ?", keys)
            connection.executemany("DELETE FROM names WHERE block_id = ?", keys)

        self._database.run(operation)
        if self._observer is not None and gone:
            self._observer((), (), gone)

    def named(self, key: bytes) -> list[tuple[int, int, int]]:
        """(block id, start, length) of CID blocks with a hash that was recorded with them."""
        return (
            self._database.reader()
            .execute("SELECT block_id, start, length FROM names WHERE key = ? LIMIT 16", (key,))
            .fetchall()
        )

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

    def page(self, after: int, limit: int, before: int = 2**63 - 1) -> list[Replica]:
        """Replicas with ids between *after* and *before*, ascending."""
        rows = self._database.reader().execute(
            f"{_ROW} WHERE block_id > ? AND block_id < ? ORDER BY block_id LIMIT ?",
            (after, before, limit),
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
