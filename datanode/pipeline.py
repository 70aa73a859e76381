"""Writing through a pipeline: receive, verify, forward, write, acknowledge. Runs in the connection's thread."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, chunk_count, digest_of
from ..common.errors import (
    BlockNotFound,
    ChecksumMismatch,
    ConnectionLost,
    DfsError,
    InvalidRequest,
    TimedOut,
    Unavailable,
)
from ..common.framing import FrameSocket, Packet, ask, connect, decode
from ..common.model import BlockBase, BlockRef, NodeAddress, NodeId
from ..common.proxy import Proxy
from ..common.transfer import (
    Flag,
    Kind,
    OpenReplica,
    PacketAck,
    ReadBlock,
    ReadReady,
    Request,
    WriteBlock,
    WriteDone,
    WriteMany,
    WriteManyDone,
    WriteReady,
)
from .blockstore import BlockStore
from .metrics import Timing
from .replicas import require_digest
from .writing import WritingReplica

log = logging.getLogger(__name__)
T = TypeVar("T")
NOBODY = NodeId(0)
MOST_KEPT = 8  # connections on which nothing is under way, to all nodes together
_buffers = threading.local()


@dataclass(slots=True)
class Peers:
    """How to reach other DataNodes, and who this one is."""

    node_id: NodeId
    connect_timeout_s: float
    stall_timeout_s: float
    proxy: Proxy | None = None
    own: NodeAddress | None = None  # where this node itself is reached, once that is known
    _kept: list[tuple[NodeAddress, FrameSocket]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def require_joined(self) -> None:
        """What is written here is reported under this node's id, so there has to be one."""
        if self.node_id == NOBODY:
            raise Unavailable("this DataNode has not joined a cluster yet; try again")

    def open(self, address: NodeAddress) -> FrameSocket:
        return connect(
            address.data,
            connect_timeout_s=self.connect_timeout_s,
            stall_timeout_s=self.stall_timeout_s,
            proxy=self.proxy,
        )

    def open_near(self, address: NodeAddress) -> FrameSocket:
        """As `open`, by the Unix socket of a node that is on this machine."""
        own = self.own
        # Paths mean something on one machine only, and there each belongs to one node.
        if (
            own is not None
            and self.proxy is None
            and address.socket not in ("", own.socket)
            and address.host == own.host
        ):
            with contextlib.suppress(Unavailable):
                return connect(
                    address.socket,
                    connect_timeout_s=self.connect_timeout_s,
                    stall_timeout_s=self.stall_timeout_s,
                )
        return self.open(address)

    def ask_near(
        self, address: NodeAddress, request: Request, receive: Callable[[FrameSocket], T]
    ) -> T:
        """What *receive* makes of the answer to a request of background work, on a connection kept from the last one if there is
        one: making it costs more than a request."""
        with self._lock:
            place = next((n for n, kept in enumerate(self._kept) if kept[0] == address), None)
            connection = None if place is None else self._kept.pop(place)[1]
        if connection is not None:
            try:
                return self._ask(address, connection, request, receive)
            except ConnectionLost:
                pass  # the other node had closed it
        return self._ask(address, self.open_near(address), request, receive)

    def _ask(
        self,
        address: NodeAddress,
        connection: FrameSocket,
        request: Request,
        receive: Callable[[FrameSocket], T],
    ) -> T:
        try:
            connection.send_request(request)
            answer = receive(connection)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._kept.append((address, connection))
            idle = self._kept.pop(0)[1] if len(self._kept) > MOST_KEPT else None
        if idle is not None:
            idle.close()
        return answer

    def close(self) -> None:
        """Close what is kept. Nobody asks any more."""
        with self._lock:
            kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()


