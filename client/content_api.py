"""Content as a program sees it: `FileSystem.content`. Adding, reading by CID, pins, collection, and giving CIDs paths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from ..common.checksum import CHUNK_BYTES
from ..common.content import (
    Collect,
    Collected,
    ContentBlock,
    ContentTotals,
    FindCids,
    GetContentTotals,
    LinkFile,
    ListPins,
    Pin,
    PinAdd,
    PinKind,
    PinPage,
    PinRemove,
    PinsRemoved,
    PutContent,
    PutContents,
)
from ..common.errors import ContentNotFound, InvalidContent, IsADirectory, PinExists
from ..common.ipld import dag
from ..common.ipld.car import CarBlock
from ..common.ipld.cid import RAW, Cid
from ..common.ipld.dag import Entity, Part
from ..common.ipld.layout import Made
from ..common.model import FileStatus, LocatedBlock
from ..common.runtime import elapsed_timer
from .batcher import SmallWriter
from .checking import check_all, check_dag
from .cids import CidMaker, Named
from .cluster_sink import ClusterSink, held_block
from .content import ContentReader
from .session import Session

MAX_DAG_BLOCKS = 10_000_000
COLLECT_STEP = 128  # rows: a step is what others may have to wait for
IMPORT_NODES_BYTES = 128 * 1024 * 1024  # of nodes that are kept to be put children first


class ContentApi:
    """Content of one cluster. Shares the connection of its FileSystem."""

    def __init__(self, session: Session, small: SmallWriter) -> None:
        self._session = session
        self._small = small
        self._paths = CidMaker(session, small)
        self.reader = ContentReader(session)

    async def close(self) -> None:
        await self.reader.close()

    # --- paths ---

    async def cid(self, path: str) -> Named:
        """The CID of a file or directory, as `dfs cid` shows it."""
        return await self._paths.of(path)

    async def link(
        self, cid: Cid, path: str, *, overwrite: bool = False, replication: int | None = None
    ) -> FileStatus | None:
        """Give a file's CID a path, by metadata alone; None if not all of its leaves lie in the cluster as whole blocks do."""
        found = await self.reader.entity(cid)
        if found.value is not None and not found.value.is_file:
            raise IsADirectory(f"{cid} is a directory or a symlink")
        blocks = await self._blocks_of(found)
        if blocks is None:
            return None
        return await self.link_blocks(blocks, path, overwrite=overwrite, replication=replication)

    async def same_file(self, cid: Cid, length: int) -> list[ContentBlock] | None:
        """The ordinary blocks of a BLAKE3 file of *length* bytes with this CID, if the cluster has it already, by path or without.

        A look at the NameNode and the DataNodes' indexes; no byte is read.
        """
        if not length:
            return []
        if length > CHUNK_BYTES:
            known = await self.reader.find(cid)
            if known is None or not known.leaves:
                return None
            blocks = [held_block(b.block) for b in known.leaves if b.block.length]
            return blocks if sum(b.length for b in blocks) == length else None
        place = (await self.reader.places([cid]))[0]
        if place is None or place[1] or not place[2] == place[0].block.length == length:
            return None
        return [held_block(place[0].block)]

    async def link_blocks(
        self,
        blocks: list[ContentBlock],
        path: str,
        *,
        overwrite: bool = False,
        create_parents: bool = True,
        replication: int | None = None,
        mode: int = 0o644,
        mtime_ms: int | None = None,
    ) -> FileStatus:
        """A file of blocks that are there already. BlockNotFound if one went in the meantime."""
        return await self._session.namenode.call(  # type: ignore[no-any-return]
            "link_file",
            LinkFile(
                path=path,
                blocks=blocks,
                overwrite=overwrite,
                create_parents=create_parents,
                replication=replication,
                mode=mode,
                mtime_ms=mtime_ms,
            ),
        )

    async def _blocks_of(self, found: Entity) -> list[ContentBlock] | None:
        """The ordinary blocks that make up a file, in order; None if some part is none."""
        if not found.size:
            return []
        known = await self.reader.find(found.cid)
        if known is not None and known.leaves:
            return [held_block(b.block) for b in known.leaves if b.block.length]
        leaves: list[Part] = []
        if found.node is None:
            leaves = [Part(0, found.size, found.cid, None)]
        else:
            parts = dag.file_parts(found)
            wish = next(parts, None)
            while wish is not None:
                answer = None
                if isinstance(wish, Part):
                    if wish.cid is None:
                        return None  # bytes inside a node: they are no block
                    leaves.append(wish)
                else:
                    answer = await self.reader.get(wish)
                try:
                    wish = parts.send(answer)  # type: ignore[arg-type]
                except StopIteration:
                    break
        wanted = [part.cid for part in leaves if part.cid is not None]
        await self.reader.prefetch(wanted)
        blocks: dict[bytes, LocatedBlock] = {}
        missing: list[Cid] = []
        for cid in wanted:
            held = await self.reader.find(cid)
            if held is not None:
                blocks[cid.multihash] = held.located
            else:
                missing.append(cid)
        for cid, place in zip(missing, await self.reader.places(missing), strict=True):
            if place is None or place[1] or place[2] != place[0].block.length:
                return None
            blocks[cid.multihash] = place[0]
        if any(blocks[p.cid.multihash].block.length != p.length for p in leaves if p.cid):
            raise InvalidContent("a leaf has another length than its node says")
        return [held_block(blocks[cid.multihash].block) for cid in wanted]

    # --- adding ---

    def sink(self, replication: int | None = None) -> ClusterSink:
        """Where an `Importer` puts what it makes: `async with fs.content.sink() as sink`."""
        copies = replication or self._session.config.replication or None
        return ClusterSink(self._session, self._small, copies, places=self.reader.places)

    async def put_blocks(
        self, blocks: Sequence[tuple[Cid, bytes]], replication: int | None = None
    ) -> set[bytes]:
        """Hold CID blocks, verified, children before parents; the multihashes of those kept incomplete."""
        async with self.sink(replication) as sink:
            for cid, data in blocks:
                cid.verify(data)
                if cid.codec == RAW:
                    await sink.raw(cid, data)
                else:
                    await sink.nodes([Made(cid, data)])
            await sink.finish()
            self.reader.forget()
            return sink.incomplete

    async def import_blocks(self, blocks: Iterable[CarBlock]) -> tuple[int, int]:
        """Hold verified blocks that come in any order; (how many, how many are kept incomplete at the end).

        *blocks* may be read from a slow source: the iterator is run in a thread.
        """
        count = 0
        nodes: dict[bytes, tuple[Cid, bytes]] = {}
        below: set[bytes] = set()  # what is under a node that is held complete: there already
        waiting = 0
        source = iter(blocks)
        async with self.sink() as sink:

            async def flush() -> None:
                for cid, data in dag.children_first(nodes):
                    await sink.nodes([Made(cid, bytes(data))])
                await sink.finish()
                nodes.clear()

            while True:
                block = await self._session.run(next, source, None)
                if block is None:
                    break
                count += 1
                key = block.cid.multihash
                if block.cid.codec == RAW:
                    if key not in below:
                        await sink.raw(block.cid, block.data)
                    continue
                if key in below or await sink.has(key):
                    below.update(link.multihash for link in dag.links_of(block.cid, block.data))
                    continue
                nodes[block.cid.multihash] = (block.cid, block.data)
                waiting += len(block.data)
                if waiting > IMPORT_NODES_BYTES:
                    await flush()
                    waiting = 0
            await flush()
            self.reader.forget()
            # Those whose children came only later are put again, now that those are there.
            for key in list(sink.incomplete):
                found = await self._session.namenode.call("find_cids", FindCids(multihashes=[key]))
                (one,) = found.found
                if one is None or one.complete:
                    continue
                cid = Cid(1, one.codec, key)
                nodes[key] = (cid, await self.reader.get(cid))
            sink.incomplete.clear()
            await flush()
            return count, len(sink.incomplete)

    # --- pins ---

    async def pin(
        self, cid: Cid, *, kind: PinKind = "recursive", name: str = "", fetch: bool = True
    ) -> Pin:
        """Keep a DAG, or a block (*kind* "direct"). What the cluster lacks is fetched first, where *fetch* allows. PinExists."""
        request = PinAdd(
            multihash=cid.multihash, codec=cid.codec, version=cid.version, kind=kind, name=name
        )
        try:
            return await self._session.namenode.call("pin_add", request)  # type: ignore[no-any-return]
        except ContentNotFound:
            if not fetch:
                raise
        async with ClusterSink(self._session, self._small, adopt=True) as sink:
            await self._hold(cid, sink, deep=kind == "recursive")
            return await self._session.namenode.call("pin_add", request)  # type: ignore[no-any-return]

    async def _hold(self, root: Cid, sink: ClusterSink, *, deep: bool) -> None:
        """Make the cluster hold what is under *root*: blocks that are chunks of files already are shared, others are fetched and put."""
        self.reader.forget()
        if not deep:
            await self._take(root, await self.reader.get(root), sink)
            await sink.finish()
            return
        nodes: dict[bytes, tuple[Cid, bytes]] = {}
        raw: list[Cid] = []
        walk = dag.walk(root, max_blocks=MAX_DAG_BLOCKS)
        wish = next(walk, None)
        while wish is not None:
            answer = None
            held = await self.reader.find(wish)
            if held is not None and (held.complete or held.leaves):
                pass  # a file with a path is taken over whole, with the folder it is in
            elif wish.codec == RAW:
                raw.append(wish)
                if len(raw) >= 500:
                    await self._take_leaves(raw, sink)
                    raw.clear()
            else:
                answer = await self.reader.get(wish)
                nodes[wish.multihash] = (wish, answer)
                await self.reader.prefetch(dag.links_of(wish, answer))
            try:
                wish = walk.send(answer)
            except StopIteration:
                break
        await self._take_leaves(raw, sink)
        for cid, data in dag.children_first(nodes):
            await sink.nodes([Made(cid, bytes(data))])
        await sink.finish()

    async def _take(self, cid: Cid, data: bytes, sink: ClusterSink) -> None:
        if cid.codec == RAW:
            await sink.raw(cid, data)
        else:
            await sink.nodes([Made(cid, data)])

    async def _take_leaves(self, raw: Sequence[Cid], sink: ClusterSink) -> None:
        """Raw blocks: shared where they are whole blocks of the cluster, else their bytes are put."""
        if not raw:
            return
        shared: list[PutContent] = []
        for cid, place in zip(raw, await self.reader.places(raw), strict=True):
            whole = place is not None and not place[1] and place[2] == place[0].block.length
            if place is not None and whole and place[2] <= CHUNK_BYTES:
                block = held_block(place[0].block)
                shared.append(PutContent(multihash=cid.multihash, codec=cid.codec, block=block))
                continue
            await sink.raw(cid, await self.reader.get(cid))
        if shared:
            await self._session.namenode.call(
                "put_contents", PutContents(holder=self._session.holder, blocks=shared)
            )

    async def pin_if_new(self, cid: Cid, *, name: str = "") -> None:
        """Pin what has just been added; pinned already is as good."""
        try:
            await self.pin(cid, name=name, fetch=False)
        except PinExists:
            return

    async def unpin(self, cid: Cid, *, kind: PinKind | None = None, name: str | None = None) -> int:
        """How many pins were removed. PinNotFound."""
        request = PinRemove(multihash=cid.multihash, kind=kind, name=name)
        answer: PinsRemoved = await self._session.namenode.call("pin_remove", request)
        return answer.count

    async def pins(
        self, *, kind: PinKind | None = None, name: str | None = None, cid: Cid | None = None
    ) -> AsyncIterator[Pin]:
        after = ""
        while True:
            page: PinPage = await self._session.namenode.call(
                "list_pins",
                ListPins(
                    after=after,
                    kind=kind,
                    name=name,
                    multihash=None if cid is None else cid.multihash,
                ),
            )
            for pin in page.pins:
                yield pin
            after = page.next_after
            if not after:
                return

    # --- looking over ---

    async def collect(
        self, *, grace_s: float = 0.0, dry_run: bool = False
    ) -> AsyncIterator[Collected]:
        """Collect what nothing holds, step by step; each step is one short transaction, and a pause as long as it took."""
        while True:
            began_s = elapsed_timer()
            done: Collected = await self._session.namenode.call(
                "collect", Collect(grace_s=grace_s, limit=COLLECT_STEP, dry_run=dry_run)
            )
            if not done.work:
                return
            took_s = elapsed_timer() - began_s
            yield done
            if dry_run:
                return
            await asyncio.sleep(min(took_s, 0.5))

    async def check(self, cid: Cid, *, deep: bool = True) -> tuple[int, list[str]]:
        """(CID blocks read and hashed, what is wrong) of a DAG, or of its root alone."""
        return await check_dag(self.reader, cid, deep=deep)

    def check_all(self, progress: Callable[[int], None]) -> AsyncIterator[tuple[int, list[str]]]:
        """The same of all that the cluster holds, in parts."""
        return check_all(self._session, self.reader, progress)

    async def totals(self) -> ContentTotals:
        return await self._session.namenode.call(  # type: ignore[no-any-return]
            "content_totals", GetContentTotals()
        )
