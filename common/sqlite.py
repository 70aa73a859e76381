"""SQLite as both roles use it: WAL, synchronous=FULL, and one writer thread that group-commits.

All operations that wait are run in one transaction with one fsync, then all are answered. An operation checks
before it writes; if one raises after its first write (rare), the group is rolled back and run again, each
operation in a savepoint, so that it takes nobody with it.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from .errors import Busy, DfsError, DiskFull, InternalError, ShuttingDown, StoreDamaged, StoreError

log = logging.getLogger(__name__)
T = TypeVar("T")
PAGE_BYTES = 4096


def connect(path: Path, *, cache_kib: int, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode with the settings durability needs.

    Raises StoreDamaged if the file is no database, StoreError if it can't be opened.
    """
    try:
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=30.0
        )
        connection.execute(f"PRAGMA cache_size = {-cache_kib}")
        connection.execute("PRAGMA temp_store = MEMORY")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # Checkpointer does it beside
            connection.execute("PRAGMA foreign_keys = OFF")
    except sqlite3.DatabaseError as error:
        raise database_error(error, path) from error
    return connection


def database_error(error: sqlite3.Error, path: Path) -> DfsError:
    """What an error of SQLite itself means to the caller."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary == sqlite3.SQLITE_FULL:
        return DiskFull(f"no space left for the database {path}")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamaged(f"the database {path} is damaged: {error}")
    if isinstance(error, sqlite3.IntegrityError):
        return InternalError(f"a constraint of the database was violated: {error}")
    return StoreError(f"the database {path} failed: {error}")


class Hooks(Protocol):
    """What surrounds the operations of a group; `context` is what each operation is called with."""

    def context(self, connection: sqlite3.Connection) -> Any: ...

    def writes(self) -> int:
        """How many writing statements the context has run so far."""

    def before_commit(self) -> None:
        """Last statements of the group."""

    def committed(self) -> None: ...

    def rolled_back(self) -> None: ...


class Job(Generic[T]):
    """One operation waiting for its group. *deliver* is called in the writer's thread."""

    __slots__ = ("error", "operation", "result", "token")

    def __init__(self, operation: Callable[[Any], T], token: Any) -> None:
        self.operation = operation
        self.token = token
        self.result: T | None = None
        self.error: BaseException | None = None


class GroupWriter:
    """The one thread that writes to a database."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        hooks: Hooks,
        deliver: Callable[[list[Job[Any]]], None],
        *,
        path: Path,
        max_group: int = 256,
        max_queue: int = 50_000,
    ) -> None:
        """*deliver* gets the jobs of a group once they are durable (or failed)."""
        self._connection = connection
        self._hooks = hooks
        self._deliver = deliver
        self._path = path
        self._max_group = max_group
        self._max_queue = max_queue
        self._queue: collections.deque[Job[Any]] = collections.deque()
        self._wake = threading.Condition()
        self._closing = False
        self.groups = 0
        self.operations = 0
        self._checkpointer = Checkpointer(path)
        self._thread = threading.Thread(target=self._run, name=f"writer {path.name}", daemon=True)
        self._thread.start()

    def submit(self, job: Job[Any]) -> None:
        """Queue *job*. Raises Busy or ShuttingDown instead of queueing without bound."""
        if len(self._queue) >= self._max_queue:
            raise Busy("too many operations are waiting for the database; try again")
        if self._closing:
            raise ShuttingDown("the database is being closed")
        self._queue.append(job)
        # Waking costs a lock; the thread looks at the queue before it sleeps.
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """Finish what is queued, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._checkpointer.close()

    def _run(self) -> None:
        queue = self._queue
        while True:
            with self._wake:
                while not queue and not self._closing:
                    self._wake.wait()
            if not queue:
                return
            group: list[Job[Any]] = []
            while queue and len(group) < self._max_group:
                group.append(queue.popleft())
            try:
                self._run_group(group)
            except BaseException as error:
                log.exception("a group of operations failed")
                for job in group:
                    job.result, job.error = None, _as_error(error, self._path)
            self.groups += 1
            self.operations += len(group)
            self._deliver(group)
            self._checkpointer.written()

    def _run_group(self, group: list[Job[Any]]) -> None:
        connection, hooks = self._connection, self._hooks
        connection.execute("BEGIN IMMEDIATE")
        try:
            context = hooks.context(connection)
            for job in group:
                before = hooks.writes()
                try:
                    job.result = job.operation(context)
                except Exception as error:
                    if isinstance(error, sqlite3.OperationalError):
                        raise
                    if hooks.writes() != before and len(group) > 1:
                        raise _RunApart from error
                    if hooks.writes() != before:
                        self._rollback()
                        job.error = _as_error(error, self._path)
                        return
                    job.error = _as_error(error, self._path)
            hooks.before_commit()
            connection.execute("COMMIT")
        except _RunApart:
            self._rollback()
            self._run_apart(group)
        except BaseException:
            self._rollback()
            raise
        else:
            hooks.committed()

    def _run_apart(self, group: list[Job[Any]]) -> None:
        """The group again, one operation after the other, each undone alone if it fails."""
        for job in group:
            job.result, job.error = None, None
            try:
                self._run_group([job])
            except Exception as error:
                job.result, job.error = None, _as_error(error, self._path)

    def _rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._hooks.rolled_back()


