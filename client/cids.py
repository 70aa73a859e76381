"""CIDs of paths: as they were recorded when files were written, else made from the replicas' digests, never from the bytes."""

from __future__ import annotations

from typing import NamedTuple

from ..common.codec import error_of
from ..common.content import CacheCid, GetCids, PathCid, PathCids, SetDag
from ..common.errors import DfsError, InvalidRequest, LeaseConflict
from ..common.ipld import directory, layout
from ..common.ipld.cid import Cid
from ..common.ipld.layout import TWINFS, Node
from ..common.messages import DirectoryPage, FileDag, ListDirectory, Locate
from ..common.model import FileBlocks, FileStatus
from .batcher import SmallWriter
from .cluster_sink import ClusterSink
from .dag_nodes import chunk_digests, file_dag, leaves_of
from .session import Session

PAGE = 1_000
ATTEMPTS = 3


class Named(NamedTuple):
    """A path's CID, with the Tsize that a link to it has."""

    cid: Cid
    tsize: int


class CidMaker:
    """Says the CIDs of paths, and records those it had to make."""

    def __init__(self, session: Session, small: SmallWriter) -> None:
        self._session = session
        self._small = small

    async def of(self, path: str) -> Named:
        """The CID of a file or directory. LeaseConflict for a file that is being written."""
        known, offset = await self._ask([path])
        return await self._of(path, known[0], offset)

    async def _ask(self, paths: list[str]) -> tuple[list[PathCid], int]:
        answer: PathCids = await self._session.namenode.call("path_cids", GetCids(paths=paths))
        return answer.results, answer.event_offset

    async def _of(self, path: str, known: PathCid, offset: int) -> Named:
        if known.failure is not None:
            raise error_of(known.failure)
        assert known.status is not None
        if known.cid:
            return Named(Cid.from_bytes(known.cid), known.tsize)
        if known.status.is_directory:
            return await self._directory(known.status, offset)
        return await self._file(path)

    # --- files ---

    async def _file(self, path: str) -> Named:
        last: DfsError = InvalidRequest(f"{path} keeps changing")
        for _ in range(ATTEMPTS):
            found: FileBlocks = await self._session.namenode.call("locate", Locate(path=path))
            if found.status.under_construction:
                raise LeaseConflict(f"{path} is being written; it has a CID when it is closed")
            try:
                return await self._made(path, found)
            except InvalidRequest as error:
                last = error
        raise last

    async def _made(self, path: str, found: FileBlocks) -> Named:
        blocks = [
            (located.block.length, await chunk_digests(self._session, located))
            for located in found.blocks
            if located.block.length
        ]
        leaves = leaves_of(blocks)
        if not leaves:
            return Named(layout.leaf(TWINFS, b"")[0].cid, 0)
        await self._session.keep_lease()
        dag = await file_dag(self._session, blocks, found.status.replication)
        if dag is None and len(leaves) > 1:
            # The cluster can't take the nodes now (or the file is beyond one message): the CID is true all the same.
            root, _ = await self._session.run(layout.build, TWINFS, leaves)
            return Named(root.cid, root.tsize)
        if dag is None:
            return Named(leaves[0].cid, leaves[0].tsize)
        request = SetDag(
            path=path,
            inode_id=found.status.inode_id,
            holder=self._session.holder,
            blocks=[located.block.block_id for located in found.blocks],
            dag=FileDag(digests=dag.digests, nodes=dag.nodes),
        )
        try:
            answer: PathCid = await self._session.namenode.call("set_dag", request)
        except BaseException:
            self._session.give_back(commit.block_id for commit in dag.nodes)
            raise
        return Named(Cid.from_bytes(answer.cid), answer.tsize)

    # --- directories ---

    async def _directory(self, status: FileStatus, offset: int) -> Named:
        async with ClusterSink(self._session, self._small) as sink:
            return await self._folder(status, offset, sink)

    async def _folder(self, status: FileStatus, offset: int, sink: ClusterSink) -> Named:
        """From the CIDs of all that is in it. *offset*: the newest event when the cluster was asked about it."""
        entries: dict[str, Node] = {}
        after = ""
        while True:
            page: DirectoryPage = await self._session.namenode.call(
                "list", ListDirectory(path=status.path, start_after=after, limit=PAGE)
            )
            paths = [entry.path for entry in page.entries]
            known, seen = await self._ask(paths) if paths else ([], offset)
            for entry, found in zip(page.entries, known, strict=True):
                if found.status is not None and found.status.is_directory and not found.cid:
                    named = await self._folder(found.status, seen, sink)
                else:
                    named = await self._of(entry.path, found, seen)
                entries[entry.name] = Node(named.cid, entry.length, named.tsize)
            if not page.more:
                break
            after = page.entries[-1].name
        root, made = directory.build(TWINFS, entries)
        await sink.nodes(made)
        await sink.finish()
        if offset >= 0:
            await self._session.namenode.call(
                "cache_cid",
                CacheCid(
                    path=status.path,
                    inode_id=status.inode_id,
                    event_offset=offset,
                    multihash=root.cid.multihash,
                    tsize=root.tsize,
                ),
            )
        return Named(root.cid, root.tsize)
