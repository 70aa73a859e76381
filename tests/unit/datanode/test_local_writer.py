"""Blocks written into the node's own store: the bytes, the copies on other nodes, and who is blamed for what."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.client.block_writer import BlockWriter, PipelineBroken
from twinfs.client.session import Session
from twinfs.common.checksum import CHUNK_BYTES, block_digest, digest_of
from twinfs.common.config import ClientConfig
from twinfs.common.model import (
    BlockId,
    BlockRef,
    GenerationStamp,
    NodeAddress,
    NodeId,
    TargetBlock,
)
from twinfs.common.transfer import Flag
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.local_writer import LocalBlocks
from twinfs.datanode.pipeline import Peers
from twinfs.datanode.streams import StreamServer
from twinfs.datanode.volumes import Volume

DATA = random.Random(3).randbytes(5 * CHUNK_BYTES + 99)


class Node:
    """A block store and its block stream."""

    def __init__(self, number: int, folder: Path) -> None:
        folder.mkdir()
        self.store = BlockStore(
            [Volume(folder, reserved_bytes=0)], small_block_bytes=0, rng=random.Random(number)
        )
        self.peers = Peers(node_id=NodeId(number), connect_timeout_s=5.0, stall_timeout_s=30.0)
        self.streams = StreamServer(
            self.store,
            self.peers,
            max_connections=8,
            transfer_memory_bytes=1 << 25,
            idle_timeout_s=30.0,
            stall_timeout_s=30.0,
            on_bad=lambda block: None,
        )
        port = self.streams.listen_tcp("127.0.0.1", 0)
        self.address = NodeAddress(
            node_id=NodeId(number), host="h", data=f"127.0.0.1:{port}", http="h:1"
        )

    def content(self, block: BlockRef) -> bytes:
        found = self.store.open(block)
        try:
            return os.pread(found.descriptor, found.length, 0)
        finally:
            os.close(found.descriptor)

    def close(self) -> None:
        self.streams.close(1.0)
        self.store.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    found = [Node(number, tmp_path / str(number)) for number in (1, 2, 3)]
    yield found
    for node in found:
        node.close()


@pytest.fixture
def local(nodes: list[Node]) -> Iterator[LocalBlocks]:
    blocks = LocalBlocks(nodes[0].store, nodes[0].peers)
    yield blocks
    blocks.close()


def target(*addresses: NodeAddress, generation: int = 1) -> TargetBlock:
    block = BlockRef(block_id=BlockId(7), generation=GenerationStamp(generation))
    return TargetBlock(block=block, nodes=list(addresses))


def packets(data: bytes) -> Iterator[tuple[bytes, Flag]]:
    for at in range(0, len(data), CHUNK_BYTES):
        last = at + CHUNK_BYTES >= len(data)
        yield data[at : at + CHUNK_BYTES], Flag.LAST if last else Flag.NONE


def send(writer: BlockWriter, data: bytes) -> None:
    for piece, flags in packets(data):
        writer.send(piece, flags)


def writer_for(local: LocalBlocks, where: TargetBlock) -> BlockWriter:
    session = Session(ClientConfig(user="u", ack_window_packets=3), local=local)
    writer = session.writer(where)
    assert type(writer) is not BlockWriter
    writer.open()
    return writer


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_every_copy_has_the_bytes(nodes: list[Node], local: LocalBlocks, copies: int) -> None:
    where = target(*(node.address for node in nodes[:copies]))
    writer = writer_for(local, where)
    send(writer, DATA)
    commit = writer.finish()
    assert sorted(commit.nodes) == [1, 2, 3][:copies]
    assert commit.length == len(DATA)
    assert commit.digest == block_digest(b"".join(digest_of(p) for p, _ in packets(DATA)))
    assert writer.digests == b"".join(digest_of(p) for p, _ in packets(DATA))
    for node in nodes[:copies]:
        assert node.content(where.block) == DATA


def test_only_new_blocks_that_begin_here_are_written_so(
    nodes: list[Node], local: LocalBlocks
) -> None:
    session = Session(ClientConfig(user="u"), local=local)
    here, other = nodes[0].address, nodes[1].address
    assert type(session.writer(target(other, here))) is BlockWriter
    assert type(session.writer(target(here), resume_at=0)) is BlockWriter
    assert session.near == 1
    assert Session(ClientConfig(user="u")).near == 0


def test_a_node_that_can_not_be_reached_is_left_out(nodes: list[Node], local: LocalBlocks) -> None:
    nodes[1].streams.close(0.0)
    where = target(*(node.address for node in nodes))
    writer = writer_for(local, where)
    assert [node.node_id for node in writer.nodes] == [1, 3]
    send(writer, DATA)
    assert sorted(writer.finish().nodes) == [1, 3]


def test_a_lost_node_is_named_and_nothing_sent_is_lost(
    nodes: list[Node], local: LocalBlocks
) -> None:
    where = target(nodes[0].address, nodes[1].address)
    writer = writer_for(local, where)
    pieces = list(packets(DATA))
    writer.send(*pieces[0])
    nodes[1].streams.close(0.0)
    with pytest.raises(PipelineBroken) as broken:
        for piece, flags in pieces[1:]:
            writer.send(piece, flags)
        writer.finish()
    assert broken.value.failed == [2]
    # What was acknowledged and what was not are all of it; the replica here is resumed by whoever goes on.
    left = b"".join(bytes(packet.data) for packet in writer.unacked)
    begin = writer.acked
    assert DATA[begin : begin + len(left)] == left
    session = Session(ClientConfig(user="u"), local=local)
    again = session.writer(target(nodes[0].address, generation=2), resume_at=begin)
    again.open()
    again.resend(list(writer.unacked))
    for piece, flags in packets(DATA[again.length :]):
        again.send(piece, flags)
    assert again.finish().length == len(DATA)
    assert nodes[0].content(again.target.block) == DATA
    session.pool.close()


def test_a_failing_disk_is_this_nodes_failure(
    nodes: list[Node], local: LocalBlocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_for(local, target(nodes[0].address))
    replica = nodes[0].store.writing(7)
    assert replica is not None
    replica.close()  # from now on, pwrite fails
    replica.descriptor = -1
    monkeypatch.setattr(type(replica), "_require_owner", lambda self, owner: None)
    replica._hasher = object()  # type: ignore[assignment]
    with pytest.raises(PipelineBroken) as broken:
        send(writer, DATA)
    assert broken.value.failed == [1]
    with pytest.raises(PipelineBroken):
        writer.finish()


def test_who_takes_the_block_over_ends_the_write(nodes: list[Node], local: LocalBlocks) -> None:
    """Lease recovery, say."""
    where = target(nodes[0].address)
    writer = writer_for(local, where)
    writer.send(DATA[:CHUNK_BYTES])
    writer.wait()
    nodes[0].store.begin_recovery(where.block, 2)
    with pytest.raises(PipelineBroken):
        send(writer, DATA[:CHUNK_BYTES])
        writer.finish()


def test_a_block_that_is_here_already_is_refused(nodes: list[Node], local: LocalBlocks) -> None:
    where = target(nodes[0].address)
    send(writer := writer_for(local, where), DATA)
    writer.finish()
    with pytest.raises(PipelineBroken) as broken:
        writer_for(local, where)
    assert broken.value.failed == [1]
