"""Namespace operations on both dialects: what each does, and what each refuses."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from twinfs.common.errors import (
    DirectoryNotEmpty,
    InvalidMove,
    InvalidPath,
    InvalidRequest,
    IsADirectory,
    LeaseConflict,
    LeaseLost,
    NameQuotaExceeded,
    NotADirectory,
    NotEnoughReplicas,
    PathExists,
    PathNotFound,
    PermissionDenied,
    SpaceQuotaExceeded,
    XattrExists,
    XattrNotFound,
)
from twinfs.common.messages import (
    AbandonBlock,
    AddBlock,
    Allocate,
    Append,
    CommitRecovery,
    Complete,
    Concat,
    Copy,
    Create,
    Delete,
    DeleteMany,
    GetXattrs,
    ListDirectory,
    Locate,
    Mkdirs,
    MoveToTrash,
    PutFile,
    PutFiles,
    RecoverLease,
    RemoveXattr,
    Rename,
    RenameAll,
    SetMode,
    SetOwner,
    SetQuota,
    SetReplication,
    SetTimes,
    SetXattr,
    Stat,
    Summarize,
    Sync,
    Truncate,
    UpdatePipeline,
)
from twinfs.common.model import BlockRef, FileStatus, NodeId
from twinfs.namenode import leases, reaper
from twinfs.namenode.namespace import attributes, files, tree, whole
from twinfs.namenode.permissions import Caller
from twinfs.namenode.store import sql
from twinfs.namenode.store.base import MetadataStore, Transaction

from .namespace_help import NODE_SET, ROOT, RULES, commit, do, register_nodes

MIB = 1 << 20
BOB = Caller("bob", frozenset({"staff"}))


class Space:
    """The namespace under test, as short calls."""

    def __init__(self, store: MetadataStore) -> None:
        self.store = store
        self.now_ms = 1_000_000

    async def mkdirs(self, path: str, caller: Caller = ROOT, **more: Any) -> FileStatus:
        request = Mkdirs(path=path, **more)
        found: FileStatus = await do(
            self.store, tree.mkdirs, request, now_ms=self.now_ms, caller=caller
        )
        return found

    async def stat(self, path: str, caller: Caller = ROOT) -> FileStatus:
        return await self.store.read(lambda tx: tree.stat(tx, caller, Stat(path=path)))

    async def names(self, path: str) -> list[str]:
        page = await self.store.read(
            lambda tx: tree.list_directory(tx, ROOT, ListDirectory(path=path), nodes=NODE_SET)
        )
        return [entry.name for entry in page.entries]

    async def create(self, path: str, caller: Caller = ROOT, **more: Any) -> FileStatus:
        request = Create(path=path, holder=more.pop("holder", "h"), **more)
        found: FileStatus = await do(
            self.store, files.create, request, now_ms=self.now_ms, rules=RULES, caller=caller
        )
        return found

    async def add_block(self, status: FileStatus, holder: str = "h", **more: Any) -> BlockRef:
        request = AddBlock(path=status.path, inode_id=status.inode_id, holder=holder, **more)
        target = await do(
            self.store, files.add_block, request, now_ms=self.now_ms, rules=RULES, placer=NODE_SET
        )
        return target.block  # type: ignore[no-any-return]

    async def complete(self, status: FileStatus, commits: list[Any], holder: str = "h") -> Any:
        request = Complete(
            path=status.path, inode_id=status.inode_id, holder=holder, commits=commits
        )
        return await do(self.store, files.complete, request, now_ms=self.now_ms, rules=RULES)

    async def write(self, path: str, *lengths: int) -> FileStatus:
        """A closed file of blocks with these lengths."""
        status = await self.create(path)
        commits = []
        for length in lengths:
            commits.append(commit(await self.add_block(status), length))
        found: FileStatus = await self.complete(status, commits)
        return found

    async def put(self, path: str, length: int, holder: str = "h", **more: Any) -> Any:
        allocation = await self.allocate(holder)
        ref = BlockRef(block_id=allocation.first_block_id, generation=allocation.generation)
        file = PutFile(path=path, blocks=[commit(ref, length)] if length else [], **more)
        return await self.put_files([file], holder)

    async def allocate(self, holder: str = "h", count: int = 1) -> Any:
        request = Allocate(holder=holder, count=count, length=1)
        return await do(
            self.store, whole.allocate, request, now_ms=self.now_ms, rules=RULES, placer=NODE_SET
        )

    async def put_files(self, files: list[PutFile], holder: str = "h") -> Any:
        request = PutFiles(holder=holder, files=files)
        answer = await do(self.store, whole.put_files, request, now_ms=self.now_ms, rules=RULES)
        return [r.status if r.failure is None else r.failure.code for r in answer.results]

    async def rename(self, source: str, destination: str, **more: Any) -> str:
        request = Rename(source=source, destination=destination, **more)
        return (await do(self.store, tree.rename, request, now_ms=self.now_ms)).path  # type: ignore[no-any-return]

    async def delete(self, path: str, caller: Caller = ROOT, recursive: bool = False) -> bool:
        request = Delete(path=path, recursive=recursive)
        return (  # type: ignore[no-any-return]
            await do(self.store, tree.delete, request, now_ms=self.now_ms, caller=caller)
        ).existed

    async def reopen(self, function: Any, request: Any) -> Any:
        return await do(
            self.store,
            function,
            request,
            now_ms=self.now_ms,
            rules=RULES,
            placer=NODE_SET,
            nodes=NODE_SET,
        )

    async def locate(self, path: str) -> list[tuple[int, int, bool]]:
        found = await self.store.read(
            lambda tx: tree.locate(tx, ROOT, Locate(path=path), nodes=NODE_SET)
        )
        return [(b.offset, b.block.length, b.under_construction) for b in found.blocks]

    async def reap(self) -> None:
        while await self.store.run(lambda tx: reaper.reap(tx, before_ms=2**60, limit=50)):
            pass

    async def count(self, table: str, where: str = "1 = 1") -> int:
        row = await self.store.read(
            lambda tx: tx.one(f"SELECT COUNT(*) FROM {table} WHERE {where}")
        )
        assert row is not None
        return int(row[0])

    async def attribute(self, function: Any, request: Any, caller: Caller = ROOT) -> Any:
        return await do(self.store, function, request, now_ms=self.now_ms, caller=caller)


@pytest.fixture
async def space(store: MetadataStore) -> Space:
    await register_nodes(store)
    return Space(store)


async def test_directories(space: Space) -> None:
    made = await space.mkdirs("/a/b/c", mode=0o750)
    assert (made.type, made.mode, made.owner) == ("directory", 0o750, "root")
    assert (await space.mkdirs("/a/b")).path == "/a/b"
    with pytest.raises(PathExists):
        await space.mkdirs("/a/b", parents=False)
    with pytest.raises(PathNotFound):
        await space.mkdirs("/x/y", parents=False)
    await space.write("/a/f", 5)
    with pytest.raises(PathExists):
        await space.mkdirs("/a/f")
    with pytest.raises(NotADirectory):
        await space.mkdirs("/a/f/g")
    with pytest.raises(NotADirectory):
        await space.stat("/a/f/g")


async def test_listing_is_paged_in_the_order_of_bytes(space: Space) -> None:
    names = ["B", "a", "é", "z", "ä", "10", "9", "文"]
    for name in names:
        await space.mkdirs(f"/l/{name}")
    assert await space.names("/l") == sorted(names, key=str.encode)
    found: list[str] = []
    after = ""
    while True:
        request = ListDirectory(path="/l", start_after=after, limit=3)
        page = await space.store.read(
            lambda tx, r=request: tree.list_directory(tx, ROOT, r, nodes=NODE_SET)  # type: ignore[misc]
        )
        found += [entry.name for entry in page.entries]
        if not page.more:
            break
        after = found[-1]
    assert found == sorted(names, key=str.encode)


async def test_children_are_counted_up_to_a_limit(space: Space) -> None:
    for name in ("a", "b", "b/inside", "c", "ä"):
        await space.mkdirs(f"/{name}")
    for after, limit, count in (("", 10, 4), ("", 3, 3), ("a", 10, 3), ("ä", 10, 0)):
        found = await space.store.read(partial(_count, after=after, limit=limit))
        assert found == count


def _count(tx: Transaction, after: str, limit: int) -> int:
    return sql.count_children(tx, sql.root(tx).inode_id, after, limit)


async def test_create_write_complete(space: Space) -> None:
    status = await space.create("/d/f", mode=0o600, replication=2, block_size=MIB + 1)
    assert (status.under_construction, status.replication, status.block_size) == (True, 2, 2 * MIB)
    block = await space.add_block(status)
    with pytest.raises(NotEnoughReplicas):
        await space.complete(status, [])
    with pytest.raises(NotEnoughReplicas):
        await space.complete(status, [commit(block, 100, nodes=[1])])
    with pytest.raises(InvalidRequest):
        await space.complete(status, [commit(block, 100, nodes=[1, 99])])
    done = await space.complete(status, [commit(block, 100)])
    assert (done.length, done.under_construction) == (100, False)
    assert await space.locate("/d/f") == [(0, 100, False)]
    with pytest.raises(LeaseLost):
        await space.add_block(status)


async def test_create_refusals(space: Space) -> None:
    await space.write("/f", 5)
    with pytest.raises(PathExists):
        await space.create("/f")
    with pytest.raises(IsADirectory):
        await space.create("/")
    await space.mkdirs("/d")
    with pytest.raises(IsADirectory):
        await space.create("/d", overwrite=True)
    with pytest.raises(PathNotFound):
        await space.create("/no/f", create_parents=False)
    with pytest.raises(NotADirectory):
        await space.create("/f/g")


async def test_two_writers_of_one_path(space: Space) -> None:
    first = await space.create("/f", holder="one")
    with pytest.raises(LeaseConflict, match="one"):
        await space.create("/f", holder="two")
    with pytest.raises(LeaseConflict):
        await space.reopen(files.append, Append(path="/f", holder="two"))
    with pytest.raises(LeaseLost):
        await space.add_block(first, holder="two")
    # Overwriting takes the file from its writer, as in HDFS.
    await space.create("/f", holder="two", overwrite=True)
    with pytest.raises((LeaseLost, PathNotFound)):
        await space.complete(first, [], holder="one")


async def test_a_deleted_file_is_lost_to_its_writer(space: Space) -> None:
    status = await space.create("/d/f")
    block = await space.add_block(status)
    await space.delete("/d", recursive=True)
    with pytest.raises(PathNotFound):
        await space.complete(status, [commit(block, 5)])
    await space.reap()
    assert await space.count("open_blocks") == await space.count("leases") == 0


async def test_a_renamed_file_can_be_completed(space: Space) -> None:
    status = await space.create("/d/f")
    block = await space.add_block(status)
    await space.rename("/d", "/e")
    await space.complete(status, [commit(block, 5)])
    assert (await space.stat("/e/f")).length == 5


async def test_visible_length_grows_with_sync(space: Space) -> None:
    status = await space.create("/f")
    block = await space.add_block(status)
    request = Sync(inode_id=status.inode_id, holder="h", block=block, length=70)
    await do(space.store, files.sync, request, now_ms=1, rules=RULES)
    assert (await space.stat("/f")).length == 70
    assert await space.locate("/f") == [(0, 70, True)]
    with pytest.raises(InvalidRequest):
        await space.complete(status, [commit(block, 60)])
    await space.complete(status, [commit(block, 90)])
    assert (await space.stat("/f")).length == 90


async def test_abandon_and_update_pipeline(space: Space) -> None:
    status = await space.create("/f")
    block = await space.add_block(status)
    request = AbandonBlock(inode_id=status.inode_id, holder="h", block_id=block.block_id)
    await do(space.store, files.abandon_block, request, now_ms=1)
    await do(space.store, files.abandon_block, request, now_ms=1)
    block = await space.add_block(status)
    update = UpdatePipeline(
        inode_id=status.inode_id, holder="h", block=block, length=10, keep=[NodeId(1), NodeId(2)]
    )
    target = await do(
        space.store,
        files.update_pipeline,
        update,
        now_ms=1,
        rules=RULES,
        placer=NODE_SET,
        nodes=NODE_SET,
    )
    assert target.block.generation > block.generation
    with pytest.raises(LeaseLost):
        await space.complete(status, [commit(block, 20)])
    await space.complete(status, [commit(target.block, 20, nodes=[1, 2])])
    assert await space.count("replicas", "state = 2 AND node_id = 3") >= 1


async def test_put_files_appear_whole(space: Space) -> None:
    (status,) = await space.put("/p/f", 100, mode=0o640, mtime_ms=5)
    assert (status.length, status.mode, status.mtime_ms) == (100, 0o640, 5)
    assert not status.under_construction
    assert await space.put("/p/f", 100) == ["path-exists"]
    (again,) = await space.put("/p/f", 70, overwrite=True)
    assert again.length == 70
    assert (await space.put("/empty", 0))[0].length == 0


async def test_put_files_checks_each_on_its_own(space: Space) -> None:
    allocation = await space.allocate(count=4)
    refs = [
        BlockRef(block_id=allocation.first_block_id + n, generation=allocation.generation)
        for n in range(4)
    ]
    results = await space.put_files(
        [
            PutFile(path="/ok", blocks=[commit(refs[0], 10)]),
            PutFile(path="/few", blocks=[commit(refs[1], 10, nodes=[1])]),
            PutFile(path="/ok", blocks=[commit(refs[2], 10)]),
            PutFile(path="/twice", blocks=[commit(refs[0], 10)]),
            PutFile(path="/ragged", blocks=[commit(refs[2], 10), commit(refs[3], 10)]),
            PutFile(path="relative", blocks=[]),
        ]
    )
    assert results[1:] == [
        "not-enough-replicas",
        "path-exists",
        "invalid-request",
        "invalid-request",
        "invalid-path",
    ]
    assert await space.names("/") == ["ok"]


async def test_blocks_of_others_and_lost_allocations_can_not_be_put(space: Space) -> None:
    allocation = await space.allocate("h1")
    ref = BlockRef(block_id=allocation.first_block_id, generation=allocation.generation)
    file = PutFile(path="/f", blocks=[commit(ref, 10)])
    assert await space.put_files([file], "h2") == ["lease-lost"]
    await space.store.run(lambda tx: leases.expire_holders(tx, 2**60, 100))
    assert await space.put_files([file], "h1") == ["lease-lost"]


async def test_rename(space: Space) -> None:
    await space.write("/a/f", 5)
    await space.mkdirs("/b/sub")
    await space.write("/b/g", 7)
    assert await space.rename("/a/f", "/b/f") == "/b/f"
    assert await space.rename("/b/f", "/b/f") == "/b/f"
    with pytest.raises(PathExists):
        await space.rename("/b/f", "/b/g")
    await space.rename("/b/f", "/b/g", overwrite=True)
    assert (await space.stat("/b/g")).length == 5
    assert await space.rename("/b/g", "/b/sub", into=True) == "/b/sub/g"
    with pytest.raises(InvalidMove):
        await space.rename("/b", "/b/sub/x")
    with pytest.raises(InvalidMove):
        await space.rename("/", "/x")
    with pytest.raises(PathNotFound):
        await space.rename("/nope", "/x")
    with pytest.raises(PathNotFound):
        await space.rename("/b", "/no/x")
    with pytest.raises(NotADirectory):
        await space.rename("/a", "/b/sub/g/x")
    with pytest.raises(IsADirectory):
        await space.rename("/b/sub/g", "/a", overwrite=True)
    with pytest.raises(NotADirectory):
        await space.rename("/a", "/b/sub/g", overwrite=True)
    with pytest.raises(DirectoryNotEmpty):
        await space.rename("/a", "/b", overwrite=True)
    with pytest.raises(DirectoryNotEmpty):
        await space.rename("/b/sub", "/b", overwrite=True)
    await space.mkdirs("/empty")
    await space.rename("/b/sub", "/empty", overwrite=True)
    assert (await space.stat("/empty/g")).length == 5


async def test_a_moved_directory_is_found_only_at_its_new_place(space: Space) -> None:
    await space.write("/a/b/c/f", 5)
    assert (await space.stat("/a/b/c/f")).length == 5
    await space.rename("/a/b", "/x")
    assert (await space.stat("/x/c/f")).length == 5
    with pytest.raises(PathNotFound):
        await space.stat("/a/b/c/f")
    await space.mkdirs("/a/b/c")
    with pytest.raises(PathNotFound):
        await space.stat("/a/b/c/f")


async def test_delete(space: Space) -> None:
    await space.write("/d/e/f", MIB, 5)
    with pytest.raises(DirectoryNotEmpty):
        await space.delete("/d")
    with pytest.raises(InvalidPath):
        await space.delete("/", recursive=True)
    assert await space.delete("/nope") is False
    assert await space.delete("/d", recursive=True) is True
    assert await space.names("/") == []
    await space.reap()
    assert await space.count("inodes") == 1
    assert await space.count("blocks") == await space.count("file_blocks") == 0
    assert await space.count("replicas", "state <> 2") == 0
    assert await space.count("replicas", "state = 2") == 6


async def test_renaming_all_or_none(space: Space) -> None:
    await space.mkdirs("/d")
    for name in ("a", "b", "c"):
        await space.create(f"/{name}", holder=name)

    def moves(*pairs: tuple[str, str]) -> RenameAll:
        return RenameAll(renames=[Rename(source=s, destination=d) for s, d in pairs])

    before, events = await space.names("/"), await space.count("pending_events")
    for bad in ("/nope", "/c"):
        request = moves(("/a", "/d/a"), ("/d/a", "/d/b"), (bad, "/b"))
        with pytest.raises((PathNotFound, PathExists)):
            await do(space.store, tree.rename_all, request, now_ms=1)
        assert await space.names("/") == before
        assert await space.names("/d") == []
        assert await space.count("pending_events") == events
    answer = await do(
        space.store, tree.rename_all, moves(("/a", "/d/a"), ("/d", "/e"), ("/b", "/a")), now_ms=1
    )
    assert answer.paths == ["/d/a", "/e", "/a"]
    assert await space.names("/") == ["a", "c", "e"]
    assert await space.names("/e") == ["a"]


async def test_delete_many(space: Space) -> None:
    await space.mkdirs("/a/b")
    await space.mkdirs("/c")
    request = DeleteMany(paths=["/a", "/c", "/nope", "bad"])
    answer = await do(space.store, tree.delete_many, request, now_ms=1)
    codes = [r.failure.code if r.failure else r.existed for r in answer.results]
    assert codes == ["directory-not-empty", True, False, "invalid-path"]


async def test_a_large_tree_is_unlinked_at_once_and_reaped_in_pieces(space: Space) -> None:
    for start in range(0, 600, 200):
        results = await space.put_files(
            [PutFile(path=f"/big/d{n % 7}/e{n % 3}/f{n}") for n in range(start, start + 200)]
        )
        assert all(isinstance(result, FileStatus) for result in results)
    await space.delete("/big", recursive=True)
    with pytest.raises(PathNotFound):
        await space.stat("/big")
    pieces = 0
    while done := await space.store.run(lambda tx: reaper.reap(tx, before_ms=2**60, limit=100)):
        assert done <= 101
        pieces += 1
    assert pieces > 5
    assert await space.count("inodes") == 1


async def test_summaries(space: Space) -> None:
    await space.write("/s/a", 10)
    await space.write("/s/d/b", 20)
    found = await space.store.read(lambda tx: tree.summarize(tx, ROOT, Summarize(path="/s")))
    assert (found.directories, found.files, found.length, found.space_consumed) == (2, 2, 30, 90)
    one = await space.store.read(lambda tx: tree.summarize(tx, ROOT, Summarize(path="/s/a")))
    assert (one.directories, one.files, one.length) == (0, 1, 10)


async def test_append_replaces_the_last_partial_block(space: Space) -> None:
    await space.write("/f", MIB, 100)
    opened = await space.reopen(files.append, Append(path="/f", holder="h"))
    assert opened.block_offset == MIB
    assert opened.block.base.length == 100
    assert await space.locate("/f") == [(0, MIB, False), (MIB, 100, True)]
    done = await space.complete(opened.status, [commit(opened.block.block, 150)])
    assert done.length == MIB + 150
    assert await space.locate("/f") == [(0, MIB, False), (MIB, 150, False)]
    assert await space.count("blocks") == 2


async def test_append_after_a_full_block_needs_no_base(space: Space) -> None:
    await space.write("/f", MIB)
    opened = await space.reopen(files.append, Append(path="/f", holder="h"))
    assert opened.block is None
    assert opened.block_offset == MIB


async def test_truncate(space: Space) -> None:
    await space.write("/f", MIB, MIB, 100)
    same = await space.reopen(files.truncate, Truncate(path="/f", holder="h", length=2 * MIB + 100))
    assert same.closed
    with pytest.raises(InvalidRequest):
        await space.reopen(files.truncate, Truncate(path="/f", holder="h", length=3 * MIB))
    at_end = await space.reopen(files.truncate, Truncate(path="/f", holder="h", length=2 * MIB))
    assert at_end.closed
    assert at_end.status.length == 2 * MIB
    inside = await space.reopen(files.truncate, Truncate(path="/f", holder="h", length=MIB + 7))
    assert not inside.closed
    assert (inside.block_offset, inside.block.base.length) == (MIB, 7)
    await space.complete(inside.status, [commit(inside.block.block, 7)])
    assert (await space.stat("/f")).length == MIB + 7
    assert (await space.reopen(files.truncate, Truncate(path="/f", holder="h", length=0))).closed
    assert await space.locate("/f") == []
    assert await space.count("blocks") == 0


async def test_copies_share_blocks_until_the_last_is_gone(space: Space) -> None:
    await space.write("/f", MIB, 5)
    request = Copy(source="/f", destination="/g")
    await do(space.store, whole.copy, request, now_ms=1, rules=RULES)
    with pytest.raises(PathExists):
        await do(space.store, whole.copy, request, now_ms=1, rules=RULES)
    assert await space.count("blocks") == 2
    await space.delete("/f")
    await space.reap()
    assert await space.locate("/g") == [(0, MIB, False), (MIB, 5, False)]
    assert await space.count("replicas", "state = 2") == 0
    await space.delete("/g")
    await space.reap()
    assert await space.count("blocks") == 0


async def test_appending_to_a_copy_leaves_the_other_alone(space: Space) -> None:
    await space.write("/f", 10)
    await do(space.store, whole.copy, Copy(source="/f", destination="/g"), now_ms=1, rules=RULES)
    opened = await space.reopen(files.append, Append(path="/g", holder="h"))
    await space.complete(opened.status, [commit(opened.block.block, 25)])
    assert (await space.stat("/f")).length == 10
    assert await space.locate("/f") == [(0, 10, False)]
    assert await space.locate("/g") == [(0, 25, False)]


async def test_concat(space: Space) -> None:
    await space.write("/a", 5)
    await space.write("/b", MIB)
    await space.write("/c", 7)
    request = Concat(target="/a", sources=["/b", "/c"])
    await do(space.store, whole.concat, request, now_ms=1, rules=RULES)
    assert await space.names("/") == ["a"]
    assert await space.locate("/a") == [(0, 5, False), (5, MIB, False), (MIB + 5, 7, False)]
    for bad in (["/a"], ["/nope"]):
        with pytest.raises((InvalidRequest, PathNotFound)):
            await do(
                space.store, whole.concat, Concat(target="/a", sources=bad), now_ms=1, rules=RULES
            )
    await space.reap()
    assert await space.count("blocks") == 3


async def test_a_file_that_names_a_block_twice(space: Space) -> None:
    await space.write("/a", 5)
    await do(space.store, whole.copy, Copy(source="/a", destination="/b"), now_ms=1, rules=RULES)
    await do(space.store, whole.concat, Concat(target="/a", sources=["/b"]), now_ms=1, rules=RULES)
    assert await space.locate("/a") == [(0, 5, False), (5, 5, False)]
    await do(space.store, whole.copy, Copy(source="/a", destination="/c"), now_ms=1, rules=RULES)
    await space.delete("/a")
    await space.reap()
    assert await space.count("blocks", "refs = 2") == 1
    await space.delete("/c")
    await space.reap()
    assert await space.count("blocks") == 0


async def test_replication(space: Space) -> None:
    await space.write("/f", 10)
    request = SetReplication(path="/f", replication=2)
    blocks = await space.attribute(attributes.set_replication, request)
    assert len(blocks) == 1
    assert (await space.stat("/f")).replication == 2
    assert await space.count("blocks", "replication = 2") == 1
    with pytest.raises(IsADirectory):
        await space.attribute(attributes.set_replication, SetReplication(path="/", replication=2))


async def test_attributes(space: Space) -> None:
    await space.write("/f", 10)
    await space.attribute(attributes.set_mode, SetMode(path="/f", mode=0o4711))
    await space.attribute(attributes.set_owner, SetOwner(path="/f", owner="bob", group="staff"))
    await space.attribute(attributes.set_times, SetTimes(path="/f", mtime_ms=1, atime_ms=2))
    found = await space.stat("/f")
    assert (found.mode, found.owner, found.group) == (0o4711, "bob", "staff")
    assert (found.mtime_ms, found.atime_ms) == (1, 2)
    with pytest.raises(InvalidRequest):
        await space.attribute(attributes.set_owner, SetOwner(path="/f"))


async def test_xattrs(space: Space) -> None:
    await space.write("/f", 1)

    async def set_one(name: str, value: bytes, flag: Any = "set") -> None:
        await space.attribute(
            attributes.set_xattr, SetXattr(path="/f", name=name, value=value, flag=flag)
        )

    await set_one("user.a", b"\0\xff")
    await set_one("user.a", b"2", "replace")
    with pytest.raises(XattrExists):
        await set_one("user.a", b"3", "create")
    with pytest.raises(XattrNotFound):
        await set_one("user.b", b"3", "replace")
    for bad in ("a", "user.", "other.x", "user.\n"):
        with pytest.raises(InvalidRequest):
            await set_one(bad, b"")
    with pytest.raises(InvalidRequest):
        await set_one("user.big", b"x" * 20_000)
    found = await space.store.read(lambda tx: attributes.get_xattrs(tx, ROOT, GetXattrs(path="/f")))
    assert found.xattrs == {"user.a": b"2"}
    await space.attribute(attributes.remove_xattr, RemoveXattr(path="/f", name="user.a"))
    with pytest.raises(XattrNotFound):
        await space.attribute(attributes.remove_xattr, RemoveXattr(path="/f", name="user.a"))


async def test_quota_of_names(space: Space) -> None:
    await space.mkdirs("/q/a")
    await space.attribute(attributes.set_quota, SetQuota(path="/q", names=4))
    await space.mkdirs("/q/b")
    await space.write("/q/f", 1)
    with pytest.raises(NameQuotaExceeded):
        await space.mkdirs("/q/c")
    with pytest.raises(NameQuotaExceeded):
        await space.create("/q/g")
    assert (await space.put("/q/h", 1)) == ["name-quota-exceeded"]
    await space.write("/outside", 1)
    with pytest.raises(NameQuotaExceeded):
        await space.rename("/outside", "/q/outside")
    await space.rename("/q/f", "/f")
    await space.rename("/outside", "/q/outside")
    await space.delete("/q/a")
    await space.mkdirs("/q/c")
    await space.attribute(attributes.set_quota, SetQuota(path="/q", names=-1))
    await space.mkdirs("/q/d/e/f")


async def test_quota_of_bytes(space: Space) -> None:
    await space.mkdirs("/q")
    await space.attribute(attributes.set_quota, SetQuota(path="/q", space_bytes=7 * MIB))
    status = await space.create("/q/f")
    first = await space.add_block(status)  # a whole block is reserved, three times
    second = await space.add_block(status)
    with pytest.raises(SpaceQuotaExceeded):
        await space.add_block(status)
    await space.complete(status, [commit(first, MIB), commit(second, 10)])
    found = await space.store.read(lambda tx: tree.summarize(tx, ROOT, Summarize(path="/q")))
    assert found.space_used == 3 * MIB + 30
    assert isinstance((await space.put("/q/g", MIB))[0], FileStatus)
    assert await space.put("/q/h", MIB) == ["space-quota-exceeded"]
    with pytest.raises(SpaceQuotaExceeded):
        await space.attribute(
            attributes.set_replication, SetReplication(path="/q/g", replication=20)
        )
    with pytest.raises(SpaceQuotaExceeded):
        await do(
            space.store, whole.copy, Copy(source="/q/g", destination="/q/i"), now_ms=1, rules=RULES
        )
    await space.delete("/q/f")
    assert isinstance((await space.put("/q/h", MIB))[0], FileStatus)


async def test_permissions(space: Space) -> None:
    await space.mkdirs("/private", mode=0o700)
    await space.mkdirs("/shared", mode=0o1777)
    await space.mkdirs("/open", mode=0o755)
    with pytest.raises(PermissionDenied):
        await space.mkdirs("/open/x", caller=BOB)
    with pytest.raises(PermissionDenied):
        await space.stat("/private/x", caller=BOB)
    await space.mkdirs("/shared/bob", caller=BOB, mode=0o700)
    await space.mkdirs("/shared/root")
    with pytest.raises(PermissionDenied, match="sticky"):
        await space.delete("/shared/root", caller=BOB)
    with pytest.raises(PermissionDenied):
        await space.attribute(attributes.set_mode, SetMode(path="/shared", mode=0), BOB)
    await space.attribute(attributes.set_mode, SetMode(path="/shared/bob", mode=0o755), BOB)
    with pytest.raises(PermissionDenied):
        await space.attribute(attributes.set_owner, SetOwner(path="/shared/bob", owner="eve"), BOB)
    await space.attribute(attributes.set_owner, SetOwner(path="/shared/bob", group="staff"), BOB)
    with pytest.raises(PermissionDenied):
        await space.attribute(attributes.set_quota, SetQuota(path="/shared", names=5), BOB)
    await space.write("/open/secret", 5)
    await space.attribute(attributes.set_mode, SetMode(path="/open/secret", mode=0o600))
    with pytest.raises(PermissionDenied):
        await space.store.read(
            lambda tx: tree.locate(tx, BOB, Locate(path="/open/secret"), nodes=NODE_SET)
        )
    assert await space.delete("/shared/bob", caller=BOB)


async def test_trash(space: Space) -> None:
    for _ in range(2):
        await space.write("/d/f", 5)
        answer = await do(space.store, tree.move_to_trash, MoveToTrash(path="/d/f"), now_ms=77)
        assert answer.path.startswith("/user/root/.Trash/Current/d/f")
    assert await space.names("/user/root/.Trash/Current/d") == ["f", "f.77"]
    for bad in ("/", "/user", "/user/root/.Trash/Current/d/f"):
        with pytest.raises((InvalidPath, InvalidMove)):
            await do(space.store, tree.move_to_trash, MoveToTrash(path=bad), now_ms=1)


# --- lost writers ------------------------------------------------------------------------------


async def recover(space: Space, path: str) -> Any:
    return await do(space.store, leases.recover_lease, RecoverLease(path=path), now_ms=space.now_ms)


async def test_recovery_without_open_blocks_closes_at_once(space: Space) -> None:
    status = await space.create("/f")
    answer, recoveries = await recover(space, "/f")
    assert answer.closed
    assert recoveries == []
    assert not (await space.stat("/f")).under_construction
    with pytest.raises(LeaseLost):
        await space.complete(status, [])
    answer, _ = await recover(space, "/f")
    assert answer.closed


async def test_recovery_keeps_what_was_synced(space: Space) -> None:
    status = await space.create("/f")
    block = await space.add_block(status)
    sync = Sync(inode_id=status.inode_id, holder="h", block=block, length=50)
    await do(space.store, files.sync, sync, now_ms=1, rules=RULES)
    answer, (recovery,) = await recover(space, "/f")
    assert not answer.closed
    assert recovery.minimum_length == 50
    assert len(recovery.nodes) == 3
    with pytest.raises(LeaseLost):
        await space.complete(status, [commit(block, 80)])
    renewed = BlockRef(block_id=block.block_id, generation=recovery.new_generation)

    def request(length: int | None, generation: Any = recovery.new_generation) -> CommitRecovery:
        return CommitRecovery(
            block=block,
            new_generation=generation,
            commit=None if length is None else commit(renewed, length, nodes=[1, 2]),
        )

    for bad in (request(40), request(None), request(60, recovery.new_generation + 9)):
        with pytest.raises(InvalidRequest):
            await do(space.store, leases.commit_recovery, bad, now_ms=1)
    await do(space.store, leases.commit_recovery, request(60), now_ms=1)
    await do(space.store, leases.commit_recovery, request(60), now_ms=1)
    found = await space.stat("/f")
    assert (found.length, found.under_construction) == (60, False)


async def test_recovery_of_an_append_that_wrote_nothing_restores_the_file(space: Space) -> None:
    await space.write("/f", 100)
    await space.reopen(files.append, Append(path="/f", holder="h"))
    _, (recovery,) = await recover(space, "/f")
    request = CommitRecovery(block=recovery.block, new_generation=recovery.new_generation)
    await do(space.store, leases.commit_recovery, request, now_ms=1)
    assert await space.locate("/f") == [(0, 100, False)]
    assert not (await space.stat("/f")).under_construction
    assert await space.count("blocks") == 1


async def test_blocks_after_a_short_one_are_dropped(space: Space) -> None:
    status = await space.create("/f")
    first = await space.add_block(status)
    await space.add_block(status)
    _, recoveries = await recover(space, "/f")
    assert len(recoveries) == 2
    renewed = BlockRef(block_id=first.block_id, generation=recoveries[0].new_generation)
    request = CommitRecovery(
        block=first, new_generation=recoveries[0].new_generation, commit=commit(renewed, 10)
    )
    await do(space.store, leases.commit_recovery, request, now_ms=1)
    found = await space.stat("/f")
    assert (found.length, found.under_construction) == (10, False)


async def test_silent_writers_are_found(space: Space) -> None:
    await space.create("/f", holder="old")
    space.now_ms += 1_000_000
    await space.create("/g", holder="new")
    found = await space.store.run(lambda tx: leases.silent_writers(tx, space.now_ms - 500_000, 10))
    assert [node.name for node in found] == ["f"]
    with pytest.raises(LeaseConflict, match="being closed"):
        await space.create("/f", holder="new")
