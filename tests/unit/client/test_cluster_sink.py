"""Storing DAGs in a cluster: what was written in vain is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from twinfs.client import cids, cluster_sink, dag_nodes
from twinfs.client.batcher import SmallWriter
from twinfs.client.cluster_sink import ClusterSink
from twinfs.client.file_writer import FileWriter
from twinfs.client.session import Session
from twinfs.common.checksum import CHUNK_BYTES, DIGEST_BYTES, digest_of
from twinfs.common.content import HadContents, PutContentsAnswer
from twinfs.common.errors import DfsError, InvalidRequest, StorageError, Unavailable
from twinfs.common.ipld.cid import RAW, Cid
from twinfs.common.ipld.layout import Node
from twinfs.common.messages import BlockCommit, FileDag
from twinfs.common.model import BlockId, FileBlocks, GenerationStamp, INodeId, NodeId

LARGE = bytes(CHUNK_BYTES + 1)


class Cluster:
    """Session and NameNode in one, which has nothing."""

    def __init__(self) -> None:
        self.next_id = 1
        self.error: BaseException | None = None  # of each put
        self.written: set[int] = set()
        self.given_back: list[int] = []
        self.namenode = self
        self.holder = "me"

    async def call(self, operation: str, request: Any) -> Any:
        if operation == "have_contents":
            return HadContents(have=[0] * len(request.multihashes))
        if operation in ("put_contents", "set_dag", "complete"):
            if self.error is not None:
                raise self.error
            return PutContentsAnswer(added=1, incomplete=[])
        return None

    async def keep_lease(self) -> None: ...

    async def info(self) -> Any:
        return SimpleNamespace(default_block_size=CHUNK_BYTES)

    def give_back(self, block_ids: Iterable[int]) -> None:
        self.given_back += block_ids

    def write(self, data: bytes) -> BlockCommit:
        number, self.next_id = self.next_id, self.next_id + 1
        self.written.add(number)
        return BlockCommit(
            block_id=BlockId(number),
            generation=GenerationStamp(1),
            length=len(data),
            digest=digest_of(data),
            nodes=[NodeId(1)],
        )

    async def store(self, parts: Sequence[bytes], replication: int | None) -> list[BlockCommit]:
        return [self.write(part) for part in parts]

    async def upload_blocks(
        self, session: object, read_at: Any, length: int, *more: object
    ) -> list[tuple[BlockCommit, bytes]]:
        data = read_at(0, length)
        return [(self.write(data), digest_of(data))]

    async def file_dag(self, *more: object) -> FileDag | None:
        return FileDag(digests=b"", nodes=[self.write(b"node")])

    @property
    def sink(self) -> ClusterSink:
        return ClusterSink(cast(Session, self), cast(SmallWriter, self))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(cluster_sink, "upload_blocks", found.upload_blocks)
    monkeypatch.setattr(cluster_sink, "file_dag", found.file_dag)
    return found


async def add(cluster: Cluster, local: Path, digests: bytes) -> None:
    """Small and large raw blocks, and a file."""
    root = Node(Cid.of(RAW, LARGE), len(LARGE), len(LARGE))
    async with cluster.sink as sink:
        for data in (b"small", LARGE):
            await sink.raw(Cid.of(RAW, data), data)
        await sink.finish()
        await sink.file(local, root, digests, len(LARGE))


@pytest.mark.parametrize("error", [None, Unavailable("nobody answers"), asyncio.CancelledError()])
async def test_blocks_that_were_not_put_are_given_back(
    cluster: Cluster, tmp_path: Path, error: BaseException | None
) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    cluster.error = error
    if error is None:
        await add(cluster, tmp_path / "file", digest_of(LARGE))
        assert len(cluster.written) == 4 and not cluster.given_back
        return
    with pytest.raises(type(error)):
        await add(cluster, tmp_path / "file", digest_of(LARGE))
    assert len(cluster.written) == 2 and set(cluster.given_back) == cluster.written


@pytest.mark.parametrize("case", ["changed", "no nodes", "not put"])
async def test_so_are_those_of_a_file(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    root = Node(Cid.of(RAW, LARGE), len(LARGE), len(LARGE))
    if case == "no nodes":

        async def none(*more: object) -> None:
            return

        monkeypatch.setattr(cluster_sink, "file_dag", none)
    if case == "not put":
        cluster.error = StorageError("no room")
    digests = digest_of(b"other" if case == "changed" else LARGE)
    async with cluster.sink as sink:
        with pytest.raises(StorageError):
            await sink.file(tmp_path / "file", root, digests, len(LARGE))
    assert cluster.written and set(cluster.given_back) == cluster.written


async def test_nodes_of_a_file_that_is_not_closed_or_has_changed_are_given_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cids, "file_dag", cluster.file_dag)
    monkeypatch.setattr(cids, "chunk_digests", no_digests)
    cluster.error = InvalidRequest("it has changed")
    status = SimpleNamespace(path="/f", inode_id=INodeId(1), replication=1)
    block = SimpleNamespace(length=CHUNK_BYTES, block_id=BlockId(100))
    found = SimpleNamespace(status=status, blocks=[SimpleNamespace(block=block)] * 2)
    maker = cids.CidMaker(cast(Session, cluster), cast(SmallWriter, cluster))
    with pytest.raises(InvalidRequest):
        await maker._made("/f", cast(FileBlocks, found))

    async def commits(**more: object) -> list[BlockCommit]:
        return []

    writer = SimpleNamespace(
        _session=cluster, _status=status, _commits=commits, _dag=cluster.file_dag
    )
    with pytest.raises(InvalidRequest):
        await FileWriter._complete(cast(FileWriter, writer))
    assert len(cluster.written) == 2 and set(cluster.given_back) == cluster.written


async def no_digests(*more: object) -> bytes:
    return bytes(DIGEST_BYTES)


async def test_nodes_of_earlier_batches_are_given_back_when_a_later_one_fails(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(session: object, parts: Sequence[bytes], more: object) -> list[BlockCommit]:
        if cluster.written:
            raise Unavailable("nobody answers")
        return [cluster.write(part) for part in parts]

    monkeypatch.setattr(dag_nodes, "_write", write)
    with pytest.raises(DfsError):
        await dag_nodes.write_blocks(cast(Session, cluster), [b"node"] * 513, None)
    assert len(cluster.written) == 512 and set(cluster.given_back) == cluster.written
