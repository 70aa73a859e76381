"""Reading a file: every byte from the right block, pieces in parallel, a slow replica overtaken and never heard again.

Method: a made-up session whose replicas are functions in threads, no sockets; the reader can't tell.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from twinfs.client.file_reader import FileReader
from twinfs.client.session import Session
from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.config import ClientConfig
from twinfs.common.errors import BlockUnavailable
from twinfs.common.messages import Locate
from twinfs.common.model import (
    Block,
    BlockId,
    FileBlocks,
    FileStatus,
    GenerationStamp,
    INodeId,
    LocatedBlock,
    NodeAddress,
    NodeId,
)
from twinfs.common.runtime import SystemClock

LIMIT_S = 30.0


def node(number: int) -> NodeAddress:
    return NodeAddress(node_id=NodeId(number), host="h", data=f"h:{number}", http=f"h:{number}")


class World:
    """A file of several blocks, its replicas, and the session that a reader of it sees."""

    def __init__(self, lengths: Sequence[int], replicas: int) -> None:
        rng = random.Random(7)
        self.content = rng.randbytes(sum(lengths))
        self.clock = SystemClock()
        self.config = ClientConfig()
        self.threads = ThreadPoolExecutor(8)
        self.blocks = SimpleNamespace(read=self._read)
        self.namenode = SimpleNamespace(call=self._call)
        self.local = False
        self.pool = SimpleNamespace(is_local=lambda node: self.local)
        self.requests: list[tuple[int, int, int]] = []  # block, offset, length
        # What a replica does before each chunk; raising is a failure of it.
        self.before_chunk: Callable[[int], None] = lambda node_id: None
        self.offsets: dict[int, int] = {}
        located = []
        offset = 0
        for number, length in enumerate(lengths):
            self.offsets[number] = offset
            located.append(
                LocatedBlock(
                    block=Block(
                        block_id=BlockId(number),
                        generation=GenerationStamp(1),
                        length=length,
                        digest=bytes(32),
                    ),
                    offset=offset,
                    nodes=[node(n) for n in range(1, replicas + 1)],
                )
            )
            offset += length
        status = FileStatus(
            path="/f",
            type="file",
            length=offset,
            owner="o",
            group="g",
            mode=0o644,
            mtime_ms=0,
            atime_ms=0,
            inode_id=INodeId(1),
        )
        self.file = FileBlocks(status=status, blocks=located)

    def reader(self) -> FileReader:
        return FileReader(cast(Session, self), self.file)

    def start(self, call: Callable[[], None]) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self.threads, call)

    async def _call(self, operation: str, request: Locate) -> FileBlocks:
        assert operation == "locate"
        return self.file

    def _read(
        self,
        located: LocatedBlock,
        offset: int,
        length: int,
        sink: Callable[[int, memoryview], None],
        *,
        nodes: Sequence[NodeAddress],
    ) -> None:
        """As `BlockReader.read`, from the first of *nodes* only."""
        number = located.block.block_id
        self.requests.append((number, offset, length))
        at, end = offset, offset + length
        while at < end:
            self.before_chunk(nodes[0].node_id)
            high = min(end, (at // CHUNK_BYTES + 1) * CHUNK_BYTES)
            base = self.offsets[number]
            sink(at, memoryview(self.content)[base + at : base + high])
            at = high


@pytest.fixture
async def world(request: Any) -> AsyncIterator[World]:
    lengths, replicas = request.param
    made = World(lengths, replicas)
    yield made
    await asyncio.to_thread(made.threads.shutdown)


RAGGED = ([5 * CHUNK_BYTES + 17, 1, 9 * CHUNK_BYTES, 3 * CHUNK_BYTES - 5], 1)
SMALL = ([6 * CHUNK_BYTES], 2)


@pytest.mark.parametrize("world", [RAGGED], indirect=True)
async def test_any_range_is_the_bytes_of_that_range(world: World) -> None:
    rng = random.Random(3)
    reader = world.reader()
    size = len(world.content)
    for _ in range(60):
        offset = rng.randrange(size)
        length = rng.choice([1, 100, CHUNK_BYTES, 5 * CHUNK_BYTES, size])
        assert await reader.pread(offset, length) == world.content[offset : offset + length]
    await reader.close()


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("world", [RAGGED], indirect=True)
async def test_many_ranges_at_once_are_the_bytes_of_each(world: World, local: bool) -> None:
    rng = random.Random(4)
    world.local = local
    size = len(world.content)
    ranges = [(rng.randrange(size + 10), rng.choice([0, 1, 65_536])) for _ in range(40)]
    async with world.reader() as reader:
        found = await reader.pread_many(ranges)
        assert await reader.pread_many([]) == []
    assert found == [world.content[offset : offset + length] for offset, length in ranges]


@pytest.mark.parametrize("buffer_bytes", [1_000_003, 4 * CHUNK_BYTES, 7 * CHUNK_BYTES + 3])
@pytest.mark.parametrize("world", [RAGGED], indirect=True)
async def test_reading_into_one_buffer_gives_the_file(world: World, buffer_bytes: int) -> None:
    found, buffer = bytearray(), bytearray(buffer_bytes)
    async with world.reader() as reader:
        while count := await reader.readinto(buffer):
            found += buffer[:count]
            assert reader.tell() == len(found)
    assert found == world.content


@pytest.mark.parametrize("world", [SMALL], indirect=True)
async def test_a_large_read_goes_in_pieces_and_fetches_no_chunk_twice(world: World) -> None:
    """Pieces end where chunks end: verifying one needs all of it."""
    buffer = bytearray(5 * CHUNK_BYTES)
    async with world.reader() as reader:
        reader.seek(CHUNK_BYTES // 2)
        assert await reader.readinto(buffer) == len(buffer)
    assert buffer == world.content[CHUNK_BYTES // 2 :][: len(buffer)]
    assert len(world.requests) > 1
    ends = [offset + length for _, offset, length in sorted(world.requests)]
    assert all(end % CHUNK_BYTES == 0 for end in ends[:-1])


@pytest.mark.parametrize("world", [RAGGED], indirect=True)
async def test_one_failed_piece_fails_the_read(world: World) -> None:
    def refuse(node_id: int) -> None:
        raise BlockUnavailable("gone")

    world.before_chunk = refuse
    async with world.reader() as reader:
        with pytest.raises(BlockUnavailable):
            await reader.readinto(bytearray(len(world.content)))
        assert reader.tell() == 0


@pytest.mark.parametrize("world", [SMALL], indirect=True)
async def test_a_slow_replica_is_overtaken_and_writes_nothing_later(world: World) -> None:
    """The caller uses its buffer again while the slow replica's thread still runs: not a byte may change.

    Method: the first replica waits before its second chunk until the caller has the bytes from the other one
    and has filled the buffer with its own.
    """
    release, done = threading.Event(), threading.Event()
    slow = iter(range(1_000))

    def before(node_id: int) -> None:
        if node_id == 1 and next(slow) > 0:
            assert release.wait(LIMIT_S)
            done.set()

    world.before_chunk = before
    buffer = bytearray(2 * CHUNK_BYTES)
    async with world.reader() as reader:
        await reader._fill(0, memoryview(buffer))
        assert buffer == world.content[: len(buffer)]
        buffer[:] = bytes(len(buffer))
        release.set()
        assert await asyncio.to_thread(done.wait, LIMIT_S)
        await asyncio.to_thread(world.threads.shutdown)
    assert not any(buffer)


@pytest.mark.parametrize("world", [SMALL], indirect=True)
async def test_a_cancelled_read_writes_nothing_later(world: World) -> None:
    began, release = threading.Event(), threading.Event()

    def before(node_id: int) -> None:
        began.set()
        assert release.wait(LIMIT_S)

    world.before_chunk = before
    buffer = bytearray(4 * CHUNK_BYTES)
    async with world.reader() as reader:
        task = asyncio.create_task(reader.readinto(buffer))
        assert await asyncio.to_thread(began.wait, LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        await asyncio.to_thread(world.threads.shutdown)
    assert not any(buffer)
