"""A volume is let go only when nothing is on it, and nothing can get there meanwhile; what is on it can be moved away."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twinfs.common.checksum import digest_of
from twinfs.common.errors import InvalidRequest, ShuttingDown, VolumeFailed
from twinfs.common.messages import ManageVolume
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.common.runtime import SystemClock
from twinfs.common.transfer import SmallBlock
from twinfs.datanode import volume_orders
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.index import Replica
from twinfs.datanode.volume_orders import VolumeOrders
from twinfs.datanode.volumes import Volume

from ...support.cluster import eventually

SIZES = (0, 10, 70_000, 900_000)


class Node:
    """A store of three volumes with a few blocks on each, and what obeys orders about them."""

    def __init__(self, folder: Path) -> None:
        self.volumes = [Volume(folder / name, reserved_bytes=0) for name in "abc"]
        self.store = BlockStore(self.volumes, small_block_bytes=64 * 1024, rng=random.Random(3))
        self.threads = ThreadPoolExecutor(4)
        self.bad: list[BlockRef] = []
        self.held = ""
        self.orders = VolumeOrders(
            self.store,
            SystemClock(),
            self.threads,
            threading.Event(),
            busy=lambda: 0,
            bad=self.bad.append,
            holds=lambda volume: self.held,
        )
        self.data: dict[int, bytes] = {}
        for volume in self.volumes:
            alone = BlockStore([volume], small_block_bytes=64 * 1024, rng=random.Random(3))
            for size in SIZES:
                self.put(alone, size)

    def put(self, store: BlockStore, size: int) -> int:
        block_id = len(self.data) + 1
        content = self.data[block_id] = random.Random(block_id).randbytes(size)
        item = SmallBlock(
            block_id=BlockId(block_id),
            generation=GenerationStamp(1),
            length=size,
            digest=digest_of(content),
        )
        for future in store.put_small([item], memoryview(content), durable=False):
            future.result()
        return block_id

    async def order(self, action: str, volume: Volume) -> None:
        order = ManageVolume(order_id="1", volume_id=volume.volume_id, action=action)  # type: ignore[arg-type]
        await self.orders.obey(order)

    async def emptied(self, volume: Volume) -> None:
        running = asyncio.create_task(self.orders.run())
        try:
            await eventually(lambda: _done(not volume.replicas), "it is empty")
        finally:
            running.cancel()

    def check(self) -> None:
        """Every block is on one volume, whole."""
        for block_id, content in self.data.items():
            ref = BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(1))
            found = self.store.open(ref)
            if found.data is not None:
                assert found.data == content
            else:
                with open(found.descriptor, "rb") as file:  # noqa: PTH123
                    assert file.read() == content
            holders = [v for v in self.store.volumes if v.index.get(block_id) is not None]
            assert len(holders) == 1


async def _done(fact: bool) -> bool:
    return fact


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(volume_orders, "CLOSING_S", 0.0)
    made = Node(tmp_path)
    yield made
    made.store.close()
    made.threads.shutdown()


async def test_a_volume_in_use_stays(node: Node) -> None:
    volume = node.volumes[1]
    with pytest.raises(InvalidRequest, match="in use: 4 replicas are there; drain it first"):
        await node.order("remove", volume)
    assert volume.takes_bytes
    assert node.store.volumes == node.volumes
    node.check()
    # It takes what comes, as before.
    node.put(BlockStore([volume], small_block_bytes=64 * 1024, rng=random.Random(3)), 20)


async def test_what_is_on_a_volume_moves_to_the_others_and_then_it_can_go(node: Node) -> None:
    volume = node.volumes[1]
    await node.order("drain", volume)
    assert volume.report().draining
    assert volume.report().remaining_bytes == 0
    for _ in range(30):
        node.put(node.store, 30)
    assert volume.replicas == len(SIZES)  # nothing new came
    await node.emptied(volume)
    node.check()
    await node.order("remove", volume)
    assert node.store.volumes == [node.volumes[0], node.volumes[2]]
    node.check()
    await node.order("remove", volume)  # asked again, since the answer was lost
    with pytest.raises(InvalidRequest, match="no volume"):
        await node.order("drain", volume)
    with pytest.raises(ShuttingDown):
        volume.index.add([Replica(99, 1, 0, True, b"")], [(99, b"")]).result()
    assert (volume.path / "removed").exists()


async def test_nothing_gets_on_a_volume_that_is_let_go(node: Node) -> None:
    """A writer chose the volume before it was drained, and comes to its end when it is counted."""
    volume = node.volumes[0]
    await node.order("drain", volume)
    await node.emptied(volume)
    assert volume.index.seal() == 0
    with pytest.raises(VolumeFailed, match="being removed"):
        volume.index.add([Replica(99, 1, 0, True, b"")], [(99, b"")]).result()
    assert volume.index.totals() == (0, 0)
    # Others that are committed with it are not undone by that.
    node.check()


async def test_a_block_that_is_being_written_keeps_a_volume(node: Node) -> None:
    volume = node.volumes[0]
    await node.order("drain", volume)
    await node.emptied(volume)
    volume.set_draining(False)
    for other in node.volumes[1:]:
        other.set_draining(True)
    ref = BlockRef(block_id=BlockId(500), generation=GenerationStamp(1))
    writer = object()
    replica = node.store.begin(ref, writer, 10)
    assert replica.volume is volume
    for other in node.volumes[1:]:
        other.set_draining(False)
    with pytest.raises(InvalidRequest, match="in use: 1 blocks are being written"):
        await node.order("remove", volume)
    replica.append(writer, 0, memoryview(b"abc"), digest_of(b"abc"))
    node.store.finalize(replica, writer, durable=True)
    with pytest.raises(InvalidRequest, match="in use: 1 replicas"):
        await node.order("remove", volume)


async def test_what_else_is_there_keeps_a_volume(node: Node) -> None:
    await node.order("drain", node.volumes[2])
    await node.emptied(node.volumes[2])
    node.held = "the state of this peer is there"
    with pytest.raises(InvalidRequest, match="in use: the state of this peer"):
        await node.order("remove", node.volumes[2])
    assert len(node.store.volumes) == 3


async def test_the_last_volume_is_never_let_go_or_drained(node: Node) -> None:
    await node.order("drain", node.volumes[0])
    await node.order("drain", node.volumes[1])
    with pytest.raises(InvalidRequest, match="only volume in service"):
        await node.order("drain", node.volumes[2])
    assert node.volumes[2].takes_bytes
    for volume in node.volumes[:2]:
        await node.emptied(volume)
        await node.order("remove", volume)
    with pytest.raises(InvalidRequest, match="only volume: decommission"):
        await node.order("remove", node.volumes[2])
    node.check()


async def test_what_does_not_fit_the_others_is_not_drained(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Volume, "space", lambda volume: (10**9, 1000))
    with pytest.raises(InvalidRequest, match="the other volumes have 2000 free"):
        await node.order("drain", node.volumes[0])
    assert not node.volumes[0].draining


async def test_keeping_ends_draining(node: Node, tmp_path: Path) -> None:
    await node.order("drain", node.volumes[0])
    assert (tmp_path / "a" / "draining").exists()
    await node.order("keep", node.volumes[0])
    assert not (tmp_path / "a" / "draining").exists()
    assert node.volumes[0].takes_bytes
    assert node.volumes[0].replicas == len(SIZES)


async def test_draining_goes_on_after_a_restart(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "v", reserved_bytes=0)
    volume.set_draining(True)
    volume.close()
    again = Volume(tmp_path / "v", reserved_bytes=0)
    assert again.draining
    again.close()


async def test_damage_is_told_and_stays(node: Node) -> None:
    """A replica whose bytes are wrong is not carried to another volume: it has to be healed from elsewhere."""
    volume = node.volumes[0]
    (block_id,) = [r.block_id for r in volume.index.page(0, 100) if r.length == 900_000]
    path = volume.final_path(block_id, 1)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    await node.order("drain", volume)
    running = asyncio.create_task(node.orders.run())
    try:
        await eventually(lambda: _done(bool(node.bad) and volume.replicas == 1), "it is told")
    finally:
        running.cancel()
    assert [ref.block_id for ref in node.bad] == [block_id]
    with pytest.raises(InvalidRequest, match="in use: 1 replicas"):
        await node.order("remove", volume)


async def test_a_failed_volume_can_go_as_it_is(node: Node) -> None:
    volume = node.volumes[0]
    volume.fail("the disk is broken")
    with pytest.raises(InvalidRequest, match="out of service"):
        await node.order("drain", volume)
    await node.order("remove", volume)
    assert volume not in node.store.volumes
