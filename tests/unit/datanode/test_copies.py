"""Copies between DataNodes: what travels together, and what becomes of what is not right."""

from __future__ import annotations

import collections
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from twinfs.common.checksum import CHUNK_BYTES, block_digest, digest_of
from twinfs.common.messages import CopyReplica
from twinfs.common.model import Block, BlockId, GenerationStamp, NodeAddress, NodeId
from twinfs.common.transfer import MAX_MANY_BYTES, MAX_MANY_ITEMS
from twinfs.datanode import quarantine
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.copies import take_batch
from twinfs.datanode.copying import Copied, copy_all
from twinfs.datanode.pipeline import Peers
from twinfs.datanode.streams import StreamServer
from twinfs.datanode.volumes import Volume

OWN = NodeId(9)
SMALL = 1024  # blocks up to this size live in the index here


# --- what travels together ---


def order(block_id: int, length: int, *sources: int, bytes_per_s: int = 0) -> CopyReplica:
    addresses = [NodeAddress(node_id=NodeId(n), host="h", data="h:1", http="") for n in sources]
    block = Block(block_id=BlockId(block_id), generation=GenerationStamp(1), length=length)
    return CopyReplica(block=block, sources=addresses, bytes_per_s=bytes_per_s)


def batches(*orders: CopyReplica) -> list[list[int]]:
    waiting = collections.deque(orders)
    found = []
    while waiting:
        found.append([int(o.block.block_id) for o in take_batch(waiting, OWN)])
    return found


def test_small_blocks_of_one_source_travel_together() -> None:
    assert batches(
        order(1, 10, 1), order(2, 10, 2), order(3, 10, 1, 2), order(4, 10, OWN, 2), order(5, 0, 1)
    ) == [[1, 3, 5], [2, 4]]


def test_large_blocks_and_those_with_a_speed_of_their_own_travel_alone() -> None:
    assert batches(
        order(1, MAX_MANY_BYTES + 1, 1),
        order(2, 10, 1),
        order(3, MAX_MANY_BYTES - 10, 1),
        order(4, 10, 1, bytes_per_s=1000),
        order(5, 10),
        order(6, 10, OWN),
    ) == [[1], [2, 3], [4], [5], [6]]


