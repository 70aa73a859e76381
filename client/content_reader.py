"""Bytes of a UnixFS file from its blocks, wherever those come from: a few leaves ahead, in order."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from ..common.content import FoundCid
from ..common.errors import InvalidContent
from ..common.ipld import dag
from ..common.ipld.cid import Cid
from ..common.ipld.dag import Block, Entity, Entry, Part

Get = Callable[[Cid], Awaitable[Block]]


class Reader(Protocol):
    """Reads by CID, from a cluster (`content.ContentReader`) or a peer (`peer_content.PeerReader`). What it gives is verified."""

    async def get(self, cid: Cid) -> bytes: ...

    async def find(self, cid: Cid) -> FoundCid | None:
        """Where a NameNode has it."""

    async def prefetch(self, wanted: Sequence[Cid]) -> None:
        """These will be asked for."""

    def forget(self) -> None:
        """Ask anew for everything from now on."""

    async def resolve(self, root: Cid, names: list[str]) -> Cid: ...

    async def entity(self, cid: Cid) -> Entity: ...

    async def entries(self, found: Entity) -> list[Entry]: ...

    def read(
        self, found: Entity, start: int = 0, end: int | None = None
    ) -> AsyncIterator[Block]: ...


async def read_file(
    get: Get, found: Entity, start: int = 0, end: int | None = None, *, ahead: int = 4
) -> AsyncIterator[Block]:
    """The bytes *start* to *end* of a file, in pieces. *get* gives verified blocks; *ahead* of them are asked for at a time."""
    waiting: collections.deque[tuple[Part, asyncio.Future[Block] | None]] = collections.deque()
    parts = dag.file_parts(found, start, end)
    end = found.size if end is None else min(end, found.size)

    async def settled() -> Block:
        part, future = waiting.popleft()
        data = part.data if future is None else await future
        assert data is not None
        if len(data) != part.length:
            raise InvalidContent("a leaf has another length than its node says")
        first, last = max(0, start - part.offset), min(part.length, end - part.offset)
        return memoryview(data)[first:last]

    try:
        wish: Cid | Part | None = next(parts, None)
        while wish is not None:
            answer: Block | None = None
            if isinstance(wish, Part):
                future: asyncio.Future[Block] | None = None
                if wish.cid is not None:
                    future = asyncio.ensure_future(get(wish.cid))
                waiting.append((wish, future))
                if len(waiting) >= ahead:
                    yield await settled()
            else:
                answer = await get(wish)
            try:
                wish = parts.send(answer)  # type: ignore[arg-type]
            except StopIteration:
                break
        while waiting:
            yield await settled()
    finally:
        for _, future in waiting:
            if future is not None:
                future.cancel()
        await asyncio.gather(
            *(future for _, future in waiting if future is not None), return_exceptions=True
        )
