"""Which blocks a CAR has, and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from ...common.errors import Unsupported
from ...common.ipld import car, dag
from ...common.ipld.cid import Cid
from ...common.ipld.dag import Block, Resolved
from ...common.ipld.unixfs import Kind
from .asked import Asked, entity_range

MAX_CAR_BLOCKS = 50_000_000


async def car_blocks(
    found: Resolved, root: Block, asked: Asked, get: Callable[[Cid], Awaitable[Block]]
) -> AsyncIterator[tuple[Cid, Block]]:
    """The blocks of a CAR, in order: those on the way, then the entity's, depth first."""
    options = asked.car
    seen: set[bytes] = set()

    def wanted(cid: Cid) -> bool:
        if cid.is_identity:
            return False
        if options.dups:
            return True
        name = bytes(cid.v1)
        if name in seen:
            return False
        seen.add(name)
        return True

    for cid in found.passed:
        if wanted(cid):
            yield cid, await get(cid)
    if options.scope == "all":
        walk = dag.walk(found.cid, max_blocks=MAX_CAR_BLOCKS, unique=not options.dups)
        wish = next(walk, None)
        while wish is not None:
            block = root if wish == found.cid else await get(wish)
            if wanted(wish):
                yield wish, block
            try:
                wish = walk.send(block)
            except StopIteration:
                return
        return
    if wanted(found.cid):
        yield found.cid, root
    if options.scope == "block":
        return
    try:
        entity = dag.entity(found.cid, root)
    except Unsupported:
        return
    if entity.kind == Kind.HAMT_SHARD:
        listing = dag.entries(entity)
        wish = next(listing, None)
        while wish is not None:
            block = await get(wish)
            if wanted(wish):
                yield wish, block
            try:
                wish = listing.send(block)
            except StopIteration:
                return
        return
    if entity.kind not in (Kind.FILE, Kind.RAW) or entity.node is None:
        return
    start, end = entity_range(options, entity.size)
    parts = dag.file_parts(entity, start, end)
    step = next(parts, None)
    while step is not None:
        leaf = step if isinstance(step, Cid) else step.cid
        answer: Block | None = None
        if leaf is not None:
            answer = await get(leaf)
            if wanted(leaf):
                yield leaf, answer
        try:
            step = parts.send(answer if isinstance(step, Cid) else None)  # type: ignore[arg-type]
        except StopIteration:
            return


async def frames(blocks: AsyncIterator[tuple[Cid, Block]]) -> AsyncIterator[Block]:
    async for cid, data in blocks:
        yield car.frame_head(cid, len(data)) + bytes(data)


__all__ = ["car_blocks", "frames"]
