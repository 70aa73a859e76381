"""Reading blocks in threads: every chunk verified, the next replica asked where one fails."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable, Sequence

from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, chunk_count, digest_matches, digest_of
from ..common.errors import (
    BlockNotFound,
    BlockUnavailable,
    ChecksumMismatch,
    DfsError,
    StaleGeneration,
    Unavailable,
)
from ..common.framing import FrameSocket, ask
from ..common.messages import BadReplica
from ..common.model import Block, BlockRef, LocatedBlock, NodeAddress
from ..common.transfer import (
    MAX_MANY_BYTES,
    OpenReplica,
    ReadBlock,
    ReadMany,
    ReadManyReady,
    ReadReady,
    ReplicaInfo,
)
from .datanode_api import ConnectionPool
from .landing import Landing

MAX_OPEN_FILES = 64
Sink = Callable[[int, memoryview], None]


class _Refused(Exception):
    """A replica can't serve: *bad* says whether it should be reported."""

    def __init__(self, error: DfsError, bad: str = "") -> None:
        self.error = error
        self.bad = bad


class Attempt:
    """A read that another thread may break off."""

    def __init__(self) -> None:
        self.aborted = False
        self._connection: FrameSocket | None = None
        self._lock = threading.Lock()

    def uses(self, connection: FrameSocket | None) -> None:
        """*connection* is the one to cut from now on."""
        with self._lock:
            self._connection = connection
            if self.aborted and connection is not None:
                connection.abort()

    def abort(self) -> None:
        with self._lock:
            self.aborted = True
            if self._connection is not None:
                self._connection.abort()


class _Delivery:
    """Takes the verified bytes of a read in order, whichever replica they come from."""

    def __init__(self, sink: Sink, position: int) -> None:
        self._landing = sink if isinstance(sink, Landing) else None
        self._sink = sink
        self.position = position

    def take(self, at: int, view: memoryview) -> None:
        self._sink(at, view)
        self.position = at + len(view)

    def take_from(self, descriptor: int, at: int, size: int, digests: bytes) -> bool:
        """Whether a chunk of a replica's file could be brought where it is wanted at once."""
        landing = self._landing
        if landing is None or (view := landing.take_from(descriptor, at, size)) is None:
            return False
        try:
            _check_chunk(view, digests, at)
        except _Refused:
            landing.require_open()
            raise
        self.position = at + size
        return True


