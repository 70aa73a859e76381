"""Fetching whole blocks from other DataNodes: repair and balancing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, block_digest, chunk_count, digest_of
from ..common.errors import BlockNotFound, ChecksumMismatch, DfsError, StaleGeneration
from ..common.framing import ask
from ..common.messages import BadReplica
from ..common.model import Block, BlockBase, NodeAddress
from ..common.transfer import ReadBlock, ReadReady, ReplicaInfo
from . import quarantine
from .blockstore import BlockStore
from .pipeline import Peers, fetch_into
from .writing import WritingReplica

log = logging.getLogger(__name__)
Throttle = Callable[[int], None]


@dataclass(slots=True)
class Copied:
    """How it went. *bad*: replicas on other nodes that turned out to be no good."""

    done: bool = False
    bad: list[BadReplica] = field(default_factory=list)


def copy_block(
    store: BlockStore, peers: Peers, block: Block, sources: list[NodeAddress], throttle: Throttle
) -> Copied:
    """Have a whole finalized block here: fetch it, prove it by the NameNode's digest, finalize it durably.

    A damaged replica that is here is put aside only when the good one is complete. If no source has the whole block,
    it is put together of chunks that are whole somewhere.
    """
    outcome = Copied()
    if quarantine.verify(store, block.ref) == "good":
        outcome.done = True
        return outcome
    others = [source for source in sources if source.node_id != peers.node_id]
    for source in others:
        if _attempt(store, block, lambda r, o, s=source: _fetch(peers, s, block, r, o, throttle)):  # type: ignore[misc]
            outcome.done = True
            return outcome
        bad = _blame(peers, source, block)
        if bad is not None:
            outcome.bad.append(bad)
    outcome.done = _attempt(
        store, block, lambda r, o: _assemble(store, peers, others, block, r, o, throttle)
    )
    return outcome


def _attempt(
    store: BlockStore, block: Block, fill: Callable[[WritingReplica, object], None]
) -> bool:
    owner = object()
    try:
        replica = store.begin(block.ref, owner, block.length, copy=True)
    except DfsError as error:
        log.warning("block %d: %s", block.block_id, error.message)
        return False
    try:
        fill(replica, owner)
        _, length, digests = replica.snapshot()
        if length != block.length:
            raise ChecksumMismatch(f"{length} bytes came, {block.length} were to come")
        if block.digest is None or block_digest(digests) != block.digest:
            raise ChecksumMismatch("what came is not the block")
        # Kept until the good one is published.
        aside = quarantine.put_aside(store, block.ref)
        store.finalize(replica, owner, durable=True)
        for path in aside:
            path.unlink(missing_ok=True)
        return True
    except DfsError as error:
        store.discard(replica)
        log.warning("block %d: %s", block.block_id, error.message)
        return False


def _fetch(
    peers: Peers,
    source: NodeAddress,
    block: Block,
    replica: WritingReplica,
    owner: object,
    throttle: Throttle,
) -> None:
    base = BlockBase(block=block.ref, length=block.length)
    fetch_into(peers, source, base, replica, owner, throttle)


def _blame(peers: Peers, source: NodeAddress, block: Block) -> BadReplica | None:
    """Whether the source itself is to be looked at, or was only not to be reached."""
    try:
        connection = peers.open(source)
    except DfsError:
        return None
    try:
        ask(connection, ReplicaInfo(block=block.ref), ReadReady)
        return BadReplica(block=block.ref, node_id=source.node_id, reason="corrupt")
    except (BlockNotFound, StaleGeneration):
        return BadReplica(block=block.ref, node_id=source.node_id, reason="missing")
    except DfsError:
        return None
    finally:
        connection.close()


def _assemble(
    store: BlockStore,
    peers: Peers,
    sources: list[NodeAddress],
    block: Block,
    replica: WritingReplica,
    owner: object,
    throttle: Throttle,
) -> None:
    """Fill the replica chunk by chunk, each from whoever has it whole."""
    digests = _digests(store, peers, sources, block)
    for number in range(chunk_count(block.length)):
        size = min(CHUNK_BYTES, block.length - number * CHUNK_BYTES)
        wanted = digests[number * DIGEST_BYTES :][:DIGEST_BYTES]
        throttle(size)
        for source in (None, *sources):
            chunk = _chunk(store, peers, source, block, number * CHUNK_BYTES, size)
            if chunk is not None and digest_of(chunk) == wanted:
                replica.append(owner, number * CHUNK_BYTES, memoryview(chunk), wanted)
                break
        else:
            raise ChecksumMismatch(f"nobody has chunk {number} whole")


def _digests(store: BlockStore, peers: Peers, sources: list[NodeAddress], block: Block) -> bytes:
    """The digests of the block's chunks, proven by the NameNode's digest of them."""
    found = store.find(block.block_id)
    if found is not None and block_digest(found[1].digests) == block.digest:
        return found[1].digests
    for source in sources:
        try:
            connection = peers.open(source)
        except DfsError:
            continue
        try:
            ready = ask(connection, ReplicaInfo(block=block.ref), ReadReady)
            if block_digest(ready.digests) == block.digest:
                return ready.digests
        except DfsError:
            continue
        finally:
            connection.close()
    raise ChecksumMismatch("nobody has the right digests")


def _chunk(
    store: BlockStore,
    peers: Peers,
    source: NodeAddress | None,
    block: Block,
    offset: int,
    size: int,
) -> bytes | bytearray | None:
    """A chunk as *source* (None: this node's own damaged replica) has it; None if it can't be had."""
    if source is None:
        try:
            found = store.open(block.ref)
        except DfsError:
            return None
        if found.data is not None:
            return found.data[offset : offset + size]
        try:
            return os.pread(found.descriptor, size, offset)
        except OSError:
            return None
        finally:
            os.close(found.descriptor)
    try:
        connection = peers.open(source)
    except DfsError:
        return None
    try:
        request = ReadBlock(block=block.ref, offset=offset, length=size)
        ready = ask(connection, request, ReadReady)
        return connection.receive_body(size) if ready.length == size else None
    except DfsError:
        return None
    finally:
        connection.close()
