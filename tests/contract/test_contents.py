"""Content without a path, CIDs of paths, pins and their collection, on every store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from twinfs.common import content as c
from twinfs.common.checksum import CHUNK_BYTES, block_digest, digest_of
from twinfs.common.errors import (
    BlockNotFound,
    ContentNotFound,
    InvalidContent,
    InvalidRequest,
    LeaseLost,
    NotEnoughReplicas,
    PathExists,
    PermissionDenied,
    PinExists,
    PinNotFound,
)
from twinfs.common.ipld import dag_cbor, layout
from twinfs.common.ipld.cid import DAG_CBOR, RAW, SHA2_256, Cid
from twinfs.common.ipld.layout import TWINFS, Node
from twinfs.common.messages import (
    Allocate,
    Append,
    BlockCommit,
    Complete,
    Concat,
    Copy,
    Delete,
    FileDag,
    PutFile,
    PutFiles,
    Truncate,
)
from twinfs.common.model import BlockId, GenerationStamp, NodeId
from twinfs.namenode import contents, leases, pins, providers
from twinfs.namenode.namespace import attributes, files, linking, tree, whole
from twinfs.namenode.permissions import Caller
from twinfs.namenode.reaper import reap
from twinfs.namenode.store.base import MetadataStore

from .namespace_help import NODE_SET, NODES, ROOT, RULES, do, register_nodes

HOLDER = "writer"
MIB = 1024 * 1024
USER = Caller("mary", frozenset({"mary"}), host="127.0.0.1")


class Cluster:
    """Operations on content, with blocks that nobody writes."""

    def __init__(self, store: MetadataStore) -> None:
        self.store = store
        self.now_ms = 1_000_000

    async def do(self, function: Any, request: Any, **more: Any) -> Any:
        self.now_ms += 10
        return await do(self.store, function, request, now_ms=self.now_ms, **more)

    async def read(self, function: Any, request: Any, **more: Any) -> Any:
        return await self.store.read(lambda tx: function(tx, ROOT, request, **more))

    async def allocate(self, count: int) -> tuple[int, GenerationStamp]:
        found = await self.do(
            whole.allocate,
            Allocate(holder=HOLDER, count=count, length=1),
            rules=RULES,
            placer=NODE_SET,
        )
        return found.first_block_id, found.generation

    async def block(self, data: bytes, nodes: Sequence[int] = (1, 2, 3)) -> c.ContentBlock:
        block_id, generation = await self.allocate(1)
        return c.ContentBlock(
            block_id=BlockId(block_id),
            generation=generation,
            length=len(data),
            digest=digest_of(data),
            nodes=[NodeId(n) for n in nodes],
        )

    async def entry(self, value: Any, code: int = 0x1E) -> c.PutContent:
        """A raw block of bytes, or a dag-cbor block of anything else."""
        raw = isinstance(value, bytes)
        data = value if raw else dag_cbor.encode(value)
        cid = Cid.of(RAW if raw else DAG_CBOR, data, code)
        return c.PutContent(
            multihash=cid.multihash,
            codec=cid.codec,
            block=await self.block(data),
            data=b"" if raw else data,
        )

    async def put(self, *entries: c.PutContent, **more: Any) -> c.PutContentsAnswer:
        request = c.PutContents(holder=HOLDER, blocks=list(entries), **more)
        answer: c.PutContentsAnswer = await self.do(contents.put, request, rules=RULES)
        return answer

    async def add(self, value: Any) -> Cid:
        entry = await self.entry(value)
        await self.put(entry)
        return Cid(1, entry.codec, entry.multihash)

    async def pin(self, cid: Cid, **more: Any) -> c.Pin:
        caller = more.pop("caller", ROOT)
        request = c.PinAdd(multihash=cid.multihash, codec=cid.codec, **more)
        found: c.Pin = await self.do(pins.add, request, caller=caller)
        return found

    async def unpin(self, cid: Cid, **more: Any) -> int:
        caller = more.pop("caller", ROOT)
        request = c.PinRemove(multihash=cid.multihash, **more)
        found: c.PinsRemoved = await self.do(pins.remove, request, caller=caller)
        return found.count

    async def collect(self, **more: Any) -> tuple[int, int]:
        """(CID blocks gone, steps)."""
        blocks = steps = 0
        while True:
            done = await self.do(contents.collect, c.Collect(**more))
            blocks, steps = blocks + done.blocks, steps + 1
            if not done.work:
                return blocks, steps
            assert steps < 1_000

    async def held(self, *cids: Cid) -> list[int]:
        request = c.FindCids(multihashes=[cid.multihash for cid in cids])
        found = await self.read(providers.find, request, nodes=NODE_SET)
        return [0 if one is None else 1 + one.complete for one in found.found]

    async def count(self, table: str) -> int:
        row = await self.store.read(lambda tx: tx.one(f"SELECT COUNT(*) FROM {table}"))
        return int(row[0]) if row else 0

    async def check(self) -> None:
        """What the rows say of themselves is true: references counted, links counted, nothing refers to what is not there."""

        def look(tx: Any) -> None:
            refs: dict[int, int] = {}
            for table, column in (
                ("content_links", "child_id"),
                ("file_dags", "content_id"),
                ("cached_cids", "content_id"),
                ("pins", "content_id"),
            ):
                where = " WHERE kind = 1" if table == "pins" else ""
                for (found,) in tx.all(f"SELECT {column} FROM {table}{where}"):
                    refs[found] = refs.get(found, 0) + 1
            rows = {row[0]: row for row in tx.all("SELECT content_id, refs, links, leaves, block_id, complete FROM contents")}  # fmt: skip
            assert set(refs) <= set(rows)
            links = dict(tx.all("SELECT parent_id, COUNT(*) FROM content_links GROUP BY parent_id"))
            blocks: dict[int, int] = {}
            for content_id, count, linked, leaves, block_id, _ in rows.values():
                assert refs.get(content_id, 0) == count
                assert links.get(content_id, 0) == linked
                blocks[block_id] = blocks.get(block_id, 0) + 1
                owned = tx.all("SELECT 1 FROM file_blocks WHERE inode_id = ?", (content_id,))
                assert bool(owned) == bool(leaves)
            for parent, child in tx.all("SELECT parent_id, child_id FROM content_links"):
                # A file's root has its leaves itself; its nodes are nothing without it.
                whole = rows[child][5] or rows[parent][3]
                assert whole or not rows[parent][5], "complete above incomplete"
            for (block_id,) in tx.all("SELECT block_id FROM file_blocks"):
                blocks[block_id] = blocks.get(block_id, 0) + 1
            assert dict(tx.all("SELECT block_id, refs FROM blocks")) == blocks

        await self.store.run(lambda tx: reap(tx, before_ms=10**15, limit=1_000))
        await self.store.read(look)

    # --- files ---

    async def file(
        self,
        path: str,
        sizes: Sequence[int],
        *,
        seed: int = 0,
        dag: bool = True,
        replication: int | None = None,
    ) -> tuple[Node | None, PutFile]:
        """Put a file of blocks of these sizes; (its root, if it has more than one chunk; what was put)."""
        blocks, digests, leaves = await self.blocks_of(sizes, seed)
        made: list[layout.Made] = []
        root = None
        proof = None
        if len(leaves) > 1:
            root, made = layout.build(TWINFS, leaves)
            nodes = [as_commit(await self.block(one.block)) for one in made]
            proof = FileDag(digests=digests, nodes=nodes)
        put = PutFile(
            path=path,
            overwrite=True,
            replication=replication,
            block_size=max([MIB, *sizes]),
            blocks=[as_commit(block) for block in blocks],
            dag=proof if dag else None,
        )
        answer = await self.do(whole.put_files, PutFiles(holder=HOLDER, files=[put]), rules=RULES)
        if answer.results[0].failure is not None:
            raise AssertionError(answer.results[0].failure)
        return root, put

    async def blocks_of(
        self, sizes: Sequence[int], seed: int = 0
    ) -> tuple[list[c.ContentBlock], bytes, list[Node]]:
        first, generation = await self.allocate(max(1, len(sizes)))
        blocks, digests, leaves = [], b"", []
        for number, size in enumerate(sizes):
            own = b""
            for chunk in range(-(-size // CHUNK_BYTES)):
                digest = digest_of(b"%d %d %d" % (seed, number, chunk))
                own += digest
                length = min(CHUNK_BYTES, size - chunk * CHUNK_BYTES)
                leaves.append(layout.raw_leaf(TWINFS, digest, length))
            blocks.append(
                c.ContentBlock(
                    block_id=BlockId(first + number),
                    generation=generation,
                    length=size,
                    digest=block_digest(own),
                    nodes=[n.node_id for n in NODES],
                )
            )
            digests += own
        return blocks, digests, leaves

    async def cid_of(self, path: str) -> str:
        answer = await self.read(providers.path_cids, c.GetCids(paths=[path]))
        cid = answer.results[0].cid
        return str(Cid.from_bytes(cid)) if cid else ""


def as_commit(block: c.ContentBlock) -> BlockCommit:
    return contents.as_commit(block)


@pytest.fixture
async def cluster(store: MetadataStore) -> Cluster:
    await register_nodes(store)
    return Cluster(store)


# --- CIDs of paths ---


async def test_files_have_the_cid_that_their_digests_make(cluster: Cluster) -> None:
    root, _ = await cluster.file("/three", [2 * MIB, 5])
    assert root is not None
    assert await cluster.cid_of("/three") == str(root.cid)
    await cluster.file("/empty", [])
    assert await cluster.cid_of("/empty") == str(Cid.of(RAW, b""))
    _, put = await cluster.file("/small", [100])
    assert await cluster.cid_of("/small") == str(Cid.from_digest(RAW, put.blocks[0].digest))
    await cluster.file("/unknown", [2 * MIB], dag=False)
    assert await cluster.cid_of("/unknown") == ""
    await cluster.check()


async def test_a_root_is_not_taken_on_anybodys_word(cluster: Cluster) -> None:
    _, good = await cluster.file("/good", [3 * MIB])
    assert good.dag is not None
    blocks, digests, leaves = await cluster.blocks_of([3 * MIB], seed=9)
    _, made = layout.build(TWINFS, leaves)
    node = as_commit(await cluster.block(made[0].block))
    other = as_commit(await cluster.block(b"another node"))
    bad = [
        FileDag(digests=good.dag.digests, nodes=[node]),
        FileDag(digests=digests[:-32], nodes=[node]),
        FileDag(digests=digests + bytes(32), nodes=[node]),
        FileDag(digests=digests, nodes=[]),
        FileDag(digests=digests, nodes=[node, other]),
        FileDag(digests=digests, nodes=[other]),
        FileDag(digests=digests, nodes=good.dag.nodes),
        FileDag(digests=digests, nodes=[as_commit(blocks[0])]),
    ]
    for dag in bad:
        put = PutFile(path="/bad", block_size=3 * MIB, blocks=[as_commit(blocks[0])], dag=dag)
        answer = await cluster.do(
            whole.put_files, PutFiles(holder=HOLDER, files=[put]), rules=RULES
        )
        assert answer.results[0].failure is not None
        assert answer.results[0].failure.code in ("invalid-request", "lease-lost")
    await cluster.check()


async def test_many_chunks_have_a_tree_of_nodes(cluster: Cluster) -> None:
    sizes = [128 * MIB] * 17  # 2,176 chunks: three nodes and a root
    root, put = await cluster.file("/big", sizes)
    assert root is not None and put.dag is not None
    assert len(put.dag.nodes) == 4
    assert await cluster.cid_of("/big") == str(root.cid)
    await cluster.check()
    await cluster.do(tree.delete, Delete(path="/big"))
    await cluster.store.run(lambda tx: reap(tx, before_ms=10**15, limit=100))
    await cluster.check()
    assert (await cluster.collect())[0] == 4
    assert await cluster.count("contents") == await cluster.count("blocks") == 0


async def test_whatever_changes_a_file_ends_its_cid(cluster: Cluster) -> None:
    async def fresh() -> None:
        await cluster.file("/f", [2 * MIB, MIB + 5])
        assert await cluster.cid_of("/f")

    located = {"rules": RULES, "placer": NODE_SET, "nodes": NODE_SET}
    await fresh()
    await cluster.do(files.append, Append(path="/f", holder=HOLDER), **located)
    assert await cluster.cid_of("/f") == ""
    await fresh()
    done = await cluster.do(
        files.truncate, Truncate(path="/f", holder=HOLDER, length=2 * MIB), **located
    )
    assert done.closed
    assert await cluster.cid_of("/f") == ""
    await fresh()
    await cluster.file("/g", [2 * MIB], seed=5)
    await cluster.do(whole.concat, Concat(target="/f", sources=["/g"]), rules=RULES)
    assert await cluster.cid_of("/f") == ""
    await cluster.check()

    # Until it is computed anew, from the digests of its blocks, ragged as they lie now.
    _, digests, leaves = await cluster.blocks_of([2 * MIB, MIB + 5])
    _, more, later = await cluster.blocks_of([2 * MIB], seed=5)
    root, made = layout.build(TWINFS, [*leaves, *later])
    status = await cluster.read(tree.stat, tree.Stat(path="/f"))
    found = await cluster.read(tree.locate, tree.Locate(path="/f"), nodes=NODE_SET)
    request = c.SetDag(
        path="/f",
        inode_id=status.inode_id,
        holder=HOLDER,
        blocks=[b.block.block_id for b in found.blocks],
        dag=FileDag(
            digests=digests + more, nodes=[as_commit(await cluster.block(m.block)) for m in made]
        ),
    )
    answer = await cluster.do(providers.set_dag, request, rules=RULES)
    assert Cid.from_bytes(answer.cid) == root.cid
    assert answer.tsize == root.tsize
    # Who comes second keeps no blocks for it.
    allocated = await cluster.count("allocations")
    nodes = [as_commit(await cluster.block(m.block)) for m in made]
    assert await cluster.count("allocations") == allocated + len(nodes)
    second = msgspec.structs.replace(request, dag=FileDag(digests=digests + more, nodes=nodes))
    assert (await cluster.do(providers.set_dag, second, rules=RULES)).cid == answer.cid
    assert await cluster.count("allocations") == allocated
    with pytest.raises(InvalidRequest):
        stale = c.SetDag(
            path="/f", inode_id=status.inode_id, holder=HOLDER, blocks=[], dag=request.dag
        )
        await cluster.do(providers.set_dag, stale, rules=RULES)
    await cluster.check()


async def test_a_handle_that_closes_may_prove_a_root(cluster: Cluster) -> None:
    from twinfs.common.messages import AddBlock, Create

    status = await cluster.do(
        files.create, Create(path="/h", holder=HOLDER, block_size=2 * MIB), rules=RULES
    )
    target = await cluster.do(
        files.add_block,
        AddBlock(path="/h", inode_id=status.inode_id, holder=HOLDER),
        rules=RULES,
        placer=NODE_SET,
    )
    _, digests, leaves = await cluster.blocks_of([2 * MIB])
    commit = BlockCommit(
        block_id=target.block.block_id,
        generation=target.block.generation,
        length=2 * MIB,
        digest=block_digest(digests),
        nodes=[n.node_id for n in NODES],
    )
    root, made = layout.build(TWINFS, leaves)
    complete = Complete(
        path="/h",
        inode_id=status.inode_id,
        holder=HOLDER,
        commits=[commit],
        dag=FileDag(digests=digests, nodes=[as_commit(await cluster.block(made[0].block))]),
    )
    await cluster.do(files.complete, complete, rules=RULES)
    assert await cluster.cid_of("/h") == str(root.cid)
    await cluster.check()


async def test_copies_and_links_share_blocks_and_cids(cluster: Cluster) -> None:
    root, _ = await cluster.file("/a", [3 * MIB])
    assert root is not None
    before = await cluster.count("blocks")
    await cluster.do(whole.copy, Copy(source="/a", destination="/b"), rules=RULES)
    assert await cluster.cid_of("/b") == str(root.cid)
    found = await cluster.read(
        providers.find, c.FindCids(multihashes=[root.cid.multihash], files=True), nodes=NODE_SET
    )
    (one,) = found.found
    assert one.leaves is not None
    blocks = [
        c.ContentBlock(
            block_id=b.block.block_id,
            generation=b.block.generation,
            length=b.block.length,
            digest=b.block.digest,
        )
        for b in one.leaves
    ]
    link = c.LinkFile(path="/c", blocks=blocks * 2)
    status = await cluster.do(linking.link_file, link, rules=RULES)
    assert status.length == 6 * MIB
    assert await cluster.count("blocks") == before
    await cluster.check()
    with pytest.raises(PathExists):
        await cluster.do(linking.link_file, link, rules=RULES)
    wrong = c.ContentBlock(
        block_id=blocks[0].block_id,
        generation=blocks[0].generation,
        length=3 * MIB,
        digest=bytes(32),
    )
    for bad in (
        wrong,
        c.ContentBlock(
            block_id=BlockId(1), generation=GenerationStamp(1), length=1, digest=bytes(32)
        ),
    ):
        with pytest.raises(BlockNotFound):
            await cluster.do(linking.link_file, c.LinkFile(path="/d", blocks=[bad]), rules=RULES)
    for path in ("/a", "/b"):
        await cluster.do(tree.delete, Delete(path=path))
    await cluster.store.run(lambda tx: reap(tx, before_ms=10**15, limit=100))
    await cluster.check()
    assert await cluster.count("blocks") == before  # /c has the file's, the node waits
    assert (await cluster.collect())[0] == 1
    await cluster.check()


async def test_a_directory_keeps_its_cid_until_something_below_it_changes(cluster: Cluster) -> None:
    from twinfs.common.messages import Mkdirs, SetMode
    from twinfs.namenode import events

    for path in ("/d/in", "/e"):
        await cluster.do(tree.mkdirs, Mkdirs(path=path))
    node = await cluster.add(["a directory"])

    async def seal() -> None:
        while await cluster.store.run(events.seal_pending):
            pass

    async def cache() -> None:
        await seal()
        answer = await cluster.read(providers.path_cids, c.GetCids(paths=["/d"]))
        request = c.CacheCid(
            path="/d",
            inode_id=answer.results[0].status.inode_id,
            event_offset=answer.event_offset,
            multihash=node.multihash,
            tsize=7,
        )
        await cluster.do(providers.cache_cid, request)
        assert await cluster.cid_of("/d") == str(node)

    await cache()
    await cluster.do(tree.mkdirs, Mkdirs(path="/e/other"))
    await seal()
    assert await cluster.cid_of("/d") == str(node)
    await cluster.check()
    for change, request in (
        (tree.mkdirs, Mkdirs(path="/d/in/x")),
        (tree.rename, tree.Rename(source="/e/other", destination="/d/other")),
        (tree.rename, tree.Rename(source="/d/other", destination="/e/other")),
        (tree.delete, Delete(path="/d/in", recursive=True)),
        (attributes.set_mode, SetMode(path="/d", mode=0o700)),
    ):
        await cluster.do(change, request)
        await seal()
        assert await cluster.cid_of("/d") == ""
        await cache()
    await cluster.do(tree.rename, tree.Rename(source="/d", destination="/moved"))
    await seal()
    assert await cluster.cid_of("/moved") == ""
    await cluster.do(tree.delete, Delete(path="/moved", recursive=True))
    await cluster.store.run(lambda tx: reap(tx, before_ms=10**15, limit=100))
    await cluster.check()


# --- content ---


async def test_content_is_held_by_pins_and_collected_without(cluster: Cluster) -> None:
    leaf = await cluster.add(b"leaf")
    middle = await cluster.add({"l": leaf})
    root = await cluster.add([middle, middle, leaf])
    await cluster.check()
    assert await cluster.held(root, middle, leaf) == [2, 2, 2]
    await cluster.pin(root)
    assert (await cluster.collect())[0] == 0
    assert await cluster.unpin(root) == 1
    assert (await cluster.collect(grace_s=1_000.0))[0] == 0
    assert (await cluster.collect())[0] == 3
    assert await cluster.held(root, middle, leaf) == [0, 0, 0]
    assert await cluster.count("contents") == await cluster.count("blocks") == 0
    await cluster.check()


async def test_a_direct_pin_holds_one_block(cluster: Cluster) -> None:
    leaf = await cluster.add(b"leaf")
    root = await cluster.add([leaf])
    await cluster.pin(root, kind="direct", name="x")
    assert (await cluster.collect())[0] == 1
    assert await cluster.held(root, leaf) == [1, 0]
    await cluster.check()
    with pytest.raises(ContentNotFound):
        await cluster.pin(root)
    await cluster.add(b"leaf")
    entry = await cluster.entry([leaf])
    assert (await cluster.put(entry)).incomplete == []
    assert await cluster.held(root) == [2]
    await cluster.pin(root)
    await cluster.check()
    assert await cluster.unpin(root) == 2
    assert (await cluster.collect())[0] == 2
    await cluster.check()


async def test_shared_parts_stay_for_who_still_holds_them(cluster: Cluster) -> None:
    shared = await cluster.add(b"shared")
    one, two = await cluster.add([shared, 1]), await cluster.add([shared, 2])
    await cluster.pin(one)
    await cluster.pin(two)
    await cluster.unpin(one)
    assert (await cluster.collect())[0] == 1
    assert await cluster.held(one, two, shared) == [0, 2, 2]
    await cluster.check()


async def test_blocks_whose_children_are_not_here_are_incomplete(cluster: Cluster) -> None:
    absent = Cid.of(RAW, b"absent")
    entry = await cluster.entry([absent])
    assert (await cluster.put(entry)).incomplete == [entry.multihash]
    root = Cid(1, entry.codec, entry.multihash)
    above = await cluster.entry([root])
    assert (await cluster.put(above)).incomplete == [above.multihash]
    with pytest.raises(ContentNotFound):
        await cluster.pin(root)
    await cluster.pin(root, kind="direct")
    await cluster.check()
    await cluster.put(await cluster.entry(b"absent"), await cluster.entry([absent]), await cluster.entry([root]))  # fmt: skip
    assert await cluster.held(root, Cid(1, above.codec, above.multihash)) == [2, 2]
    await cluster.check()


async def test_a_file_without_a_path(cluster: Cluster) -> None:
    blocks, digests, leaves = await cluster.blocks_of([2 * MIB, MIB])
    root, made = layout.build(TWINFS, leaves)
    nodes = [as_commit(await cluster.block(one.block)) for one in made]
    file = c.PutContentFile(blocks=blocks, dag=FileDag(digests=digests, nodes=nodes))
    assert (await cluster.put(files=[file])).added == 2
    assert await cluster.held(root.cid) == [2]
    await cluster.check()
    folder = await cluster.add([root.cid])
    await cluster.pin(folder)
    assert (await cluster.collect())[0] == 0

    # The same once more, by a client that did not ask: nothing is held twice.
    blocks, digests, _ = await cluster.blocks_of([2 * MIB, MIB])
    nodes = [as_commit(await cluster.block(one.block)) for one in made]
    again = c.PutContentFile(blocks=blocks, dag=FileDag(digests=digests, nodes=nodes))
    assert (await cluster.put(files=[again])).added == 0
    await cluster.check()
    await cluster.unpin(folder)
    assert (await cluster.collect())[0] == 2
    assert await cluster.count("file_blocks") == await cluster.count("blocks") == 0


async def test_a_pin_takes_over_the_file_of_a_path(cluster: Cluster) -> None:
    root, _ = await cluster.file("/f", [3 * MIB])
    assert root is not None
    assert await cluster.held(root.cid) == [1]
    await cluster.pin(root.cid)
    await cluster.check()
    await cluster.do(tree.delete, Delete(path="/f"))
    await cluster.store.run(lambda tx: reap(tx, before_ms=10**15, limit=100))
    assert (await cluster.collect())[0] == 0
    assert await cluster.held(root.cid) == [2]
    assert await cluster.count("file_blocks") == 1
    await cluster.unpin(root.cid)
    assert (await cluster.collect())[0] == 1
    assert await cluster.count("file_blocks") == await cluster.count("blocks") == 0
    await cluster.check()


async def test_what_an_add_touches_stays_until_it_ends(cluster: Cluster) -> None:
    old = await cluster.add(b"there before")
    forgotten = await cluster.add(b"forgotten")
    await cluster.do(contents.begin_add, c.BeginAdd(holder=HOLDER))
    answer = await cluster.do(
        contents.have,
        c.HaveContents(holder=HOLDER, multihashes=[old.multihash, Cid.of(RAW, b"?").multihash]),
        rules=RULES,
    )
    assert answer.have == [2, 0]
    new = await cluster.add(b"put by the add")
    assert (await cluster.collect())[0] == 1
    assert await cluster.held(old, new, forgotten) == [2, 2, 0]
    root = await cluster.add([old, new])
    await cluster.pin(root)
    await cluster.do(contents.end_add, c.EndAdd(holder=HOLDER))
    assert (await cluster.collect())[0] == 0
    await cluster.check()


async def test_what_is_added_again_gets_the_copies_that_are_asked_for(cluster: Cluster) -> None:
    """All of a file, its nodes too; never fewer than somebody else asked for."""

    async def replication() -> set[int]:
        rows = await cluster.store.read(lambda tx: tx.all("SELECT replication FROM blocks"))
        return {row[0] for row in rows}

    async def ask(cid: Cid, **more: Any) -> list[int]:
        request = c.HaveContents(holder=HOLDER, multihashes=[cid.multihash], **more)
        answer: c.HadContents = await cluster.do(contents.have, request, rules=RULES)
        return answer.have

    sizes = [128 * MIB] * (TWINFS.width // 128) + [2 * MIB]
    root, _ = await cluster.file("/f", sizes, replication=2)  # three nodes
    assert root is not None and await cluster.count("contents") == 3
    assert await replication() == {2}
    assert await ask(root.cid, replication=4) == [1]
    assert await replication() == {2}, "it is not held without its path yet"
    assert await ask(root.cid, adopt=True, replication=4) == [2]
    assert await replication() == {4}
    assert await ask(root.cid) == [2]
    assert await replication() == {4}, "the default is less"

    leaf = await cluster.add(b"alone")
    assert await replication() == {3, 4}
    assert await ask(leaf, replication=5) == [2]
    assert await replication() == {4, 5}

    folder = await cluster.entry([root.cid])
    await cluster.put(folder)
    other, _ = await cluster.file("/g", [2 * MIB], seed=1, replication=1)
    assert other is not None and await replication() == {1, 3, 4, 5}
    await cluster.put(await cluster.entry([other.cid]), adopt=True, replication=6)
    assert await replication() == {3, 4, 5, 6}
    await cluster.check()


async def test_an_add_whose_client_is_gone_protects_nothing(cluster: Cluster) -> None:
    """Gone is who was silent; after an outage of the NameNode, all were not heard for long, and go on with their adds."""
    await cluster.do(contents.begin_add, c.BeginAdd(holder=HOLDER))
    await cluster.add(b"half an add")
    assert (await cluster.collect())[0] == 0
    cluster.now_ms += RULES.lease_timeout_ms + 100
    assert (await cluster.collect())[0] == 0
    now_ms = cluster.now_ms
    await cluster.store.run(lambda tx: leases.expire_holders(tx, now_ms, 500))
    assert (await cluster.collect())[0] == 1


async def test_collecting_goes_in_small_steps(cluster: Cluster) -> None:
    first, generation = await cluster.allocate(300)
    entries = []
    for number in range(300):
        data = b"leaf %d" % number
        block = c.ContentBlock(
            block_id=BlockId(first + number),
            generation=generation,
            length=len(data),
            digest=digest_of(data),
            nodes=[n.node_id for n in NODES],
        )
        entries.append(c.PutContent(multihash=Cid.of(RAW, data).multihash, codec=RAW, block=block))
    await cluster.put(*entries)
    await cluster.add([Cid(1, RAW, entry.multihash) for entry in entries])
    await cluster.check()
    done = await cluster.do(contents.collect, c.Collect(limit=50))
    assert 0 < done.work <= 101
    await cluster.check()
    blocks, steps = await cluster.collect(limit=50)
    assert blocks + done.blocks == 301
    assert steps >= 6
    assert await cluster.count("content_links") == await cluster.count("blocks") == 0


async def test_what_is_put_must_be_what_it_says(cluster: Cluster) -> None:
    good = await cluster.entry(b"good")
    link = await cluster.entry([1])

    def put(**changes: Any) -> c.PutContent:
        base = changes.pop("base", good)
        fields = {"multihash": base.multihash, "codec": base.codec, "block": base.block, "data": base.data}  # fmt: skip
        return c.PutContent(**{**fields, **changes})

    lost = c.ContentBlock(
        block_id=BlockId(77), generation=good.block.generation, length=4, digest=good.block.digest,
        nodes=good.block.nodes,
    )  # fmt: skip
    thin = await cluster.block(b"good", nodes=(1,))
    here = c.ContentBlock(
        block_id=good.block.block_id,
        generation=good.block.generation,
        length=4,
        digest=good.block.digest,
    )
    cases: list[tuple[c.PutContent, type[Exception]]] = [
        (put(multihash=Cid.of(RAW, b"other").multihash), InvalidContent),
        (put(multihash=Cid.of(RAW, b"x", 0).multihash), InvalidRequest),
        (put(base=link, data=b""), InvalidRequest),
        (put(base=link, data=dag_cbor.encode([2])), Exception),
        (put(block=lost), LeaseLost),
        (put(block=thin), NotEnoughReplicas),
        (put(block=here), BlockNotFound),
    ]
    for entry, error in cases:
        with pytest.raises(error):
            await cluster.put(entry)
    assert await cluster.count("contents") == 0
    with pytest.raises(InvalidRequest):
        await cluster.put(good, put(multihash=Cid.of(RAW, b"good", SHA2_256).multihash))
    await cluster.check()


async def test_two_hashes_of_the_same_bytes_share_a_block(cluster: Cluster) -> None:
    entry = await cluster.entry(b"bytes")
    await cluster.put(entry)
    shared = c.ContentBlock(
        block_id=entry.block.block_id,
        generation=entry.block.generation,
        length=5,
        digest=entry.block.digest,
    )
    other = Cid.of(RAW, b"bytes", SHA2_256)
    await cluster.put(c.PutContent(multihash=other.multihash, codec=RAW, block=shared))
    assert await cluster.count("blocks") == 1
    await cluster.pin(other)
    assert (await cluster.collect())[0] == 1
    await cluster.check()


# --- pins ---


async def test_pins_have_names_kinds_and_owners(cluster: Cluster) -> None:
    cids = [await cluster.add(b"pinned %d" % n) for n in range(5)]
    for cid in cids:
        await cluster.pin(cid, name="all")
    await cluster.pin(cids[0], kind="direct", caller=USER)
    await cluster.pin(cids[0], caller=USER)
    with pytest.raises(PinExists):
        await cluster.pin(cids[0], name="all")
    with pytest.raises(InvalidRequest):
        await cluster.pin(cids[0], version=0)
    with pytest.raises(ContentNotFound):
        await cluster.pin(Cid.of(RAW, b"nowhere"))

    found, after = [], ""
    while True:
        page = await cluster.read(pins.listed, c.ListPins(limit=2, after=after))
        found += page.pins
        after = page.next_after
        if not after:
            break
    assert len(found) == 7
    assert {Cid.from_bytes(pin.cid) for pin in found} == set(cids)
    page = await cluster.read(pins.listed, c.ListPins(kind="direct"))
    assert [(pin.name, pin.owner) for pin in page.pins] == [("", "mary")]
    page = await cluster.read(pins.listed, c.ListPins(name="all", multihash=cids[1].multihash))
    assert [Cid.from_bytes(pin.cid) for pin in page.pins] == [cids[1]]
    for bad in ("x", "1/x/y", "9" * 40 + "/1/"):
        with pytest.raises(InvalidRequest):
            await cluster.read(pins.listed, c.ListPins(after=bad))

    with pytest.raises(PermissionDenied):
        await cluster.unpin(cids[1], caller=USER)
    with pytest.raises(PinNotFound):
        await cluster.unpin(cids[1], name="other")
    with pytest.raises(PinNotFound):
        await cluster.unpin(Cid.of(RAW, b"nowhere"))
    assert await cluster.unpin(cids[0], kind="direct") == 1
    assert await cluster.unpin(cids[0], caller=USER) == 1
    assert await cluster.unpin(cids[0]) == 1
    await cluster.check()


async def test_the_health_of_content_is_counted(cluster: Cluster) -> None:
    await cluster.file("/path", [3 * MIB])  # its node is content, its leaves are the file's own
    blocks, digests, leaves = await cluster.blocks_of([2 * MIB, MIB], seed=3)
    _, made = layout.build(TWINFS, leaves)
    nodes = [as_commit(await cluster.block(one.block)) for one in made]
    file = c.PutContentFile(blocks=blocks, dag=FileDag(digests=digests, nodes=nodes))
    await cluster.put(files=[file])
    entry = await cluster.entry(b"thin")
    thin = c.ContentBlock(
        block_id=entry.block.block_id,
        generation=entry.block.generation,
        length=4,
        digest=entry.block.digest,
        nodes=[NodeId(1), NodeId(2)],
    )
    await cluster.put(c.PutContent(multihash=entry.multihash, codec=RAW, block=thin))

    async def health(*alive: int) -> tuple[int, int, int]:
        ids = [NodeId(n) for n in alive]
        return tuple(await cluster.store.read(lambda tx: providers.health(tx, ids)))  # type: ignore[return-value]

    assert await health(1, 2, 3) == (5, 1, 0)
    assert await health(1, 2) == (5, 5, 0)
    assert await health(3) == (5, 4, 1)
    assert await health() == (5, 0, 5)


async def test_all_that_is_held_can_be_looked_over(cluster: Cluster) -> None:
    root, _ = await cluster.file("/f", [2 * MIB])
    leaf = await cluster.add(b"leaf")
    await cluster.pin(await cluster.add([leaf]))
    rows, after = [], 0
    while True:
        page = await cluster.read(
            providers.page, c.ListContents(after=after, limit=2), nodes=NODE_SET
        )
        if not page.rows:
            break
        rows += page.rows
        after = page.rows[-1].content_id
    assert len(rows) == 3
    assert all(row.located.nodes for row in rows)
    found = await cluster.read(providers.totals, c.GetContentTotals())
    assert (found.blocks, found.pins, found.loose) == (3, 1, 0)
    blocks = await cluster.read(
        providers.find_blocks,
        c.FindBlocks(blocks=[rows[0].located.block.block_id, BlockId(5)]),
        nodes=NODE_SET,
    )
    assert [one is not None for one in blocks.located] == [True, False]
    assert root is not None
