"""Many small files at once: what concurrent callers write or read travels together.

Like group commit: while a batch is on its way, others gather; a lonely caller waits for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..common import tracing
from ..common.checksum import digest_of
from ..common.codec import error_of
from ..common.errors import DfsError, LeaseLost, NotEnoughReplicas
from ..common.messages import (
    Allocate,
    Allocation,
    BlockCommit,
    LocatedMany,
    LocateMany,
    PutFile,
    PutFiles,
    StatusList,
)
from ..common.model import (
    Block,
    BlockId,
    FileBlocks,
    FileStatus,
    NodeAddress,
    NodeId,
)
from ..common.transfer import SmallBlock
from .block_writer import PipelineBroken, write_many
from .session import Session

log = logging.getLogger(__name__)
BATCH_FILES = 256
BATCH_BYTES = 2 * 1024 * 1024
ALLOCATED_AT_ONCE = 256
IN_FLIGHT = 3
MAX_LINKS = 32  # of a span


@dataclass(slots=True)
class SmallFile:
    """A file of at most one chunk, to be put whole."""

    data: bytes | memoryview
    file: PutFile  # without blocks


class _Ids(NamedTuple):
    """The rest of an allocation."""

    next: int
    end: int
    allocation: Allocation


def _fail(waiting: Sequence[tuple[Any, asyncio.Future[Any]]], error: Exception) -> None:
    """An error that nobody foresaw must not leave callers waiting for ever."""
    for _, future in waiting:
        if not future.done():
            future.set_exception(error)


def _cancel(waiting: Sequence[tuple[Any, asyncio.Future[Any]]]) -> None:
    for _, future in waiting:
        future.cancel()


def _together(
    name: str, origins: Sequence[tracing.Origin | None]
) -> contextlib.AbstractContextManager[Any]:
    """What is done for several callers at once belongs to the first of them that has a request; the trace links to the others'."""
    known = list(dict.fromkeys(origin for origin in origins if origin is not None))
    if not known:
        return tracing.within(None)
    first, *others = known
    if others and log.isEnabledFor(logging.DEBUG):
        ids = ", ".join(origin.request_id for origin in others)
        log.debug("%s of %s takes along %s", name, first.request_id, ids)
    links = tuple(origin.traceparent for origin in others[:MAX_LINKS])
    return tracing.span(name, origin=first, links=links, files=len(origins))


