"""Storing DAGs in a cluster: what it has is asked first, the rest goes in batches, nodes after all that is below them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ..common.checksum import CHUNK_BYTES
from ..common.content import (
    BeginAdd,
    ContentBlock,
    EndAdd,
    HadContents,
    HaveContents,
    PutContent,
    PutContentFile,
    PutContents,
    PutContentsAnswer,
)
from ..common.errors import BlockNotFound, DfsError, StorageError
from ..common.ipld.cid import BLAKE3, RAW, Cid
from ..common.ipld.layout import Made, Node
from ..common.messages import BlockCommit
from ..common.model import Block, BlockId, LocatedBlock
from .batcher import SmallWriter
from .dag_nodes import file_dag
from .session import Session
from .trees import read_exactly
from .upload import upload_blocks

BATCH_ITEMS = 256
BATCH_BYTES = 2 * 1024 * 1024
IN_FLIGHT = 4
NODES_BYTES = 16 * 1024 * 1024  # nodes that wait for their leaves
Places = Callable[[Sequence[Cid]], Awaitable[list[tuple[LocatedBlock, int, int] | None]]]


class ClusterSink:
    """See `importer.Sink`. Use as an async context manager: while it is open, nothing it put or found is collected."""

    def __init__(
        self,
        session: Session,
        small: SmallWriter,
        replication: int | None = None,
        *,
        adopt: bool = False,
        places: Places | None = None,
    ) -> None:
        """*adopt*: files with paths that are below what is put are held without their paths, too.

        *places* says where DataNodes have the bytes of raw blocks already (block, offset, length), as small files do: they are not
        stored again.
        """
        self._session = session
        self._small = small
        self._replication = replication
        self._adopt = adopt
        self._places = places
        self._raw: dict[bytes, tuple[Cid, bytes]] = {}
        self._raw_bytes = 0
        self._nodes: dict[bytes, Made] = {}
        self._nodes_bytes = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._began = False
        self.added = 0  # blocks that were new
        self.incomplete: set[bytes] = set()  # multihashes of what is kept without all below it

    async def __aenter__(self) -> ClusterSink:
        await self._session.keep_lease()
        await self._session.namenode.call("begin_add", BeginAdd(holder=self._session.holder))
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for task in self._flights:
            task.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)
        try:
            await self._session.namenode.call("end_add", EndAdd(holder=self._session.holder))
        except DfsError:
            if error is None:
                raise

    # --- taking ---

    async def raw(self, cid: Cid, data: bytes) -> None:
        if cid.is_identity or cid.multihash in self._raw:
            return
        if self._raw and self._raw_bytes + len(data) > BATCH_BYTES:
            await self._flush_raw()
        self._raw[cid.multihash] = (cid, data)
        self._raw_bytes += len(data)
        if len(self._raw) >= BATCH_ITEMS:
            await self._flush_raw()

    async def nodes(self, made: list[Made]) -> None:
        for one in made:
            # Told again it keeps its place: before whatever was made of it.
            if one.cid.multihash not in self._nodes:
                self._nodes[one.cid.multihash] = one
                self._nodes_bytes += len(one.block)
        if self._nodes_bytes > NODES_BYTES:
            await self._flush_nodes()

    async def file(self, local: Path, root: Node, digests: bytes, length: int) -> bool:
        if (await self._have([root.cid.multihash], adopt=True))[0] == 2:
            return True
        try:
            descriptor = os.open(local, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"{local}: {error.strerror or error}") from None
        try:
            info = await self._session.info()
            blocks = await upload_blocks(
                self._session,
                lambda offset, size: read_exactly(descriptor, offset, size, local),
                length,
                info.default_block_size,
                self._replication,
            )
        finally:
            os.close(descriptor)
        written = [commit.block_id for commit, _ in blocks]
        try:
            if b"".join(part for _, part in blocks) != digests:
                raise StorageError(f"{local} changed while it was added")
            dag = await file_dag(
                self._session, [(c.length, part) for c, part in blocks], self._replication
            )
            if dag is None:
                raise StorageError(f"the nodes of {local} could not be stored")
            written += [commit.block_id for commit in dag.nodes]
            file = PutContentFile(blocks=[as_content(commit) for commit, _ in blocks], dag=dag)
            await self._put(files=[file])
        except BaseException:
            self._session.give_back(written)
            raise
        return True

    # --- storing ---

    async def has(self, key: bytes) -> bool:
        """Whether a block is held with all below it; it stays so while the add goes on."""
        return (await self._have([key]))[0] == 2

    async def _have(self, keys: list[bytes], *, adopt: bool = False) -> list[int]:
        answer: HadContents = await self._session.namenode.call(
            "have_contents",
            HaveContents(
                holder=self._session.holder,
                multihashes=keys,
                adopt=adopt,
                replication=self._replication,
            ),
        )
        return answer.have

    async def _flush_raw(self) -> None:
        batch, self._raw, self._raw_bytes = list(self._raw.values()), {}, 0
        if not batch:
            return
        while len(self._flights) >= IN_FLIGHT:
            done, _ = await asyncio.wait(self._flights, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        task = asyncio.create_task(self._store(batch), name="store content")
        self._flights.add(task)
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        # A failed one stays, so that whoever waits next sees why.
        if task.cancelled() or task.exception() is None:
            self._flights.discard(task)

    async def _settle(self) -> None:
        """Until every batch of raw blocks is stored."""
        await self._flush_raw()
        for task in list(self._flights):
            await task

    async def _store(self, batch: Sequence[tuple[Cid, bytes]]) -> None:
        """One batch (bounded by BATCH_ITEMS and about BATCH_BYTES): what is not held complete is written and put."""
        have = await self._have([cid.multihash for cid, _ in batch])
        missing = [entry for entry, held in zip(batch, have, strict=True) if held < 2]
        shared = await self._shared(missing)
        try:
            await self._write(missing, shared)
        except BlockNotFound:
            if not shared:
                raise
            await self._write(missing, {})  # something went just now: all of it is stored

    async def _shared(self, missing: Sequence[tuple[Cid, bytes]]) -> dict[bytes, ContentBlock]:
        """Blocks of files that are these raw blocks, whole, so that a reference on them is enough."""
        wanted = {
            cid: len(data)
            for cid, data in missing
            if cid.codec == RAW and cid.hash_code == BLAKE3 and 0 < len(data) <= CHUNK_BYTES
        }
        if not wanted or self._places is None:
            return {}
        found = {}
        for cid, place in zip(wanted, await self._places(list(wanted)), strict=True):
            if place is not None and place[1:] == (0, wanted[cid]):
                block = place[0].block
                if block.length == wanted[cid] and block.digest == cid.digest:
                    found[cid.multihash] = held_block(block)
        return found

    async def _write(
        self, missing: Sequence[tuple[Cid, bytes]], found: dict[bytes, ContentBlock]
    ) -> None:
        """Store those of *missing* that were not *found*, and put all of them."""
        blocks = dict(found)
        small = [
            (cid, data)
            for cid, data in missing
            if cid.multihash not in blocks and len(data) <= CHUNK_BYTES
        ]
        written: list[BlockId] = []
        try:
            if small:
                stored = await self._small.store([data for _, data in small], self._replication)
                for (cid, _), commit in zip(small, stored, strict=True):
                    written.append(commit.block_id)
                    blocks[cid.multihash] = as_content(commit)
            for cid, data in missing:
                if cid.multihash not in blocks:
                    commit = await self._one(data)
                    written.append(commit.block_id)
                    blocks[cid.multihash] = as_content(commit)
            entries = [
                PutContent(
                    multihash=cid.multihash,
                    codec=cid.codec,
                    block=blocks[cid.multihash],
                    data=b"" if cid.codec == RAW else data,
                )
                for cid, data in missing
            ]
            if entries:
                await self._put(blocks=entries)
        except BaseException:
            # What was put nevertheless, because only the answer is missing, is nobody's to give back: that changes nothing.
            self._session.give_back(written)
            raise

    async def _one(self, data: bytes) -> BlockCommit:
        """A block of more than a chunk, through a pipeline of its own."""
        blocks = await upload_blocks(
            self._session,
            lambda offset, size: data[offset : offset + size],
            len(data),
            2 * CHUNK_BYTES,
            self._replication,
        )
        return blocks[0][0]

    async def _put(
        self, blocks: list[PutContent] | None = None, files: list[PutContentFile] | None = None
    ) -> None:
        answer: PutContentsAnswer = await self._session.namenode.call(
            "put_contents",
            PutContents(
                holder=self._session.holder,
                blocks=blocks or [],
                files=files or [],
                replication=self._replication,
                adopt=self._adopt,
            ),
        )
        self.added += answer.added
        self.incomplete.update(answer.incomplete)

    async def _flush_nodes(self) -> None:
        await self._settle()
        waiting, self._nodes, self._nodes_bytes = list(self._nodes.values()), {}, 0
        start = 0
        while start < len(waiting):
            end, size = start, 0
            while end < len(waiting) and end - start < BATCH_ITEMS:
                size += len(waiting[end].block)
                if end > start and size > BATCH_BYTES:
                    break
                end += 1
            await self._store([(one.cid, one.block) for one in waiting[start:end]])
            start = end

    async def finish(self) -> None:
        await self._flush_nodes()


def as_content(commit: BlockCommit) -> ContentBlock:
    return ContentBlock(
        block_id=commit.block_id,
        generation=commit.generation,
        length=commit.length,
        digest=commit.digest,
        nodes=commit.nodes,
    )


def held_block(block: Block) -> ContentBlock:
    """A block that the cluster holds already: to be held once more."""
    return ContentBlock(
        block_id=block.block_id,
        generation=block.generation,
        length=block.length,
        digest=block.digest or b"",
    )