class _OpenReplicas:
    """Descriptors of replicas on this machine, with their proven digests; the least used are closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: collections.OrderedDict[tuple[int, int, str], tuple[int, int, bytes]] = (
            collections.OrderedDict()
        )

    def get(self, key: tuple[int, int, str]) -> tuple[int, int, bytes] | None:
        """(a descriptor of the caller's own, length, digests)."""
        with self._lock:
            found = self._files.get(key)
            if found is None:
                return None
            self._files.move_to_end(key)
            return os.dup(found[0]), found[1], found[2]

    def put(self, key: tuple[int, int, str], descriptor: int, length: int, digests: bytes) -> None:
        closing = []
        with self._lock:
            former = self._files.pop(key, None)
            if former is not None:
                closing.append(former[0])
            self._files[key] = (descriptor, length, digests)
            while len(self._files) > MAX_OPEN_FILES:
                closing.append(self._files.popitem(last=False)[1][0])
        for old in closing:
            os.close(old)

    def drop(self, key: tuple[int, int, str]) -> None:
        with self._lock:
            found = self._files.pop(key, None)
        if found is not None:
            os.close(found[0])

    def close(self) -> None:
        with self._lock:
            files, self._files = self._files, collections.OrderedDict()
        for descriptor, _, _ in files.values():
            os.close(descriptor)


class BlockReader:
    """Bytes of located blocks. All methods block; use them in threads."""

    def __init__(
        self, pool: ConnectionPool, report_bad: Callable[[list[BadReplica]], None]
    ) -> None:
        """*report_bad* is told of replicas that are corrupt or gone; may be called from any thread."""
        self._pool = pool
        self._report_bad = report_bad
        self._files = _OpenReplicas()
        self._buffers = threading.local()

    def close(self) -> None:
        self._files.close()

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._buffers, "view", None)
        if buffer is None:
            buffer = self._buffers.view = memoryview(bytearray(CHUNK_BYTES))
        return buffer

    def read(
        self,
        located: LocatedBlock,
        offset: int,
        length: int,
        sink: Sink,
        *,
        nodes: Sequence[NodeAddress] | None = None,
        attempt: Attempt | None = None,
    ) -> None:
        """Give *length* verified bytes at *offset* of the block to *sink*, in order, as (offset in the block, bytes).

        The view is only valid during the call. Raises BlockUnavailable when no replica is left that serves; a landing may then
        hold anything.
        """
        block = located.block
        order = list(located.nodes if nodes is None else nodes)
        delivery, end = _Delivery(sink, offset), offset + length
        reasons: list[str] = []
        bad: list[BadReplica] = []

        try:
            for node in order:
                if delivery.position >= end:
                    return
                try:
                    self._from_node(node, block, end, delivery, attempt)
                except _Refused as refused:
                    reasons.append(f"{node.data}: {refused.error.message}")
                    if refused.bad:
                        bad.append(_bad(block, node, refused.bad))
                    if isinstance(refused.error, Unavailable):
                        self._pool.forget(node)
            if delivery.position < end:
                told = "; ".join(reasons) or "no DataNode that holds it is alive"
                raise BlockUnavailable(f"block {block.block_id} can't be read: {told}")
        finally:
            if bad:
                self._report_bad(bad)

    def _from_node(
        self,
        node: NodeAddress,
        block: Block,
        end: int,
        delivery: _Delivery,
        attempt: Attempt | None,
    ) -> None:
        if self._pool.is_local(node) and self._from_file(node, block, end, delivery):
            return
        while True:
            try:
                connection, used = self._pool.take(node)
            except DfsError as error:
                raise _Refused(error) from None
            if attempt is not None:
                attempt.uses(connection)
            try:
                self._from_stream(connection, block, end, delivery)
            except _Refused as refused:
                connection.close()
                # The DataNode may have closed a connection that lay idle: try a new one.
                if (
                    used
                    and isinstance(refused.error, Unavailable)
                    and (attempt is None or not attempt.aborted)
                ):
                    self._pool.forget(node)
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            finally:
                if attempt is not None:
                    attempt.uses(None)
            self._pool.give(node, connection)
            return

    def digests(self, located: LocatedBlock) -> bytes:
        """Those of a block's chunks, proven by the digest that the NameNode has. BlockUnavailable."""
        for node in located.nodes:
            try:
                with self._pool.exchange(node) as connection:
                    found = ask(connection, ReplicaInfo(block=located.block.ref), ReadReady)
                _prove(located.block, found.block_length, found.digests)
            except (_Refused, DfsError):
                continue
            return found.digests
        raise BlockUnavailable(f"no replica of block {located.block.block_id} can be asked")

    # --- over a connection ---

    def _from_stream(
        self, connection: FrameSocket, block: Block, end: int, delivery: _Delivery
    ) -> None:
        start = delivery.position
        first = start // CHUNK_BYTES * CHUNK_BYTES
        last = -(-end // CHUNK_BYTES) * CHUNK_BYTES
        request = ReadBlock(block=block.ref, offset=first, length=last - first, digests=True)
        try:
            ready = ask(connection, request, ReadReady)
        except (BlockNotFound, StaleGeneration) as error:
            raise _Refused(error, "missing") from None
        except DfsError as error:
            raise _Refused(error) from None
        _prove(block, ready.block_length, ready.digests)
        if ready.block_length < end or ready.length != min(last, ready.block_length) - first:
            raise _Refused(BlockNotFound("the replica is too short"), "corrupt")
        buffer = self._buffer()
        at = first
        while at < end:
            size = min(CHUNK_BYTES, ready.block_length - at)
            try:
                connection.receive_into(buffer[:size])
            except DfsError as error:
                raise _Refused(error) from None
            _check_chunk(buffer[:size], ready.digests, at)
            low, high = max(start, at), min(end, at + size)
            delivery.take(low, buffer[low - at : high - at])
            at += size

    # --- through an open file of a DataNode on this machine ---

    def _from_file(self, node: NodeAddress, block: Block, end: int, delivery: _Delivery) -> bool:
        """False if the replica has no file of its own."""
        key = (block.block_id, block.generation, node.socket)
        opened = self._files.get(key) if block.digest is not None else None
        if opened is None:
            opened = self._open(node, block)
            if opened is None:
                return False
            if block.digest is not None:
                self._files.put(key, os.dup(opened[0]), opened[1], opened[2])
        descriptor, replica_length, digests = opened
        try:
            if replica_length < end:
                raise _Refused(BlockNotFound("the replica is too short"), "corrupt")
            start = delivery.position
            at = start // CHUNK_BYTES * CHUNK_BYTES
            while at < end:
                size = min(CHUNK_BYTES, replica_length - at)
                if not delivery.take_from(descriptor, at, size, digests):
                    chunk = self._chunk(descriptor, at, size, digests)
                    low, high = max(start, at), min(end, at + size)
                    delivery.take(low, chunk[low - at : high - at])
                at += size
        except _Refused:
            self._files.drop(key)
            raise
        finally:
            os.close(descriptor)
        return True

    def _chunk(self, descriptor: int, at: int, size: int, digests: bytes) -> memoryview:
        chunk = self._buffer()[:size]
        try:
            count = os.preadv(descriptor, [chunk], at)
        except OSError as error:
            raise _Refused(BlockUnavailable(str(error)), "corrupt") from None
        if count != size:
            raise _Refused(ChecksumMismatch("the replica is cut short"), "corrupt")
        _check_chunk(chunk, digests, at)
        return chunk

    def _open(self, node: NodeAddress, block: Block) -> tuple[int, int, bytes] | None:
        for _ in range(2):
            try:
                connection, used = self._pool.take(node)
            except DfsError as error:
                raise _Refused(error) from None
            try:
                connection.send_request(OpenReplica(block=block.ref, digests=True))
                ready, descriptor = connection.receive_with_descriptor(ReadReady)
            except (BlockNotFound, StaleGeneration) as error:
                self._pool.give(node, connection)
                raise _Refused(error, "missing") from None
            except DfsError as error:
                connection.close()
                if used and isinstance(error, Unavailable):
                    self._pool.forget(node)
                    continue
                raise _Refused(error) from None
            self._pool.give(node, connection)
            if descriptor is None:
                return None
            try:
                _prove(block, ready.block_length, ready.digests)
            except _Refused:
                os.close(descriptor)
                raise
            return descriptor, ready.block_length, ready.digests
        raise _Refused(Unavailable("the DataNode keeps closing the connection"))

    # --- many small blocks ---

    def read_many(self, node: NodeAddress, blocks: Sequence[Block]) -> list[bytes | None]:
        """Whole blocks of at most one chunk from one node; None for those it could not serve rightly."""
        found: list[bytes | None] = [None] * len(blocks)
        bad: list[BadReplica] = []
        waiting = list(range(len(blocks)))
        while waiting:
            part: list[int] = []
            size = 0
            while (
                waiting and size + blocks[waiting[0]].length <= MAX_MANY_BYTES and len(part) < 512
            ):
                size += blocks[waiting[0]].length
                part.append(waiting.pop(0))
            try:
                lengths, payload = self._many(node, [blocks[index].ref for index in part])
            except DfsError:
                break
            offset = 0
            for index, length in zip(part, lengths, strict=False):
                block = blocks[index]
                if length < 0:
                    if length == -1:
                        bad.append(_bad(block, node, "missing"))
                    continue
                data = bytes(payload[offset : offset + length])
                offset += length
                if len(data) >= block.length and digest_of(data) == block.digest:
                    found[index] = data[: block.length]
                else:
                    bad.append(_bad(block, node, "corrupt"))
        if bad:
            self._report_bad(bad)
        return found

    def _many(self, node: NodeAddress, refs: list[BlockRef]) -> tuple[list[int], memoryview]:
        while True:
            connection, used = self._pool.take(node)
            try:
                ready = ask(connection, ReadMany(blocks=refs), ReadManyReady)
                payload = connection.receive_body(sum(n for n in ready.lengths if n > 0))
            except DfsError as error:
                connection.close()
                if used and isinstance(error, Unavailable):
                    self._pool.forget(node)
                    continue
                raise
            self._pool.give(node, connection)
            return ready.lengths, memoryview(payload)


def _prove(block: Block, length: int, digests: bytes) -> None:
    """The list must have the right size, and be the one the NameNode's digest stands for."""
    if len(digests) != chunk_count(length) * DIGEST_BYTES:
        raise _Refused(ChecksumMismatch("the digest list does not fit the replica"), "corrupt")
    if block.digest is not None and not digest_matches(block.digest, digests):
        raise _Refused(ChecksumMismatch("the digests are not those of the block"), "corrupt")


def _check_chunk(chunk: memoryview, digests: bytes, at: int) -> None:
    wanted = digests[at // CHUNK_BYTES * DIGEST_BYTES :][:DIGEST_BYTES]
    if digest_of(chunk) != wanted:
        raise _Refused(ChecksumMismatch(f"the chunk at {at} does not match its digest"), "corrupt")


def _bad(block: Block, node: NodeAddress, reason: str) -> BadReplica:
    return BadReplica(
        block=block.ref,
        node_id=node.node_id,
        reason="corrupt" if reason == "corrupt" else "missing",
    )
