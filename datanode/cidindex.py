"""A volume's directory of hashes: which CID block lies where.

The digests of a replica's chunks are the digests of its CID blocks, so this is derived from the volume's index: filled
beside the write path, in a file of its own that may be lost. What was not written when the process died is found again
by going through the index once. Nothing waits for the disk while it is in use: its pages go there when the system likes, so after a
power failure it is made anew.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES
from ..common.errors import DfsError, DiskFull, StoreDamaged
from ..common.sqlite import connect, database_error
from .index import Index, Name, Replica

log = logging.getLogger(__name__)
WRITE_EVERY_S = 0.2
WHEN_FULL_S = 5.0  # between tries on a full disk
BATCH_REPLICAS = 2_000
MAX_WAITING = 200_000  # replicas; beyond that the index is gone through again instead
BLAKE3_KEY = b"\x1e"
MAX_PLACES = 16  # of one block
KEYS_AT_ONCE = 250  # in one statement
SCHEMA = """
-- Where the CID block with a hash lies: in the bytes [start, start + length) of a finalized replica. One hash may lie in several
-- replicas. A row whose replica is gone is no error: whoever finds one looks whether the replica is there.
-- key: the code of the hash function (one byte), then the digest.
CREATE TABLE IF NOT EXISTS places (
    key      BLOB    NOT NULL,
    block_id INTEGER NOT NULL,
    start    INTEGER NOT NULL,
    length   INTEGER NOT NULL,
    PRIMARY KEY (key, block_id, start)
) WITHOUT ROWID;
-- One row once the file is in use: whether everything in the volume's index is here.
CREATE TABLE IF NOT EXISTS state (complete INTEGER NOT NULL);
-- One row while a process has the file open: of which run of the system that is. After another run some of its pages may be missing.
CREATE TABLE IF NOT EXISTS opened (run TEXT NOT NULL);
"""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Place(NamedTuple):
    """Bytes [start, start + length) of a block's replica."""

    block_id: int
    start: int
    length: int


def derived(replica: Replica) -> Iterable[tuple[bytes, int, int, int]]:
    """(key, block id, start, length) of each chunk of a replica."""
    digests = replica.digests
    for number in range(len(digests) // DIGEST_BYTES):
        start = number * CHUNK_BYTES
        yield (
            BLAKE3_KEY + digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES],
            replica.block_id,
            start,
            min(CHUNK_BYTES, replica.length - start),
        )


