"""Every CID block of a peer's own content, read from the disk and hashed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from ...common.errors import DfsError
from ...common.ipld.cid import RAW, Cid
from ..cidindex import derived
from ..content import Content
from ..index import FIRST_LOCAL_BLOCK, Replica
from ..volumes import Volume

PAGE_REPLICAS = 32  # read by one visit of a thread


class Checked(NamedTuple):
    """*bad*: a text for each block that is missing or wrong."""

    blocks: int
    size_bytes: int
    bad: list[str]


async def check_everything(content: Content) -> AsyncIterator[Checked]:
    """Page by page."""
    for volume in content.cids.store.volumes:
        after = FIRST_LOCAL_BLOCK - 1
        while not volume.failure:
            page = await content.run(volume.index.page, after, PAGE_REPLICAS)
            if not page:
                break
            yield await content.run(_check, content, volume, page)
            after = page[-1].block_id


def _check(content: Content, volume: Volume, page: list[Replica]) -> Checked:
    blocks = size_bytes = 0
    bad: list[str] = []
    for replica in page:
        names = volume.index.names_of(replica.block_id)
        # Blocks with names of their own are known by these; those made of digests, by the digests.
        for key, _, start, length in names or derived(replica):
            # What the bytes are is no part of their hash, so raw stands for all. Read where they lie: there may be other copies.
            cid = Cid(1, RAW, key[:1] + bytes((len(key) - 1,)) + key[1:])
            try:
                content.cids.read_at(cid, replica, start, length)
            except DfsError as error:
                if content.cids.store.find(replica.block_id) is None:
                    continue  # collected meanwhile
                bad.append(f"{cid}: {error.message}")
                continue
            blocks += 1
            size_bytes += length
    return Checked(blocks, size_bytes, bad)


__all__ = ["Checked", "check_everything"]
