"""The dag-pb nodes over a file's chunks, made from the digests and written as blocks, and the digests of blocks that are there."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, chunk_count, digest_matches, digest_of
from ..common.errors import BlockUnavailable, DfsError, PipelineFailed
from ..common.framing import ask
from ..common.ipld import layout
from ..common.ipld.layout import TWINFS, Node
from ..common.messages import (
    MAX_BATCH,
    MAX_DIGESTS_BYTES,
    Allocate,
    Allocation,
    BlockCommit,
    FileDag,
)
from ..common.model import BlockId, LocatedBlock
from ..common.transfer import MAX_MANY_BYTES, ReadReady, ReplicaInfo, SmallBlock
from .block_writer import PipelineBroken, write_many
from .session import Session


def leaves_of(blocks: Sequence[tuple[int, bytes]]) -> list[Node]:
    """The leaves of a file from its blocks' (length, chunk digests joined)."""
    found = []
    for length, digests in blocks:
        for index in range(chunk_count(length)):
            size = min(CHUNK_BYTES, length - index * CHUNK_BYTES)
            digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
            found.append(layout.raw_leaf(TWINFS, digest, size))
    return found


async def file_dag(
    session: Session, blocks: Sequence[tuple[int, bytes]], replication: int | None
) -> FileDag | None:
    """Write the nodes of a file and give the proof of its root; None for a file that needs none, or is too long for one message.

    A failure to write the nodes is no failure of the file: None too, and its CID is made when it is asked for.
    """
    digests = b"".join(part for _, part in blocks)
    if not DIGEST_BYTES < len(digests) <= MAX_DIGESTS_BYTES:
        return None
    _, made = await session.run(layout.build, TWINFS, leaves_of(blocks))
    if len(made) > MAX_BATCH:
        return None
    try:
        nodes = await write_blocks(session, [one.block for one in made], replication)
    except DfsError:
        return None
    return FileDag(digests=digests, nodes=nodes)


async def write_blocks(
    session: Session, parts: Sequence[bytes], replication: int | None
) -> list[BlockCommit]:
    """Small blocks, durable when this returns, that belong to nothing yet."""
    commits: list[BlockCommit] = []
    start = 0
    while start < len(parts):
        end, size = start, 0
        while end < len(parts) and size + len(parts[end]) <= MAX_MANY_BYTES and end - start < 512:
            size += len(parts[end])
            end += 1
        try:
            commits += await _write(session, parts[start:end], replication)
        except BaseException:
            session.give_back(commit.block_id for commit in commits)
            raise
        start = end
    return commits


async def _write(
    session: Session, parts: Sequence[bytes], replication: int | None
) -> list[BlockCommit]:
    info = await session.info()
    needed = min(info.min_replicas, replication or info.default_replication)
    trials = session.placing.trials()
    while True:
        allocation: Allocation = await session.placing.call(
            "allocate",
            lambda excluded: Allocate(
                holder=session.holder,
                count=len(parts),
                length=max(len(part) for part in parts),
                replication=replication,
                exclude=excluded,
            ),
        )
        items = [
            SmallBlock(
                block_id=BlockId(allocation.first_block_id + index),
                generation=allocation.generation,
                length=len(part),
                digest=digest_of(part),
            )
            for index, part in enumerate(parts)
        ]
        try:
            done = await session.run(
                write_many,
                session.pool,
                allocation.nodes,
                items,
                parts,
                session.config.durability,
            )
        except BaseException as error:
            session.give_back(item.block_id for item in items)
            if not isinstance(error, PipelineBroken):
                raise
            await trials.failed(error, error.failed)
            continue
        if len(done.nodes) < needed:
            session.give_back(item.block_id for item in items)
            await trials.failed(
                PipelineFailed(f"only {len(done.nodes)} of {needed} nodes could store the data"),
                [n.node_id for n in allocation.nodes if n.node_id not in done.nodes],
            )
            continue
        return [
            BlockCommit(
                block_id=item.block_id,
                generation=item.generation,
                length=item.length,
                digest=item.digest,
                nodes=done.nodes,
            )
            for item in items
        ]


async def chunk_digests(session: Session, located: LocatedBlock) -> bytes:
    """The digests of a block's chunks, joined, from any replica, proven by the block's own digest. BlockUnavailable."""
    block = located.block
    if block.digest is not None and 0 < block.length <= CHUNK_BYTES:
        return block.digest
    reasons = []
    for node in located.nodes:

        def info(node=node) -> ReadReady:  # type: ignore[no-untyped-def]
            with session.pool.exchange(node) as connection:
                return ask(connection, ReplicaInfo(block=block.ref), ReadReady)

        try:
            ready = await session.run(functools.partial(info))
        except DfsError as error:
            reasons.append(error.message)
            continue
        fits = len(ready.digests) == chunk_count(block.length) * DIGEST_BYTES
        if fits and (block.digest is None or digest_matches(block.digest, ready.digests)):
            return ready.digests
        reasons.append(f"{node.data} has other digests")
    raise BlockUnavailable(f"block {block.block_id}: {'; '.join(reasons) or 'no node has it'}")