@dataclass(slots=True)
class Downstream:
    """The rest of the pipeline: a connection to its first node, and who was left out."""

    connection: FrameSocket | None = None
    node_id: NodeId = NOBODY
    failed: list[NodeId] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def open_downstream(
    peers: Peers, targets: list[NodeAddress], make: Callable[[list[NodeAddress]], WriteBlock]
) -> Downstream:
    """Connect to the first of *targets* that accepts; it builds the rest."""
    result = Downstream()
    for index, target in enumerate(targets):
        connection = None
        try:
            connection = peers.open(target)
            ready = ask(connection, make(targets[index + 1 :]), WriteReady)
        except DfsError as error:
            if connection is not None:
                connection.close()
            result.failed.append(target.node_id)
            result.failures.append(f"{target.data}: {error.message}")
            continue
        result.connection, result.node_id = connection, target.node_id
        result.failed += ready.failed
        result.failures += ready.failures
        return result
    return result


class BlockReceiver:
    """One block on its way through this node."""

    def __init__(
        self,
        store: BlockStore,
        peers: Peers,
        upstream: FrameSocket,
        request: WriteBlock,
        timing: Timing,
    ) -> None:
        self._store = store
        self._timing = timing
        self._peers = peers
        self._up = upstream
        self._request = request
        self._down = Downstream()
        self._acked: list[Packet] = []  # forwarded, not acknowledged by the node after this one
        self._durable = request.durability == "synced"

    def run(self, buffer: memoryview) -> None:
        """Serve the stream to its end. Errors before WriteReady are the caller's to answer.

        After that, a broken stream raises ConnectionLost; the replica stays, to be resumed or recovered.
        """
        replica = self._begin()
        replica.abort = self._up.abort
        try:
            self._down = open_downstream(
                self._peers, self._request.targets, lambda rest: self._forwarded(replica, rest)
            )
            self._up.send_frame(
                Kind.RESPONSE,
                WriteReady(
                    length=replica.length,
                    failed=self._down.failed,
                    failures=self._down.failures,
                ),
            )
            self._packets(replica, buffer)
        finally:
            if self._down.connection is not None:
                self._down.connection.close()

    def _forwarded(self, replica: WritingReplica, rest: list[NodeAddress]) -> WriteBlock:
        request = self._request
        return WriteBlock(
            block=request.block,
            targets=rest,
            base=request.base,
            resume_at=request.resume_at,
            durability=request.durability,
            expected_bytes=request.expected_bytes,
        )

    def _begin(self) -> WritingReplica:
        request, store = self._request, self._store
        self._peers.require_joined()
        if request.resume_at is not None:
            try:
                return store.resume(request.block, self, request.resume_at)
            except BlockNotFound:
                # A node new to the pipeline takes what was acknowledged from a survivor.
                if request.base is None and request.resume_at:
                    raise
        if request.base is None:
            return store.begin(request.block, self, request.expected_bytes)
        base = request.base
        local = None
        if base.block.block_id != request.block.block_id:
            local = store.begin_from(request.block, self, base.block, base.length)
        return local if local is not None else self._fetch(base)

    def _fetch(self, base: BlockBase) -> WritingReplica:
        """Begin with bytes from another node."""
        sources = [s for s in base.sources if s.node_id != self._peers.node_id]
        last: DfsError = BlockNotFound(f"no node is named that has block {base.block.block_id}")
        for source in sources:
            replica = self._store.begin(self._request.block, self, self._request.expected_bytes)
            try:
                fetch_into(self._peers, source, base, replica, self)
                return replica
            except DfsError as error:
                self._store.discard(replica)
                last = error
        raise last

    # --- packets ---

    def _packets(self, replica: WritingReplica, buffer: memoryview) -> None:
        down = self._down.connection
        poller = select.poll()
        poller.register(self._up.fileno(), select.POLLIN)
        if down is not None:
            poller.register(down.fileno(), select.POLLIN)
        timeout_ms, timing = int(self._peers.stall_timeout_s * 1000), self._timing
        while True:
            # A writer may think for long between packets, so it is not timed here: its lease is. What is
            # waited for from below is.
            with timing.of("next node" if self._acked else "sender"):
                ready = dict(poller.poll(timeout_ms if self._acked else -1))
            if not ready:
                self._break_off(TimedOut("the next node acknowledged nothing for too long"))
            if down is not None and down.fileno() in ready and self._relay_ack(down):
                return
            if self._up.fileno() in ready:
                with timing.of("sender"):
                    packet = self._up.receive_packet(buffer)
                payload = buffer[: packet.length]
                require_digest(payload, packet.digest, f"the packet at {packet.offset}")
                if down is not None:
                    with timing.of("next node"):
                        self._forward(down, packet, payload)
                with timing.of("disk"):
                    replica.append(self, packet.offset, payload, packet.digest)
                    self._store.writeback(replica)
                    if packet.flags & Flag.SYNC:
                        replica.sync()
                if packet.flags & Flag.LAST:
                    with timing.of("disk"):
                        digests = self._store.finalize(replica, self, durable=self._durable)
                    self._finish(packet, replica, digests)
                    return
                if down is None:
                    self._up.send_frame(Kind.ACK, PacketAck(sequence=packet.sequence))

    def _forward(self, down: FrameSocket, packet: Packet, payload: memoryview) -> None:
        self._acked.append(packet)
        try:
            down.send_packet(packet.sequence, packet.offset, packet.digest, payload, packet.flags)
        except DfsError as error:
            self._break_off(error)

    def _relay_ack(self, down: FrameSocket) -> bool:
        """Pass one acknowledgement on. True if the stream is over."""
        try:
            length, kind, _ = down.receive_header()
            ack = decode(down.receive_body(length), PacketAck)
        except DfsError as error:
            self._break_off(error)
        if kind != Kind.ACK:
            self._break_off(InvalidRequest("an acknowledgement was expected"))
        if ack.failed:
            self._up.send_frame(Kind.ACK, ack)
            raise ConnectionLost("the pipeline lost a node")
        if not self._acked or self._acked[0].sequence != ack.sequence:
            self._break_off(InvalidRequest("an acknowledgement came out of order"))
        self._acked.pop(0)
        self._up.send_frame(Kind.ACK, ack)
        return False

    def _break_off(self, error: DfsError) -> None:
        """Tell the writer whom the pipeline lost, and end the stream: it goes on in a new generation."""
        log.info("the pipeline lost node %d: %s", self._down.node_id, error.message)
        self._up.send_frame(Kind.ACK, PacketAck(sequence=0, failed=[self._down.node_id]))
        raise ConnectionLost("the pipeline lost a node")

    def _finish(self, last: Packet, replica: WritingReplica, digests: bytes) -> None:
        """This node has finalized the block: wait for the nodes after it, compare, and answer."""
        nodes = [self._peers.node_id]
        down = self._down.connection
        if down is not None:
            with self._timing.of("next node"):
                while self._acked:
                    self._relay_ack(down)
            try:
                with self._timing.of("next node"):
                    done = down.receive_response(WriteDone)
            except DfsError as error:
                log.warning("node %d did not finish: %s", self._down.node_id, error.message)
            else:
                if done.digests == digests and done.length == replica.length:
                    nodes += done.nodes
                else:
                    log.error("node %d has other bytes of the block", self._down.node_id)
        else:
            self._up.send_frame(Kind.ACK, PacketAck(sequence=last.sequence))
        self._up.send_frame(
            Kind.RESPONSE, WriteDone(length=replica.length, digests=digests, nodes=nodes)
        )