def test_a_batch_has_a_limit() -> None:
    many = [order(n, CHUNK_BYTES, 1) for n in range(1, 6)]
    assert [len(batch) for batch in batches(*many)] == [MAX_MANY_BYTES // CHUNK_BYTES, 1]
    tiny = [order(n, 1, 1) for n in range(MAX_MANY_ITEMS + 1)]
    assert [len(batch) for batch in batches(*tiny)] == [MAX_MANY_ITEMS, 1]


# --- between two stores ---


class Pair:
    """A node that serves, and a store that copies from it."""

    def __init__(self, folder: Path, *, near: bool) -> None:
        self.stores = []
        for name in ("source", "target"):
            (folder / name).mkdir()
            volume = Volume(folder / name, reserved_bytes=0)
            self.stores.append(BlockStore([volume], small_block_bytes=SMALL, rng=random.Random(1)))
        self.source, self.target = self.stores
        peers = Peers(node_id=NodeId(1), connect_timeout_s=5.0, stall_timeout_s=5.0)
        self.missed: list[int] = []
        self.streams = StreamServer(
            self.source,
            peers,
            max_connections=16,
            transfer_memory_bytes=1 << 24,
            idle_timeout_s=5.0,
            stall_timeout_s=5.0,
            on_bad=lambda block: self.missed.append(block.block_id),
        )
        port = self.streams.listen_tcp("127.0.0.1", 0)
        socket = self.streams.listen_unix(str(folder / "source.sock")) if near else ""
        self.address = NodeAddress(
            node_id=NodeId(1), host="here", data=f"127.0.0.1:{port}", http="", socket=socket
        )
        own = NodeAddress(node_id=OWN, host="here", data="127.0.0.1:1", http="", socket="/none")
        self.peers = Peers(node_id=OWN, connect_timeout_s=5.0, stall_timeout_s=5.0, own=own)
        self.waited: list[int] = []

    def write(self, block_id: int, data: bytes, store: BlockStore | None = None) -> Block:
        block = Block(block_id=BlockId(block_id), generation=GenerationStamp(1), length=len(data))
        chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        owner = object()
        replica = (store or self.source).begin(block.ref, owner, len(data))
        for number, chunk in enumerate(chunks):
            replica.append(owner, number * CHUNK_BYTES, memoryview(chunk), digest_of(chunk))
        digests = (store or self.source).finalize(replica, owner, durable=True)
        return Block(
            block_id=block.block_id,
            generation=block.generation,
            length=len(data),
            digest=block_digest(digests),
        )

    def copy(self, *blocks: Block) -> Copied:
        orders = [(block, [self.address]) for block in blocks]
        return copy_all(self.target, self.peers, orders, self.waited.append)

    def content(self, block: Block) -> bytes:
        found = self.target.open(block.ref)
        if found.data is not None:
            return bytes(found.data)
        try:
            return os.pread(found.descriptor, block.length, 0)
        finally:
            os.close(found.descriptor)

    def close(self) -> None:
        self.peers.close()
        self.streams.close(1.0)
        for store in self.stores:
            store.close()


@pytest.fixture(params=[False, True], ids=["tcp", "near"])
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(tmp_path, near=request.param)
    yield pair
    pair.close()


DATA = [b"", b"a", b"b" * SMALL, b"c" * (SMALL + 1), b"d" * CHUNK_BYTES]


def ids(copied: Any) -> list[int]:
    return sorted(int(entry.block_id) for entry in copied)


def test_blocks_of_all_small_sizes_arrive_with_one_request(pair: Pair) -> None:
    blocks = [pair.write(n, data) for n, data in enumerate(DATA, 1)]
    copied = pair.copy(*blocks)
    assert ids(copied.here) == [1, 2, 3, 4, 5]
    assert not copied.failed and not copied.bad
    assert [pair.content(block) for block in blocks] == DATA
    assert pair.waited == [sum(map(len, DATA))]
    assert [r.digest for r in copied.here] == [block.digest for block in blocks]
    assert all(r == pair.target.report_of(b.ref) for r, b in zip(copied.here, blocks, strict=True))


def test_blocks_of_several_chunks_travel_together(pair: Pair) -> None:
    sizes = (CHUNK_BYTES + 1, 70_000, 2 * CHUNK_BYTES, 10)
    data = [random.Random(size).randbytes(size) for size in sizes]
    blocks = [pair.write(n, content) for n, content in enumerate(data, 1)]
    copied = pair.copy(*blocks)
    assert ids(copied.here) == [1, 2, 3, 4] and not copied.bad
    assert [pair.content(block) for block in blocks] == data
    assert pair.waited == [sum(sizes)]
    assert all(quarantine.verify(pair.target, block.ref) == "good" for block in blocks)


def test_what_does_not_fit_the_answer_is_copied_by_itself(pair: Pair) -> None:
    """More than the orders' batches have."""
    data = [random.Random(n).randbytes(3 * CHUNK_BYTES) for n in range(2)]
    blocks = [pair.write(n, content) for n, content in enumerate(data, 1)]
    copied = pair.copy(*blocks)
    assert ids(copied.here) == [1, 2] and not copied.bad
    assert [pair.content(block) for block in blocks] == data


def test_a_file_that_is_cut_short_does_not_keep_the_others(pair: Pair) -> None:
    good, short = pair.write(1, b"x" * 5000), pair.write(2, b"y" * 5000)
    last = pair.write(3, b"z" * 5000)
    os.truncate(pair.source.volumes[0].final_path(2, 1), 4000)
    copied = pair.copy(good, short, last)
    assert ids(copied.here) == [1, 3]
    assert {(b.block.block_id, b.reason) for b in copied.bad} == {(2, "corrupt")}
    assert pair.content(last) == b"z" * 5000


def test_connections_are_kept_and_made_again(pair: Pair) -> None:
    blocks = [pair.write(n, b"x" * n) for n in range(1, 7)]
    pair.copy(*blocks[:2])
    pair.copy(*blocks[2:4])
    assert pair.streams.open == 1
    for connection in list(pair.streams._connections):
        connection.abort()  # as a source does that was asked nothing for long
    assert ids(pair.copy(*blocks[4:]).here) == [5, 6]


def test_a_large_block_arrives(pair: Pair) -> None:
    data = random.Random(1).randbytes(2 * CHUNK_BYTES + 5)
    block = pair.write(1, data)
    copied = pair.copy(block)
    assert ids(copied.here) == [1] and pair.content(block) == data
    assert pair.waited == [CHUNK_BYTES, CHUNK_BYTES, 5]


def test_what_is_missing_or_damaged_at_the_source_does_not_keep_the_others(pair: Pair) -> None:
    good, bad, gone = pair.write(1, b"x"), pair.write(2, b"y" * 5000), pair.write(3, b"z")
    volume = pair.source.volumes[0]
    volume.final_path(2, 1).write_bytes(b"n" * 5000)
    pair.source.remove([gone.ref])
    copied = pair.copy(good, bad, gone)
    assert ids(copied.here) == [1]
    assert ids(copied.failed) == [2, 3]
    assert {(b.block.block_id, b.reason) for b in copied.bad} == {(2, "corrupt"), (3, "missing")}
    assert pair.target.report_of(bad.ref) is None and pair.target.report_of(gone.ref) is None


def test_what_is_here_already_is_not_fetched_again(pair: Pair) -> None:
    blocks = [pair.write(n, b"x" * n) for n in (1, 2)]
    pair.write(1, b"x", pair.target)
    copied = pair.copy(*blocks)
    assert ids(copied.here) == [1, 2]
    assert pair.waited == [2]


def test_a_source_that_is_away_fails_all_of_a_batch(pair: Pair) -> None:
    blocks = [pair.write(n, b"x") for n in (1, 2)]
    pair.streams.close(1.0)
    copied = pair.copy(*blocks)
    assert not copied.here and ids(copied.failed) == [1, 2] and not copied.bad
