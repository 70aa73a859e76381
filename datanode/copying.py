"""Fetching whole blocks from other DataNodes: repair and balancing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, block_digest, chunk_count, digest_of
from ..common.errors import (
    BlockNotFound,
    ChecksumMismatch,
    DfsError,
    InvalidRequest,
    StaleGeneration,
    Unavailable,
)
from ..common.framing import FrameSocket, ask
from ..common.messages import BadReplica, ReplicaReport
from ..common.model import Block, BlockBase, BlockRef, NodeAddress
from ..common.transfer import (
    MAX_MANY_BYTES,
    MAX_MANY_FILES,
    ReadBlock,
    ReadMany,
    ReadManyReady,
    ReadReady,
    ReplicaInfo,
)
from . import quarantine
from .blockstore import BlockStore
from .index import Replica
from .pipeline import Peers, fetch_into
from .replicas import report_finalized
from .writing import WritingReplica

log = logging.getLogger(__name__)
Throttle = Callable[[int], None]
_buffers = threading.local()


@dataclass(slots=True)
class Copied:
    """How it went: what is here now, what could not be had, replicas on other nodes that turned out to be no good."""

    here: list[ReplicaReport] = field(default_factory=list)
    failed: list[BlockRef] = field(default_factory=list)
    bad: list[BadReplica] = field(default_factory=list)


def copy_all(
    store: BlockStore,
    peers: Peers,
    orders: Sequence[tuple[Block, list[NodeAddress]]],
    throttle: Throttle,
) -> Copied:
    """Have finalized blocks here, each from its sources. Several must be small, and have their first source in common."""
    outcome = Copied()
    if len(orders) > 1:
        outcome.here = _copy_together(store, peers, orders, throttle)
    had = {replica.block_id for replica in outcome.here}
    for block, sources in orders:
        if block.block_id not in had:
            _copy_one(store, peers, block, sources, throttle, outcome)
    return outcome


def _copy_together(
    store: BlockStore,
    peers: Peers,
    orders: Sequence[tuple[Block, list[NodeAddress]]],
    throttle: Throttle,
) -> list[ReplicaReport]:
    """Fetch blocks in one request and store them with one commit; those that are here now.

    The others, and those of which anything is here already, are to be copied one by one.
    """
    blocks = [
        block
        for block, _ in orders
        if store.find(block.block_id) is None and store.writing(block.block_id) is None
    ]
    source = next(s for s in orders[0][1] if s.node_id != peers.node_id)
    if not blocks:
        return []
    throttle(sum(block.length for block in blocks))
    try:
        fetched = _fetch_together(peers, source, blocks)
        whole: list[Replica] = []
        pieces: list[memoryview] = []
        for block, piece in fetched:
            digests = b"".join(
                digest_of(piece[at : at + CHUNK_BYTES]) for at in range(0, len(piece), CHUNK_BYTES)
            )
            if block_digest(digests) != block.digest:
                log.warning(
                    "block %d: what came from %s is not the block", block.block_id, source.data
                )
                continue
            whole.append(Replica(block.block_id, block.generation, block.length, False, digests))
            pieces.append(piece)
        if not whole:
            return []
        if len(whole) < len(fetched):
            payload = memoryview(b"".join(pieces))
        else:
            payload = _room(sum(block.length for block in whole))
        for future in store.put_whole(whole, payload, durable=True):
            future.result()
    except DfsError as error:
        log.warning("%d blocks from %s: %s", len(blocks), source.data, error.message)
        return []
    return [report_finalized(replica, False) for replica in whole]


def _fetch_together(
    peers: Peers, source: NodeAddress, blocks: Sequence[Block]
) -> list[tuple[Block, memoryview]]:
    """Blocks and what *source* has under their names, of the length they should have; one after the other in `_room`."""
    request = ReadMany(blocks=[block.ref for block in blocks], background=True, files=True)
    return peers.ask_near(source, request, lambda connection: _receive_together(connection, blocks))


def _receive_together(
    connection: FrameSocket, blocks: Sequence[Block]
) -> list[tuple[Block, memoryview]]:
    ready, descriptors = connection.receive_with_descriptors(ReadManyReady, MAX_MANY_FILES)
    try:
        if len(ready.lengths) != len(blocks) or len(ready.files) != len(descriptors):
            raise InvalidRequest(f"{len(blocks)} blocks were asked for")
        file_of = dict(zip(ready.files, descriptors, strict=True))
        fetched: list[tuple[Block, memoryview]] = []
        room = _room(MAX_MANY_BYTES)
        offset = 0
        for place, (block, length) in enumerate(zip(blocks, ready.lengths, strict=True)):
            if length < 0:
                continue
            if length != block.length:
                raise InvalidRequest(f"block {block.block_id} has {length} bytes there")
            piece = room[offset : offset + length]
            if place not in file_of:
                if len(piece) < length:
                    raise InvalidRequest("an answer with too many bytes was announced")
                connection.receive_into(piece)
            elif os.preadv(file_of[place], [piece], 0) != length:
                continue
            fetched.append((block, piece))
            offset += length
        return fetched
    except OSError as error:
        raise Unavailable(f"a replica can't be read: {error.strerror or error}") from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _room(size_bytes: int) -> memoryview:
    """Room for so many bytes of a batch, the calling thread's own: fresh memory costs more than what is put there."""
    buffer: memoryview | None = getattr(_buffers, "batch", None)
    if buffer is None:
        buffer = _buffers.batch = memoryview(bytearray(MAX_MANY_BYTES))
    return buffer[:size_bytes]


def _copy_one(
    store: BlockStore,
    peers: Peers,
    block: Block,
    sources: list[NodeAddress],
    throttle: Throttle,
    outcome: Copied,
) -> None:
    done = copy_block(store, peers, block, sources, throttle, outcome.bad)
    replica = store.report_of(block.ref)
    if done and replica is not None:
        outcome.here.append(replica)
    else:
        outcome.failed.append(block.ref)


def copy_block(
    store: BlockStore,
    peers: Peers,
    block: Block,
    sources: list[NodeAddress],
    throttle: Throttle,
    bad: list[BadReplica],
) -> bool:
    """Have a whole finalized block here: fetch it, prove it by the NameNode's digest, finalize it durably. Whether it is here.

    A damaged replica that is here is put aside only when the good one is complete. If no source has the whole block,
    it is put together of chunks that are whole somewhere. Sources that are to be looked at are added to *bad*.
    """
    if quarantine.verify(store, block.ref) == "good":
        return True
    others = [source for source in sources if source.node_id != peers.node_id]
    for source in others:
        if _attempt(store, block, lambda r, o, s=source: _fetch(peers, s, block, r, o, throttle)):  # type: ignore[misc]
            return True
        blamed = _blame(peers, source, block)
        if blamed is not None:
            bad.append(blamed)
    return _attempt(
        store, block, lambda r, o: _assemble(store, peers, others, block, r, o, throttle)
    )


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
    fetch_into(peers, source, base, replica, owner, throttle, background=True)


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
