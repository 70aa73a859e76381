"""Writing a block as a client when the pipeline's first node is this DataNode itself: no socket, one copy less, hashed once.

A DataNode that writes for somebody (WebHDFS) has the bytes and their digests at hand; going through its own block stream would
receive, copy and hash all of them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Final

from ..client.block_writer import BlockWriter, PipelineBroken, Sent
from ..client.datanode_api import ConnectionPool
from ..common.checksum import block_digest
from ..common.config import ClientConfig
from ..common.errors import DfsError
from ..common.messages import BlockCommit
from ..common.model import NodeAddress, NodeId, TargetBlock
from ..common.transfer import Flag, WriteBlock, WriteDone
from .blockstore import BlockStore
from .pipeline import Downstream, Peers, open_downstream
from .writing import WritingReplica

log = logging.getLogger(__name__)
CLOSED: Final = "the pipeline is closed"
THREADS: Final = 16  # each has at most one chunk on its way to a disk


class LocalBlocks:
    """What a `client.session.Session` needs to write into this node's own store."""

    def __init__(
        self, store: BlockStore, peers: Peers, written: Callable[[int], None] = lambda size: None
    ) -> None:
        """*written* is told how many bytes have come, for the metrics; from any thread."""
        self.store = store
        self.peers = peers
        self.written = written
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="append")

    def close(self) -> None:
        """Once nobody writes any more."""
        self.threads.shutdown(wait=True, cancel_futures=True)

    @property
    def node_id(self) -> NodeId:
        """0 until the node has joined a cluster."""
        return self.peers.node_id

    def writer(
        self, pool: ConnectionPool, config: ClientConfig, target: TargetBlock
    ) -> BlockWriter:
        return LocalBlockWriter(self, pool, config, target)


class LocalBlockWriter(BlockWriter):
    """A new block whose first node is this one. What breaks is told as BlockWriter tells it; the replica stays, and another
    BlockWriter resumes it through the block stream."""

    def __init__(
        self, blocks: LocalBlocks, pool: ConnectionPool, config: ClientConfig, target: TargetBlock
    ) -> None:
        super().__init__(pool, config, target)
        self._blocks = blocks
        self._down = Downstream()
        self._replica: WritingReplica | None = None
        self._appending: Future[None] | None = None
        self._durability = config.durability

    def open(self) -> None:
        """See BlockWriter: here only this node itself can refuse."""
        blocks = self._blocks
        try:
            replica = blocks.store.begin(self.target.block, self, 0)
        except DfsError as error:
            raise self._own_failure(error) from None
        finally:
            blocks.store.release_thread()
        replica.abort = self._abort
        self._replica = replica
        down = self._down = open_downstream(blocks.peers, self.nodes[1:], self._request)
        if down.connection is not None:
            down.connection.set_timeout(self._config.ack_timeout_s)
        self._connection = down.connection
        for failure in down.failures:
            log.info("block %d: %s", self.target.block.block_id, failure)
        self.nodes = [node for node in self.nodes if node.node_id not in down.failed]

    def _request(self, rest: list[NodeAddress]) -> WriteBlock:
        return WriteBlock(
            block=self.target.block,
            targets=rest,
            durability="synced" if self._durability == "synced" else "replicated",
        )

    def _abort(self) -> None:
        """Somebody took the replica over: its next append fails, and nobody waits for other nodes any longer."""
        if self._connection is not None:
            self._connection.abort()

    def _own_failure(self, error: Exception) -> PipelineBroken:
        self.close()
        reason = error.message if isinstance(error, DfsError) else "it is being stopped"
        return PipelineBroken(f"this node: {reason}", [self._blocks.node_id])

    def _broken(self, error: DfsError) -> PipelineBroken:
        """Of the connection to the nodes after this one."""
        self.close()
        return PipelineBroken(f"the next node: {error.message}", [self._down.node_id])

    def _transmit(self, packet: Sent) -> None:
        replica = self._replica
        if replica is None:
            raise PipelineBroken(CLOSED)
        if self._connection is not None:
            super()._transmit(packet)
        # The disk takes this packet while the next one is received and hashed.
        self._appended()
        self._appending = self._blocks.threads.submit(self._append, replica, packet)

    def _receive_ack(self) -> None:
        # What counts as acknowledged must be in this node's replica, too: whoever goes on after a failure begins there.
        self._appended()
        super()._receive_ack()

    def _append(self, replica: WritingReplica, packet: Sent) -> None:
        replica.append(self, packet.offset, memoryview(packet.data), packet.digest)
        self._blocks.store.writeback(replica)
        if packet.flags & Flag.SYNC:
            replica.sync()
        self._blocks.written(len(packet.data))

    def _appended(self) -> None:
        """Wait for the packet before."""
        appending, self._appending = self._appending, None
        if appending is None:
            return
        try:
            appending.result()
        except (DfsError, CancelledError) as error:
            raise self._own_failure(error) from None
        if self._down.connection is None:
            packet = self.unacked.popleft()
            self.acked = packet.offset + len(packet.data)

    def wait(self) -> None:
        self._appended()
        super().wait()

    def finished(self) -> BlockCommit:
        self._appended()
        replica = self._replica
        if replica is None:
            raise PipelineBroken(CLOSED)
        try:
            digests = self._blocks.store.finalize(
                replica, self, durable=self._durability == "synced"
            )
        except DfsError as error:
            raise self._own_failure(error) from None
        super().wait()
        nodes = [self._blocks.node_id]
        if self._connection is not None:
            nodes += self._others(self._connection.receive_response, digests)
        self.digests = digests
        self.close()
        return BlockCommit(
            block_id=self.target.block.block_id,
            generation=self.target.block.generation,
            length=self.length,
            digest=block_digest(digests),
            nodes=nodes,
        )

    def _others(
        self, answer: Callable[[type[WriteDone]], WriteDone], digests: bytes
    ) -> list[NodeId]:
        """The nodes after this one that have the same bytes as this one has."""
        try:
            done = answer(WriteDone)
        except DfsError as error:
            log.warning("node %d did not finish: %s", self._down.node_id, error.message)
            return []
        if done.digests == digests and done.length == self.length:
            return done.nodes
        log.error("node %d has other bytes of the block", self._down.node_id)
        return []

    def close(self) -> None:
        """The replica stays as it is: to be resumed, recovered or deleted."""
        self._replica = None
        super().close()