class SmallWriter:
    """Puts small files in batches."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queue: list[tuple[SmallFile, asyncio.Future[FileStatus]]] = []
        # Whose each of the queue is, where anybody's.
        self._origins: dict[asyncio.Future[FileStatus], tracing.Origin] = {}
        self._running = 0
        self._free: dict[int, list[_Ids]] = {}  # by replication; each with a pipeline of its own

    async def put(self, file: SmallFile) -> FileStatus:
        """Durable when this returns."""
        future: asyncio.Future[FileStatus] = asyncio.get_running_loop().create_future()
        self._queue.append((file, future))
        origin = tracing.current()
        if origin is not None:
            self._origins[future] = origin
        if self._running < IN_FLIGHT:
            self._start()
        return await future

    def _start(self) -> None:
        self._running += 1
        task = asyncio.get_running_loop().create_task(self._work(), name="small files")
        self._session.spawn(task)

    async def _work(self) -> None:
        """Batches, as long as there is something to put."""
        batch: list[tuple[SmallFile, asyncio.Future[FileStatus]]] = []
        try:
            await asyncio.sleep(0)  # callers of this turn of the loop come along
            while self._queue:
                batch = self._take()
                origins = [self._origins.pop(future, None) for _, future in batch]
                try:
                    with _together("put_small_files", origins):
                        results = await self.put_group([file for file, _ in batch])
                except Exception as error:
                    _fail(batch, error)
                    continue
                for (_, future), result in zip(batch, results, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, DfsError):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        except asyncio.CancelledError:  # the session is being closed
            _cancel([*batch, *self._queue])
            self._origins.clear()
            raise
        finally:
            self._running -= 1

    def _take(self) -> list[tuple[SmallFile, asyncio.Future[FileStatus]]]:
        size, count = 0, 0
        for file, _ in self._queue:
            size += len(file.data)
            if count and (size > BATCH_BYTES or count >= BATCH_FILES):
                break
            count += 1
        batch, self._queue = self._queue[:count], self._queue[count:]
        return batch

    async def put_group(self, files: Sequence[SmallFile]) -> list[FileStatus | DfsError]:
        """Put files of one batch (bounded by BATCH_FILES and BATCH_BYTES); each has its own result."""
        results: list[FileStatus | DfsError | None] = [None] * len(files)
        groups: dict[tuple[int, bool], list[int]] = {}
        try:
            default = (await self._session.info()).default_replication
            await self._session.keep_lease()
        except DfsError as error:
            return [error] * len(files)
        for index, file in enumerate(files):
            replication = file.file.replication or default
            groups.setdefault((replication, not len(file.data)), []).append(index)
        for (replication, empty), indexes in groups.items():
            try:
                part = [files[index] for index in indexes]
                found = await (self._commit(part, None) if empty else self._put(part, replication))
            except DfsError as error:
                found = [error] * len(indexes)
            for index, result in zip(indexes, found, strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    async def _put(self, files: list[SmallFile], replication: int) -> list[FileStatus | DfsError]:
        """Write the blocks, then commit; again with other nodes where a pipeline fails."""
        info = await self._session.info()
        needed = min(info.min_replicas, replication)
        trials = self._session.placing.trials()
        while True:
            first, allocation = await self._ids(len(files), replication)
            try:
                with tracing.span("write_small_blocks", "client", files=len(files)):
                    commits = await self._session.run(
                        self._write, files, first, allocation, allocation.nodes
                    )
            except PipelineBroken as error:
                self._forsake(first, len(files))
                await trials.failed(error, error.failed)
                continue
            except BaseException:
                self._session.give_back(range(first, first + len(files)))
                raise
            if len(commits[0].nodes) < needed:
                self._forsake(first, len(files))
                await trials.failed(*_too_few(commits[0], allocation, needed))
                continue
            if len(commits[0].nodes) < len(allocation.nodes):
                self._forsake()  # a pipeline with a hole is not used again
            try:
                results = await self._commit(files, commits)
            except LeaseLost as error:
                self._forsake(first, len(files))
                await trials.failed(error)
                continue
            except BaseException:
                self._session.give_back(range(first, first + len(files)))
                raise
            refused = [n for n, result in enumerate(results, first) if isinstance(result, DfsError)]
            self._session.give_back(refused)
            return results

    async def store(
        self, parts: Sequence[bytes], replication: int | None = None
    ) -> list[BlockCommit]:
        """Write blocks of at most one chunk (at most BATCH_FILES, about BATCH_BYTES) that belong to nothing yet."""
        info = await self._session.info()
        wanted = replication or info.default_replication
        needed = min(info.min_replicas, wanted)
        await self._session.keep_lease()
        files = [SmallFile(part, PutFile(path="")) for part in parts]
        trials = self._session.placing.trials()
        while True:
            first, allocation = await self._ids(len(files), wanted)
            try:
                commits = await self._session.run(
                    self._write, files, first, allocation, allocation.nodes
                )
            except PipelineBroken as error:
                self._forsake(first, len(files))
                await trials.failed(error, error.failed)
                continue
            except BaseException:
                self._session.give_back(range(first, first + len(files)))
                raise
            if len(commits[0].nodes) < len(allocation.nodes):
                self._forsake()  # a pipeline with a hole is not used again
            if len(commits[0].nodes) >= needed:
                return commits
            self._session.give_back(range(first, first + len(files)))
            await trials.failed(*_too_few(commits[0], allocation, needed))

    def _forsake(self, first: int = 0, count: int = 0) -> None:
        """Use no more of what is allocated, and give it back, with *count* blocks from *first* on that were written in vain."""
        unused = [
            n for free in self._free.values() for ids in free for n in range(ids.next, ids.end)
        ]
        self._free.clear()
        self._session.give_back([*unused, *range(first, first + count)])

    def _write(
        self,
        files: list[SmallFile],
        first: int,
        allocation: Allocation,
        nodes: list[NodeAddress],
    ) -> list[BlockCommit]:
        generation = allocation.generation
        items = [
            SmallBlock(
                block_id=BlockId(first + index),
                generation=generation,
                length=len(file.data),
                digest=digest_of(file.data),
            )
            for index, file in enumerate(files)
        ]
        done = write_many(
            self._session.pool,
            nodes,
            items,
            [file.data for file in files],
            self._session.config.durability,
        )
        return [
            BlockCommit(
                block_id=item.block_id,
                generation=generation,
                length=item.length,
                digest=item.digest,
                nodes=done.nodes,
            )
            for item in items
        ]

    async def _commit(
        self, files: Sequence[SmallFile], commits: Sequence[BlockCommit] | None
    ) -> list[FileStatus | DfsError]:
        entries = []
        for index, file in enumerate(files):
            entry = file.file
            if commits is not None:
                entry = PutFile(
                    path=entry.path,
                    mode=entry.mode,
                    overwrite=entry.overwrite,
                    create_parents=entry.create_parents,
                    replication=entry.replication,
                    block_size=entry.block_size,
                    mtime_ms=entry.mtime_ms,
                    blocks=[commits[index]],
                )
            entries.append(entry)
        answer: StatusList = await self._session.namenode.call(
            "put_files", PutFiles(holder=self._session.holder, files=entries)
        )
        results: list[FileStatus | DfsError] = []
        for result in answer.results:
            if result.failure is not None:
                error = error_of(result.failure)
                if isinstance(error, LeaseLost):
                    raise error
                results.append(error)
            else:
                assert result.status is not None
                results.append(result.status)
        return results

    async def _ids(self, count: int, replication: int) -> tuple[int, Allocation]:
        """*count* neighbouring block ids and where they go; taken from what is left of earlier allocations."""
        excluded = self._session.placing.excluded()
        free = self._free.setdefault(replication, [])
        for index, ids in enumerate(free):
            if any(node.node_id in excluded for node in ids.allocation.nodes):
                continue  # got by another batch before the node failed
            if ids.end - ids.next >= count:
                del free[index]
                if ids.end - ids.next > count:
                    free.append(ids._replace(next=ids.next + count))
                return ids.next, ids.allocation
        allocation: Allocation = await self._session.placing.call(
            "allocate",
            lambda excluded: Allocate(
                holder=self._session.holder,
                count=max(count, ALLOCATED_AT_ONCE),
                length=BATCH_BYTES // ALLOCATED_AT_ONCE,
                replication=replication,
                exclude=excluded,
            ),
        )
        first = int(allocation.first_block_id)
        if allocation.count > count:
            free = self._free.setdefault(replication, [])
            free.append(_Ids(first + count, first + allocation.count, allocation))
        return first, allocation


def _too_few(
    commit: BlockCommit, allocation: Allocation, needed: int
) -> tuple[NotEnoughReplicas, list[NodeId]]:
    """For `Trials.failed`, where a pipeline stored its blocks on fewer nodes than *needed*."""
    held = set(commit.nodes)
    return (
        NotEnoughReplicas(f"only {len(held)} of {needed} nodes could store the data"),
        [node.node_id for node in allocation.nodes if node.node_id not in held],
    )


class SmallReader:
    """Reads whole files: locating and reading of concurrent callers travel together."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lookups: list[tuple[str, asyncio.Future[FileBlocks]]] = []
        self._locating = 0
        self._origins: dict[asyncio.Future[Any], tracing.Origin] = {}  # of both kinds
        self._reads: dict[str, list[tuple[Block, asyncio.Future[bytes | None]]]] = {}
        self._reading: dict[str, int] = {}

    async def locate(self, path: str) -> FileBlocks:
        future: asyncio.Future[FileBlocks] = asyncio.get_running_loop().create_future()
        self._lookups.append((path, future))
        self._note(future)
        if self._locating < IN_FLIGHT:
            self._locating += 1
            self._session.spawn(asyncio.create_task(self._locate(), name="locate"))
        return await future

    async def _locate(self) -> None:
        batch: list[tuple[str, asyncio.Future[FileBlocks]]] = []
        try:
            await asyncio.sleep(0)
            while self._lookups:
                batch, self._lookups = self._lookups[:BATCH_FILES], self._lookups[BATCH_FILES:]
                try:
                    with self._together("locate_files", batch):
                        answer: LocatedMany = await self._session.namenode.call(
                            "locate_many", LocateMany(paths=[path for path, _ in batch])
                        )
                except DfsError as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(type(error)(error.message))
                    continue
                except Exception as error:
                    _fail(batch, error)
                    continue
                for (_, future), result in zip(batch, answer.results, strict=True):
                    if future.done():
                        continue
                    if result.failure is not None:
                        future.set_exception(error_of(result.failure))
                    else:
                        assert result.file is not None
                        future.set_result(result.file)
        except asyncio.CancelledError:
            _cancel([*batch, *self._lookups])
            raise
        finally:
            self._locating -= 1

    def _note(self, future: asyncio.Future[Any]) -> None:
        origin = tracing.current()
        if origin is not None:
            self._origins[future] = origin

    def _together(
        self, name: str, batch: Sequence[tuple[Any, asyncio.Future[Any]]]
    ) -> contextlib.AbstractContextManager[Any]:
        return _together(name, [self._origins.pop(future, None) for _, future in batch])

    async def read(self, node: NodeAddress, block: Block) -> bytes | None:
        """A whole block of at most one chunk; None if the node could not serve it rightly."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._reads.setdefault(node.data, []).append((block, future))
        self._note(future)
        if self._reading.get(node.data, 0) < IN_FLIGHT:
            self._reading[node.data] = self._reading.get(node.data, 0) + 1
            self._session.spawn(asyncio.create_task(self._read(node), name="small reads"))
        return await future

    async def _read(self, node: NodeAddress) -> None:
        batch: list[tuple[Block, asyncio.Future[bytes | None]]] = []
        try:
            await asyncio.sleep(0)
            while waiting := self._reads.get(node.data):
                batch, self._reads[node.data] = waiting[:BATCH_FILES], waiting[BATCH_FILES:]
                try:
                    with self._together("read_small_files", batch):
                        found = await self._session.run(
                            self._session.blocks.read_many, node, [block for block, _ in batch]
                        )
                except DfsError:
                    found = [None] * len(batch)
                except Exception as error:
                    _fail(batch, error)
                    continue
                for (_, future), data in zip(batch, found, strict=True):
                    if not future.done():
                        future.set_result(data)
        except asyncio.CancelledError:
            _cancel([*batch, *self._reads.get(node.data, [])])
            raise
        finally:
            self._reading[node.data] -= 1
