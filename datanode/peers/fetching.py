"""Whole DAGs from other peers into this one: many blocks at a time, leaves in place, going on after interruptions."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ...client.exchange import Exchange
from ...common.checksum import CHUNK_BYTES
from ...common.errors import DagTooLarge, DfsError
from ...common.ipld import dag
from ...common.ipld.cid import RAW, Cid
from ...common.runtime import new_uuid
from ..cidstore import NO_BLOCK, Opened
from ..claims import Claims
from ..content import Content
from ..volumes import Volume
from .partial import MAX_SLOTS, Partial

log = logging.getLogger(__name__)
WINDOW_BLOCKS = 32  # in flight or waiting for the disk: bounds memory to 64 MiB
BATCH_BYTES = 4 * 1024 * 1024
MAX_BLOCKS = 50_000_000
MAX_OPEN_PARTIALS = 64


@dataclass(slots=True)
class Progress:
    """Of one fetch. *blocks* and *size_bytes* that came from others; *here*: blocks that were here already."""

    blocks: int = 0
    size_bytes: int = 0
    here: int = 0
    resumed: int = 0


class Fetcher:
    """Fetches DAGs into the store of this peer."""

    def __init__(self, content: Content, exchange: Exchange) -> None:
        self._content = content
        self._exchange = exchange
        self._partials: dict[bytes, Partial] = {}  # leaf -> the file it goes into
        self._open: list[Partial] = []
        content.cids.arriving = self._open_leaf

    def _open_leaf(self, hashed: bytes) -> Opened | None:
        """A leaf of a file that is not whole yet: what was fetched can be provided. In a thread."""
        partial = self._partials.get(hashed)
        if partial is None:
            return None
        if (found := partial.opened(hashed)) is None:
            return self._content.cids.open_kept(hashed)  # the last leaf may have come just now
        descriptor, start, length = found
        return Opened(NO_BLOCK, start, length, None, descriptor)

    @property
    def claims(self) -> Claims:
        return self._content.cids.claims

    async def start(self) -> None:
        """Find what earlier fetches left."""
        self._open = await self._content.run(self._find_partials)
        for partial in self._open:
            for cid, _ in partial.slots:
                self._partials[cid.multihash] = partial

    def _find_partials(self) -> list[Partial]:
        found = []
        for volume in self._content.cids.store.volumes:
            for listing in sorted((volume.path / "fetching").glob("*.json"))[:MAX_OPEN_PARTIALS]:
                partial = Partial.resume(listing, volume)
                if partial is not None and partial.wanted():
                    found.append(partial)
                elif partial is not None:
                    partial.publish(self._content.cids)
        return found

    async def fetch(
        self,
        root: Cid,
        *,
        told: Callable[[Progress], None] = lambda progress: None,
        max_bytes: int | None = None,
    ) -> Progress:
        """Have the whole DAG here, durably. ContentNotFound, DagTooLarge, DiskFull.

        What came before it failed stays, and the next try goes on from there.
        """
        job = _Job(self, self._content, root, told, max_bytes)
        with self.claims.adding():
            return await job.run()

    async def has(self, cid: Cid) -> bool:
        """Whether a block is here."""
        with contextlib.suppress(DfsError):
            return await self._content.run(self._content.cids.has, cid.multihash)
        return False

    async def fetch_block(self, cid: Cid) -> None:
        """Have one block here, durably."""
        if not await self._content.run(self._content.cids.claim, cid.multihash):
            await self._content.put([(cid, await self.block(cid))])

    async def block(self, cid: Cid, root: Cid | None = None) -> bytes:
        """The verified bytes: of what a NameNode has put here, else from other peers."""
        with contextlib.suppress(DfsError):
            return await self._content.local(cid)
        return await self._exchange.block(cid, root=root)

    # --- partial files ---

    def partial_of(self, cid: Cid) -> Partial | None:
        return self._partials.get(cid.multihash)

    async def open_partial(self, slots: list[tuple[Cid, int]]) -> Partial:
        def make() -> Partial:
            store = self._content.cids.store
            volume: Volume = store.volume_for(sum(length for _, length in slots))
            return Partial.create(volume.path / "fetching", volume, new_uuid(), slots)

        partial = await self._content.run(make)
        self._open.append(partial)
        for cid, _ in slots:
            self._partials[cid.multihash] = partial
        return partial

    async def finish(self, partial: Partial) -> None:
        await self._content.run(partial.publish, self._content.cids)
        for cid, _ in partial.slots:
            self._partials.pop(cid.multihash, None)
        with contextlib.suppress(ValueError):
            self._open.remove(partial)

    def close(self) -> None:
        for partial in self._open:
            partial.close()


class _Job:
    """One fetch: walks the DAG depth first, a window of blocks ahead of what is there."""

    def __init__(
        self,
        fetcher: Fetcher,
        content: Content,
        root: Cid,
        told: Callable[[Progress], None],
        max_bytes: int | None,
    ) -> None:
        self._fetcher = fetcher
        self._content = content
        self._root = root
        self._told = told
        self._max_bytes = max_bytes
        self._progress = Progress()
        self._seen: set[bytes] = set()
        self._missing: set[bytes] = set()  # leaves that are known not to be here
        # What is to be had, the next one last. Leaves of one file that make a replica come as a group.
        self._waiting: collections.deque[Cid | list[tuple[Cid, int]]] = collections.deque()
        self._batch: list[tuple[Cid, bytes]] = []
        self._batch_bytes = 0
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> Progress:
        self._waiting.append(self._root)
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < WINDOW_BLOCKS:
                    await self._begin(self._waiting.pop())
                if self._running:
                    done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                    self._running -= done
                    for task in done:
                        task.result()
                if self._batch_bytes >= BATCH_BYTES or len(self._batch) >= 512:
                    await self._flush()
            return self._progress
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await self._flush()

    async def _begin(self, wanted: Cid | list[tuple[Cid, int]]) -> None:
        if isinstance(wanted, list):
            await self._begin_group(wanted)
            return
        name = wanted.multihash
        if wanted.is_identity:
            self._follow(wanted, wanted.digest)
            return
        if name in self._seen:
            return
        self._seen.add(name)
        if len(self._seen) > MAX_BLOCKS:
            raise DagTooLarge(f"the DAG under {self._root} has more than {MAX_BLOCKS} blocks")
        self._running.add(asyncio.ensure_future(self._have(wanted)))

    async def _begin_group(self, group: list[tuple[Cid, int]]) -> None:
        """Leaves of a file: those that are missing go into one file, each in its place."""
        fresh = {}
        for cid, length in group:
            if cid.multihash not in self._seen:
                self._seen.add(cid.multihash)
                fresh[cid.multihash] = (cid, length)
        leaves = list(fresh.values())
        here = await self._content.run(
            lambda: [self._content.cids.claim(cid.multihash) for cid, _ in leaves]
        )
        self._progress.here += sum(here)
        missing = [leaf for leaf, known in zip(leaves, here, strict=True) if not known]
        begun: list[tuple[Cid, int]] = []
        rest: list[tuple[Cid, int]] = []
        for leaf in missing:
            partial = self._fetcher.partial_of(leaf[0])
            if partial is None:
                rest.append(leaf)
            elif partial.has(leaf[0]):
                self._progress.resumed += 1  # from an earlier try
            else:
                begun.append(leaf)
        if len(rest) > 1:
            await self._fetcher.open_partial(rest)
            begun, rest = begun + rest, []
        # The first one is to be begun first, and the window takes from the end.
        for cid, _ in reversed(begun + rest):
            self._missing.add(cid.multihash)
            self._seen.discard(cid.multihash)
            self._waiting.append(cid)

    async def _have(self, cid: Cid) -> None:
        """Get one block, keep it, and see what it links to."""
        block: bytes | None = None
        if cid.multihash not in self._missing and await self._content.run(
            self._content.cids.claim, cid.multihash
        ):
            self._progress.here += 1
            if cid.codec == RAW:
                return
            with contextlib.suppress(DfsError):
                block = await self._content.local(cid)
        if block is None:
            block = await self._fetcher.block(cid, self._root)
            await self._keep(cid, block)
        self._follow(cid, block)

    async def _keep(self, cid: Cid, block: bytes) -> None:
        self._progress.blocks += 1
        self._progress.size_bytes += len(block)
        if self._max_bytes is not None and self._progress.size_bytes > self._max_bytes:
            raise DagTooLarge(f"{self._root} has more than {self._max_bytes} bytes")
        partial = self._fetcher.partial_of(cid)
        if partial is not None and cid.multihash in partial.place:
            if await self._content.run(partial.write, cid, block):
                await self._fetcher.finish(partial)
        else:
            self._batch.append((cid, block))
            self._batch_bytes += len(block)
        self._told(self._progress)

    async def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            await self._content.put(batch)

    def _follow(self, cid: Cid, block: bytes) -> None:
        if cid.codec == RAW:
            return
        group = _leaves(cid, block)
        if group is not None:
            for start in reversed(range(0, len(group), MAX_SLOTS)):
                self._waiting.append(group[start : start + MAX_SLOTS])
            return
        self._waiting.extend(reversed(dag.links_of(cid, block)))


def _leaves(cid: Cid, block: bytes) -> list[tuple[Cid, int]] | None:
    """The leaves of a file's node, where they are chunks that a replica can be made of; else None."""
    with contextlib.suppress(DfsError):
        entity = dag.entity(cid, block)
        if entity.node is None or entity.value is None or not entity.value.is_file:
            return None
        if entity.value.data or not entity.node.links:
            return None
        sizes = entity.value.blocksizes
        if any(size != CHUNK_BYTES for size in sizes[:-1]) or not 0 < sizes[-1] <= CHUNK_BYTES:
            return None
        if any(link.cid.codec != RAW or link.cid.is_identity for link in entity.node.links):
            return None
        return [(link.cid, size) for link, size in zip(entity.node.links, sizes, strict=True)]
    return None
