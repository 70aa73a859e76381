"""Reading and hashing what is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ..common.content import ContentPage, ContentRow, ListContents
from ..common.errors import DfsError
from ..common.ipld import dag
from ..common.ipld.cid import RAW, Cid
from .content import ContentReader
from .content_reader import Reader
from .session import Session

AT_ONCE = 16
MAX_BLOCKS = 100_000_000
PAGE = 500


async def check_dag(reader: Reader, root: Cid, *, deep: bool = True) -> tuple[int, list[str]]:
    """(blocks read, what is wrong) of a DAG. Files are read by their leaves' places, several at a time."""
    reader.forget()
    bad: list[str] = []
    count = 0
    walk = dag.walk(root, max_blocks=MAX_BLOCKS)
    wish = next(walk, None)
    while wish is not None:
        answer: bytes | None = None
        try:
            if wish.codec != RAW and deep:
                held = await reader.find(wish)
                if held is not None and held.leaves:
                    count += await _read_file(reader, wish)
                    wish = walk.send(None)
                    continue
            answer = await reader.get(wish)
            count += 1
            if wish.codec != RAW:
                await reader.prefetch(dag.links_of(wish, answer))
        except StopIteration:
            break
        except DfsError as error:
            bad.append(_told(wish, error))
        try:
            wish = walk.send(answer if deep else None)
        except StopIteration:
            break
        except DfsError as error:
            bad.append(_told(wish, error))
            break
    return count, bad


def _told(cid: Cid, error: DfsError) -> str:
    """What is wrong with a block; many errors name it themselves."""
    return error.message if str(cid) in error.message else f"{cid}: {error.message}"


async def _read_file(reader: Reader, root: Cid) -> int:
    """How many blocks a file has; every one read and verified."""
    found = await reader.entity(root)
    count = 1
    async for _ in reader.read(found):
        count += 1
    return count


async def check_all(
    session: Session, reader: ContentReader, progress: Callable[[int], None]
) -> AsyncIterator[tuple[int, list[str]]]:
    """All that is held, page by page: (blocks read, what is wrong)."""
    after = 0
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(row: ContentRow) -> tuple[int, list[str]]:
        cid = Cid.from_bytes(row.cid)
        async with slots:
            try:
                if row.leaves:
                    count = await _read_file(reader, cid)
                else:
                    await reader.get(cid)
                    count = 1
            except DfsError as error:
                return 0, [_told(cid, error)]
            progress(row.located.block.length + sum(b.block.length for b in row.leaves or []))
            return count, []

    while True:
        reader.forget()
        page: ContentPage = await session.namenode.call(
            "list_contents", ListContents(after=after, limit=PAGE)
        )
        if not page.rows:
            return
        await reader.prefetch([Cid.from_bytes(row.cid) for row in page.rows])
        for result in await asyncio.gather(*(one(row) for row in page.rows)):
            yield result
        after = page.rows[-1].content_id