def fetch_into(
    peers: Peers,
    source: NodeAddress,
    base: BlockBase,
    replica: WritingReplica,
    owner: object,
    throttle: Callable[[int], None] = lambda size_bytes: None,
    *,
    background: bool = False,
) -> None:
    """Append the first *base.length* bytes of a replica on *source*, each chunk verified against that node's list.

    *throttle* is called with the bytes to come, and waits as long as they have to. *background*: nobody waits for it.
    """
    connection = peers.open_near(source)
    descriptor: int | None = None
    try:
        ready, descriptor = _ask_for(connection, base.block, background)
        whole = ready.block_length
        if whole < base.length:
            raise ChecksumMismatch(f"{source.data} has only {whole} bytes of the block")
        if len(ready.digests) != chunk_count(whole) * DIGEST_BYTES:
            raise ChecksumMismatch(f"{source.data} sent a digest list that does not fit")
        buffer = _buffer()
        offset = 0
        while offset < base.length:
            size = min(CHUNK_BYTES, whole - offset)
            throttle(size)
            if descriptor is None:
                connection.receive_into(buffer[:size])
            elif _read_at(descriptor, buffer[:size], offset) < size:
                raise ChecksumMismatch(f"the replica of {source.data} is cut short")
            wanted = ready.digests[offset // CHUNK_BYTES * DIGEST_BYTES :][:DIGEST_BYTES]
            require_digest(buffer[:size], wanted, f"a chunk from {source.data}")
            kept = min(size, base.length - offset)
            digest = wanted if kept == size else digest_of(buffer[:kept])
            replica.append(owner, offset, buffer[:kept], digest)
            offset += kept
    finally:
        if descriptor is not None:
            os.close(descriptor)
        connection.close()


def _ask_for(
    connection: FrameSocket, block: BlockRef, background: bool
) -> tuple[ReadReady, int | None]:
    """The whole of a replica with its digests: as an open file on this machine, else as bytes that follow."""
    if connection.sock.family == socket.AF_UNIX:
        connection.send_frame(Kind.REQUEST, OpenReplica(block=block, digests=True))
        ready, descriptor = connection.receive_with_descriptor(ReadReady)
        if descriptor is not None:
            return ready, descriptor
    request = ReadBlock(block=block, digests=True, background=background)
    ready = ask(connection, request, ReadReady)
    if ready.length != ready.block_length:
        raise ChecksumMismatch("not all of the replica was sent")
    return ready, None


def _read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    try:
        return os.preadv(descriptor, [buffer], offset)
    except OSError as error:
        raise ChecksumMismatch(f"a replica can't be read: {error.strerror or error}") from None


def _buffer() -> memoryview:
    """Room for a chunk, the calling thread's own: fresh memory costs more than what is put there."""
    buffer: memoryview | None = getattr(_buffers, "chunk", None)
    if buffer is None:
        buffer = _buffers.chunk = memoryview(bytearray(CHUNK_BYTES))
    return buffer


def receive_many(
    store: BlockStore,
    peers: Peers,
    upstream: FrameSocket,
    request: WriteMany,
    payload: memoryview,
    timing: Timing,
) -> None:
    """Whole small blocks: verify, forward, store, and answer when all nodes are done."""
    peers.require_joined()
    offset = 0
    bad: DfsError | None = None
    for item in request.items:
        if item.length > CHUNK_BYTES:
            bad = InvalidRequest(f"block {item.block_id} is too large for a batch")
        elif digest_of(payload[offset : offset + item.length]) != item.digest:
            bad = ChecksumMismatch(f"block {item.block_id} does not match its digest")
        offset += item.length
    if bad is not None:
        raise bad
    with timing.of("next node"):
        down, node_id, failed, failures = _forward_many(peers, request, payload)
    nodes = [peers.node_id]
    try:
        with timing.of("disk"):
            for future in store.put_small(
                request.items, payload, durable=request.durability == "synced"
            ):
                future.result()
        if down is not None:
            try:
                with timing.of("next node"):
                    done = down.receive_response(WriteManyDone)
                nodes += done.nodes
                failed += done.failed
                failures += done.failures
            except DfsError as error:
                failed.append(node_id)
                failures.append(error.message)
    finally:
        if down is not None:
            down.close()
    upstream.send_frame(Kind.RESPONSE, WriteManyDone(nodes=nodes, failed=failed, failures=failures))


def _forward_many(
    peers: Peers, request: WriteMany, payload: memoryview
) -> tuple[FrameSocket | None, NodeId, list[NodeId], list[str]]:
    failed: list[NodeId] = []
    failures: list[str] = []
    for index, target in enumerate(request.targets):
        connection = None
        try:
            connection = peers.open(target)
            rest = WriteMany(
                items=request.items,
                targets=request.targets[index + 1 :],
                durability=request.durability,
            )
            connection.send_request(rest)
            connection.send(payload)
            return connection, target.node_id, failed, failures
        except (Unavailable, TimedOut) as error:
            if connection is not None:
                connection.close()
            failed.append(target.node_id)
            failures.append(error.message)
    return None, NOBODY, failed, failures
