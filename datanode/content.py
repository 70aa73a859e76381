"""CID blocks for this DataNode's event loop: from its own disks, else from whoever has them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ..common.errors import BlockNotFound, ContentNotFound, Unsupported
from ..common.ipld.cid import Cid
from .cidstore import CidStore, Opened

T = TypeVar("T")
MAX_TOGETHER = 64  # questions answered by one visit of a thread


class Remote(Protocol):
    """Blocks of others."""

    async def block(self, cid: Cid) -> bytes:
        """The verified bytes. ContentNotFound."""


class Content:
    """Asks the CID store in threads. Questions that come together share one visit of a thread."""

    def __init__(self, cids: CidStore, threads: ThreadPoolExecutor) -> None:
        self.cids = cids
        self.remote: Remote | None = None
        self._threads = threads
        self._asked: list[tuple[bytes, asyncio.Future[Opened | None]]] = []
        self._visits = 0
        self.hits = 0  # blocks that were here
        self.misses = 0

    async def run(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def open(self, hashed: bytes) -> Awaitable[Opened | None]:
        """A block of our own, to be sent as it is; its descriptor is the caller's to close."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Opened | None] = loop.create_future()
        self._asked.append((hashed, future))
        if self._visits == 0:
            self._visits = 1
            # At the end of this turn of the loop, so that what came in the same turn goes along.
            loop.call_soon(self._visit, loop)
        return future

    def _visit(self, loop: asyncio.AbstractEventLoop) -> None:
        asked, self._asked = self._asked[:MAX_TOGETHER], self._asked[MAX_TOGETHER:]

        def work() -> list[Opened | Exception | None]:
            answers: list[Opened | Exception | None] = []
            for hashed, _ in asked:
                try:
                    answers.append(self.cids.open(hashed))
                except Exception as error:
                    answers.append(error)
            return answers

        def settle(done: asyncio.Future[list[Opened | Exception | None]]) -> None:
            if self._asked:
                self._visit(loop)
            else:
                self._visits = 0
            if done.cancelled() or done.exception() is not None:
                for _, future in asked:
                    future.cancel()
                return
            for (_, future), answer in zip(asked, done.result(), strict=True):
                if answer is None:
                    self.misses += 1
                else:
                    self.hits += 1
                if future.cancelled():
                    if isinstance(answer, Opened) and answer.descriptor >= 0:
                        os.close(answer.descriptor)
                elif isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

        loop.run_in_executor(self._threads, work).add_done_callback(settle)

    async def local(self, cid: Cid) -> bytes:
        """One of our own blocks, verified. BlockNotFound, ChecksumMismatch."""
        return await self.run(self.cids.read, cid)

    async def block(self, cid: Cid) -> bytes:
        """A block, verified, wherever it is. ContentNotFound."""
        if cid.is_identity:
            return cid.digest
        try:
            found = await self.local(cid)
            self.hits += 1
            return found
        except (BlockNotFound, Unsupported):
            self.misses += 1
            if self.remote is None:
                raise ContentNotFound(f"the block {cid} is not here") from None
        return await self.remote.block(cid)

    async def put(self, blocks: Sequence[tuple[Cid, bytes | memoryview]]) -> int:
        """Keep blocks, verified and durable; how many are new."""
        return await self.run(self.cids.put, blocks)
