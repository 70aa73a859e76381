"""SQLite as both roles use it: a write-ahead log, and one writer that group-commits.

All operations that wait are run in one transaction with one fsync, then all are answered. An operation checks
before it writes; if one raises after its first write (rare), the group is rolled back and run again, each
operation in a transaction of its own, so that it takes nobody with it.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from . import disk
from .errors import Busy, DfsError, DiskFull, InternalError, ShuttingDown, StoreDamaged, StoreError
from .pagesums import PageSums
from .runtime import elapsed_timer

log = logging.getLogger(__name__)
T = TypeVar("T")
# Operations after which a group goes to an idle disk although more are waiting: while it is made durable, they run.
FULL_ENOUGH = 32
# Groups are counted by size up to these bounds, for the metrics.
GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARED_BYTES = 64 * 1024
SLOW_SYNC_S = 1.0  # an fsync that takes longer is worth a line in the log


def connect(path: Path, *, cache_kib: int, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode with the settings durability needs.

    Raises StoreDamaged if the file is no database, StoreError if it can't be opened.
    """
    connection = None
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
            # A commit appends to the log; GroupWriter makes the log durable, and answers after that.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # Checkpointer does it beside
            connection.execute("PRAGMA foreign_keys = OFF")
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise database_error(error, path) from error
        # SQLite's complaint quotes the damaged schema.
        raise StoreDamaged(f"the database {path} is damaged: its schema is no text") from None
    return connection


