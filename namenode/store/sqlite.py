"""The embedded metadata store: one SQLite file, one group-committing writer, parallel readers."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ...common.ballast import Ballast
from ...common.codec import to_json
from ...common.errors import DfsError, InternalError, StoreError
from ...common.runtime import Clock
from ...common.sqlite import (
    GROUP_SIZES,
    GroupWriter,
    Job,
    checkpoint,
    connect,
    database_error,
)
from ..events import INSERT, Sealer
from . import answers, migrate, sql
from .base import (
    DirectoryCache,
    NewEvent,
    Operation,
    Params,
    Pressure,
    ReplySink,
    RequestId,
    Row,
    Transaction,
)
from .directories import Directories

T = TypeVar("T")
WORDS: Final = {"blob": "BLOB", "text": "TEXT", "clustered": "WITHOUT ROWID"}
ID_RANGE: Final = 4_096  # ids taken from a counter at a time
RESENT_KEPT: Final = 100_000
_rows_of = msgspec.json.Decoder(list[Row]).decode


class Epoch:
    """Counts changes of directories: odd while one is being committed.

    A reader may use directories cached under an even epoch it has read before its snapshot began. Whoever saw the
    effect of a change began after the epoch had become odd, so nobody can see a change and then miss it.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class ReadTransaction:
    """A snapshot. What writes is refused by the connection itself (query_only)."""

    __slots__ = ("_execute", "directories", "holders")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self.directories: DirectoryCache | None = None
        self.holders: set[str] = set()

    def one(self, statement: str, params: Params = ()) -> Row | None:
        return self._execute(statement, params).fetchone()  # type: ignore[no-any-return]

    def all(self, statement: str, params: Params = ()) -> list[Row]:
        return self._execute(statement, params).fetchall()

    def inodes(self, keys: Sequence[tuple[int, str]]) -> list[Row]:
        (found,) = self._execute(sql.CHILDREN_OF, (to_json(keys).decode(),)).fetchone()
        return _rows_of(found)

    def execute(self, statement: str, params: Params = ()) -> int:
        raise InternalError("a reading operation tried to write")

    def many(self, statement: str, rows: Sequence[Params]) -> None:
        raise InternalError("a reading operation tried to write")

    def new_ids(self, kind: str, count: int = 1) -> int:
        raise InternalError("a reading operation tried to write")

    def emit(self, event: NewEvent) -> None:
        raise InternalError("a reading operation tried to write")

    def directory_changed(self, key: tuple[int, str]) -> None:
        raise InternalError("a reading operation tried to write")


class WriteTransaction:
    """What operations of a group see; lives as long as the writer and keeps its state."""

    def __init__(self, connection: sqlite3.Connection, epoch: Epoch, clock: Clock) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._executemany = connection.executemany
        self._epoch = epoch
        self._clock = clock
        self.cache = Directories()
        self.directories: DirectoryCache | None = self.cache
        self.holders: set[str] = set()
        self._events: list[NewEvent] = []
        self._changed = False
        self._ids: dict[str, list[int]] = {}  # kind -> [next, end]
        self._written = 0
        self._sealer = Sealer.load(self)
        self._sealed = (self._sealer.offset, self._sealer.last_hash)
        self._rows: list[Row] = []  # sealed in this group
        # (group, rows that it sealed), until they are durable and somebody has been told.
        self.fresh: collections.deque[tuple[int, list[Row]]] = collections.deque()
        self.number: Callable[[], int] = lambda: 0  # of the group that is being committed
        self.answers: dict[RequestId, bytes] = {}
        # Requests that came as resent. Their first sending may still arrive, over the connection that was given up.
        self.resent: dict[RequestId, None] = {}

    def one(self, statement: str, params: Params = ()) -> Row | None:
        return self._execute(statement, params).fetchone()  # type: ignore[no-any-return]

    def all(self, statement: str, params: Params = ()) -> list[Row]:
        return self._execute(statement, params).fetchall()

    def inodes(self, keys: Sequence[tuple[int, str]]) -> list[Row]:
        return sql.one_by_one(self, keys)

    def execute(self, statement: str, params: Params = ()) -> int:
        self._written += 1
        return self._execute(statement, params).rowcount

    def many(self, statement: str, rows: Sequence[Params]) -> None:
        if rows:
            self._written += 1
            self._executemany(statement, rows)

    def new_ids(self, kind: str, count: int = 1) -> int:
        span = self._ids.get(kind)
        if span is None or span[0] + count > span[1]:
            size = max(ID_RANGE, count)
            row = self.one("SELECT next FROM counters WHERE name = ?", (kind,))
            assert row is not None, f"no counter {kind}"
            # Not counted as a write of the operation: a failed one may keep its range.
            self._execute("UPDATE counters SET next = ? WHERE name = ?", (row[0] + size, kind))
            span = self._ids[kind] = [row[0], row[0] + size]
        first = span[0]
        span[0] += count
        return first

    def emit(self, event: NewEvent) -> None:
        self._written += 1
        self._events.append(event)

    def directory_changed(self, key: tuple[int, str]) -> None:
        self._changed = True
        # Those below it stay: they are found by its inode id, which never changes.
        self.cache.drop(key)

    # --- hooks of the group writer ---

    def context(self, connection: sqlite3.Connection) -> WriteTransaction:
        return self

    def writes(self) -> int:
        return self._written

    def before_commit(self) -> None:
        if self._events:
            self._rows = self._sealer.seal(self._events)
            self._executemany(INSERT, self._rows)
        if self.answers:
            now_ms = self._clock.wall_ms()
            self._executemany(answers.INSERT, answers.rows(self.answers, now_ms))
        if self._changed:
            self._epoch.value += 1

    def committed(self) -> None:
        if self._changed:
            self._epoch.value += 1
        self._changed = False
        self._events.clear()
        self.answers.clear()
        self._sealed = (self._sealer.offset, self._sealer.last_hash)
        if self._rows:
            self.fresh.append((self.number(), self._rows))
            self._rows = []

    def rolled_back(self) -> None:
        if self._epoch.value % 2:
            self._epoch.value += 1
        self._changed = False
        self._events.clear()
        self._rows = []
        self.answers.clear()
        self.cache.clear()
        self.holders.clear()
        self._ids.clear()  # the ranges may have been taken in what was rolled back
        self._sealer.offset, self._sealer.last_hash = self._sealed


