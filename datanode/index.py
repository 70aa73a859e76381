"""A volume's index: what is on it, the digests of its chunks, and the small blocks themselves."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from ..common import disk
from ..common.checksum import digest_of
from ..common.database import Database
from ..common.errors import DfsError, StoreDamaged, StoreError, StoreTooNew, VolumeFailed
from ..common.pagesums import PageSums
from ..common.sqlite import Commits, database_error

FORMAT_VERSION = 1
SCHEMA = """
-- Finalized replicas. generation, length and digests (32 bytes a chunk, joined) never change for a row, except that
-- recovery may give a replica a later generation. inline: the bytes are in small, else in blocks/XX/blk_ID_GENERATION.
CREATE TABLE IF NOT EXISTS replicas (
    block_id   INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    length     INTEGER NOT NULL,
    inline     INTEGER NOT NULL,
    digests    BLOB    NOT NULL,
    -- A digest of the other columns, by which the scrubber knows a row that a disk has changed. NULL: written before
    -- there was one.
    checked    BLOB
);
-- Replicas whose bytes do not fit their digests. They stay where they are, as the last resort of readers, until the NameNode
-- has enough good copies or sends one.
CREATE TABLE IF NOT EXISTS damaged (
    block_id   INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL
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


class Added(NamedTuple):
    """How many replicas, and bytes of them, an index has more than before."""

    replicas: int
    size_bytes: int


Observer = Callable[[Sequence[Replica], Sequence[Name], Sequence[Replica]], None]


class Index:
    """The SQLite file of one volume. Writes group-commit; reads use a connection of the thread's own."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises StoreDamaged, StoreTooNew, DiskFull."""
        self.path = path
        self.suspect = (
            ""  # why what is read from it can't be trusted; "" while nothing speaks against it
        )
        self._observer: Observer | None = None
        self._sealed = False  # the writer's own: nothing is taken any more
        self._sums = PageSums(path)
        self._database = self._open()
        self.damaged: dict[int, int] = dict(self._rows("SELECT block_id, generation FROM damaged"))

    def _open(self) -> Database:
        database = None
        try:
            database = Database(self.path, sums=self._sums)
            database.run(_prepare)
            database.read("SELECT block_id, generation FROM damaged")
            return database
        except (StoreError, sqlite3.Error) as error:
            failure = (
                database_error(error, self.path) if isinstance(error, sqlite3.Error) else error
            )
            # A format that nobody knows, a table without its columns: or a disk has changed what says so. Before the
            # file is closed, for then it would be written to.
            wrong = "" if isinstance(failure, StoreDamaged) else self._changed()
            if database is not None:
                with contextlib.suppress(DfsError, sqlite3.Error):
                    database.close()
            self._sums.close()
            if wrong:
                failure = StoreDamaged(f"the database {self.path} is damaged: {wrong}")
            raise failure from None

    def _changed(self) -> str:
        """What of the file is not as it was written; "" if nothing is, or nobody can tell."""
        try:
            return self._sums.check()
        except OSError:
            return ""

    def _rows(self, statement: str, params: Sequence[object] = ()) -> list[Any]:
        """What a reading statement finds. An index that can't be read is suspect from then on."""
        try:
            return self._database.read(statement, params)
        except sqlite3.Error as error:
            failure = database_error(error, self.path)
            if isinstance(failure, StoreDamaged):
                self.suspect = self.suspect or failure.message
            raise failure from None
        except UnicodeDecodeError:
            self.suspect = self.suspect or "what should be text is none"
            raise StoreDamaged(f"the index {self.path} is damaged: {self.suspect}") from None

    def observe(self, observer: Observer) -> None:
        """Have *observer* told of (added, their names, removed) replicas once that is durable."""
        self._observer = observer

    def add(
        self,
        replicas: Sequence[Replica],
        data: Sequence[tuple[int, bytes | memoryview]] = (),
        names: Sequence[Name] = (),
    ) -> Future[Added]:
        """Record finalized replicas, the bytes of inline ones, further hashes of what is in them; done when durable.

        What is here already is recorded again, and not among what was added.
        """

        rows = [(*replica, row_check(replica)) for replica in replicas]
        healed = [(r.block_id,) for r in replicas if r.block_id in self.damaged]

        def operation(connection: sqlite3.Connection) -> Added:
            if self._sealed:
                raise VolumeFailed("the volume is being removed")
            known = _lengths(connection, [replica.block_id for replica in replicas])
            connection.executemany(
                "INSERT OR REPLACE INTO replicas (block_id, generation, length, inline, digests, checked)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
            if healed:
                connection.executemany("DELETE FROM damaged WHERE block_id = ?", healed)
            if data:
                connection.executemany(
                    "INSERT OR REPLACE INTO small (block_id, data) VALUES (?, ?)", data
                )
            if names:
                connection.executemany("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", names)
            new = {replica.block_id: replica.length for replica in replicas}
            return Added(len(new) - len(known), sum(new.values()) - sum(known.values()))

        future = self._database.submit(operation)
        for (block_id,) in healed:
            self.damaged.pop(block_id, None)
        if (observer := self._observer) is not None:

            def tell(done: Future[Added]) -> None:
                if done.exception() is None:
                    observer(replicas, names, ())

            future.add_done_callback(tell)
        return future

    def remove(self, block_ids: Sequence[int]) -> list[Replica]:
        """Forget replicas, durably; those that were there (what two threads remove, one of them gets)."""
        gone: list[Replica] = []

        def operation(connection: sqlite3.Connection) -> None:
            keys = [(block_id,) for block_id in block_ids]
            gone.clear()
            for key in keys:
                row = connection.execute(f"{_ROW} WHERE block_id = ?", key).fetchone()
                if row is not None:
                    gone.append(_replica(row))
            connection.executemany("DELETE FROM replicas WHERE block_id = ?", keys)
            connection.executemany("DELETE FROM small WHERE block_id = ?", keys)
            connection.executemany("DELETE FROM names WHERE block_id = ?", keys)
            connection.executemany("DELETE FROM damaged WHERE block_id = ?", keys)

        self._database.run(operation)
        for block_id in block_ids:
            self.damaged.pop(block_id, None)
        if self._observer is not None and gone:
            self._observer((), (), gone)
        return gone

    def seal(self) -> int:
        """Take nothing any more, if nothing is here; how many replicas are, in which case nothing changes."""

        def operation(connection: sqlite3.Connection) -> int:
            # Where all changes go through, in their order: none can slip in between counting and sealing.
            (held,) = connection.execute("SELECT COUNT(*) FROM replicas").fetchone()
            self._sealed = not held
            return int(held)

        return self._database.run(operation)

    def unseal(self) -> None:
        self._sealed = False

    def mark(self, block_id: int, generation: int, *, damaged: bool) -> None:
        """Remember, durably, whether a replica's bytes fit its digests."""

        def operation(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM damaged WHERE block_id = ?", (block_id,))
            if damaged:
                connection.execute("INSERT INTO damaged VALUES (?, ?)", (block_id, generation))

        self._database.run(operation)
        if damaged:
            self.damaged[block_id] = generation
        else:
            self.damaged.pop(block_id, None)

    def named(self, key: bytes) -> list[tuple[int, int, int]]:
        """(block id, start, length) of CID blocks with a hash that was recorded with them."""
        return self._rows(
            "SELECT block_id, start, length FROM names WHERE key = ? LIMIT 16", (key,)
        )

    def names_of(self, block_id: int) -> list[Name]:
        """What `add` was given as names with a replica."""
        return self._rows(
            "SELECT key, block_id, start, length FROM names WHERE block_id = ?", (block_id,)
        )

    def get(self, block_id: int) -> Replica | None:
        rows = self._rows(f"{_ROW} WHERE block_id = ?", (block_id,))
        return _replica(rows[0]) if rows else None

    def sure(self, block_id: int) -> Replica | None:
        """As `get`, for who removes something by what it says. StoreDamaged if the row is not as it was written."""
        rows = self._rows(
            "SELECT block_id, generation, length, inline, digests, checked FROM replicas WHERE block_id = ?",
            (block_id,),
        )
        if not rows:
            return None
        replica = _replica(rows[0])
        if rows[0][5] not in (None, row_check(replica)):
            self.suspect = f"the row of block {block_id} has changed"
            raise StoreDamaged(f"the index {self.path} is damaged: {self.suspect}")
        return replica

    def data(self, block_id: int) -> bytes | None:
        """The bytes of an inline replica."""
        rows = self._rows("SELECT data FROM small WHERE block_id = ?", (block_id,))
        return rows[0][0] if rows and isinstance(rows[0][0], bytes) else None

    def small(self, block_ids: Sequence[int]) -> dict[int, tuple[int, bytes]]:
        """block id -> (generation, bytes) of the inline ones among *block_ids*."""
        found: dict[int, tuple[int, bytes]] = {}
        for start in range(0, len(block_ids), 500):
            part = block_ids[start : start + 500]
            marks = ", ".join("?" * len(part))
            for row in self._rows(
                "SELECT r.block_id, r.generation, s.data FROM replicas r"
                f" JOIN small s ON s.block_id = r.block_id WHERE r.block_id IN ({marks})",
                part,
            ):
                if isinstance(row[2], bytes):  # else a disk has changed the row
                    found[row[0]] = (row[1], row[2])
        return found

    def page(self, after: int, limit: int, before: int = 2**63 - 1) -> list[Replica]:
        """Replicas with ids between *after* and *before*, ascending."""
        rows = self._rows(
            f"{_ROW} WHERE block_id > ? AND block_id < ? ORDER BY block_id LIMIT ?",
            (after, before, limit),
        )
        self._require_order(rows, after)
        return [_replica(row) for row in rows]

    def _require_order(self, rows: Sequence[Any], after: int) -> None:
        """StoreDamaged unless the ids of *rows* ascend from *after*: who goes on from the last one would never come to an end."""
        for row in rows:
            if row[0] <= after:
                self.suspect = self.suspect or "its rows are not in order"
                raise StoreDamaged(f"the rows of the index {self.path} are not in order")
            after = row[0]

    def ids(self, after: int, limit: int) -> list[int]:
        """Ids of replicas after *after*, ascending."""
        statement = "SELECT block_id FROM replicas WHERE block_id > ? ORDER BY block_id LIMIT ?"
        return [row[0] for row in self._rows(statement, (after, limit))]

    def totals(self, first: int = 0) -> tuple[int, int]:
        """(replicas, their bytes) of ids from *first* on."""
        row = self._rows(
            "SELECT COUNT(*), COALESCE(SUM(length), 0) FROM replicas WHERE block_id >= ?", (first,)
        )[0]
        return row[0], row[1]

    # --- checking ---

    def look_at(self, after: int, limit: int) -> list[tuple[Replica, bool]]:
        """As `page`, each row with whether it is as it was written. Read from the file anew."""
        self.release_reader()
        rows = self._rows(
            "SELECT block_id, generation, length, inline, digests, checked FROM replicas"
            " WHERE block_id > ? ORDER BY block_id LIMIT ?",
            (after, limit),
        )
        self._require_order(rows, after)
        found = [(_replica(row), row[5]) for row in rows]
        return [(replica, check in (None, row_check(replica))) for replica, check in found]

    def inspect(self, pause: Callable[[int], None] | None = None) -> str:
        """What is wrong with the file; "" if nothing is. Reads all of it, also what SQLite does not use. *pause* is called with the
        size of each piece before that is read; what it raises goes to the caller."""
        self.release_reader()
        try:
            if wrong := self._sums.check(pause):
                return wrong
        except OSError as error:
            raise StoreError(f"the index {self.path} can't be read: {error.strerror}") from None
        try:
            (found,) = self._rows("PRAGMA integrity_check(1)")[0]
            if found != "ok":
                return str(found)
            strangers = self._rows(
                "SELECT (SELECT COUNT(*) FROM small) <> (SELECT COUNT(*) FROM small s JOIN replicas r"
                " ON r.block_id = s.block_id AND r.inline = 1)"
            )
            return "there are bytes of no replica" if strangers[0][0] else ""
        except DfsError as error:
            return error.message

    def salvage(self) -> tuple[list[Replica], list[tuple[int, bytes]]]:
        """Rows of a damaged index that are as they were written, and the bytes of the inline ones that fit them."""
        replicas: list[Replica] = []
        data: list[tuple[int, bytes]] = []
        after, limit = 0, 256
        while True:
            try:
                page = self.look_at(after, limit)
                small = self.small([replica.block_id for replica, _ in page])
            except DfsError:
                if limit == 1:
                    # One row that can't be read: what comes after it may be.
                    following = self._following(after)
                    if following is None or following <= after:
                        return replicas, data
                    after = following
                limit = 1
                continue
            for replica, good in page:
                content = small.get(replica.block_id, (0, b""))[1]
                if replica.inline and good:
                    good = len(content) == replica.length and (
                        not content or digest_of(content) == replica.digests
                    )
                    data += [(replica.block_id, content)] if good else []
                if good:
                    replicas.append(replica)
            if len(page) < limit:
                return replicas, data
            after, limit = page[-1][0].block_id, min(limit * 2, 256)

    def _following(self, block_id: int) -> int | None:
        """The id of the row after *block_id*, if it can be had without reading the rest of the row."""
        try:
            rows = self._rows(
                "SELECT block_id FROM replicas WHERE block_id > ? ORDER BY block_id LIMIT 1",
                (block_id,),
            )
            return rows[0][0] if rows else None
        except DfsError:
            return None

    def renew(self, aside: Path) -> None:
        """Go on with an empty file; the old one becomes *aside*."""
        database = self._database
        with contextlib.suppress(DfsError, sqlite3.Error):
            database.close()
        disk.rename(self.path, aside, "index.aside")
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._sums.close()
        self._sums.forget()
        self._database = Database(self.path, sums=self._sums)
        self._database.run(_prepare)
        self.damaged.clear()
        self.suspect = ""

    @property
    def failure(self) -> str:
        """Why the index can't be written any more; "" while it can."""
        broken = self._database.broken
        return "" if broken is None else broken.message

    @property
    def commits(self) -> Commits:
        """What its writer has committed so far."""
        return self._database.commits

    def release_reader(self) -> None:
        self._database.release_reader()

    def close(self) -> None:
        self._database.close()
        self._sums.close()


def _replica(row: Any) -> Replica:
    block_id, generation, length, inline, digests = row[:5]
    numbers = all(isinstance(value, int) for value in (block_id, generation, length, inline))
    if not numbers or not isinstance(digests, bytes):
        raise StoreDamaged(f"the row of block {block_id} has changed on the disk")
    return Replica(block_id, generation, length, bool(inline), digests)


def _lengths(connection: sqlite3.Connection, block_ids: Sequence[int]) -> dict[int, int]:
    """block id -> length of those that are recorded."""
    found: dict[int, int] = {}
    for start in range(0, len(block_ids), 500):
        part = block_ids[start : start + 500]
        marks = ", ".join("?" * len(part))
        found.update(
            connection.execute(
                f"SELECT block_id, length FROM replicas WHERE block_id IN ({marks})", part
            )
        )
    return found


def row_check(replica: Replica) -> bytes:
    """The value of the column *checked*."""
    facts = f"{replica.block_id} {replica.generation} {replica.length} {int(replica.inline)} "
    return digest_of(facts.encode() + bytes(replica.digests))[:8]


def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > FORMAT_VERSION:
        raise StoreTooNew(
            f"the volume's index has format {version}; this TwinFS knows up to {FORMAT_VERSION}"
        )
    for statement in SCHEMA.split(";"):
        if statement.strip():
            connection.execute(statement)
    if "checked" not in {row[1] for row in connection.execute("PRAGMA table_info(replicas)")}:
        connection.execute("ALTER TABLE replicas ADD COLUMN checked BLOB")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
