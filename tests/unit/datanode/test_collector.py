"""Collection on a peer, over a real block store: what pins hold stays, what adds rely on stays, the rest goes, step by step."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.errors import Busy, ContentNotFound, Unavailable
from twinfs.common.ipld import dag_pb, multihash, unixfs
from twinfs.common.ipld.cid import DAG_PB, RAW, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.common.runtime import ManualClock
from twinfs.datanode import claims
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.cidstore import CidStore
from twinfs.datanode.claims import Claims, Marks
from twinfs.datanode.content import Content
from twinfs.datanode.peers import collector
from twinfs.datanode.peers.collector import STEP_BESIDE_ADDS, STEP_REPLICAS, Collector, Root, Step
from twinfs.datanode.volumes import Volume


class Peer:
    """A store on two volumes and a collector whose roots are a list."""

    def __init__(self, folder: Path) -> None:
        volumes = [Volume(folder / name, reserved_bytes=0) for name in ("a", "b")]
        self.store = BlockStore(volumes, small_block_bytes=65536, rng=random.Random(1))
        self.clock = ManualClock()
        self.bad: list[BlockRef] = []
        self.cids = CidStore(
            self.store,
            wall_ms=self.clock.wall_ms,
            on_bad=self.bad.append,
            now_s=self.clock.monotonic_s,
        )
        self.threads = ThreadPoolExecutor(2)
        self.content = Content(self.cids, self.threads)
        self.roots: list[Root] = []
        self.marking = asyncio.Event()
        self.go_on: asyncio.Event | None = None
        self.collector = Collector(self.content, self.clock, self._roots)

    async def _roots(self) -> AsyncIterator[Root]:
        for root in self.roots:
            yield root
        self.marking.set()
        if self.go_on is not None:
            await self.go_on.wait()

    def put(self, data: bytes, codec: int = RAW, code: int = multihash.BLAKE3) -> Cid:
        cid = Cid.of(codec, data, code)
        self.cids.put([(cid, data)])
        return cid

    def folder(self, *children: Cid, code: int = multihash.BLAKE3) -> Cid:
        links = [PBLink(cid, f"{number:05}", 1) for number, cid in enumerate(children)]
        return self.put(dag_pb.encode(links, unixfs.DIRECTORY_DATA), DAG_PB, code)

    def has(self, cid: Cid) -> bool:
        return self.cids.has(cid.multihash)

    async def collect(self, *, dry_run: bool = False, grace_s: float = 0.0) -> list[Step]:
        # So that what was made in this very millisecond is old enough.
        self.clock.advance(1.0)
        return [step async for step in self.collector.collect(dry_run=dry_run, grace_s=grace_s)]

    def close(self) -> None:
        self.threads.shutdown()
        self.store.close()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    found = Peer(tmp_path)
    yield found
    found.close()


async def test_what_pins_hold_stays_and_the_rest_goes(peer: Peer) -> None:
    shared, alone, lost = peer.put(b"shared"), peer.put(b"alone"), peer.put(b"lost")
    old = peer.put(b"sha", code=multihash.SHA2_256)
    inner = peer.folder(shared, old, code=multihash.SHA2_256)
    top, gone = peer.folder(inner), peer.folder(shared, lost, inner)
    direct = peer.folder(alone)
    peer.roots = [Root(top), Root(direct, deep=False)]
    assert await peer.collect(dry_run=True) == [Step(3, 4 + 5 + peer.cids.size(gone.multihash))]  # type: ignore[operator]
    assert peer.has(lost)
    (step,) = await peer.collect()
    assert step.replicas == 3
    assert all(peer.has(cid) for cid in (shared, old, inner, top, direct))
    assert not any(peer.has(cid) for cid in (alone, lost, gone))
    assert await peer.collect() == []
    peer.roots = []
    assert sum(step.replicas for step in await peer.collect()) == 5


async def test_a_replica_of_many_chunks_stays_as_long_as_one_of_them_is_held(peer: Peer) -> None:
    chunks = [random.Random(n).randbytes(CHUNK_BYTES) for n in range(3)]
    writer = peer.cids.begin(3 * CHUNK_BYTES)
    for chunk in chunks:
        writer.write(memoryview(chunk))
    writer.finish()
    leaves = [Cid.of(RAW, chunk) for chunk in chunks]
    peer.roots = [Root(peer.folder(leaves[1]))]
    assert await peer.collect() == []
    peer.roots = []
    assert sum(step.replicas for step in await peer.collect()) == 2
    assert not any(peer.has(leaf) for leaf in leaves)


async def test_a_node_that_is_held_alone_and_with_all_below_it_is_followed(peer: Peer) -> None:
    """In both orders: that its block is to stay does not mean that somebody has looked at what is below it."""
    leaf = peer.put(b"leaf")
    node = peer.folder(leaf)
    alone, deep = Root(node, deep=False), Root(node)
    above = peer.folder(node)
    for roots in ([alone, Root(above)], [alone, deep], [deep, alone]):
        peer.roots = roots
        await peer.collect()
        assert peer.has(leaf) and peer.has(node)
    peer.roots = [alone]
    await peer.collect()
    assert peer.has(node) and not peer.has(leaf)


async def test_blocks_of_a_cluster_are_none_of_its_business(peer: Peer) -> None:
    data = random.Random(1).randbytes(100_000)
    block = BlockRef(block_id=BlockId(5), generation=GenerationStamp(7))
    replica = peer.store.begin(block, peer, len(data))
    replica.append(peer, 0, memoryview(data), b"")
    peer.store.finalize(replica, peer, durable=True)
    assert await peer.collect() == []
    assert peer.has(Cid.of(RAW, data))


async def test_it_works_in_small_steps(peer: Peer) -> None:
    count = 3 * STEP_REPLICAS + 5
    peer.cids.put([(Cid.of(RAW, b"%d" % n), b"%d" % n) for n in range(count)])
    steps = await peer.collect()
    assert [step.replicas for step in steps] == [STEP_REPLICAS] * 3 + [5]


async def test_its_steps_are_smaller_beside_somebody_who_adds(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "ADDS_S", 10.0)
    peer.cids.put([(Cid.of(RAW, b"%d" % n), b"%d" % n) for n in range(STEP_BESIDE_ADDS + 5)])
    peer.clock.advance(claims.SLICE_S)  # those were of somebody who has ended
    with peer.cids.claims.adding():
        peer.put(b"new")
        steps = await peer.collect()
    assert [step.replicas for step in steps] == [STEP_BESIDE_ADDS, 5]


async def test_what_an_add_was_told_is_here_stays_until_it_has_ended(peer: Peer) -> None:
    old, other = peer.put(b"old"), peer.put(b"other")
    peer.clock.advance(3600.0)
    add = peer.cids.claims.begin_add()
    assert peer.cids.claim(old.multihash)
    new = peer.put(b"new")
    # A long one: others begin and end meanwhile.
    for _ in range(50):
        peer.clock.advance(1000.0)
        peer.cids.claims.renew_add(add)
        with peer.cids.claims.adding():
            peer.put(b"passing")
    await peer.collect()
    assert peer.has(old) and peer.has(new) and not peer.has(other)
    peer.cids.claims.end_add(add)
    await peer.collect()
    assert not peer.has(old) and not peer.has(new)


async def test_an_add_that_fell_silent_is_told_so(peer: Peer) -> None:
    add = peer.cids.claims.begin_add()
    peer.clock.advance(claims.SILENT_S)
    peer.cids.claims.begin_add()
    with pytest.raises(Unavailable):
        peer.cids.claims.renew_add(add)


async def test_adds_and_pins_while_it_goes_on(peer: Peer) -> None:
    """Everything that happens between the marking of the roots and the removal."""
    told, again, pinned_child = peer.put(b"told"), peer.put(b"again"), peer.put(b"child")
    pinned, lost = peer.folder(pinned_child), peer.put(b"lost")
    peer.go_on = asyncio.Event()
    task = asyncio.create_task(peer.collect())
    await peer.marking.wait()
    with pytest.raises(Busy):
        await peer.collect()
    add = peer.cids.claims.begin_add()
    assert peer.cids.claim(told.multihash)
    assert peer.put(b"again") == again
    new = peer.put(b"new")
    await peer.collector.protect(Root(pinned))
    peer.go_on.set()
    assert sum(step.replicas for step in await task) == 1
    assert not peer.has(lost)
    assert all(peer.has(cid) for cid in (told, again, new, pinned, pinned_child))
    peer.cids.claims.end_add(add)


async def test_what_is_being_removed_counts_as_absent(peer: Peer) -> None:
    cid = peer.put(b"data")
    ids = array("Q", peer.store.volumes[0].index.ids(0, 9) + peer.store.volumes[1].index.ids(0, 9))
    peer.cids.claims.start(Marks(ids))
    assert peer.cids.claims.doom([0]) == [0]
    assert not peer.cids.claim(cid.multihash)
    assert peer.cids.put([(cid, b"data")]) == 1  # so it is put once more, under an id of its own
    peer.store.remove([BlockRef(block_id=BlockId(ids[0]), generation=GenerationStamp(1))])
    peer.cids.claims.removed()
    peer.cids.claims.stop()
    assert peer.cids.read(cid) == b"data"


async def test_a_part_that_is_missing_ends_it_before_anything_is_removed(peer: Peer) -> None:
    lost = peer.put(b"lost")
    missing = Cid.of(DAG_PB, b"nobody has this")
    peer.roots = [Root(peer.folder(missing, peer.put(b"x")))]
    with pytest.raises(ContentNotFound, match="nothing is collected"):
        await peer.collect()
    assert peer.has(lost)
    # Of what was never said to be here, what is here stays.
    peer.roots = [root._replace(whole=False) for root in peer.roots]
    assert sum(step.replicas for step in await peer.collect()) == 1
    assert not peer.has(lost)


async def test_young_ones_stay_where_that_is_asked_for(peer: Peer) -> None:
    old = peer.put(b"old")
    peer.clock.advance(100.0)
    young = peer.put(b"young")
    await peer.collect(grace_s=50.0)
    assert peer.has(young) and not peer.has(old)


async def test_of_two_copies_the_good_one_stays(peer: Peer) -> None:
    cid = peer.put(b"twice")
    ids = [i for volume in peer.store.volumes for i in volume.index.ids(0, 9)]
    volume = next(v for v in peer.store.volumes if v.index.get(ids[0]))
    peer.cids.claims.start(Marks(array("Q", ids)))
    peer.cids.claims.doom([0])
    peer.cids.put([(cid, b"twice")])
    peer.cids.claims.stop()
    volume.index.mark(ids[0], 1, damaged=True)
    peer.roots = [Root(cid)]
    assert sum(step.replicas for step in await peer.collect()) == 1
    assert peer.has(cid) and peer.store.find(ids[0]) is None


async def test_everything_is_random_and_nothing_that_is_held_is_lost(peer: Peer) -> None:
    """Random DAGs, pins, unpins and adds beside collections that go on: every pinned block is there, always."""
    rng = random.Random(7)
    known = [peer.put(b"%d" % n) for n in range(40)]
    below: dict[Cid, set[Cid]] = {cid: {cid} for cid in known}

    def held() -> set[Cid]:
        return {cid for root in peer.roots for cid in below[root.cid]}

    for round_number in range(12):
        task = asyncio.create_task(peer.collect())
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        for _ in range(3):
            add = peer.cids.claims.begin_add()
            children = rng.sample(known, 4)
            for child in children:
                # As an add does: what is there already is not sent.
                for cid in below[child]:
                    if not peer.cids.claim(cid.multihash):
                        peer.cids.put([(cid, DATA[cid])])
            links = [PBLink(cid, f"{n}", 1) for n, cid in enumerate(children)]
            node = dag_pb.encode(links, unixfs.DIRECTORY_DATA)
            made = Cid.of(DAG_PB, node)
            DATA[made] = node
            peer.cids.put([(made, node)])
            await asyncio.sleep(0)
            below[made] = {made}.union(*(below[child] for child in children))
            known.append(made)
            peer.roots.append(Root(made))
            await peer.collector.protect(Root(made, whole=False))
            peer.cids.claims.end_add(add)
            assert all(peer.has(cid) for cid in held()), round_number
        await task
        assert all(peer.has(cid) for cid in held()), round_number
        rng.shuffle(peer.roots)
        del peer.roots[4:]
    await peer.collect()
    assert {cid for cid in below if peer.has(cid)} == held()


DATA: dict[Cid, bytes] = {Cid.of(RAW, b"%d" % n): b"%d" % n for n in range(40)}


def test_more_claims_than_can_be_kept_hold_collections_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "MAX_CLAIMS", 10)
    clock = ManualClock()
    found = Claims(clock.monotonic_s)
    add = found.begin_add()
    for number in range(30):
        clock.advance(61.0)
        found.renew_add(add)
        found.claim(number)
    with pytest.raises(Busy):
        found.start(Marks(array("Q", [1, 2, 3])))
    found.end_add(add)
    found.start(Marks(array("Q", [1, 2, 3])))


def test_claims_of_who_does_not_say_that_he_adds_hold_for_a_while() -> None:
    clock = ManualClock()
    found = Claims(clock.monotonic_s)
    found.unnamed()
    found.claim(2)
    clock.advance(claims.GRACE_S - 1)
    marks = Marks(array("Q", [1, 2]))
    found.start(marks)
    assert list(marks.flags) == [0, 1]
    found.stop()
    clock.advance(2)
    found.claim(1)
    found.stop()
    clock.advance(1)
    marks = Marks(array("Q", [1, 2]))
    found.start(marks)
    assert list(marks.flags) == [0, 0]
