"""CID blocks of a cluster, verified: by the NameNode's word, by asking DataNodes, at last through their gateways."""

from __future__ import annotations

import asyncio
import bisect
import collections
import contextlib
from collections.abc import AsyncIterator, Sequence
from types import TracebackType

import aiohttp

from ..common.codec import MSGPACK, pack, unpack
from ..common.content import FindBlocks, FindCids, FoundBlocks, FoundCid, FoundCids
from ..common.errors import ChecksumMismatch, ContentNotFound, DfsError, InvalidContent
from ..common.ipld import cid as cids
from ..common.ipld import dag
from ..common.ipld.cid import Cid
from ..common.ipld.dag import Entity, Entry, Part
from ..common.messages import ClusterReport, GetReport
from ..common.model import BlockId, LocatedBlock
from ..common.peering import FindPlaces, FoundPlaces
from .session import Session

KNOWN = 20_000  # CIDs whose places are remembered
CACHED_BYTES = 32 * 1024 * 1024  # of blocks with links, which are asked for again and again
NODES_MEMORY_S = 30.0
ASK_TIMEOUT_S = 10.0
GATEWAY_TIMEOUT_S = 30.0
AHEAD = 6
BATCH = 1_000


class ContentReader:
    """Reads by CID. Every block is verified against its CID before anything is made of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._http: aiohttp.ClientSession | None = None
        self._found: collections.OrderedDict[bytes, FoundCid | None] = collections.OrderedDict()
        self._cache: collections.OrderedDict[bytes, bytes] = collections.OrderedDict()
        self._cached_bytes = 0
        self._nodes: list[str] = []
        self._nodes_until_s = 0.0

    async def __aenter__(self) -> ContentReader:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    # --- blocks ---

    async def get(self, cid: Cid) -> bytes:
        """The block of *cid*. ContentNotFound when nobody has it; ChecksumMismatch when all who do have it wrong."""
        if cid.is_identity:
            return cid.digest
        cached = self._cache.get(cid.multihash)
        if cached is not None:
            self._cache.move_to_end(cid.multihash)
            return cached
        found = await self.find(cid)
        if found is None:
            return await self._elsewhere(cid)
        data = await self._read(found.located, 0, found.located.block.length)
        cids.verify(cid, data)
        self._remember(cid, data)
        return data

    def _remember(self, cid: Cid, data: bytes) -> None:
        if cid.codec == cids.RAW or len(data) > CACHED_BYTES // 8:
            return
        self._cache[cid.multihash] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > CACHED_BYTES:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])

    async def find(self, cid: Cid) -> FoundCid | None:
        """Where the NameNode has it, as a block of its own; files with their leaves."""
        if cid.multihash not in self._found:
            await self.prefetch([cid])
        return self._found.get(cid.multihash)

    async def prefetch(self, wanted: Sequence[Cid]) -> None:
        """Ask for the places of many at once."""
        keys = list(
            dict.fromkeys(
                c.multihash for c in wanted if not c.is_identity and c.multihash not in self._found
            )
        )
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            answer: FoundCids = await self._session.namenode.call(
                "find_cids", FindCids(multihashes=part, files=True)
            )
            self._found.update(zip(part, answer.found, strict=True))
        while len(self._found) > KNOWN:
            self._found.popitem(last=False)

    def forget(self) -> None:
        """Ask anew for everything from now on."""
        self._found.clear()
        self._cache.clear()
        self._cached_bytes = 0

    async def _read(self, located: LocatedBlock, offset: int, length: int) -> bytes:
        out = bytearray(length)

        def sink(at: int, view: memoryview) -> None:
            out[at - offset : at - offset + len(view)] = view

        if length:
            await self._session.run(self._session.blocks.read, located, offset, length, sink)
        return bytes(out)

    # --- what the NameNode does not know as a block ---

    async def _elsewhere(self, cid: Cid) -> bytes:
        with contextlib.suppress(DfsError):
            place = (await self.places([cid]))[0]
            if place is not None:
                located, offset, length = place
                data = await self._read(located, offset, length)
                cids.verify(cid, data)
                return data
        return await self._from_gateways(cid)

    async def places(self, wanted: Sequence[Cid]) -> list[tuple[LocatedBlock, int, int] | None]:
        """Where DataNodes have these as chunks or small blocks of the cluster: (block, offset, length)."""
        found: dict[bytes, tuple[int, int, int]] = {}
        nodes = await self._live()
        keys = list(dict.fromkeys(cid.multihash for cid in wanted if not cid.is_identity))
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            answers = await asyncio.gather(*(self._ask(node, part) for node in nodes))
            for answer in answers:
                for key, place in zip(part, answer, strict=False):
                    if place is not None and key not in found:
                        found[key] = place
        blocks = list(dict.fromkeys(place[0] for place in found.values()))
        located: dict[int, LocatedBlock] = {}
        for start in range(0, len(blocks), BATCH):
            ids = [BlockId(block_id) for block_id in blocks[start : start + BATCH]]
            known: FoundBlocks = await self._session.namenode.call(
                "find_blocks", FindBlocks(blocks=ids)
            )
            located.update((b.block.block_id, b) for b in known.located if b is not None)
        result: list[tuple[LocatedBlock, int, int] | None] = []
        for cid in wanted:
            at = found.get(cid.multihash)
            block = located.get(at[0]) if at is not None else None
            if at is None or block is None or at[1] + at[2] > block.block.length:
                result.append(None)
            else:
                result.append((block, at[1], at[2]))
        return result

    async def _live(self) -> list[str]:
        """HTTP addresses of the DataNodes that live."""
        now_s = self._session.clock.monotonic_s()
        if now_s > self._nodes_until_s:
            report: ClusterReport = await self._session.namenode.call(
                "report", GetReport(counts=False)
            )
            self._nodes = [n.address.http for n in report.nodes if n.state != "dead"]
            self._nodes_until_s = now_s + NODES_MEMORY_S
        return self._nodes

    def _client(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(auto_decompress=False)
        return self._http

    async def _ask(self, node: str, keys: list[bytes]) -> list[tuple[int, int, int] | None]:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                async with self._client().post(
                    f"http://{node}/v1/cids/find",
                    data=pack(FindPlaces(keys=keys)),
                    headers={"Content-Type": MSGPACK},
                    allow_redirects=False,
                ) as response:
                    if response.status != 200:
                        return []
                    body = await response.content.read(1024 * 1024)
            answer = unpack(body, FoundPlaces)
        except (TimeoutError, OSError, aiohttp.ClientError, DfsError):
            # Whoever asks for many is not to wait for it each time.
            self._nodes = [other for other in self._nodes if other != node]
            return []
        return [None if p is None else (p.block_id, p.offset, p.length) for p in answer.places]

    async def _from_gateways(self, cid: Cid) -> bytes:
        """Through a DataNode's gateway, which may know others outside the cluster."""
        reason = "the cluster does not hold it, and no peer of its DataNodes gave it"
        for node in (await self._live())[:3]:
            data = bytearray()
            try:
                async with asyncio.timeout(GATEWAY_TIMEOUT_S):
                    async with self._client().get(
                        f"http://{node}/ipfs/{cid.v1}?format=raw", allow_redirects=False
                    ) as response:
                        if response.status != 200:
                            continue
                        async for piece in response.content.iter_chunked(64 * 1024):
                            data += piece
                            if len(data) > cids.MAX_BLOCK_BYTES:
                                raise InvalidContent("a gateway sent more than a block")
                cids.verify(cid, data)
                return bytes(data)
            except (TimeoutError, OSError, aiohttp.ClientError) as error:
                reason = f"{node}: {error or type(error).__name__}"
            except (InvalidContent, ChecksumMismatch) as error:
                reason = f"{node}: {error.message}"
        raise ContentNotFound(f"{cid}: {reason}")

    # --- files and directories ---

    async def resolve(self, root: Cid, names: list[str]) -> Cid:
        return (await dag.run_async(dag.resolve(root, names), self.get)).cid

    async def entity(self, cid: Cid) -> Entity:
        """What a CID is in UnixFS. For a raw leaf its block is read."""
        return dag.entity(cid, await self.get(cid))

    async def entries(self, found: Entity) -> list[Entry]:
        """A directory's entries, shards fetched as needed, by name."""
        listed = await dag.run_async(dag.entries(found), self.get)
        return sorted(listed, key=lambda entry: entry.name.encode())

    async def read(
        self, found: Entity, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes | memoryview]:
        """The bytes *start* to *end* of a file, in order, a few leaves ahead."""
        places = await self._leaves(found.cid)
        waiting: collections.deque[tuple[Part, asyncio.Future[bytes] | None]] = collections.deque()
        stop = found.size if end is None else min(end, found.size)

        async def settled() -> memoryview:
            part, future = waiting.popleft()
            data = part.data if future is None else await future
            assert data is not None
            if len(data) != part.length:
                raise InvalidContent("a leaf has another length than its node says")
            first, last = max(0, start - part.offset), min(part.length, stop - part.offset)
            return memoryview(data)[first:last]

        parts = dag.file_parts(found, start, end)
        try:
            wish = next(parts, None)
            while wish is not None:
                answer = None
                if isinstance(wish, Part):
                    future = None
                    if wish.cid is not None:
                        future = asyncio.ensure_future(self._leaf(wish.cid, wish, places))
                    waiting.append((wish, future))
                    if len(waiting) >= AHEAD:
                        yield await settled()
                else:
                    answer = await self.get(wish)
                try:
                    wish = parts.send(answer)  # type: ignore[arg-type]
                except StopIteration:
                    break
            while waiting:
                yield await settled()
        finally:
            tasks = [future for _, future in waiting if future is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _leaves(self, root: Cid) -> list[LocatedBlock]:
        """The blocks whose chunks are a file's leaves, where the NameNode knows them."""
        if root.is_identity:
            return []
        found = await self.find(root)
        return (found.leaves or []) if found is not None else []

    async def _leaf(self, cid: Cid, part: Part, places: list[LocatedBlock]) -> bytes:
        index = bisect.bisect_right(places, part.offset, key=lambda b: b.offset) - 1
        if index >= 0:
            place = places[index]
            at = part.offset - place.offset
            if at + part.length <= place.block.length:
                data = await self._read(place, at, part.length)
                with contextlib.suppress(ChecksumMismatch):
                    cid.verify(data)
                    return data
        return await self.get(cid)
