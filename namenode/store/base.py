"""What a metadata operation needs of a database, and what a server needs of a store.

An operation is a plain function over `Transaction`. It may run more than once (after a conflict, or when a
neighbour in its group failed), so it must do nothing outside the transaction. It should check
everything before its first write: an operation that raises before writing costs its group nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from ...common.errors import DfsError
from ...common.model import INodeId

T = TypeVar("T")
Row = tuple[Any, ...]
Params = Sequence[Any]
Operation = Callable[["Transaction"], T]


class NewEvent(NamedTuple):
    """An entry for the change stream, not sealed yet."""

    time_ms: int
    kind: str
    path: str
    user: str
    inode_id: INodeId
    destination: str = ""
    detail: str = ""


class DirectoryCache(Protocol):
    """Directories already resolved, by (parent inode id, name), and whole ways to a directory by its path.

    The store sees to it that what is found here is what the transaction's own snapshot would say. Values are rows as
    `namenode/store/sql.py` selects them. Only directories may be put in. Who looks counts what came of it.
    """

    hits: int
    misses: int

    def get(self, key: tuple[int, str]) -> Row | None: ...

    def put(self, key: tuple[int, str], row: Row) -> None: ...

    def way(self, path: str) -> tuple[tuple[str, ...], list[Row]] | None:
        """The components of *path* and the rows from the root to it, if it was put in. "" is the root."""

    def put_way(self, path: str, way: tuple[tuple[str, ...], list[Row]]) -> None:
        """*path* as `paths.join` gives it, "" for the root. Nobody may change *way* afterwards."""

    def drop(self, key: tuple[int, str]) -> None:
        """Forget a directory, and the ways that lead through it."""


class Transaction(Protocol):
    """One transaction. Statements use `?` for parameters and the SQL both dialects share."""

    directories: DirectoryCache | None
    holders: set[str]  # of leases, that are known to have a row of lease_holders

    def one(self, statement: str, params: Params = ()) -> Row | None:
        """The first row, or None."""

    def all(self, statement: str, params: Params = ()) -> list[Row]: ...

    def inodes(self, keys: Sequence[tuple[int, str]]) -> list[Row]:
        """Rows of inodes (columns as in `namenode/store/sql.py`) at (parent inode id, name), in any order; fewer
        where nothing is there."""

    def execute(self, statement: str, params: Params = ()) -> int:
        """Run a statement that writes; the number of rows it changed."""

    def many(self, statement: str, rows: Sequence[Params]) -> None:
        """Run one writing statement for each of *rows*, in as few round trips as can be."""

    def new_ids(self, kind: str, count: int = 1) -> int:
        """The first of *count* neighbouring ids of *kind* ("inode", "block", "generation", "node", "token")."""

    def emit(self, event: NewEvent) -> None:
        """Append to the change stream, with this transaction or not at all."""

    def directory_changed(self, key: tuple[int, str]) -> None:
        """To be called by what renames, unlinks or changes attributes of the directory that was at *key*."""


class RequestId(NamedTuple):
    """Names one mutation of one client; the same id means the same request."""

    client_id: bytes
    call_id: int


class ReplySink(Protocol):
    """Where answers of mutations go that are not waited for one by one. Called on the event loop."""

    def answered(self, answers: Sequence[tuple[int, bytes]]) -> None:
        """(call id, encoded answer) of mutations that are durable now."""

    def refused(self, call_id: int, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True)
class Pressure:
    """How hard the store works: operations queued, groups committed by size (the bound it fits under), time in fsync; readings
    queued; how often the way to a directory was known."""

    queued: int = 0
    sizes: Mapping[int, int] = field(default_factory=dict)
    sync_s: float = 0.0
    reads_queued: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    last_sync_s: float = 0.0  # of the last group


class MetadataStore(Protocol):
    """A database of the namespace. All methods may be called from one event loop concurrently."""

    async def run(self, operation: Operation[T]) -> T:
        """Run *operation* in a transaction and commit it durably; retried on conflicts.

        Raises what the operation raises (then nothing of it is kept), StoreConflict when retries ran out,
        StoreDamaged or DiskFull when the database can't commit.
        """

    async def answer(
        self, operation: Operation[bytes], request: RequestId, *, resent: bool
    ) -> bytes:
        """As `run`, and record the answer under *request* in the same transaction.

        With *resent*, a recorded answer is returned and the operation is not run again. A request that is still being run
        is waited for. Errors are not recorded: a failed operation has changed nothing.
        """

    async def read(self, operation: Operation[T]) -> T:
        """Run a reading operation on one snapshot that contains every commit answered before."""

    async def read_each(self, operations: Sequence[Operation[Any]]) -> list[Any | DfsError]:
        """Run several reading operations on one snapshot; an error stands in for its result."""

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """As `run`, started at once: operations submitted one after the other may share a commit."""

    def submit_answer(
        self, operation: Operation[bytes], request: RequestId, *, resent: bool
    ) -> asyncio.Future[bytes]:
        """As `answer`, started at once."""

    def submit_reply(
        self, operation: Operation[bytes], request: RequestId, sink: ReplySink, *, resent: bool
    ) -> None:
        """As `answer`, started at once; the outcome goes to *sink*, together with others'."""

    def submit_reads(self, operations: Sequence[Operation[Any]]) -> asyncio.Future[list[Any]]:
        """As `read_each`, started at once."""

    @property
    def statistics(self) -> tuple[int, int]:
        """(groups committed, operations in them)."""

    # Called on the event loop with rows of events (columns as in `namenode/events.py`), in order and without a gap, soon after they
    # were sealed and made durable; never in a store that can't tell (then somebody has to look). Set by whoever wants to know.
    tell_sealed: Callable[[Sequence[Row]], None] | None

    def pressure(self) -> Pressure:
        """For the metrics; cheap."""

    async def close(self) -> None:
        """Finish what is in flight, then close the connections."""