class CidIndex:
    """The hashes of one volume. Methods may be called from any thread."""

    def __init__(self, path: Path, index: Index) -> None:
        """Open or create; a damaged file is made anew. Follows *index* from now on."""
        self._path = path
        self._index = index
        # (rows that came, replicas that went, how many replicas that is) of each change, until it is written.
        self._changes: collections.deque[tuple[list[Name], Sequence[Replica], int]]
        self._changes = collections.deque()
        self._noted: dict[bytes, list[tuple[int, int, int]]] = {}  # the rows of _changes, by key
        self._note_lock = threading.Lock()
        self._waiting = 0  # replicas in _changes
        self._lock = threading.Lock()  # of the writing connection
        self._read_lock = threading.Lock()
        self._bulk_lock = (
            threading.Lock()
        )  # of a reader of its own: who asks for one block does not wait for hundreds
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._overflow = False
        self._through = threading.Event()  # the index has been gone through
        try:
            self._open()
        except DfsError as error:
            log.error("%s; it is made again", error.message)
            self._remove_files()
            self._open()
        index.observe(self._changed)
        self._thread = threading.Thread(
            target=self._run, name=f"cids {path.parent.name}", daemon=True
        )
        self._thread.start()

    def _open(self) -> None:
        self._writer = connect(self._path, cache_kib=8192)
        try:
            # The Checkpointer that other databases have is not worth a thread here: nobody waits for this writer.
            self._writer.execute("PRAGMA wal_autocheckpoint = 4000")
            self._writer.executescript(SCHEMA)
            run = _run_of_system()
            former = self._writer.execute("SELECT run FROM opened").fetchone()
            if former is not None and (not run or former[0] != run):
                raise StoreDamaged(f"{self._path} was open when the system stopped")
            row = self._writer.execute("SELECT complete FROM state").fetchone()
            self._complete = row is not None and bool(row[0])
            if row is None:
                self._writer.execute("INSERT INTO state VALUES (0)")
            # Until this process has ended well, what is missing has to be looked for.
            self._writer.execute("UPDATE state SET complete = 0")
            self._writer.execute("DELETE FROM opened")
            self._writer.execute("INSERT INTO opened VALUES (?)", (run,))
            self._make_durable()
            self._writer.execute("PRAGMA synchronous = OFF")
            self._reader = connect(self._path, cache_kib=4096, read_only=True)
            self._bulk_reader = connect(self._path, cache_kib=1024, read_only=True)
        except (sqlite3.Error, DfsError) as error:
            self._writer.close()
            if isinstance(error, sqlite3.Error):
                raise database_error(error, self._path) from error
            raise

    def _make_durable(self) -> None:
        """Have all of the file on the disk. Something was written just before: SQLite would not look at the disk otherwise."""
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _remove_files(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").unlink()

    # --- finding ---

    def find(self, key: bytes, *, first_id: int = 0) -> Place | None:
        """Where the CID block is, in a replica with this id or a later one; a place that the volume's index confirms."""
        found = self.all(key, most=1, first_id=first_id)
        return found[0] if found else None

    def all(self, key: bytes, *, most: int = MAX_PLACES, first_id: int = 0) -> list[Place]:
        """*most* such places. Waits for no writer: whoever adds asks for many blocks that are not here."""
        # What is not written yet first. The other way round, it could be written in between, and be missed.
        with self._note_lock:
            rows = [row for row in self._noted.get(key, ()) if row[0] >= first_id]
        try:
            with self._read_lock:
                rows += self._reader.execute(
                    "SELECT block_id, start, length FROM places"
                    " WHERE key = ? AND block_id >= ? LIMIT ?",
                    (key, first_id, MAX_PLACES),
                )
        except sqlite3.Error as error:
            raise database_error(error, self._path) from error
        if not rows:
            rows = [row for row in self._index.named(key) if row[0] >= first_id]
        found: list[Place] = []
        for block_id, start, length in dict.fromkeys(rows):
            replica = self._index.get(block_id)
            if replica is not None and start + length <= replica.length:
                found.append(Place(block_id, start, length))
                if len(found) == most:
                    break
        return found

    def blocks(self, keys: Sequence[bytes]) -> list[tuple[bytes, int]]:
        """(key, block id) of places of many blocks, as far as they are written; the volume's index may not know all of them."""
        found: list[tuple[bytes, int]] = []
        for start in range(0, len(keys), KEYS_AT_ONCE):
            part = keys[start : start + KEYS_AT_ONCE]
            marks = ",".join("?" * len(part))
            try:
                with self._bulk_lock:
                    found += self._bulk_reader.execute(
                        f"SELECT key, block_id FROM places WHERE key IN ({marks})", part
                    )
            except sqlite3.Error as error:
                raise database_error(error, self._path) from error
        return found

    def hashes(self) -> int:
        """How many CID blocks are known here."""
        with self._read_lock:
            row = self._reader.execute("SELECT COUNT(*) FROM places").fetchone()
        return int(row[0])

    # --- following the index ---

    def _changed(
        self, added: Sequence[Replica], names: Sequence[Name], removed: Sequence[Replica]
    ) -> None:
        """Replicas were recorded or dropped. Called in the thread that makes the index durable: must be short."""
        if self._waiting > MAX_WAITING:
            self._overflow = True
        else:
            rows = [row for replica in added for row in derived(replica)]
            rows += names
            with self._note_lock:
                for row in rows:
                    self._noted.setdefault(row[0], []).append(row[1:])
            self._changes.append((rows, removed, len(added) + len(removed)))
            self._waiting += len(added) + len(removed)
        self._wake.set()

    def settle(self) -> None:
        """Write what was noted so far."""
        with self._lock:
            while self._changes:
                self._write_some()

    def _write_some(self) -> None:
        added: list[tuple[bytes, int, int, int]] = []
        removed: list[tuple[bytes, int, int]] = []
        taken: list[tuple[list[Name], Sequence[Replica], int]] = []
        replicas = 0
        while self._changes and replicas < BATCH_REPLICAS:
            taken.append(self._changes.popleft())
            new, gone, count = taken[-1]
            replicas += count
            added += new
            for replica in gone:
                removed += [row[:3] for row in derived(replica)]
                # What comes after in the queue may have the block again, so the order of both lists matters.
            if gone:
                break
        # In the order of the table, so that a batch touches each of its pages once.
        added.sort()
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            try:
                writer.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)", added)
                writer.executemany(
                    "DELETE FROM places WHERE key = ? AND block_id = ? AND start = ?", removed
                )
                writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            self._changes.extendleft(reversed(taken))
            raise database_error(error, self._path) from error
        self._forget_noted(added)
        self._waiting = max(0, self._waiting - replicas) if self._changes else 0

    def _forget_noted(self, rows: Sequence[Name]) -> None:
        """They are written now."""
        with self._note_lock:
            for row in rows:
                noted = self._noted[row[0]]
                noted.remove(row[1:])
                if not noted:
                    del self._noted[row[0]]

    def _follow_if_room(self) -> bool:
        """Write what has changed; False, and it is tried again, if the disk is full."""
        try:
            self.settle()
            if self._overflow:
                self._overflow = False
                try:
                    self._go_through()
                except DfsError:
                    self._overflow = True
                    raise
        except DiskFull as error:
            log.warning("%s; it is tried again", error.message)
            self._wake.set()
            return False
        return True

    def _run(self) -> None:
        try:
            if not self._complete:
                self._overflow = True
                self._follow_if_room()
            self._through.set()
            while not self._closing.is_set():
                self._wake.wait()
                self._wake.clear()
                # More comes soon after: gather it, for one transaction is dear beside a row in it.
                self._closing.wait(WRITE_EVERY_S)
                if not self._follow_if_room():
                    self._closing.wait(WHEN_FULL_S)
        except DfsError as error:
            log.error("the hashes of %s can't be kept: %s", self._path.parent, error.message)
            self._complete = False
        else:
            self._complete = not self._overflow
        finally:
            self._through.set()

    def wait_complete(self) -> None:
        """Until what an earlier life of the process did not write is here too."""
        self._through.wait()

    def _go_through(self) -> None:
        """Add what the index has and this file lacks."""
        after = 0
        while page := self._index.page(after, BATCH_REPLICAS):
            if self._closing.is_set():
                self._overflow = True
                return
            with self._lock:
                rows = sorted(row for replica in page for row in derived(replica))
                try:
                    self._writer.execute("BEGIN IMMEDIATE")
                    self._writer.executemany(
                        "INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)", rows
                    )
                    self._writer.execute("COMMIT")
                except sqlite3.Error as error:
                    with contextlib.suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")
                    raise database_error(error, self._path) from error
            after = page[-1].block_id

    def stop(self) -> None:
        """Leave the index alone from now on: before it is closed. What changes yet is noted."""
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def close(self) -> None:
        """After the index's last change."""
        self.stop()
        complete = False
        with contextlib.suppress(sqlite3.Error, DfsError):
            self.settle()
            complete = self._complete and not self._overflow
        self._reader.close()
        self._bulk_reader.close()
        with contextlib.suppress(sqlite3.Error):
            self._writer.execute("UPDATE state SET complete = ?", (complete,))
            self._make_durable()
            self._writer.execute("DELETE FROM opened")
            self._make_durable()
        self._writer.close()


def _run_of_system() -> str:
    """Another one after each start of the system; "" if it does not tell."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
