"""A SQLite file that threads share: one writer that commits groups, a reading connection for each thread."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from .errors import DfsError
from .pagesums import PageSums
from .sqlite import Commits, GroupWriter, Job, PlainHooks, checkpoint, connect

T = TypeVar("T")


class Database:
    """A SQLite file with a group-committing writer and a reader connection for each thread.

    For callers in threads; operations are functions of a `sqlite3.Connection`.
    """

    def __init__(self, path: Path, *, cache_kib: int = 8192, sums: PageSums | None = None) -> None:
        """*sums*, if given, are kept of the file's pages."""
        self._path = path
        self._cache_kib = cache_kib
        self._sums = sums
        self._writer_connection = connect(path, cache_kib=cache_kib)
        self._local = threading.local()
        # Each with the lock that its thread holds while it reads: a connection that is closed meanwhile ends the process.
        self._readers: dict[sqlite3.Connection, threading.Lock] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._writer = GroupWriter(
            self._writer_connection,
            PlainHooks(),
            self._deliver,
            path=path,
            max_group=512,
            sums=sums,
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

    @property
    def broken(self) -> DfsError | None:
        return self._writer.broken

    @property
    def commits(self) -> Commits:
        writer = self._writer
        return Commits(tuple(writer.sizes), writer.operations, writer.sync_s, writer.queued)

    def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        return self.submit(operation).result()

    def reader(self) -> sqlite3.Connection:
        """This thread's own reading connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self._path, cache_kib=1024, read_only=True)
            self._local.connection = connection
            self._local.lock = threading.Lock()
            with self._lock:
                self._readers[connection] = self._local.lock
        return connection

    def read(self, statement: str, params: Sequence[object] = ()) -> list[Any]:
        """All rows that a reading statement finds, by this thread's own connection. sqlite3.Error, also once this is closed."""
        connection = self.reader()
        with self._local.lock:
            if self._closed:  # whoever closes must not wait for one read after the other
                raise sqlite3.ProgrammingError("the database is closed")
            return connection.execute(statement, params).fetchall()

    def release_reader(self) -> None:
        """Close this thread's reading connection; to be called by a thread that ends."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            with self._lock:
                # `close` in another thread may have been here before.
                self._readers.pop(connection, None)
            connection.close()

    def close(self) -> None:
        """Waits for those who read."""
        self._writer.close()
        self._closed = True
        with self._lock:
            readers, self._readers = self._readers, {}
        for connection, reading in readers.items():
            with reading:
                connection.close()
        with contextlib.suppress(sqlite3.Error):
            self._last_checkpoint()
        self._writer_connection.close()

    def _last_checkpoint(self) -> None:
        """All that is in the log; nobody writes any more."""
        connection, sums = self._writer_connection, self._sums
        if sums is None:
            checkpoint(connection, self._path, "TRUNCATE")
            return
        answer = (1, 0, -1)

        def copy() -> tuple[int, int, int]:
            nonlocal answer
            answer = checkpoint(connection, self._path, "PASSIVE")
            return answer

        with contextlib.suppress(OSError):
            sums.checkpoint(connection, copy)
        _, logged, copied = answer
        if logged != copied:
            # SQLite copies what is left by itself when the last connection is closed.
            sums.forget()
        checkpoint(connection, self._path, "TRUNCATE")
