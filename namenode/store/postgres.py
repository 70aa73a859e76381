"""The metadata store on any database that speaks PostgreSQL's protocol, shared by several NameNodes.

Every operation is one SERIALIZABLE transaction, run again after a conflict, a few times with growing, jittered
pauses. Nothing is cached between transactions, because others write too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors as pg

from ...common import disk
from ...common.errors import (
    DfsError,
    DiskFull,
    InvalidRequest,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from ...common.retry import backoff_s
from ...common.runtime import Clock, system_random
from ..events import INSERT_PENDING
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

log = logging.getLogger(__name__)
T = TypeVar("T")
WORDS: Final = {"blob": "BYTEA", "text": 'TEXT COLLATE "C"', "clustered": ""}
DATABASE: Final = Path("postgresql")  # what fault plans call it
CONNECTIONS: Final = 8
ATTEMPTS: Final = 40
PATIENCE: Final = 2  # conflicts after which an operation waits until it is alone
RETRY_TOTAL_S: Final = 10.0
ID_RANGE: Final = 1_000
RETRY_LOCK: Final = 0x74777271  # key of the advisory lock: shared by all operations, held alone by those that met conflicts
MIGRATION_LOCK: Final = 0x7477696E  # key of the advisory lock around migrations


@functools.lru_cache(maxsize=1024)
def translated(statement: str) -> str:
    """*statement* with PostgreSQL's placeholders."""
    return statement.replace("%", "%%").replace("?", "%s")


class PostgresTransaction:
    """One attempt at one operation (or, reading, at several on one snapshot)."""

    def __init__(self, connection: psycopg.Connection[Row], store: PostgresStore) -> None:
        self._cursor = connection.cursor()
        self._store = store
        self._cache = Directories()  # resolved within this transaction
        self.directories: DirectoryCache | None = self._cache
        self.holders: set[str] = set()
        self.events: list[NewEvent] = []

    def one(self, statement: str, params: Params = ()) -> Row | None:
        return self._cursor.execute(translated(statement), params).fetchone()

    def all(self, statement: str, params: Params = ()) -> list[Row]:
        return self._cursor.execute(translated(statement), params).fetchall()

    def inodes(self, keys: Sequence[tuple[int, str]]) -> list[Row]:
        return sql.one_by_one(self, keys)

    def execute(self, statement: str, params: Params = ()) -> int:
        return self._cursor.execute(translated(statement), params).rowcount

    def many(self, statement: str, rows: Sequence[Params]) -> None:
        if rows:
            self._cursor.executemany(translated(statement), rows)

    def new_ids(self, kind: str, count: int = 1) -> int:
        return self._store.new_ids(kind, count)

    def emit(self, event: NewEvent) -> None:
        self.events.append(event)

    def directory_changed(self, key: tuple[int, str]) -> None:
        self._cache.drop(key)


