"""A DAG of UnixFS as a tar stream (POSIX pax). Names were checked by the codec: no entry leaves the folder it is in."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable

from ...client.content_reader import read_file
from ...common.errors import DagTooLarge, Unsupported
from ...common.ipld import dag
from ...common.ipld.cid import Cid
from ...common.ipld.dag import MAX_TREE_DEPTH, Block, Entity
from ...common.ipld.unixfs import Kind

BLOCK_BYTES = 512
MAX_ENTRIES = 10_000_000


def _head(name: str, kind: bytes, size: int = 0, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


async def stream(
    get: Callable[[Cid], Awaitable[Block]], entity: Entity, name: str
) -> AsyncIterator[Block]:
    """The archive, with *entity* as *name* at its top."""
    # Depth first, without recursion: hostile DAGs are deep.
    waiting: list[tuple[str, Cid, Entity | None, int]] = [(name, entity.cid, entity, 0)]
    count = 0
    while waiting:
        path, cid, known, depth = waiting.pop()
        count += 1
        if count > MAX_ENTRIES or depth > MAX_TREE_DEPTH:
            raise DagTooLarge(f"the folder {entity.cid} is too large for an archive")
        found = known or dag.entity(cid, await get(cid))
        if found.kind in (Kind.DIRECTORY, Kind.HAMT_SHARD):
            yield _head(path + "/", tarfile.DIRTYPE)
            listed = await dag.run_async(dag.entries(found), get)
            waiting += [
                (f"{path}/{entry.name}", entry.cid, None, depth + 1) for entry in reversed(listed)
            ]
        elif found.kind == Kind.SYMLINK:
            assert found.value is not None
            target = (found.value.data or b"").decode("utf-8", "surrogateescape")
            yield _head(path, tarfile.SYMTYPE, target=target)
        elif found.kind in (Kind.FILE, Kind.RAW):
            yield _head(path, tarfile.REGTYPE, found.size)
            async for piece in read_file(get, found):
                yield piece
            yield bytes(-found.size % BLOCK_BYTES)
        else:
            raise Unsupported(f"{found.cid} is nothing that an archive can hold")
    yield bytes(2 * BLOCK_BYTES)


__all__ = ["stream"]
