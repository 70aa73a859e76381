"""Blocks without a file and appends that are taken back, on both dialects: nothing is promised before the end."""

from __future__ import annotations

from typing import Any

import pytest

from twinfs.common.errors import InvalidRequest, LeaseLost, NotEnoughDataNodes
from twinfs.common.messages import (
    MAX_BATCH,
    AbandonBlock,
    AddBlock,
    Append,
    CancelAppend,
    PutFile,
    SetQuota,
    Summarize,
    Sync,
    UpdatePipeline,
)
from twinfs.common.model import BlockId, BlockRef, INodeId, NodeId
from twinfs.namenode.namespace import attributes, files, tree, undo
from twinfs.namenode.store.base import MetadataStore

from .namespace_help import NODE_SET, ROOT, RULES, commit, do, register_nodes
from .test_namespace import MIB, Space


@pytest.fixture
async def space(store: MetadataStore) -> Space:
    await register_nodes(store)
    return Space(store)


async def allocations(space: Space) -> int:
    return await space.count("allocations")


async def allocated(space: Space, holder: str = "h") -> BlockRef:
    found = await space.allocate(holder)
    return BlockRef(block_id=found.first_block_id, generation=found.generation)


async def grow(space: Space, block: BlockRef, keep: list[int], **more: Any) -> Any:
    request = UpdatePipeline(
        inode_id=INodeId(0),
        holder=more.pop("holder", "h"),
        block=block,
        length=100,
        keep=[NodeId(n) for n in keep],
        **more,
    )
    placed = {"rules": RULES, "placer": NODE_SET, "nodes": NODE_SET}
    return await do(space.store, files.update_pipeline, request, now_ms=2, **placed)


async def test_a_block_without_a_file_goes_on_after_a_failure(space: Space) -> None:
    block = await allocated(space)
    target = await grow(space, block, [2])
    assert target.block.generation > block.generation
    assert [node.node_id for node in target.nodes] == [2]
    assert (target.base.length, target.base.block) == (100, target.block)
    more = await grow(space, target.block, [2], extend=True, exclude=[NodeId(1)])
    assert [node.node_id for node in more.nodes] == [2, 3]
    with pytest.raises(LeaseLost):
        await grow(space, block, [2])  # of the former generation
    with pytest.raises(LeaseLost):
        await grow(space, more.block, [2], holder="somebody else")
    with pytest.raises(InvalidRequest):
        await grow(space, more.block, [99])
    with pytest.raises(NotEnoughDataNodes):
        await grow(space, more.block, [2], extend=True, exclude=[NodeId(1), NodeId(3)])
    # It is put under its last generation, and under no other.
    stale = PutFile(path="/f", blocks=[commit(target.block, 5)])
    assert await space.put_files([stale]) == ["invalid-request"]
    fresh = PutFile(path="/f", blocks=[commit(more.block, 5)])
    (status,) = await space.put_files([fresh])
    assert status.length == 5


async def test_allocations_end_when_their_block_is_in_a_file(space: Space) -> None:
    """A client that lives for months must not gather rows."""
    for number in range(3):
        await space.put(f"/f{number}", 10)
    assert await allocations(space) == 0
    block = await allocated(space)
    failed = PutFile(path="/f0", blocks=[commit(block, 5)])
    assert await space.put_files([failed]) == ["path-exists"]
    assert await allocations(space) == 1  # still the client's, for another try
    request = AbandonBlock(inode_id=INodeId(0), holder="other", block_id=block.block_id)
    await do(space.store, files.abandon_block, request, now_ms=2)
    assert await allocations(space) == 1
    request = AbandonBlock(inode_id=INodeId(0), holder="h", block_id=block.block_id)
    await do(space.store, files.abandon_block, request, now_ms=2)
    assert await allocations(space) == 0
    assert await space.put_files([PutFile(path="/g", blocks=[commit(block, 5)])]) == ["lease-lost"]