class PostgresStore:
    """`MetadataStore` on PostgreSQL. Blocking connections, each used by one thread at a time."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._rng = system_random()
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="postgres")
        self._idle: queue.SimpleQueue[psycopg.Connection[Row]] = queue.SimpleQueue()
        self._ids: dict[str, list[int]] = {}
        self._id_lock = threading.Lock()
        self._closed = False
        self.tell_sealed: Callable[[Sequence[Row]], None] | None = (
            None  # never called: others commit, too
        )

    @classmethod
    async def open(cls, url: str, *, clock: Clock, owner: str, group: str) -> PostgresStore:
        """Connect and bring the database to this version's format.

        Raises Unavailable if the server can't be reached, StoreTooNew, StoreError.
        """
        store = cls(url, clock)
        try:
            await store._in_thread(lambda: store._prepare(owner, group))
        except BaseException:
            await store.close()
            raise
        return store

    def _connect(self) -> psycopg.Connection[Row]:
        try:
            connection = psycopg.connect(self._url, autocommit=True, connect_timeout=10)
            connection.execute("SET client_min_messages = warning")
            connection.execute("SET synchronous_commit = on")
            # A scan of a small table locks all of it against all other transactions (as far as SERIALIZABLE locks).
            connection.execute("SET enable_seqscan = off")
            return connection
        except psycopg.Error as error:
            raise StoreUnavailable(
                f"can't connect to the metadata database: {_first(error)}"
            ) from None

    def _prepare(self, owner: str, group: str) -> None:
        with self._connect() as connection:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
                there = connection.execute("SELECT to_regclass('meta')").fetchone()
                version = 0
                if there and there[0]:
                    row = connection.execute(
                        "SELECT value FROM meta WHERE name = 'format_version'"
                    ).fetchone()
                    version = int(row[0]) if row else 0
                migrate.check_version(version, connection.info.dbname)
                if version < migrate.latest_version():

                    def execute(statement: str) -> object:
                        return connection.execute(statement.encode())

                    migrate.migrate(
                        execute,
                        version,
                        WORDS,
                        owner=owner,
                        group=group,
                        now_ms=self._clock.wall_ms(),
                    )

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def new_ids(self, kind: str, count: int) -> int:
        """Ids from a range taken in a transaction of its own, so that no operation waits for the counter's row."""
        with self._id_lock:
            span = self._ids.get(kind)
            if span is None or span[0] + count > span[1]:
                size = max(ID_RANGE, count)

                def take(connection: psycopg.Connection[Row]) -> int:
                    connection.read_only = False
                    row = connection.execute(
                        "UPDATE counters SET next = next + %s WHERE name = %s RETURNING next",
                        (size, kind),
                    ).fetchone()
                    assert row is not None, f"no counter {kind}"
                    return int(row[0])

                end = self._with_connection(take)
                span = self._ids[kind] = [end - size, end]
            first = span[0]
            span[0] += count
            return first

    def _with_connection(self, work: Callable[[psycopg.Connection[Row]], T]) -> T:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            result = work(connection)
        except BaseException:
            if connection.closed or connection.broken:
                connection.close()
            else:
                self._idle.put(connection)
            raise
        self._idle.put(connection)
        return result

    # --- writing ---

    def _retry(self, attempt: Callable[[int], T]) -> T:
        """Run *attempt*, which is told how often it was tried before, until it meets no conflict; StoreConflict when time or
        attempts run out."""
        waited_s = 0.0
        pause = threading.Event()
        for number in range(ATTEMPTS):
            try:
                return attempt(number)
            except (pg.SerializationFailure, pg.DeadlockDetected, pg.UniqueViolation) as error:
                last: Exception = error
            except pg.DiskFull:
                raise DiskFull("no space left for the metadata database") from None
            except pg.OperationalError as error:
                # The connection broke. An operation without a request id might have been committed just before:
                # only the caller can know, so it is told.
                raise StoreUnavailable(f"lost the metadata database: {_first(error)}") from None
            except psycopg.DataError as error:
                # A value that no column can hold, and that nobody caught before.
                raise InvalidRequest(f"the database can't hold this: {_first(error)}") from None
            except (psycopg.Error, OSError) as error:
                raise StoreError(f"the metadata database failed: {_first(error)}") from None
            delay_s = backoff_s(number, self._rng, base_s=0.005, cap_s=1.0)
            waited_s += delay_s
            if waited_s > RETRY_TOTAL_S:
                break
            pause.wait(delay_s)
        log.warning("gave up an operation after repeated conflicts: %s", _first(last))
        raise StoreConflict("other operations kept changing the same entries; try again")

    def _commit(
        self, operation: Operation[T], record: Callable[[PostgresTransaction, T], None] | None
    ) -> T:
        def work(connection: psycopg.Connection[Row]) -> T:
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            connection.read_only = False
            with connection.transaction():
                # Until the end of this transaction, nobody has the lock alone.
                connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (RETRY_LOCK,))
                tx = PostgresTransaction(connection, self)
                result = operation(tx)
                if tx.events:
                    first = self.new_ids("event", len(tx.events))
                    tx.many(
                        INSERT_PENDING,
                        [
                            (
                                first + number,
                                e.time_ms,
                                e.kind,
                                e.path,
                                e.destination,
                                e.user,
                                e.inode_id,
                                e.detail,
                            )
                            for number, e in enumerate(tx.events)
                        ],
                    )
                if record is not None:
                    record(tx, result)
                return result

        def committed(connection: psycopg.Connection[Row]) -> T:
            return disk.commit(lambda: work(connection), DATABASE, "database.commit")

        def alone(tried: int, connection: psycopg.Connection[Row]) -> T:
            """Who has met conflicts goes when nobody else does, and so meets none. The lock is taken before the snapshot."""
            if tried < PATIENCE:
                return committed(connection)
            connection.execute("SELECT pg_advisory_lock(%s)", (RETRY_LOCK,))
            try:
                return committed(connection)
            finally:
                if not connection.closed:
                    connection.execute("SELECT pg_advisory_unlock(%s)", (RETRY_LOCK,))

        return self._retry(lambda tried: self._with_connection(partial(alone, tried)))

    async def run(self, operation: Operation[T]) -> T:
        return await self._in_thread(lambda: self._commit(operation, None))

    async def answer(
        self, operation: Operation[bytes], request: RequestId, *, resent: bool
    ) -> bytes:
        known = False

        def recorded(tx: Transaction) -> bytes:
            nonlocal known
            found = answers.find(tx, request)
            known = found is not None
            return found if found is not None else operation(tx)

        def record(tx: PostgresTransaction, answer: bytes) -> None:
            if known:
                return
            # Another NameNode that runs the same request meets this row, conflicts, and finds the answer on retrying.
            (row,) = answers.rows({request: answer}, self._clock.wall_ms())
            if not tx.execute(f"{answers.INSERT} ON CONFLICT DO NOTHING", row):
                raise pg.SerializationFailure("the request is being carried out elsewhere")

        return await self._in_thread(lambda: self._commit(recorded, record))

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        return asyncio.ensure_future(self.run(operation))

    def submit_answer(
        self, operation: Operation[bytes], request: RequestId, *, resent: bool
    ) -> asyncio.Future[bytes]:
        return asyncio.ensure_future(self.answer(operation, request, resent=resent))

    def submit_reply(
        self, operation: Operation[bytes], request: RequestId, sink: ReplySink, *, resent: bool
    ) -> None:
        def reply(done: asyncio.Future[bytes]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is not None:
                sink.refused(request.call_id, error)
            else:
                sink.answered([(request.call_id, done.result())])

        self.submit_answer(operation, request, resent=resent).add_done_callback(reply)

    # --- reading ---

    async def read(self, operation: Operation[T]) -> T:
        (result,) = await self.read_each([operation])
        if isinstance(result, BaseException):
            raise result
        return result  # type: ignore[no-any-return]

    async def read_each(self, operations: Sequence[Operation[Any]]) -> list[Any | DfsError]:
        def work(connection: psycopg.Connection[Row]) -> list[Any]:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            results: list[Any] = []
            with connection.transaction():
                tx = PostgresTransaction(connection, self)
                for operation in operations:
                    try:
                        results.append(operation(tx))
                    except psycopg.Error:
                        raise
                    except Exception as error:
                        results.append(error)
            return results

        return await self._in_thread(lambda: self._retry(lambda _: self._with_connection(work)))

    def submit_reads(self, operations: Sequence[Operation[Any]]) -> asyncio.Future[list[Any]]:
        return asyncio.ensure_future(self.read_each(operations))

    @property
    def statistics(self) -> tuple[int, int]:
        """Groups are the database's own affair here."""
        return 0, 0

    def pressure(self) -> Pressure:
        return Pressure()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["unknown error"])[0]