def database_error(error: sqlite3.Error, path: Path) -> DfsError:
    """What an error of SQLite itself means to the caller."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    # Without room for the little that its connections share, SQLite speaks of an input/output error.
    unclear = primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    if primary == sqlite3.SQLITE_FULL or (unclear and not disk.has_room(path.parent, SHARED_BYTES)):
        return DiskFull(f"no space left for the database {path}")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamaged(f"the database {path} is damaged: {error}")
    if isinstance(error, sqlite3.IntegrityError):
        return InternalError(f"a constraint of the database was violated: {error}")
    return StoreError(f"the database {path} failed: {error}")


def checkpoint(connection: sqlite3.Connection, path: Path, mode: str) -> tuple[int, int, int]:
    """Copy the write-ahead log into the database file; *mode* and the answer as in SQLite's `wal_checkpoint`."""
    answer = (1, 0, 0)

    def copy() -> None:
        nonlocal answer
        answer = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()

    disk.checkpoint(copy, path, "database.checkpoint")
    return answer


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
    """The one thread that writes to a database, and the one that makes its groups durable.

    Committing only appends to the write-ahead log (synchronous = NORMAL); `_sync_loop` then calls fdatasync on the log
    and answers. Meanwhile the next group runs, and grows until the disk is free again. So nobody gets an answer
    that is not durable, and the disk and this thread work at the same time.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        hooks: Hooks,
        deliver: Callable[[list[Job[Any]]], None],
        *,
        path: Path,
        max_group: int = 256,
        max_queue: int = 50_000,
        sums: PageSums | None = None,
    ) -> None:
        """*deliver* gets the jobs of a group once they are durable (or failed); *sums*, if given, know all checkpoints."""
        self._connection = connection
        self._hooks = hooks
        self._deliver = deliver
        self._path = path
        self._max_group = max_group
        self._full = False  # the last group found no space left, and that was said
        self._max_queue = max_queue
        self._queue: collections.deque[Job[Any]] = collections.deque()
        self._wake = threading.Condition()
        self._sleeping = False
        self._closing = False
        self._broken: DfsError | None = None
        self._syncing = False  # a group is being made durable
        self._handover: tuple[int, list[Job[Any]], bool] | None = None  # number, jobs, wrote
        self._handed = threading.Condition()
        self._finished = False
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._log = -1
        self.groups = 0
        self.operations = 0
        self.sizes = [0] * (len(GROUP_SIZES) + 1)  # groups by the bound that their size fits under
        self.sync_s = 0.0  # spent in making groups durable
        self.last_sync_s = 0.0
        self.committing = 0  # the group whose effects readers may see
        self.durable = 0  # the group up to which everything is on the disk
        self._checkpointer = Checkpointer(path, sums)
        self._thread = threading.Thread(target=self._run, name=f"writer {path.name}", daemon=True)
        self._syncer = threading.Thread(
            target=self._sync_loop, name=f"syncer {path.name}", daemon=True
        )
        self._thread.start()
        self._syncer.start()

    def submit(self, job: Job[Any]) -> None:
        """Queue *job*. Raises Busy or ShuttingDown instead of queueing without bound, StoreError once the disk has failed."""
        if len(self._queue) >= self._max_queue:
            raise Busy("too many operations are waiting for the database; try again")
        if self._closing:
            raise ShuttingDown("the database is being closed")
        if self._broken is not None:
            raise self._broken
        self._queue.append(job)
        # Waking costs a lock. The thread says that it sleeps before it looks at the queue for the last time.
        if self._sleeping:
            with self._wake:
                self._wake.notify()

    def after_sync(self, group: int, callback: Callable[[], None]) -> None:
        """Call *callback* once *group* is durable, in this thread or the syncing one."""
        if self.durable < group:
            with self._wake:
                if self.durable < group:
                    self._waiting.append((group, callback))
                    return
        callback()

    def close(self) -> None:
        """Finish what is queued, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        with self._handed:
            self._finished = True
            self._handed.notify()
        self._syncer.join()
        self._checkpointer.close()
        if self._log >= 0:
            os.close(self._log)

    @property
    def broken(self) -> DfsError | None:
        """Why nothing can be made durable any more."""
        return self._broken

    @property
    def queued(self) -> int:
        """Operations waiting for their group."""
        return len(self._queue)

    # --- the writing thread ---

    def _run(self) -> None:
        queue = self._queue
        while True:
            if not queue:
                with self._wake:
                    self._sleeping = True
                    while not queue and not self._closing:
                        self._wake.wait()
                    self._sleeping = False
                if not queue:
                    return
            group: list[Job[Any]] = []
            before = self._connection.total_changes
            try:
                self._run_group(group, queue)
            except BaseException as error:
                failure = _as_error(error, self._path)
                if not isinstance(failure, DiskFull):
                    log.exception("a group of operations failed")
                elif not self._full:
                    log.error("%s; nothing is written until there is some", failure.message)
                self._full = isinstance(failure, DiskFull)
                for job in group:
                    job.result, job.error = None, failure
            else:
                self._full = False
            self.groups += 1
            self.operations += len(group)
            size = (max(len(group), 1) - 1).bit_length()
            self.sizes[min(size, len(GROUP_SIZES))] += 1
            self._hand_over(group, self._connection.total_changes != before)

    def _run_group(
        self, group: list[Job[Any]], queue: collections.deque[Job[Any]] | None = None
    ) -> None:
        """Run *group* and commit it. What comes in on *queue* joins it until it can be made durable."""
        connection, hooks = self._connection, self._hooks
        connection.execute("BEGIN IMMEDIATE")
        try:
            context = hooks.context(connection)
            for job in group:
                self._run_job(job, context)
            while queue is not None and len(group) < self._max_group:
                if queue and (self._syncing or len(group) < FULL_ENOUGH):
                    job = queue.popleft()
                    group.append(job)
                    self._run_job(job, context)
                elif not (self._syncing and self._wait_for_more(queue)):
                    break
            hooks.before_commit()
            self.committing = self.groups + 1
            try:
                disk.commit(partial(connection.execute, "COMMIT"), self._path, "database.commit")
            except OSError as error:
                raise sqlite3.OperationalError(f"disk I/O error: {error.strerror}") from None
        except _RunApart as apart:
            self._rollback()
            if len(group) > 1:
                self._run_apart(group)
            else:
                assert apart.__cause__ is not None
                group[0].error = _as_error(apart.__cause__, self._path)
        except BaseException:
            self._rollback()
            raise
        else:
            hooks.committed()

    def _run_job(self, job: Job[Any], context: Any) -> None:
        before = self._hooks.writes()
        try:
            job.result = job.operation(context)
        except Exception as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            if self._hooks.writes() != before:
                raise _RunApart from error
            job.error = _as_error(error, self._path)

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

    def _wait_for_more(self, queue: collections.deque[Job[Any]]) -> bool:
        """Until there is a job (True), or the group before this one is durable."""
        with self._wake:
            self._sleeping = True
            while not queue and self._syncing:
                self._wake.wait()
            self._sleeping = False
        return bool(queue)

    def _wait_for_disk(self) -> None:
        """Until the group before this one is durable."""
        if self._syncing:
            with self._wake:
                while self._syncing:
                    self._wake.wait()

    def _hand_over(self, group: list[Job[Any]], wrote: bool) -> None:
        self._wait_for_disk()
        entry = (self.groups, group, wrote)
        self._syncing = True
        if len(group) == 1 and not self._queue:
            self._make_durable(entry)  # alone: not worth another thread's waking
            return
        with self._handed:
            self._handover = entry
            self._handed.notify()

    # --- the syncing thread ---

    def _sync_loop(self) -> None:
        while True:
            with self._handed:
                while self._handover is None:
                    if self._finished:
                        return
                    self._handed.wait()
                entry, self._handover = self._handover, None
            self._make_durable(entry)

    def _make_durable(self, entry: tuple[int, list[Job[Any]], bool]) -> None:
        number, group, wrote = entry
        if wrote:
            began_s = elapsed_timer()
            try:
                self._sync_log()
            except OSError as error:
                # What the disk holds is unknown now, and another fsync would not tell: nothing more is promised.
                log.critical("the log of %s can't be made durable: %s", self._path, error)
                self._broken = StoreError(
                    f"the database {self._path} can't be made durable ({error.strerror}); "
                    "the process has to be restarted"
                )
            took_s = elapsed_timer() - began_s
            self.sync_s += took_s
            self.last_sync_s = took_s
            if took_s > SLOW_SYNC_S:
                log.warning(
                    "slow disk: making %d operations durable in %s took %.2f s",
                    len(group),
                    self._path,
                    took_s,
                    extra={"fields": {"slow": "disk", "duration_ms": round(took_s * 1e3)}},
                )
        if self._broken is not None:
            for job in group:
                job.result, job.error = None, self._broken
        with self._wake:
            self.durable = number
            self._syncing = False
            waiting, self._waiting = self._waiting, []
            ready = [callback for wanted, callback in waiting if wanted <= number]
            self._waiting = [entry for entry in waiting if entry[0] > number]
            self._wake.notify()
        for callback in ready:
            callback()
        self._deliver(group)
        self._checkpointer.written()

    def _sync_log(self) -> None:
        if self._log < 0:
            self._log = os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)
            disk.fsync_directory(self._path.parent, "database.folder")
        disk.sync_log(self._log, self._path, "database.sync")


class _RunApart(Exception):
    """A member of the group failed after it had written."""


def _as_error(error: BaseException, path: Path) -> BaseException:
    return database_error(error, path) if isinstance(error, sqlite3.Error) else error


class Checkpointer:
    """Copies the write-ahead log into the database beside the writer, so that no commit waits for it."""

    START_BYTES = 16 * 1024 * 1024

    def __init__(self, path: Path, sums: PageSums | None = None) -> None:
        self._path = path
        self._sums = sums
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
                        self._copy(connection)
        finally:
            connection.close()

    def _copy(self, connection: sqlite3.Connection) -> None:
        if self._sums is None:
            checkpoint(connection, self._path, "PASSIVE")
            return
        # Its transaction keeps the writer from starting the log anew before the sums are made.
        with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT 1 FROM sqlite_master").fetchone()
            self._sums.checkpoint(reader, lambda: checkpoint(connection, self._path, "PASSIVE"))


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


class Commits(NamedTuple):
    """What a writer has committed: groups by the bound their size fits under, operations, time in fsync; and what waits."""

    sizes: tuple[int, ...]
    operations: int
    sync_s: float
    queued: int