async def test_allocations_of_many_blocks_shrink_as_they_are_used_and_given_back(
    space: Space,
) -> None:
    """What is in no file is the client's only as long as it means to put it: replicas of the rest are orphans."""
    found = await space.allocate("h", count=10)
    first = int(found.first_block_id)

    async def rows() -> list[tuple[int, int]]:
        statement = "SELECT first_block_id, last_block_id FROM allocations ORDER BY first_block_id"
        return [
            (a - first, b - first) for a, b in await space.store.read(lambda t: t.all(statement))
        ]

    def block(number: int) -> BlockRef:
        return BlockRef(block_id=BlockId(first + number), generation=found.generation)

    async def put(*numbers: int) -> list[Any]:
        files_ = [PutFile(path=f"/f{n}", blocks=[commit(block(n), n + 1)]) for n in numbers]
        answers = await space.put_files(files_)
        return [one if isinstance(one, str) else one.path for one in answers]

    async def give_back(number: int, count: int, holder: str = "h") -> None:
        request = AbandonBlock(
            inode_id=INodeId(0), holder=holder, block_id=block(number).block_id, count=count
        )
        await do(space.store, files.abandon_block, request, now_ms=2)

    assert await put(0, 1) == ["/f0", "/f1"]
    assert await rows() == [(2, 9)]
    assert await put(4) == ["/f4"]
    assert await rows() == [(2, 3), (5, 9)]
    await give_back(3, 4, "somebody else")
    assert await rows() == [(2, 3), (5, 9)]
    for _ in range(2):  # a request may come again
        await give_back(3, 4)
        assert await rows() == [(2, 2), (7, 9)]
    assert await put(3, 5, 6) == ["lease-lost"] * 3
    await give_back(9, MAX_BATCH)
    assert await rows() == [(2, 2), (7, 8)]
    # A block that is refused stays the client's until it says otherwise; what is in files is not touched.
    again = PutFile(path="/f0", blocks=[commit(block(7), 5)])
    assert await space.put_files([again]) == ["path-exists"]
    assert await rows() == [(2, 2), (7, 8)]
    await give_back(0, 10)
    assert await rows() == []
    assert len(await space.locate("/f4")) == 1


async def test_the_blocks_of_a_file_are_taken_back_one_by_one(space: Space) -> None:
    status = await space.create("/open")
    block = await space.add_block(status)
    request = AbandonBlock(inode_id=status.inode_id, holder="h", block_id=block.block_id, count=2)
    with pytest.raises(InvalidRequest):
        await do(space.store, files.abandon_block, request, now_ms=2)


async def cancel(space: Space, inode_id: INodeId, holder: str = "h") -> None:
    request = CancelAppend(inode_id=inode_id, holder=holder)
    await do(space.store, undo.cancel_append, request, now_ms=3)


@pytest.mark.parametrize("lengths", [(100,), (MIB, 100), (MIB,), ()])
async def test_an_append_is_taken_back_whole(space: Space, lengths: tuple[int, ...]) -> None:
    await do(space.store, attributes.set_quota, SetQuota(path="/", space_bytes=1 << 30), now_ms=1)
    await space.write("/f", *lengths)
    before = await space.locate("/f"), await space.count("blocks")
    used = (await do(space.store, tree.summarize, Summarize(path="/"))).space_used
    opened = await space.reopen(files.append, Append(path="/f", holder="h"))
    for _ in range(2):
        await space.add_block(opened.status)
    with pytest.raises(LeaseLost):
        await cancel(space, opened.status.inode_id, "somebody else")
    await cancel(space, opened.status.inode_id)
    assert (await space.locate("/f"), await space.count("blocks")) == before
    status = await space.stat("/f")
    assert (status.length, status.under_construction) == (sum(lengths), False)
    assert (await do(space.store, tree.summarize, Summarize(path="/"))).space_used == used
    with pytest.raises(LeaseLost):
        await cancel(space, opened.status.inode_id)
    again = await space.reopen(files.append, Append(path="/f", holder="h2"))
    assert again.status.under_construction


async def test_what_was_synced_stays(space: Space) -> None:
    await space.write("/f", 100)
    opened = await space.reopen(files.append, Append(path="/f", holder="h"))
    sync = Sync(inode_id=opened.status.inode_id, holder="h", block=opened.block.block, length=150)
    await do(space.store, files.sync, sync, now_ms=2, rules=RULES)
    with pytest.raises(InvalidRequest, match="synced"):
        await cancel(space, opened.status.inode_id)


async def test_blocks_of_an_append_are_committed_at_its_end(space: Space) -> None:
    await space.write("/f", 100)
    opened = await space.reopen(files.append, Append(path="/f", holder="h"))
    request = AddBlock(path="/f", inode_id=opened.status.inode_id, holder="h")
    placed = {"rules": RULES, "placer": NODE_SET}
    second = await do(space.store, files.add_block, request, now_ms=2, caller=ROOT, **placed)
    commits = [commit(opened.block.block, MIB), commit(second.block, 7)]
    done = await space.complete(opened.status, commits)
    assert done.length == MIB + 7
    assert await space.locate("/f") == [(0, MIB, False), (MIB, 7, False)]
