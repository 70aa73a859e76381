"""Small files travel together; each has its own result, and nobody waits for ever.

Method: a made-up NameNode and made-up pipelines, no sockets; the batcher can't tell.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from twinfs.client import batcher
from twinfs.client.batcher import (
    ALLOCATED_AT_ONCE,
    BATCH_BYTES,
    BATCH_FILES,
    IN_FLIGHT,
    SmallFile,
)
from twinfs.client.block_writer import PipelineBroken
from twinfs.client.placing import ATTEMPTS, Placing
from twinfs.client.session import Session
from twinfs.common.checksum import digest_of
from twinfs.common.errors import (
    DfsError,
    LeaseLost,
    NotEnoughReplicas,
    PathExists,
    PathNotFound,
    Unavailable,
)
from twinfs.common.messages import (
    Allocate,
    Allocation,
    Failure,
    LocatedMany,
    LocatedResult,
    LocateMany,
    PutFile,
    PutFiles,
    StatusList,
    StatusResult,
)
from twinfs.common.model import (
    Block,
    BlockId,
    FileBlocks,
    FileStatus,
    GenerationStamp,
    INodeId,
    NodeAddress,
    NodeId,
)
from twinfs.common.runtime import Clock
from twinfs.common.transfer import SmallBlock, WriteManyDone


def node(number: int) -> NodeAddress:
    return NodeAddress(node_id=NodeId(number), host="h", data=f"h:{number}", http=f"h:{number}")


def status(path: str) -> FileStatus:
    return FileStatus(
        path=path,
        type="file",
        length=0,
        owner="o",
        group="g",
        mode=0o644,
        mtime_ms=0,
        atime_ms=0,
        inode_id=INodeId(1),
    )


class Cluster:
    """NameNode, DataNodes and session in one. What it is asked is kept; what it answers can be changed."""

    def __init__(self) -> None:
        self.nodes = [node(1), node(2), node(3)]
        self.next_id = 1_000
        self.allocations: list[int | None] = []  # the replication of each
        self.excluded: list[list[int]] = []  # by each allocation
        self.puts: list[PutFiles] = []
        self.lookups: list[LocateMany] = []
        self.reads: list[int] = []
        self.stored: dict[int, bytes] = {}
        self.broken: set[NodeId] = set()  # as first nodes
        self.lost: set[NodeId] = set()  # further on in the pipeline
        self.failures: dict[str, DfsError] = {}  # path -> what its next put is answered
        self.error: BaseException | None = None  # of every call
        self.gate: asyncio.Event | None = None  # calls wait for it
        self.tasks: list[asyncio.Task[None]] = []
        self.given_back: list[int] = []
        # the session's face
        self.namenode = self
        self.blocks = self
        self.pool = None
        self.holder = "me"
        self.config = SimpleNamespace(durability="synced")
        self.slept_s = 0.0
        self.placing = Placing(
            self, retry_s=30.0, clock=cast(Clock, self), rng=random.Random(1), sleep=self.sleep
        )

    def monotonic_s(self) -> float:
        return self.slept_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    @property
    def session(self) -> Session:
        return cast(Session, self)

    async def info(self) -> Any:
        return SimpleNamespace(default_replication=3, min_replicas=2)

    async def keep_lease(self) -> None: ...

    async def run(self, call: Callable[..., Any], *args: object) -> Any:
        return call(*args)

    def give_back(self, block_ids: Iterable[int]) -> None:
        self.given_back += block_ids

    def spawn(self, task: asyncio.Task[None]) -> None:
        self.tasks.append(task)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def call(self, operation: str, request: Any) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return getattr(self, operation)(request)

    def allocate(self, request: Allocate) -> Allocation:
        self.allocations.append(request.replication)
        self.excluded.append([int(node_id) for node_id in request.exclude])
        first, self.next_id = self.next_id, self.next_id + request.count
        nodes = [n for n in self.nodes if n.node_id not in request.exclude]
        return Allocation(
            first_block_id=BlockId(first),
            count=request.count,
            generation=GenerationStamp(7),
            nodes=nodes[: request.replication],
        )

    def put_files(self, request: PutFiles) -> StatusList:
        self.puts.append(request)
        results = []
        for file in request.files:
            error = self.failures.pop(file.path, None)
            if error is not None:
                failure = Failure(code=error.code, message=error.message)
                results.append(StatusResult(failure=failure))
            else:
                results.append(StatusResult(status=status(file.path)))
        return StatusList(results=results)

    def locate_many(self, request: LocateMany) -> LocatedMany:
        self.lookups.append(request)
        missing = Failure(code=PathNotFound.code, message="no")
        return LocatedMany(
            results=[
                LocatedResult(failure=missing)
                if path.startswith("/missing")
                else LocatedResult(file=FileBlocks(status=status(path), blocks=[]))
                for path in request.paths
            ]
        )

    def read_many(self, where: NodeAddress, blocks: Sequence[Block]) -> list[bytes | None]:
        self.reads.append(len(blocks))
        if self.error is not None:
            raise self.error
        return [b"%d" % block.block_id if block.block_id > 0 else None for block in blocks]

    def write_many(
        self,
        pool: object,
        nodes: Sequence[NodeAddress],
        items: list[SmallBlock],
        parts: Sequence[bytes],
        durability: str,
    ) -> WriteManyDone:
        if nodes[0].node_id in self.broken:
            raise PipelineBroken("broken", [nodes[0].node_id])
        for item, part in zip(items, parts, strict=True):
            assert item.block_id not in self.stored, "a block id was used twice"
            assert (item.length, item.digest) == (len(part), digest_of(part))
            self.stored[item.block_id] = bytes(part)
        return WriteManyDone(nodes=[n.node_id for n in nodes if n.node_id not in self.lost])

    def contents(self) -> dict[str, bytes]:
        """What was put, by path, as the blocks committed say."""
        return {
            file.path: b"".join(self.stored[commit.block_id] for commit in file.blocks)
            for request in self.puts
            for file in request.files
        }


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(batcher, "write_many", found.write_many)
    return found


def small(path: str, data: bytes = b"", **more: Any) -> SmallFile:
    return SmallFile(data or path.encode(), PutFile(path=path, **more))


# --- writing ---


async def test_concurrent_callers_share_one_allocation_and_one_commit(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    paths = [f"/f{number}" for number in range(50)]
    found = await asyncio.gather(*(writer.put(small(path)) for path in paths))
    assert [one.path for one in found] == paths
    assert (len(cluster.allocations), len(cluster.puts)) == (1, 1)
    assert cluster.contents() == {path: path.encode() for path in paths}


async def test_a_lonely_caller_waits_for_nobody(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    for number in range(3):
        await writer.put(small(f"/f{number}"))
    assert [len(request.files) for request in cluster.puts] == [1, 1, 1]
    assert len(cluster.allocations) == 1  # what is left of it serves the next ones


async def test_what_comes_while_batches_are_on_their_way_goes_with_the_next(
    cluster: Cluster,
) -> None:
    cluster.gate = asyncio.Event()
    writer = batcher.SmallWriter(cluster.session)
    puts = []
    for number in range(IN_FLIGHT):
        puts.append(asyncio.create_task(writer.put(small(f"/first{number}"))))
        for _ in range(5):
            await asyncio.sleep(0)
    puts += [asyncio.create_task(writer.put(small(f"/later{number}"))) for number in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)
    cluster.gate.set()
    await asyncio.gather(*puts)
    assert sorted(len(request.files) for request in cluster.puts) == [1] * IN_FLIGHT + [20]


async def test_batches_are_bounded_in_files_and_bytes(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    many = [small(f"/f{number}") for number in range(BATCH_FILES + 1)]
    large = [small(f"/l{number}", bytes(BATCH_BYTES // 2)) for number in range(3)]
    await asyncio.gather(*(writer.put(file) for file in [*many, *large]))
    assert len(cluster.contents()) == len(many) + len(large)
    for request in cluster.puts:
        assert len(request.files) <= BATCH_FILES
        size = sum(commit.length for file in request.files for commit in file.blocks)
        assert size <= BATCH_BYTES


async def test_each_file_has_its_own_result(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    cluster.failures["/f1"] = PathExists("it is there")
    found = await asyncio.gather(
        *(writer.put(small(f"/f{number}")) for number in range(3)), return_exceptions=True
    )
    assert isinstance(found[1], PathExists)
    assert [cluster.stored[block_id] for block_id in cluster.given_back] == [b"/f1"]
    assert [one.path for one in found if isinstance(one, FileStatus)] == ["/f0", "/f2"]


async def test_an_empty_file_needs_no_block(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    await asyncio.gather(
        writer.put(SmallFile(b"", PutFile(path="/empty"))), writer.put(small("/full"))
    )
    assert cluster.contents() == {"/empty": b"", "/full": b"/full"}
    assert len(cluster.stored) == 1


async def test_files_of_another_replication_go_through_another_pipeline(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    await asyncio.gather(
        writer.put(small("/three")), writer.put(small("/one", replication=1, mode=0o600))
    )
    assert set(cluster.allocations) == {1, 3}
    files = {file.path: file for request in cluster.puts for file in request.files}
    assert len(files["/one"].blocks[0].nodes) == 1
    assert len(files["/three"].blocks[0].nodes) == 3
    assert (files["/one"].mode, files["/one"].replication) == (0o600, 1)


# --- writing when something fails ---


async def test_a_broken_pipeline_is_replaced_with_new_blocks(cluster: Cluster) -> None:
    cluster.broken = {NodeId(1)}
    writer = batcher.SmallWriter(cluster.session)
    await writer.put(small("/f"))
    assert cluster.excluded == [[], [1]]
    assert cluster.contents() == {"/f": b"/f"}
    # All of the first allocation: what is on some disk of it, and what it will not be used for.
    assert sorted(cluster.given_back) == [*range(1_000, 1_000 + ALLOCATED_AT_ONCE)]


async def test_nodes_that_dropped_out_are_replaced_when_too_few_are_left(cluster: Cluster) -> None:
    """One of three may be missing; with one of three left the data is not durable enough."""
    writer = batcher.SmallWriter(cluster.session)
    cluster.lost = {NodeId(3)}
    await writer.put(small("/two"))
    assert len(cluster.allocations) == 1
    cluster.nodes.append(node(4))
    cluster.lost = {NodeId(2), NodeId(3)}
    await writer.put(small("/one"))
    assert cluster.excluded == [[], [], [2, 3]]
    files = {file.path: file for request in cluster.puts for file in request.files}
    assert files["/two"].blocks[0].nodes == [1, 2]
    assert files["/one"].blocks[0].nodes == [1, 4]
    assert b"/one" in [cluster.stored.get(block_id) for block_id in cluster.given_back]
    used = {commit.block_id for file in files.values() for commit in file.blocks}
    assert not used & set(cluster.given_back)


async def test_after_the_retry_time_the_error_is_told(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    cluster.lost = {NodeId(number) for number in range(2, 20)}
    with pytest.raises(NotEnoughReplicas, match="only 1 of 2"):
        await writer.put(small("/f"))
    assert ATTEMPTS < len(cluster.allocations) < 100
    assert cluster.slept_s >= 30.0
    assert cluster.puts == []
    assert sorted(cluster.given_back) == [*range(1_000, cluster.next_id)]


async def test_blocks_got_before_a_node_failed_are_not_used_with_it(cluster: Cluster) -> None:
    """Another batch may have kept an allocation through the failed node."""
    writer = batcher.SmallWriter(cluster.session)
    cluster.broken = {NodeId(1)}
    asked = 0

    def allocate(request: Allocate) -> Allocation:
        nonlocal asked
        asked += 1
        answer = Cluster.allocate(cluster, request)
        if asked == 1:  # meanwhile, another batch leaves the rest of its own
            other = Cluster.allocate(
                cluster, Allocate(holder="me", count=9, length=1, replication=3)
            )
            rest = batcher._Ids(int(other.first_block_id), int(other.first_block_id) + 9, other)
            asyncio.get_running_loop().call_soon(writer._free.setdefault(3, []).append, rest)
        return answer

    cluster.allocate = allocate  # type: ignore[method-assign]
    await writer.put(small("/f"))
    assert asked == 2
    assert cluster.contents() == {"/f": b"/f"}


@pytest.mark.parametrize("where", ["written", "committed"])
async def test_blocks_of_a_caller_that_is_cancelled_are_given_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async def cancelled(*more: object) -> Any:
        raise asyncio.CancelledError

    writer = batcher.SmallWriter(cluster.session)
    if where == "written":
        monkeypatch.setattr(cluster, "run", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await writer.store([b"a", b"b"])
    else:
        monkeypatch.setattr(writer, "_commit", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await writer.put_group([small("/f")])
    assert sorted(cluster.given_back) == [1_000 + n for n in range(3 if where == "written" else 1)]


async def test_after_a_lost_lease_the_blocks_are_written_anew(cluster: Cluster) -> None:
    """The allocation went with the lease, so its block ids must not be put."""
    writer = batcher.SmallWriter(cluster.session)
    cluster.failures["/f"] = LeaseLost("too long")
    assert (await writer.put(small("/f"))).path == "/f"
    first, second = (request.files[0].blocks[0].block_id for request in cluster.puts)
    assert first != second
    assert len(cluster.allocations) == 2


async def test_an_unreachable_namenode_is_told_to_everybody(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    cluster.error = Unavailable("nobody answers")
    found = await asyncio.gather(
        *(writer.put(small(f"/f{number}")) for number in range(5)), return_exceptions=True
    )
    assert [type(one) for one in found] == [Unavailable] * 5
    cluster.error = None
    assert (await writer.put(small("/f"))).path == "/f"


async def test_an_unforeseen_error_leaves_nobody_waiting(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    cluster.error = RuntimeError("our mistake")
    found = await asyncio.gather(
        *(writer.put(small(f"/f{number}")) for number in range(BATCH_FILES * 4)),
        return_exceptions=True,
    )
    assert {type(one) for one in found} == {RuntimeError}
    cluster.error = None
    assert (await writer.put(small("/f"))).path == "/f"


async def test_closing_leaves_nobody_waiting(cluster: Cluster) -> None:
    cluster.gate = asyncio.Event()
    writer, reader = batcher.SmallWriter(cluster.session), batcher.SmallReader(cluster.session)
    calls: list[asyncio.Task[Any]] = [
        asyncio.create_task(writer.put(small(f"/f{number}"))) for number in range(BATCH_FILES * 5)
    ]
    calls += [asyncio.create_task(reader.locate(f"/f{number}")) for number in range(5)]
    for _ in range(5):
        await asyncio.sleep(0)
    await cluster.close()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in found} == {asyncio.CancelledError}


async def test_a_caller_that_gave_up_does_not_disturb_the_others(cluster: Cluster) -> None:
    writer = batcher.SmallWriter(cluster.session)
    calls = [asyncio.create_task(writer.put(small(f"/f{number}"))) for number in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, FileStatus) for one in found] == [True, False, True]


# --- reading ---


def block(number: int) -> Block:
    return Block(block_id=BlockId(number), generation=GenerationStamp(1), length=1)


async def test_lookups_travel_together(cluster: Cluster) -> None:
    reader = batcher.SmallReader(cluster.session)
    paths = [f"/f{number}" for number in range(BATCH_FILES + 5)]
    found = await asyncio.gather(*(reader.locate(path) for path in paths))
    assert [one.status.path for one in found] == paths
    assert [len(request.paths) for request in cluster.lookups] == [BATCH_FILES, 5]


async def test_one_missing_file_is_one_callers_error(cluster: Cluster) -> None:
    reader = batcher.SmallReader(cluster.session)
    found = await asyncio.gather(
        reader.locate("/f"), reader.locate("/missing"), return_exceptions=True
    )
    assert isinstance(found[0], FileBlocks)
    assert isinstance(found[1], PathNotFound)


@pytest.mark.parametrize("error", [Unavailable("nobody answers"), RuntimeError("our mistake")])
async def test_a_failed_lookup_is_told_to_everybody(cluster: Cluster, error: Exception) -> None:
    reader = batcher.SmallReader(cluster.session)
    cluster.error = error
    found = await asyncio.gather(
        *(reader.locate(f"/f{number}") for number in range(4)), return_exceptions=True
    )
    assert [type(one) for one in found] == [type(error)] * 4


async def test_reads_from_one_node_travel_together(cluster: Cluster) -> None:
    reader = batcher.SmallReader(cluster.session)
    found = await asyncio.gather(
        *(reader.read(node(1), block(number)) for number in range(1, 9)),
        *(reader.read(node(2), block(number)) for number in range(9, 12)),
    )
    assert found == [b"%d" % number for number in range(1, 12)]
    assert sorted(cluster.reads) == [3, 8]


async def test_a_block_that_can_not_be_served_is_none_for_its_caller_only(
    cluster: Cluster,
) -> None:
    reader = batcher.SmallReader(cluster.session)
    found = await asyncio.gather(reader.read(node(1), block(0)), reader.read(node(1), block(1)))
    assert found == [None, b"1"]


async def test_a_node_that_fails_serves_none_and_is_asked_again_later(cluster: Cluster) -> None:
    reader = batcher.SmallReader(cluster.session)
    cluster.error = Unavailable("gone")
    assert await reader.read(node(1), block(1)) is None
    cluster.error = RuntimeError("our mistake")
    with pytest.raises(RuntimeError):
        await reader.read(node(1), block(1))
    cluster.error = None
    assert await reader.read(node(1), block(1)) == b"1"
