"""Writing one block through a pipeline, in threads."""

from __future__ import annotations

import collections
import select
from collections.abc import Sequence

from ..common.checksum import block_digest, digest_of
from ..common.config import ClientConfig
from ..common.errors import (
    ChecksumMismatch,
    ConnectionLost,
    DfsError,
    InvalidRequest,
    PipelineFailed,
)
from ..common.framing import FrameSocket, ask, decode
from ..common.messages import BlockCommit
from ..common.model import NodeAddress, NodeId, TargetBlock
from ..common.transfer import (
    MAX_MANY_BYTES,
    Flag,
    Kind,
    PacketAck,
    SmallBlock,
    WriteBlock,
    WriteDone,
    WriteMany,
    WriteManyDone,
    WriteReady,
)
from .datanode_api import ConnectionPool


class PipelineBroken(PipelineFailed):
    """The pipeline lost nodes. *failed* are those known to be lost; what was not acknowledged must be sent again."""

    code = "pipeline-broken"

    def __init__(self, message: str, failed: Sequence[NodeId] = ()) -> None:
        super().__init__(message)
        self.failed = list(failed)


class Sent:
    """A packet that is kept until all nodes have it."""

    __slots__ = ("data", "digest", "flags", "offset", "sequence")

    def __init__(self, sequence: int, offset: int, data: bytes | memoryview, flags: Flag) -> None:
        self.sequence = sequence
        self.offset = offset
        self.data = data
        self.flags = flags
        self.digest = digest_of(data)


