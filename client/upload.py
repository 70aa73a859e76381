"""Putting a file whose bytes are at hand: blocks in parallel, each tried again elsewhere, one commit at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..common import tracing
from ..common.checksum import CHUNK_BYTES
from ..common.codec import error_of
from ..common.errors import LeaseLost
from ..common.messages import (
    Allocate,
    Allocation,
    BlockCommit,
    PutFile,
    PutFiles,
    StatusList,
)
from ..common.model import BlockRef, FileStatus, TargetBlock
from ..common.transfer import Flag
from .block_writer import BlockWriter, PipelineBroken
from .dag_nodes import file_dag
from .session import Session

ReadAt = Callable[[int, int], bytes | memoryview]  # (offset, size) -> exactly that many bytes
Progress = Callable[
    [int], None
]  # called with the number of bytes that have moved since the last call


async def upload(
    session: Session,
    read_at: ReadAt,
    length: int,
    file: PutFile,
    progress: Progress | None = None,
) -> FileStatus:
    """Write *length* bytes as *file* (given without blocks). Durable, and visible in one step, when this returns.

    *read_at* is called in threads and must give the same bytes each time.
    """
    info = await session.info()
    await session.keep_lease()
    block_size = file.block_size or info.default_block_size
    block_size = -(-block_size // CHUNK_BYTES) * CHUNK_BYTES
    blocks = await upload_blocks(session, read_at, length, block_size, file.replication, progress)
    written = [commit.block_id for commit, _ in blocks]
    try:
        dag = await file_dag(session, [(c.length, part) for c, part in blocks], file.replication)
        written += [commit.block_id for commit in dag.nodes] if dag is not None else []
        put = PutFile(
            path=file.path,
            mode=file.mode,
            overwrite=file.overwrite,
            create_parents=file.create_parents,
            replication=file.replication,
            block_size=block_size,
            mtime_ms=file.mtime_ms,
            blocks=[commit for commit, _ in blocks],
            dag=dag,
        )
        answer: StatusList = await session.namenode.call(
            "put_files", PutFiles(holder=session.holder, files=[put])
        )
        (result,) = answer.results
        if result.failure is not None:
            raise error_of(result.failure)
    except BaseException:
        session.give_back(written)
        raise
    assert result.status is not None
    return result.status


async def upload_blocks(
    session: Session,
    read_at: ReadAt,
    length: int,
    block_size: int,
    replication: int | None,
    progress: Progress | None = None,
) -> list[tuple[BlockCommit, bytes]]:
    """Write *length* bytes as blocks that belong to nothing yet, several at once: (commit, digests of its chunks joined) of each.

    No bytes make no block.
    """
    slots = asyncio.Semaphore(session.config.parallel_blocks)

    async def one(offset: int) -> tuple[BlockCommit, bytes]:
        async with slots:
            size = min(block_size, length - offset)
            return await _block(session, read_at, offset, size, replication, progress)

    tasks = [asyncio.create_task(one(offset)) for offset in range(0, length, block_size)]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        session.give_back(done[0].block_id for done in ended if not isinstance(done, BaseException))
        raise


async def _block(
    session: Session,
    read_at: ReadAt,
    offset: int,
    size: int,
    replication: int | None,
    progress: Progress | None,
) -> tuple[BlockCommit, bytes]:
    info = await session.info()
    needed = min(info.min_replicas, replication or info.default_replication)
    trials = session.placing.trials()
    while True:
        allocation: Allocation = await session.placing.call(
            "allocate",
            lambda excluded: Allocate(
                holder=session.holder,
                count=1,
                length=size,
                replication=replication,
                exclude=excluded,
            ),
        )
        sent = 0

        def moved(count: int) -> None:
            nonlocal sent
            sent += count
            if progress is not None:
                progress(count)

        try:
            with tracing.span("write_block", "client", bytes=size):
                return await session.run(
                    _send, session, allocation, read_at, offset, size, needed, moved
                )
        except BaseException as error:
            session.give_back([allocation.first_block_id])
            if not isinstance(error, PipelineBroken | LeaseLost):
                raise
            if progress is not None:
                progress(-sent)
            await trials.failed(error, error.failed if isinstance(error, PipelineBroken) else ())


def _send(
    session: Session,
    allocation: Allocation,
    read_at: ReadAt,
    offset: int,
    size: int,
    needed: int,
    moved: Progress,
) -> tuple[BlockCommit, bytes]:
    """One block through one pipeline; in a thread."""
    target = TargetBlock(
        block=BlockRef(block_id=allocation.first_block_id, generation=allocation.generation),
        nodes=allocation.nodes,
    )
    writer = BlockWriter(session.pool, session.config, target)
    try:
        writer.open()
        if len(writer.nodes) < needed:
            kept = {node.node_id for node in writer.nodes}
            raise PipelineBroken(
                f"only {len(kept)} of {needed} nodes could be reached",
                [n.node_id for n in allocation.nodes if n.node_id not in kept],
            )
        done = 0
        while done < size:
            step = min(CHUNK_BYTES, size - done)
            data = read_at(offset + done, step)
            done += step
            writer.send(data, Flag.LAST if done == size else Flag.NONE)
            moved(step)
        commit = writer.finish() if size == 0 else writer.finished()
        if len(commit.nodes) < needed:
            raise PipelineBroken(
                f"the block was finalized on {len(commit.nodes)} of {needed} nodes",
                [n.node_id for n in allocation.nodes if n.node_id not in commit.nodes],
            )
        return commit, writer.digests
    finally:
        writer.close()
