"""A file open for reading: verified, read ahead, from another replica when one fails or is slow."""

from __future__ import annotations

import asyncio
import bisect
import collections
import functools
import io
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Executor
from types import TracebackType
from typing import Any

from ..common.checksum import CHUNK_BYTES
from ..common.errors import BlockUnavailable, DfsError, InvalidRequest
from ..common.messages import Locate
from ..common.model import FileBlocks, FileStatus, LocatedBlock, NodeAddress
from .block_reader import Sink
from .hedging import Hedging
from .landing import Landing
from .session import Session

SEGMENT_BYTES = 4 * CHUNK_BYTES  # asked for at once when reading ahead
LEAST_PIECE_BYTES = 2 * CHUNK_BYTES  # of a large read, which several threads share
# At once: more threads would only push each other's bytes out of the processors' caches.
LOCAL_READS = 8
AHEAD = 3  # segments in flight in a sequential read


async def _at_most(count: int, jobs: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run *jobs*, *count* at a time; the first failure ends the others."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job

    tasks = [asyncio.create_task(work()) for _ in range(min(count, len(jobs)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in waiting:
            job.close()


class FileReader:
    """What `open(path, "rb")` gives. Reads the file as it was when it was opened; not to be shared between tasks."""

    def __init__(self, session: Session, located: FileBlocks) -> None:
        self._session = session
        self._located = located
        self._starts = [block.offset for block in located.blocks]
        self._position = 0
        self._ahead: collections.OrderedDict[int, asyncio.Task[bytes]] = collections.OrderedDict()
        self._hedging = Hedging()
        self._sequential_until = 0
        self.closed = False

    @property
    def status(self) -> FileStatus:
        """As of the opening."""
        return self._located.status

    @property
    def located(self) -> FileBlocks:
        """Where the blocks were, when they were last asked for."""
        return self._located

    @property
    def length(self) -> int:
        if not self._located.blocks:
            return 0
        last = self._located.blocks[-1]
        return last.offset + last.block.length

    async def __aenter__(self) -> FileReader:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._lines()

    async def _lines(self) -> AsyncIterator[bytes]:
        while line := await self.readline():
            yield line

    # --- position ---

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """As `io.IOBase.seek`; beyond the end is allowed, and reads nothing there."""
        base = {0: 0, 1: self._position, 2: self.length}.get(whence)
        if base is None:
            raise InvalidRequest("whence must be 0, 1 or 2")
        if base + offset < 0:
            raise InvalidRequest("can't seek to before the beginning")
        self._position = base + offset
        return self._position

    # --- reading ---

    async def read(self, size: int = -1) -> bytes:
        """Up to *size* bytes from the position (all that are left for -1); less only at the end.

        For many bytes `readinto` is faster: they are brought where they are wanted.
        """
        self._require_open()
        left = max(0, self.length - self._position)
        size = left if size < 0 else min(size, left)
        if not size:
            return b""
        if self._position == self._sequential_until and size < SEGMENT_BYTES:
            data = await self._read_ahead(self._position, size)
        else:
            data = await self.pread(self._position, size)
        self._position += len(data)
        self._sequential_until = self._position
        return data

    async def readinto(self, buffer: bytearray | memoryview) -> int:
        view = memoryview(buffer).cast("B")
        if len(view) < SEGMENT_BYTES:
            data = await self.read(len(view))
            view[: len(data)] = data
            return len(data)
        self._require_open()
        view = view[: max(0, self.length - self._position)]
        await self._fill(self._position, view)
        self._position += len(view)
        self._sequential_until = self._position
        return len(view)

    async def readline(self, limit: int = -1) -> bytes:
        """One line with its newline; b"" at the end."""
        self._require_open()
        parts: list[bytes] = []
        start = self._position
        at = start
        while at < self.length and (limit < 0 or at - start < limit):
            segment = await self._segment(at // SEGMENT_BYTES)
            low = at % SEGMENT_BYTES
            end = segment.find(b"\n", low) + 1
            high = end or len(segment)
            if limit >= 0:
                high = min(high, low + limit - (at - start))
            parts.append(segment[low:high])
            at += high - low
            if end and high == end:
                break
        self._position = self._sequential_until = at
        return b"".join(parts)

    async def pread(self, offset: int, length: int) -> bytes:
        """Bytes of a range, cut at the end of the file; leaves the position alone."""
        # A buffer that becomes the answer: copying it once more takes as long as reading.
        target = io.BytesIO(bytes(self._within(offset, length)))
        await self._fill(offset, target.getbuffer())
        return target.getvalue()

    async def pread_into(self, offset: int, buffer: memoryview) -> int:
        """As `pread`, into memory of the caller's; how many bytes there were."""
        size = self._within(offset, len(buffer))
        await self._fill(offset, buffer[:size])
        return size

    def _within(self, offset: int, length: int) -> int:
        """How many of *length* bytes from *offset* on the file has."""
        self._require_open()
        if offset < 0:
            raise InvalidRequest("an offset can't be negative")
        return max(0, min(self.length - offset, length))

    async def pread_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """As `pread` for each (offset, length): all asked for at once; of replicas on this machine, which are only read and hashed,
        no more than there is use for."""
        found = [b""] * len(ranges)

        async def one(index: int) -> None:
            found[index] = await self.pread(*ranges[index])

        nodes = [block.nodes[0] for block in self._located.blocks if block.nodes]
        local = all(self._session.pool.is_local(node) for node in nodes)
        most = LOCAL_READS if local else max(1, len(ranges))
        # Those that begin together lie far apart: else all would open the replica of the same block first.
        places = range(len(ranges))
        await _at_most(
            most, [one(index) for first in places[:most] for index in places[first::most]]
        )
        return found

    async def _fill(self, offset: int, target: memoryview) -> None:
        """Bring the range at *offset*, which lies within the file, into *target*: in pieces, several at once."""
        end = offset + len(target)
        # Each is hashed here: more at once than there are processors get in each other's way.
        parallel = min(self._session.config.parallel_blocks, max(2, os.cpu_count() or 1))
        piece = max(LEAST_PIECE_BYTES, -(-len(target) // parallel))
        piece = -(-piece // CHUNK_BYTES) * CHUNK_BYTES
        jobs = []
        index = max(0, bisect.bisect_right(self._starts, offset) - 1)
        while index < len(self._located.blocks):
            block = self._located.blocks[index]
            low = max(offset, block.offset)
            high = min(end, block.offset + block.block.length)
            if block.offset >= end:
                break
            while low < high:
                # At the ends of chunks, so that none is fetched twice.
                stop = block.offset + (low - block.offset + piece) // CHUNK_BYTES * CHUNK_BYTES
                stop = min(stop, high)
                jobs.append(
                    self._range(index, low - block.offset, target[low - offset : stop - offset])
                )
                low = stop
            index += 1
        if len(jobs) == 1:
            await jobs[0]
        elif jobs:
            await _at_most(parallel, jobs)

    async def _range(self, index: int, start: int, target: memoryview) -> None:
        """Fill *target* from a block; with fresh locations once, if all replicas known fail."""
        try:
            await self._hedged(self._located.blocks[index], start, target)
        except BlockUnavailable:
            if not await self._locate_again(index):
                raise
            await self._hedged(self._located.blocks[index], start, target)

    async def stream(self, start: int, end: int, sink: Sink, threads: Executor) -> None:
        """Give the bytes from *start* to *end*, verified, to *sink* in order; it is called in one of *threads*, with (offset in the
        block, bytes), and may take its time. What it raises ends the stream."""
        self._require_open()
        index = max(0, bisect.bisect_right(self._starts, start) - 1)
        loop = asyncio.get_running_loop()
        while start < min(end, self.length):
            block = self._located.blocks[index]
            reached = start - block.offset

            def take(at: int, view: memoryview) -> None:
                nonlocal reached
                sink(at, view)
                reached = at + len(view)

            def work(located: LocatedBlock, low: int, high: int) -> None:
                self._session.blocks.read(located, low, high - low, take)

            high = min(end - block.offset, block.block.length)
            try:
                await loop.run_in_executor(threads, work, block, reached, high)
            except BlockUnavailable:
                if not await self._locate_again(index):
                    raise
                again = self._located.blocks[index]
                await loop.run_in_executor(threads, work, again, reached, high)
            start = block.offset + high
            index += 1

    async def _locate_again(self, index: int) -> bool:
        """Ask where the blocks are now; False if the file is another one by now."""
        known = self._located
        path = known.status.path
        fresh: FileBlocks = await self._session.namenode.call("locate", Locate(path=path))
        if fresh.status.inode_id != known.status.inode_id or len(fresh.blocks) <= index:
            return False
        old, new = known.blocks[index], fresh.blocks[index]
        if new.offset != old.offset or new.block.length < old.block.length:
            return False
        blocks = list(known.blocks)
        blocks[index] = LocatedBlock(
            block=new.block,
            offset=new.offset,
            nodes=new.nodes,
            under_construction=new.under_construction,
        )
        self._located = FileBlocks(status=known.status, blocks=blocks)
        return True

    async def _hedged(self, located: LocatedBlock, start: int, target: memoryview) -> None:
        """Read; when that takes unusually long, ask another replica too, and take whichever comes first."""
        clock = self._session.clock
        began_s = clock.monotonic_s()
        landings = [Landing(target, start)]
        tasks = [self._read_from(located, landings[0], located.nodes)]
        error: DfsError | None = None
        try:
            if len(located.nodes) > 1:
                done, _ = await asyncio.wait(tasks, timeout=self._hedging.delay_s())
                if not done:
                    others = [*located.nodes[1:], located.nodes[0]]
                    landings.append(Landing(memoryview(bytearray(len(target))), start))
                    tasks.append(self._read_from(located, landings[1], others))
            waiting = set(tasks)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        task.result()
                    except DfsError as failed:
                        error = failed
                        continue
                    if task is not tasks[0]:
                        landings[0].close()
                        target[:] = landings[1].view
                    self._hedging.took(clock.monotonic_s() - began_s)
                    return
            assert error is not None
            raise error
        finally:
            for landing in landings:
                landing.close()
            for task in tasks:
                if not task.done():
                    # Its thread ends by itself: it finds nowhere to land.
                    task.cancel()
                elif not task.cancelled():
                    task.exception()

    def _read_from(
        self, located: LocatedBlock, landing: Landing, nodes: list[NodeAddress]
    ) -> asyncio.Future[None]:
        return self._session.start(
            functools.partial(
                self._session.blocks.read,
                located,
                landing.start,
                len(landing.view),
                landing,
                nodes=nodes,
            )
        )

    # --- reading ahead ---

    async def _read_ahead(self, offset: int, size: int) -> bytes:
        parts = []
        end = offset + size
        while offset < end:
            number = offset // SEGMENT_BYTES
            segment = await self._segment(number)
            low = offset - number * SEGMENT_BYTES
            high = min(len(segment), end - number * SEGMENT_BYTES)
            parts.append(segment if high - low == len(segment) else segment[low:high])
            offset += high - low
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _segment(self, number: int) -> bytes:
        """One segment of the file; those after it are begun."""
        last = (self.length - 1) // SEGMENT_BYTES
        for wanted in range(number, min(last, number + AHEAD) + 1):
            if wanted not in self._ahead:
                self._ahead[wanted] = asyncio.create_task(
                    self.pread(wanted * SEGMENT_BYTES, SEGMENT_BYTES)
                )
        for old in [key for key in self._ahead if key < number - 1 or key > number + AHEAD]:
            await self._drop(self._ahead.pop(old))
        try:
            return await asyncio.shield(self._ahead[number])
        except DfsError:
            self._ahead.pop(number, None)
            raise

    @staticmethod
    async def _drop(task: asyncio.Task[bytes]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _require_open(self) -> None:
        if self.closed:
            raise InvalidRequest(f"{self.status.path} is closed")

    async def close(self) -> None:
        self.closed = True
        while self._ahead:
            await self._drop(self._ahead.popitem()[1])
