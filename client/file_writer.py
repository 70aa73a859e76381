"""A file open for writing: packets stream through one pipeline while the block before is being finished."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ..common import tracing
from ..common.checksum import CHUNK_BYTES
from ..common.errors import DfsError, InvalidRequest, PipelineFailed
from ..common.messages import (
    AbandonBlock,
    AddBlock,
    BlockCommit,
    Complete,
    FileDag,
    OpenedFile,
    Sync,
    UpdatePipeline,
)
from ..common.model import BlockBase, FileStatus, NodeId, TargetBlock
from ..common.transfer import Flag
from .block_writer import BlockWriter, PipelineBroken
from .dag_nodes import file_dag
from .session import Session

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def _as_its_request(
    method: Callable[Concatenate[FileWriter, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[FileWriter, P], Coroutine[Any, Any, T]]:
    """Whatever task calls *method*: what it does belongs to the request that opened the file."""

    async def run(self: FileWriter, /, *args: P.args, **named: P.kwargs) -> T:
        with tracing.within(self._span.origin):
            return await method(self, *args, **named)

    run.__doc__ = method.__doc__
    return run


class Source(Protocol):
    """Bytes that come from somewhere; used by one thread at a time."""

    def more(self) -> bool:
        """Whether `take` will give something. Waits for it."""

    def take(self, limit: int) -> memoryview:
        """The next bytes, at most *limit*; none at the end. They stay as they are until `settle` lets go of them."""

    def settle(self, needed: int) -> None:
        """Of what was taken, only the last *needed* bytes must still stay as they are."""


class FileWriter:
    """What `open(path, "wb")` gives. Not to be shared between tasks.

    Bytes are durable and visible when `close` returns; what is written before a `flush` is visible to readers, and before a `sync`
    durable as well. Leaving the `async with` block by an exception abandons the file: it stays open for write and is closed,
    with what was flushed, by lease recovery.
    """

    def __init__(self, session: Session, opened: OpenedFile, *, fresh: bool) -> None:
        self._session = session
        self._status = opened.status
        self._block_size = opened.status.block_size
        self._position = opened.status.length
        self._fresh = fresh
        self._digests: dict[int, tuple[int, bytes]] = {}  # by block: its length and chunk digests
        self._order: list[int] = []  # blocks, as they follow each other in the file
        self._target = opened.block  # the block to go on with (append)
        self._writer: BlockWriter | None = None
        self._needed = 1
        self._chunk = bytearray()
        self._finishing: list[asyncio.Task[BlockCommit]] = []
        self._error: DfsError | None = None
        origin = tracing.current() or tracing.Origin(session.namenode.new_request_id())
        self._span = tracing.begin("write_file", origin)
        self.closed = False

    @property
    def path(self) -> str:
        return self._status.path

    @property
    def status(self) -> FileStatus:
        """As of the opening, or after `close` of the finished file."""
        return self._status

    def tell(self) -> int:
        return self._position

    async def __aenter__(self) -> FileWriter:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.close()
        else:
            await self.abandon()

    # --- writing ---

    @_as_its_request
    async def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of *data*; returns its length."""
        self._require_open()
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while view:
                room = self._room() - len(self._chunk)
                piece = view[:room]
                if len(piece) == CHUNK_BYTES:
                    await self._packet(bytes(piece))
                else:
                    self._chunk += piece
                    if len(piece) == room:
                        await self._send_chunk()
                view = view[len(piece) :]
        except DfsError as error:
            self._error = error
            raise
        self._position += size
        return size

    def _require_open(self) -> None:
        if self.closed:
            raise InvalidRequest(f"{self.path} is closed")
        if self._error is not None:
            raise type(self._error)(self._error.message)

    def _block_length(self) -> int:
        """Bytes sent of the current block."""
        if self._writer is not None:
            return self._writer.length
        if self._target is not None and self._target.base is not None:
            return self._target.base.length
        return 0

    def _room(self) -> int:
        """Bytes to the end of the current chunk; what has gathered in `_chunk` begins where the block ends."""
        return CHUNK_BYTES - self._block_length() % CHUNK_BYTES

    async def _send_chunk(self, flags: Flag = Flag.NONE) -> None:
        data, self._chunk = bytes(self._chunk), bytearray()
        await self._packet(data, flags)

    async def _packet(self, data: bytes, flags: Flag = Flag.NONE) -> None:
        writer = await self._current()
        full = writer.length + len(data) >= self._block_size
        if full:
            flags |= Flag.LAST
        try:
            await self._session.run(writer.send, data, flags)
        except PipelineBroken as error:
            writer = await self._recover(writer, error)
        if full:
            await self._begin_finish(writer)

    async def _begin_finish(self, writer: BlockWriter) -> None:
        """The block is full: have it finalized while the next one is written, a few at once."""
        self._writer = None
        self._finishing.append(
            asyncio.create_task(self._finish(writer), name=f"finish {self.path}")
        )
        if len(self._finishing) > self._session.config.parallel_blocks:
            await asyncio.wait([self._finishing[0]])

    @_as_its_request
    async def write_from(self, source: Source, threads: Executor) -> None:
        """Take all that comes from *source*; one of *threads* moves the bytes, and the loop is asked once a block only.

        What was given to `write` before must end where a chunk of the file ends.
        """
        self._require_open()
        if self._chunk:
            raise InvalidRequest("write_from can't begin within a chunk that is not written yet")
        loop = asyncio.get_running_loop()
        try:
            while await loop.run_in_executor(threads, source.more):
                writer = await self._current()
                try:
                    await loop.run_in_executor(threads, tracing.carried(self._fill), writer, source)
                except PipelineBroken as error:
                    writer = await self._recover(writer, error)
                if writer.length >= self._block_size:
                    await self._begin_finish(writer)
        except DfsError as error:
            self._error = error
            raise

    def _fill(self, writer: BlockWriter, source: Source) -> None:
        """Send what comes until the block is full, or nothing comes any more; in a thread."""
        while (room := self._block_size - writer.length) > 0:
            piece = source.take(min(room, CHUNK_BYTES - writer.length % CHUNK_BYTES))
            if not piece:
                return
            self._position += len(piece)
            writer.send(piece, Flag.LAST if len(piece) == room else Flag.NONE)
            source.settle(writer.length - writer.acked)

    @property
    def chunk_room(self) -> int:
        """Bytes to the end of the chunk of the file that is written next."""
        return self._room() - len(self._chunk)

    # --- blocks ---

    async def _current(self) -> BlockWriter:
        """The pipeline of the block that is being written; a new one where there is none."""
        if self._writer is None:
            info = await self._session.info()
            self._needed = min(info.min_replicas, self._status.replication)
            target = self._target
            self._target = None
            if target is None:
                target = await self._add_block()
            self._writer = await self._open_pipeline(target)
        return self._writer

    async def _add_block(self) -> TargetBlock:
        commits = await self._commits(wait=False)
        target: TargetBlock = await self._session.placing.call(
            "add_block",
            lambda excluded: AddBlock(
                path=self._status.path,
                inode_id=self._status.inode_id,
                holder=self._session.holder,
                commits=commits,
                exclude=excluded,
                near=self._session.near,
            ),
        )
        return target

    async def _commits(self, *, wait: bool) -> list[BlockCommit]:
        """Blocks that were finished since the last call; with *wait*, all that are not the current one."""
        commits = []
        while self._finishing and (wait or self._finishing[0].done()):
            commits.append(await self._finishing[0])
            self._finishing.pop(0)
            self._order.append(commits[-1].block_id)
        return commits

    async def _open_pipeline(self, target: TargetBlock) -> BlockWriter:
        writer = self._session.writer(target)
        try:
            await self._session.run(writer.open)
            if len(writer.nodes) < self._needed:
                raise PipelineBroken("too few nodes could be reached", self._left_out(writer))
        except PipelineBroken as error:
            writer.close()
            if target.base is None:
                return await self._other_block(target, error)
            return await self._recover(writer, error)
        self._session.placing.blame(self._left_out(writer))
        return writer

    @staticmethod
    def _left_out(writer: BlockWriter) -> list[NodeId]:
        kept = {node.node_id for node in writer.nodes}
        return [n.node_id for n in writer.target.nodes if n.node_id not in kept]

    async def _other_block(self, target: TargetBlock, error: PipelineBroken) -> BlockWriter:
        """Nothing was written yet, so another block on other nodes will do."""
        last = error
        trials = self._session.placing.trials()
        while True:
            await trials.failed(PipelineFailed(f"{self.path}: {last.message}"), last.failed)
            await self._give_back(target)
            target = await self._add_block()
            writer = self._session.writer(target)
            try:
                await self._session.run(writer.open)
                if len(writer.nodes) >= self._needed:
                    return writer
                last = PipelineBroken("too few nodes could be reached", self._left_out(writer))
            except PipelineBroken as again:
                last = again
            writer.close()

    async def _give_back(self, target: TargetBlock) -> None:
        """Take a block that holds nothing out of the file."""
        await self._session.namenode.call(
            "abandon_block",
            AbandonBlock(
                inode_id=self._status.inode_id,
                holder=self._session.holder,
                block_id=target.block.block_id,
            ),
        )

    async def _recover(self, writer: BlockWriter, error: PipelineBroken) -> BlockWriter:
        """Go on with the nodes that are left, in a new generation, from what all of them have."""
        former, last = writer, error
        trials = self._session.placing.trials()
        # Those of the last pipeline that stood: they have what is acknowledged. *lost*: the ones that failed since.
        holders = [node.node_id for node in writer.nodes]
        lost: set[NodeId] = set()
        while True:
            log.info("%s: the pipeline broke: %s", self.path, last.message)
            writer.close()
            lost |= set(last.failed)
            if lost.issuperset(holders):
                # They can't be done without, and may have been slow only, or blamed for others.
                lost.clear()
            told = PipelineFailed(f"{self.path}: {last.message}")
            await trials.failed(told, last.failed)
            target = await self._update(writer, [node for node in holders if node not in lost])
            unacked, acked = list(writer.unacked), writer.acked
            former_base = writer.target.base
            target = _with_base(target, former_base, acked)
            writer = self._session.writer(target, resume_at=acked)
            try:
                await self._session.run(writer.open)
                holders, lost = [node.node_id for node in writer.nodes], set()
                await self._session.run(writer.resend, unacked)
            except PipelineBroken as again:
                # What this pipeline acknowledged counts; what it did not is still to be sent.
                again_unacked = [p for p in unacked if p.offset >= writer.acked]
                writer.unacked.clear()
                writer.unacked.extend(again_unacked)
                last = again
                continue
            if len(writer.nodes) < self._needed:
                last = PipelineBroken("too few nodes are left", self._left_out(writer))
                continue
            if self._writer is former:
                self._writer = writer
            return writer

    async def _update(self, writer: BlockWriter, keep: list[NodeId]) -> TargetBlock:
        """A new generation of the block, on *keep* and, where those are too few, on others."""
        target: TargetBlock = await self._session.placing.call(
            "update_pipeline",
            lambda excluded: UpdatePipeline(
                inode_id=self._status.inode_id,
                holder=self._session.holder,
                block=writer.target.block,
                length=writer.acked,
                keep=keep,
                exclude=excluded,
                extend=len(keep) < self._needed,
            ),
        )
        return target

    async def _finish(self, writer: BlockWriter) -> BlockCommit:
        """Wait for the block to be finalized; recover its pipeline where that fails."""
        trials = self._session.placing.trials()
        while True:
            try:
                commit = await self._session.run(writer.finish)
                if len(commit.nodes) >= self._needed:
                    self._digests[commit.block_id] = (commit.length, writer.digests)
                    return commit
                lost = [n.node_id for n in writer.nodes if n.node_id not in commit.nodes]
                raise PipelineBroken("too few nodes finalized the block", lost)
            except PipelineBroken as error:
                await trials.failed(PipelineFailed(f"{self.path}: {error.message}"), error.failed)
                writer = await self._recover(writer, error)

    # --- making it last ---

    async def flush(self) -> None:
        """hflush: what was written so far is visible to readers that open the file from now on."""
        await self._sync(Flag.FLUSH)

    async def sync(self) -> None:
        """hsync: as `flush`, and fsynced on every node of the pipeline."""
        await self._sync(Flag.FLUSH | Flag.SYNC)

    @_as_its_request
    async def _sync(self, flags: Flag) -> None:
        self._require_open()
        try:
            if not self._chunk and self._writer is None:
                # Whole blocks only: they are durable once committed.
                if not self._finishing:
                    return
                await asyncio.wait(self._finishing)
                if self._position % self._block_size == 0:
                    await self._current()
            if self._chunk or flags & Flag.SYNC:
                await self._send_chunk(flags)
            writer = self._writer
            if writer is None:
                return await self._sync(flags)
            trials = self._session.placing.trials()
            while True:
                try:
                    await self._session.run(writer.wait)
                    break
                except PipelineBroken as error:
                    await trials.failed(error, error.failed)
                    writer = await self._recover(writer, error)
            await self._session.namenode.call(
                "sync",
                Sync(
                    inode_id=self._status.inode_id,
                    holder=self._session.holder,
                    block=writer.target.block,
                    length=writer.length,
                    commits=await self._commits(wait=True),
                ),
            )
        except DfsError as error:
            self._error = error
            raise

    @_as_its_request
    async def close(self) -> None:
        """Finish the file. If it can't be finished, it stays open for write, and lease recovery closes it."""
        if self.closed:
            return
        self._require_open()
        try:
            if self._chunk:
                await self._send_chunk(Flag.LAST)
            if self._writer is not None or self._target is not None:
                writer = await self._current()
                if not writer.last_sent:
                    try:
                        await self._session.run(writer.send, b"", Flag.LAST)
                    except PipelineBroken as error:
                        writer = await self._recover(writer, error)
                self._writer = None
                self._finishing.append(asyncio.create_task(self._finish(writer)))
            self._status = await self._complete()
        except BaseException:
            await self.abandon()
            raise
        self._span.note(bytes=self._position)
        self._span.end()
        self.closed = True

    async def _dag(self) -> FileDag | None:
        """The proof of the file's root, where this writer has seen all of its blocks; else it is made when it is asked for."""
        if not self._fresh:
            return None
        blocks = [self._digests[block_id] for block_id in self._order]
        return await file_dag(self._session, blocks, self._status.replication)

    async def _complete(self) -> FileStatus:
        commits = await self._commits(wait=True)
        dag = await self._dag()
        request = Complete(
            path=self._status.path,
            inode_id=self._status.inode_id,
            holder=self._session.holder,
            commits=commits,
            dag=dag,
        )
        try:
            status: FileStatus = await self._session.namenode.call("complete", request)
        except BaseException:
            self._session.give_back(commit.block_id for commit in (dag.nodes if dag else ()))
            raise
        return status

    async def abandon(self) -> None:
        """Stop writing without closing the file."""
        if not self.closed:
            self._span.end("abandoned")
        self.closed = True
        for task in self._finishing:
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)
        self._finishing.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _with_base(target: TargetBlock, former: BlockBase | None, acked: int) -> TargetBlock:
    """The new pipeline's nodes take what is acknowledged from survivors; if that is another block's, from that one.

    *former* of this very block is that of an attempt that failed: its nodes may be dead, and those that are left are of a later
    generation than it asks for.
    """
    if acked == 0:
        return TargetBlock(block=target.block, nodes=target.nodes, base=None)
    another = former is not None and former.block.block_id != target.block.block_id
    if former is not None and another and former.length == acked:
        return TargetBlock(block=target.block, nodes=target.nodes, base=former)
    return target