class BlockWriter:
    """One block, one pipeline. Blocking; used by one thread at a time.

    Packets stay in `unacked` until every node of the pipeline has them, so that another BlockWriter
    can go on after a failure.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        config: ClientConfig,
        target: TargetBlock,
        *,
        resume_at: int | None = None,
    ) -> None:
        self._pool = pool
        self._config = config
        self.target = target
        self.nodes = list(target.nodes)
        self._resume_at = resume_at
        self._connection: FrameSocket | None = None
        self._sequence = 0
        self.last_sent = False
        self.unacked: collections.deque[Sent] = collections.deque()
        self.acked = resume_at if resume_at is not None else 0
        if target.base is not None and resume_at is None:
            self.acked = target.base.length
        self.length = self.acked
        self.digests = b""  # of the block's chunks, once it is finished

    def open(self) -> None:
        """Build the pipeline. PipelineBroken if its first node can't be used; nodes further on may be left out."""
        first = self.nodes[0]
        request = WriteBlock(
            block=self.target.block,
            targets=self.nodes[1:],
            base=self.target.base,
            resume_at=self._resume_at,
            durability="synced" if self._config.durability == "synced" else "replicated",
        )
        try:
            connection = self._connection = self._pool.open(first)
            connection.set_timeout(self._config.ack_timeout_s)
            ready = ask(connection, request, WriteReady)
        except DfsError as error:
            self.close()
            raise PipelineBroken(f"{first.data}: {error.message}", [first.node_id]) from None
        if ready.length != self.acked:
            self.close()
            raise PipelineBroken(
                f"{first.data} begins the block with {ready.length} bytes, not {self.acked}",
                [first.node_id],
            )
        self.nodes = [node for node in self.nodes if node.node_id not in ready.failed]

    def send(self, data: bytes | memoryview, flags: Flag = Flag.NONE) -> None:
        """Send the next packet: at most one chunk, not across a chunk's end."""
        packet = Sent(self._sequence, self.length, data, flags)
        self._sequence += 1
        self.length += len(data)
        self.unacked.append(packet)
        self.last_sent = self.last_sent or bool(flags & Flag.LAST)
        self._transmit(packet)
        while len(self.unacked) >= self._config.ack_window_packets:
            self._receive_ack()

    def resend(self, packets: Sequence[Sent]) -> None:
        """What a former pipeline did not get to all of this one's nodes."""
        for packet in packets:
            if packet.offset + len(packet.data) <= self.acked and not packet.flags & Flag.LAST:
                continue
            if packet.offset < self.acked:
                raise InvalidRequest("a packet was acknowledged in part")
            self.send(packet.data, packet.flags)

    def _transmit(self, packet: Sent) -> None:
        connection = self._live()
        try:
            self._drain()
            connection.send_packet(
                packet.sequence, packet.offset, packet.digest, packet.data, packet.flags
            )
        except PipelineBroken:
            raise
        except DfsError as error:
            raise self._broken(error) from None

    def _drain(self) -> None:
        """Take acknowledgements that are here already."""
        poller = select.poll()
        poller.register(self._live().fileno(), select.POLLIN)
        while self.unacked and poller.poll(0):
            self._receive_ack()

    def _receive_ack(self) -> None:
        connection = self._live()
        try:
            length, kind, flags = connection.receive_header()
            body = connection.receive_body(length)
            if kind == Kind.RESPONSE:
                FrameSocket.response_in(body, kind, flags, WriteDone)
                raise InvalidRequest("an answer came out of order")
            ack = decode(body, PacketAck)
        except DfsError as error:
            raise self._broken(error) from None
        if ack.failed:
            self.close()
            raise PipelineBroken("the pipeline lost a node", ack.failed)
        if not self.unacked or self.unacked[0].sequence != ack.sequence:
            raise self._broken(InvalidRequest("an acknowledgement came out of order"))
        packet = self.unacked.popleft()
        self.acked = packet.offset + len(packet.data)

    def _broken(self, error: DfsError) -> PipelineBroken:
        """Whatever goes wrong with the first connection is the first node's failure, unless it said otherwise."""
        connection = self._connection
        lost: list[NodeId] = [self.nodes[0].node_id]
        if connection is not None and isinstance(error, ConnectionLost):
            lost = _last_words(connection) or lost
        self.close()
        return PipelineBroken(f"{self.nodes[0].data}: {error.message}", lost)

    def wait(self) -> None:
        """Until every packet sent is acknowledged."""
        while self.unacked:
            self._receive_ack()

    def finish(self) -> BlockCommit:
        """Send the last packet, if `send` was not given LAST yet, and wait until the block is finalized."""
        if not self.last_sent:
            self.send(b"", Flag.LAST)
        return self.finished()

    def finished(self) -> BlockCommit:
        # The acknowledgement of the last packet may come only after a long fsync.
        while self.unacked:
            self._receive_ack()
        connection = self._live()
        try:
            done = connection.receive_response(WriteDone)
        except DfsError as error:
            raise self._broken(error) from None
        if done.length != self.length:
            raise self._broken(ChecksumMismatch("the block has another length than was sent"))
        self._pool.give(self.nodes[0], connection)
        self._connection = None
        self.digests = done.digests
        return BlockCommit(
            block_id=self.target.block.block_id,
            generation=self.target.block.generation,
            length=done.length,
            digest=block_digest(done.digests),
            nodes=done.nodes,
        )

    def _live(self) -> FrameSocket:
        if self._connection is None:
            raise PipelineBroken("the pipeline is closed")
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _last_words(connection: FrameSocket) -> list[NodeId]:
    """Acknowledgements that came before the connection broke may say who is lost."""
    try:
        while True:
            length, kind, _ = connection.receive_header()
            body = connection.receive_body(length)
            if kind == Kind.ACK and (failed := decode(body, PacketAck).failed):
                return failed
            if kind != Kind.ACK:
                return []
    except DfsError:
        return []


def write_many(
    pool: ConnectionPool,
    nodes: Sequence[NodeAddress],
    items: list[SmallBlock],
    parts: Sequence[bytes | memoryview],
    durability: str,
) -> WriteManyDone:
    """Whole small blocks through a pipeline. PipelineBroken if the first node fails."""
    assert sum(len(part) for part in parts) <= MAX_MANY_BYTES
    request = WriteMany(
        items=items,
        targets=list(nodes[1:]),
        durability="synced" if durability == "synced" else "replicated",
    )
    while True:
        used = False
        try:
            connection, used = pool.take(nodes[0])
            try:
                connection.send_request(request)
                for start in range(0, len(parts), 512):
                    connection.send(*parts[start : start + 512])
                done = connection.receive_response(WriteManyDone)
            except BaseException:
                connection.close()
                raise
        except DfsError as error:
            if used:
                pool.forget(nodes[0])
                continue
            raise PipelineBroken(f"{nodes[0].data}: {error.message}", [nodes[0].node_id]) from None
        pool.give(nodes[0], connection)
        return done
