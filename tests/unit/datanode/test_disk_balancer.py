"""Volumes of one DataNode are evened out, and a replica is always on one of them, whole."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from twinfs.common.checksum import digest_of
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.common.transfer import SmallBlock
from twinfs.datanode import quarantine
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.disk_balancer import Fill, plan
from twinfs.datanode.moving import move_replica
from twinfs.datanode.volumes import Volume


def test_volumes_within_the_threshold_are_left_alone() -> None:
    assert plan([Fill(50, 100), Fill(45, 100)], 10.0) is None
    assert plan([Fill(50, 100)], 1.0) is None
    assert plan([], 1.0) is None
    assert plan([Fill(0, 0), Fill(0, 0)], 1.0) is None


def test_the_fullest_gives_to_the_emptiest() -> None:
    move = plan([Fill(90, 100), Fill(50, 100), Fill(10, 100)], 10.0)
    assert move is not None
    assert (move.source, move.target, move.size_bytes) == (0, 2, 40)


def test_sizes_of_disks_count() -> None:
    """A disk ten times as large should hold ten times as much."""
    move = plan([Fill(100, 1000), Fill(90, 100)], 5.0)
    assert move is not None
    assert (move.source, move.target) == (1, 0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(100, 400)), min_size=2, max_size=6),
    st.integers(1, 30),
)
def test_moves_lead_to_balance(sizes: list[tuple[int, int]], threshold: int) -> None:
    fills = [Fill(used * 1000, capacity * 1000) for used, capacity in sizes]
    for _ in range(50):
        move = plan(fills, threshold)
        if move is None:
            return
        fills[move.source] = fills[move.source]._replace(
            used_bytes=fills[move.source].used_bytes - move.size_bytes
        )
        fills[move.target] = fills[move.target]._replace(
            used_bytes=fills[move.target].used_bytes + move.size_bytes
        )
    raise AssertionError("never balanced")


def test_a_moved_replica_is_whole_and_nowhere_twice(tmp_path: Path) -> None:
    volumes = [Volume(tmp_path / name, reserved_bytes=0) for name in ("a", "b")]
    store = BlockStore(volumes, small_block_bytes=64 * 1024, rng=random.Random(2))
    data = {n: random.Random(n).randbytes(size) for n, size in enumerate((10, 70_000, 900_000), 1)}
    for block_id, content in data.items():
        item = SmallBlock(
            block_id=BlockId(block_id),
            generation=GenerationStamp(1),
            length=len(content),
            digest=digest_of(content),
        )
        for future in store.put_small([item], memoryview(content), durable=False):
            future.result()
    for block_id in data:
        found = store.find(block_id)
        assert found is not None
        source, replica = found
        (target,) = [volume for volume in volumes if volume is not source]
        assert move_replica(store, source, target, replica, lambda size: None)
        assert source.index.get(block_id) is None
        assert target.index.get(block_id) == replica
        block = BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(1))
        assert quarantine.verify(store, block) == "good"
    assert sum(volume.replicas for volume in volumes) == len(data)
    assert sum(volume.used_bytes for volume in volumes) == sum(map(len, data.values()))
    # A replica that was deleted while it was to be moved does not come back.
    volume, replica = store.find(3) or (volumes[0], None)
    assert replica is not None
    store.remove([BlockRef(block_id=BlockId(3), generation=GenerationStamp(1))])
    (other,) = [v for v in volumes if v is not volume]
    path = volume.final_path(3, 1)
    path.write_bytes(data[3])
    assert not move_replica(store, volume, other, replica, lambda size: None)
    assert store.find(3) is None
    store.close()