class _RunApart(Exception):
    """A member of the group failed after it had written."""


def _as_error(error: BaseException, path: Path) -> BaseException:
    return database_error(error, path) if isinstance(error, sqlite3.Error) else error


class Checkpointer:
    """Copies the write-ahead log into the database beside the writer, so that no commit waits for it."""

    START_BYTES = 16 * 1024 * 1024

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._wake = threading.Event()
        self._closing = False
        self._count = 0
        self._thread = threading.Thread(
            target=self._run, name=f"checkpointer {path.name}", daemon=True
        )
        self._thread.start()

    def written(self) -> None:
        """Called after each group; now and then looks at how long the log has become."""
        self._count += 1
        if self._count % 64 == 0:
            self._wake.set()

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -512")
        try:
            while True:
                self._wake.wait()
                self._wake.clear()
                if self._closing:
                    return
                with contextlib.suppress(OSError, sqlite3.Error):
                    size_bytes = self._wal.stat().st_size
                    if size_bytes > self.START_BYTES:
                        # Once all of the log is copied and no reader needs it, the writer starts it anew.
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            connection.close()


class PlainHooks:
    """Hooks for a database whose operations take the connection itself."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None

    def context(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._connection = connection
        return connection

    def writes(self) -> int:
        assert self._connection is not None
        return self._connection.total_changes

    def before_commit(self) -> None: ...

    def committed(self) -> None: ...

    def rolled_back(self) -> None: ...


class Database:
    """A SQLite file with a group-committing writer and a reader connection for each thread.

    For callers in threads; operations are functions of a `sqlite3.Connection`.
    """

    def __init__(self, path: Path, *, cache_kib: int = 8192) -> None:
        self._path = path
        self._cache_kib = cache_kib
        self._writer_connection = connect(path, cache_kib=cache_kib)
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._writer = GroupWriter(
            self._writer_connection, PlainHooks(), self._deliver, path=path, max_group=512
        )

    @staticmethod
    def _deliver(group: list[Job[Any]]) -> None:
        for job in group:
            if job.error is not None:
                job.token.set_exception(job.error)
            else:
                job.token.set_result(job.result)

    def submit(self, operation: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run *operation* in the next group; the future is done when it is durable."""
        future: Future[T] = Future()
        self._writer.submit(Job(operation, future))
        return future

    def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return self.submit(operation).result()

    def reader(self) -> sqlite3.Connection:
        """This thread's own reading connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self._path, cache_kib=1024, read_only=True)
            self._local.connection = connection
            with self._lock:
                self._readers.append(connection)
        return connection

    def release_reader(self) -> None:
        """Close this thread's reading connection; to be called by a thread that ends."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            with self._lock:
                self._readers.remove(connection)
            connection.close()

    def close(self) -> None:
        self._writer.close()
        with self._lock:
            readers, self._readers = self._readers, []
        for connection in readers:
            connection.close()
        with contextlib.suppress(sqlite3.Error):
            self._writer_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._writer_connection.close()