Delivery = tuple["asyncio.Future[Any]", Any, BaseException | None]


class SqliteStore:
    """`MetadataStore` on SQLite. To be made and closed on a running event loop."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        readers: int,
        cache_mib: int,
        owner: str,
        group: str,
    ) -> None:
        """Open or create the database file *path*.

        Raises StoreError if another process has it open, StoreTooNew, StoreDamaged, DiskFull.
        """
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._lock = _lock_file(path)
        self._closed = False
        self.tell_sealed: Callable[[Sequence[Row]], None] | None = None
        self._telling = threading.Lock()
        cache_kib = cache_mib * 1024
        ballast = Ballast(path.parent)
        ballast.release_if_full()
        try:
            self._connection = connect(path, cache_kib=cache_kib // 2)
            self._prepare(clock, owner, group)
            self._epoch = Epoch()
            self._write = WriteTransaction(self._connection, self._epoch, clock)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise database_error(error, path) from error
        except BaseException:
            os.close(self._lock)
            raise
        ballast.keep()
        writer = GroupWriter(self._connection, self._write, self._deliver, path=path)
        self._writer = writer
        self._write.number = lambda: writer.committing
        self._reads: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._caches = [self._write.cache, *(Directories() for _ in range(readers))]
        self._readers = [
            threading.Thread(
                target=self._read_loop,
                args=(cache_kib // 2 // readers, self._caches[number + 1]),
                name=f"reader {number}",
                daemon=True,
            )
            for number in range(readers)
        ]
        for thread in self._readers:
            thread.start()

    def _prepare(self, clock: Clock, owner: str, group: str) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            tables = execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
            version = 0
            if tables:
                row = execute("SELECT value FROM meta WHERE name = 'format_version'").fetchone()
                version = int(row[0])
            migrate.check_version(version, str(self._path))
            if version < migrate.latest_version():
                migrate.migrate(
                    execute, version, WORDS, owner=owner, group=group, now_ms=clock.wall_ms()
                )
            execute("COMMIT")
        except BaseException:
            execute("ROLLBACK")
            raise

    @property
    def statistics(self) -> tuple[int, int]:
        """(groups committed, operations in them)."""
        return self._writer.groups, self._writer.operations

    def pressure(self) -> Pressure:
        writer = self._writer
        sizes = dict(zip((*GROUP_SIZES, 0), writer.sizes, strict=True))
        caches = self._caches
        return Pressure(
            writer.queued,
            sizes,
            writer.sync_s,
            self._reads.qsize(),
            sum(cache.hits for cache in caches),
            sum(cache.misses for cache in caches),
            writer.last_sync_s,
        )

    # --- writing ---

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """As `run`, without waiting."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._writer.submit(Job(operation, future))
        return future

    def submit_answer(
        self, operation: Operation[bytes], request: RequestId, *, resent: bool
    ) -> asyncio.Future[bytes]:
        """As `answer`, without waiting. The writer runs operations in the order of submission, so a resent
        request meets its original already done."""
        return self.submit(self._recorded(operation, request, resent))

    def submit_reply(
        self, operation: Operation[bytes], request: RequestId, sink: ReplySink, *, resent: bool
    ) -> None:
        self._writer.submit(
            Job(self._recorded(operation, request, resent), (sink, request.call_id))
        )

    def _recorded(
        self, operation: Operation[bytes], request: RequestId, resent: bool
    ) -> Operation[bytes]:
        write = self._write

        def recorded(tx: Transaction) -> bytes:
            if resent or request in write.resent:
                write.resent[request] = None
                if len(write.resent) > RESENT_KEPT:
                    del write.resent[next(iter(write.resent))]
                known = write.answers.get(request)
                if known is not None:
                    return known
                known = answers.find(write, request)
                if known is not None:
                    return known
            answer = operation(tx)
            write.answers[request] = answer
            return answer

        return recorded

    async def run(self, operation: Operation[T]) -> T:
        return await self.submit(operation)

    async def answer(
        self, operation: Operation[bytes], request: RequestId, *, resent: bool
    ) -> bytes:
        return await self.submit_answer(operation, request, resent=resent)

    def _deliver(self, group: list[Job[Any]]) -> None:
        done: list[Delivery] = []
        replies: dict[ReplySink, list[tuple[int, bytes]]] = {}
        refusals: list[tuple[ReplySink, int, BaseException]] = []
        for job in group:
            token = job.token
            if type(token) is not tuple:
                done.append((token, job.result, job.error))
            elif job.error is not None:
                refusals.append((*token, job.error))
            else:
                assert job.result is not None
                replies.setdefault(token[0], []).append((token[1], job.result))
        # The groups of the writing and of the syncing thread may come at once: rows are told of in their order. The loop
        # may be closed if the process is going down; then nobody waits.
        with self._telling, contextlib.suppress(RuntimeError):
            rows = self._durable_rows()
            tell = self.tell_sealed if rows else None
            self._loop.call_soon_threadsafe(_settle, done, replies, refusals, tell, rows)

    def _durable_rows(self) -> list[Row]:
        """Events that nobody has been told of, of groups that are durable; none once the disk has failed."""
        fresh, durable = self._write.fresh, self._writer.durable
        rows: list[Row] = []
        while fresh and fresh[0][0] <= durable:
            rows += fresh.popleft()[1]
        return [] if self._writer.broken is not None else rows

    # --- reading ---

    async def read(self, operation: Operation[T]) -> T:
        (result,) = await self.submit_reads([operation])
        if isinstance(result, BaseException):
            raise result
        return result  # type: ignore[no-any-return]

    async def read_each(self, operations: Sequence[Operation[Any]]) -> list[Any | DfsError]:
        return await self.submit_reads(operations)

    def submit_reads(self, operations: Sequence[Operation[Any]]) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._reads.put((operations, future))
        return future

    def _read_loop(self, cache_kib: int, cache: Directories) -> None:
        connection = connect(self._path, cache_kib=cache_kib, read_only=True)
        cached_epoch = -1
        tx = ReadTransaction(connection)
        execute = connection.execute
        try:
            while (work := self._reads.get()) is not None:
                operations, future = work
                epoch = self._epoch.value
                if epoch % 2:
                    tx.directories = None
                else:
                    if epoch != cached_epoch:
                        cache.clear()
                        cached_epoch = epoch
                    tx.directories = cache
                results: list[Any] = []
                error: BaseException | None = None
                try:
                    execute("BEGIN")
                    for operation in operations:
                        try:
                            results.append(operation(tx))
                        except DfsError as failed:
                            results.append(failed)
                        except sqlite3.Error as failed:
                            results.append(database_error(failed, self._path))
                        except Exception as failed:
                            results.append(failed)
                except BaseException as failed:
                    error = failed
                finally:
                    if connection.in_transaction:
                        execute("COMMIT")
                # What was read may come from a group that is not durable yet: nobody is told before it is.
                self._writer.after_sync(
                    self._writer.committing, partial(self._answer_reads, (future, results, error))
                )
        finally:
            connection.close()

    def _answer_reads(self, delivery: Delivery) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, [delivery], {}, ())

    # --- the end ---

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        for _ in self._readers:
            self._reads.put(None)
        for thread in self._readers:
            thread.join()
        with contextlib.suppress(sqlite3.Error):
            checkpoint(self._connection, self._path, "TRUNCATE")
        self._connection.close()
        os.close(self._lock)


def _settle(
    done: list[Delivery],
    replies: Mapping[ReplySink, list[tuple[int, bytes]]],
    refusals: Sequence[tuple[ReplySink, int, BaseException]],
    tell: Callable[[Sequence[Row]], None] | None = None,
    rows: Sequence[Row] = (),
) -> None:
    if tell is not None:
        tell(rows)
    for sink, found in replies.items():
        sink.answered(found)
    for sink, call_id, error in refusals:
        sink.refused(call_id, error)
    for future, result, failure in done:
        if future.done():
            continue  # its caller has gone
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)


@contextlib.contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Hold the database while no NameNode does. StoreError if one has it open."""
    descriptor = _lock_file(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> int:
    """Hold the database for this process; another NameNode on it is refused."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreError(
            f"the database {path} is in use by another NameNode; stop it, or use another directory"
        ) from None
    return descriptor
