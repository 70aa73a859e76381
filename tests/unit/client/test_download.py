"""One file to the local disk: what a fetch leaves behind when it ends before its threads do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from twinfs.client.download import get_file
from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.config import ClientConfig
from twinfs.common.errors import BlockUnavailable
from twinfs.common.model import Block, BlockId, GenerationStamp, LocatedBlock

Sink = Callable[[int, memoryview], None]
Read = Callable[[LocatedBlock, int, Sink], None]


class Nodes:
    """A session whose reads are those of a test."""

    def __init__(self, read: Read) -> None:
        self.config = ClientConfig(all_replicas="never")
        self.blocks = self
        self._read = read
        self._threads = ThreadPoolExecutor(4)

    async def run(self, call: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def read(self, located: LocatedBlock, start: int, size: int, sink: Sink) -> None:
        self._read(located, start, sink)


def block(number: int, offset: int = 0) -> LocatedBlock:
    found = Block(
        block_id=BlockId(number),
        generation=GenerationStamp(1),
        length=CHUNK_BYTES,
        digest=bytes(32),
    )
    return LocatedBlock(block=found, offset=offset, nodes=[])


async def test_a_thread_that_is_late_writes_to_nobody_elses_file(tmp_path: Path) -> None:
    """The number of a closed descriptor is the next file's: what a thread still brings must not land in it."""
    begun, let, ended = threading.Event(), threading.Event(), threading.Event()

    def read(located: LocatedBlock, start: int, sink: Sink) -> None:
        if located.offset == 0:
            begun.wait()
            raise BlockUnavailable("no DataNode that holds it is alive")
        begun.set()
        let.wait()
        try:
            sink(start, memoryview(b"late"))
        finally:
            ended.set()

    session: Any = Nodes(read)
    try:
        with pytest.raises(BlockUnavailable):
            blocks = [block(1), block(2, CHUNK_BYTES)]
            await get_file(session, blocks, 2 * CHUNK_BYTES, tmp_path / "file")
        others = [(tmp_path / f"other{number}").open("wb") for number in range(8)]
        let.set()
        ended.wait()
        for other in others:
            other.close()
        assert [path.stat().st_size for path in tmp_path.iterdir()] == [0] * 8
    finally:
        let.set()


async def test_two_that_fetch_the_same_file_do_not_share_an_unfinished_one(tmp_path: Path) -> None:
    goal = tmp_path / "file"
    data = {number: bytes((number,)) * CHUNK_BYTES for number in (1, 2)}
    came, done = {1: threading.Event(), 2: threading.Event()}, threading.Event()

    def read(located: LocatedBlock, start: int, sink: Sink) -> None:
        number = located.block.block_id
        if number == 2:
            came[1].wait()
        sink(start, memoryview(data[number]))
        came[number].set()
        (came[2] if number == 1 else done).wait()

    session: Any = Nodes(read)
    try:
        first = asyncio.ensure_future(get_file(session, [block(1)], CHUNK_BYTES, goal))
        await asyncio.to_thread(came[1].wait)
        second = asyncio.ensure_future(get_file(session, [block(2)], CHUNK_BYTES, goal))
        await first
        assert goal.read_bytes() == data[1]
        done.set()
        await second
        assert goal.read_bytes() == data[2]
    finally:
        for event in (*came.values(), done):
            event.set()
