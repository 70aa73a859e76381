"""Replicas that move between volumes beside readers, writers, deletions and other moves stay one, and whole."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twinfs.common.checksum import digest_of
from twinfs.common.errors import BlockNotFound, DfsError
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.common.transfer import SmallBlock
from twinfs.datanode import quarantine
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.moving import move_replica
from twinfs.datanode.volumes import Volume

SIZES = (10, 70_000, 300_000)


def ref(block_id: int, generation: int = 1) -> BlockRef:
    return BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(generation))


def content(block_id: int) -> bytes:
    return random.Random(block_id).randbytes(SIZES[block_id % len(SIZES)])


def put(store: BlockStore, block_id: int, generation: int = 1) -> None:
    data = content(block_id)
    item = SmallBlock(
        block_id=BlockId(block_id),
        generation=GenerationStamp(generation),
        length=len(data),
        digest=digest_of(data),
    )
    for future in store.put_small([item], memoryview(data), durable=False):
        future.result()


def read(store: BlockStore, block_id: int, generation: int = 1) -> bytes:
    found = store.open(ref(block_id, generation))
    if found.data is not None:
        return found.data
    try:
        return os.pread(found.descriptor, found.length, 0)
    finally:
        os.close(found.descriptor)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockStore]:
    volumes = [Volume(tmp_path / name, reserved_bytes=0) for name in "abc"]
    made = BlockStore(volumes, small_block_bytes=64 * 1024, rng=random.Random(3))
    yield made
    made.close()


def alone(store: BlockStore, volume: Volume) -> BlockStore:
    return BlockStore([volume], small_block_bytes=64 * 1024, rng=store.rng)


def holders(store: BlockStore, block_id: int) -> list[Volume]:
    return [volume for volume in store.volumes if volume.index.get(block_id) is not None]


def files(store: BlockStore, block_id: int) -> int:
    return sum(len(list(v.path.glob(f"blocks/*/blk_{block_id}_*"))) for v in store.volumes)


def test_everything_at_once(store: BlockStore) -> None:
    """Moves to and fro, reads, deletions and appends, each block's by several threads."""
    blocks = range(1, 25)
    for block_id in blocks:
        put(store, block_id)
    deleted = [b for b in blocks if b % 4 == 0]
    appended = [b for b in blocks if b % 4 == 1]
    stop = threading.Event()
    moved: list[int] = []

    def mover(seed: int) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            source, target = rng.sample(store.volumes, 2)
            for replica in source.index.page(-1, 100):
                # The page is old by the time that its end is reached: files that it tells of are elsewhere.
                with contextlib.suppress(DfsError):
                    if move_replica(store, source, target, replica, lambda size: None):
                        moved.append(replica.block_id)

    def reader() -> None:
        while not stop.is_set():
            for block_id in blocks:
                if block_id % 4 >= 2:
                    assert read(store, block_id) == content(block_id)

    with ThreadPoolExecutor(8) as threads:
        tasks = [threads.submit(mover, seed) for seed in range(4)]
        tasks += [threads.submit(reader) for _ in range(2)]
        try:
            for _ in range(3):
                for block_id in deleted:
                    store.remove([ref(block_id)])
                for block_id in appended:
                    owner = object()
                    generation = read_generation(store, block_id) + 1
                    length = len(content(block_id))
                    replica = store.resume(ref(block_id, generation), owner, length)
                    store.finalize(replica, owner, durable=False)
            while len(moved) < 200:
                failed = [task for task in tasks if task.done()]
                assert not failed, failed[0].exception()
                threads.submit(lambda: None).result()
        finally:
            stop.set()
        for task in tasks:
            task.result()
    for block_id in blocks:
        if block_id in deleted:
            assert holders(store, block_id) == []
            assert files(store, block_id) == 0
            continue
        assert len(holders(store, block_id)) == 1
        assert files(store, block_id) == (len(content(block_id)) > 64 * 1024)
        generation = 4 if block_id in appended else 1
        assert read(store, block_id, generation) == content(block_id)
        assert quarantine.verify(store, ref(block_id, generation)) == "good"
    left = [b for b in blocks if b not in deleted]
    assert sum(v.replicas for v in store.volumes) == len(left)
    assert sum(v.used_bytes for v in store.volumes) == sum(len(content(b)) for b in left)
    assert not any(list((v.path / "writing").iterdir()) for v in store.volumes)


def read_generation(store: BlockStore, block_id: int) -> int:
    report = store.report_of(ref(block_id))
    assert report is not None
    return report.generation


@pytest.mark.parametrize("block_id", [1, 2, 3])
def test_two_replicas_become_one(store: BlockStore, block_id: int) -> None:
    """As after a crash before the moved replica is taken from its old place."""
    for volume in store.volumes[:2]:
        put(alone(store, volume), block_id)
    assert len(holders(store, block_id)) == 2
    reported = [r.block_id for _, page, _ in store.pages(10) for r in page]
    assert reported == [block_id]
    assert len(holders(store, block_id)) == 1
    assert read(store, block_id) == content(block_id)
    assert sum(v.used_bytes for v in store.volumes) == len(content(block_id))


@pytest.mark.parametrize("newer", [0, 1])
def test_the_later_of_two_stays(store: BlockStore, newer: int) -> None:
    for number, volume in enumerate(store.volumes[:2]):
        put(alone(store, volume), 2, generation=1 + (number == newer))
    reported = [(r.block_id, r.generation) for _, page, _ in store.pages(10) for r in page]
    assert reported == [(2, 2)]
    assert holders(store, 2) == [store.volumes[newer]]
    assert read(store, 2, generation=2) == content(2)


def test_both_stay_while_a_row_cannot_be_trusted(store: BlockStore) -> None:
    """A disk may have made a generation later than it is. The scrubber, or the volume's check, has that index made anew."""
    for volume in store.volumes[:2]:
        put(alone(store, volume), 3)
    bad, good = store.volumes[:2]
    with contextlib.closing(sqlite3.connect(bad.path / "index.db")) as connection:
        connection.execute("UPDATE replicas SET generation = 9")
        connection.commit()
    list(store.pages(10))
    assert holders(store, 3) == [bad, good]
    assert bad.index.suspect
    assert good.index.data(3) == content(3)


@pytest.mark.parametrize("fault", ["marked", "gone"])
def test_the_sound_one_of_two_stays(store: BlockStore, fault: str) -> None:
    for volume in store.volumes[:2]:
        put(alone(store, volume), 2)
    bad, good = store.volumes[:2]
    if fault == "marked":
        bad.index.mark(2, 1, damaged=True)
    else:
        good.set_draining(True)  # the other would be preferred
        bad.final_path(2, 1).unlink()
    reported = [r for _, page, _ in store.pages(10) for r in page]
    assert [(r.block_id, r.damaged) for r in reported] == [(2, False)]
    assert good in holders(store, 2)
    if fault == "marked":
        assert holders(store, 2) == [good]
        assert read(store, 2) == content(2)


def test_an_append_leaves_no_old_replica_behind(store: BlockStore) -> None:
    for volume in store.volumes[:2]:
        put(alone(store, volume), 2)
    owner = object()
    replica = store.resume(ref(2, 2), owner, len(content(2)))
    store.finalize(replica, owner, durable=True)
    assert len(holders(store, 2)) == 1
    assert read(store, 2, generation=2) == content(2)


def test_a_reader_follows_a_replica_that_moves_under_it(
    store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(alone(store, store.volumes[0]), 2)
    real = store.find

    def found_and_moved(block_id: int) -> object:
        monkeypatch.setattr(store, "find", real)
        found = real(block_id)
        assert found is not None
        assert move_replica(store, found[0], store.volumes[1], found[1], lambda size: None)
        return found

    monkeypatch.setattr(store, "find", found_and_moved)
    assert read(store, 2) == content(2)
    store.remove([ref(2)])
    with pytest.raises(BlockNotFound):
        store.open(ref(2))


def test_nothing_moves_to_a_volume_that_is_being_drained(store: BlockStore) -> None:
    put(alone(store, store.volumes[0]), 2)
    (replica,) = store.volumes[0].index.page(-1, 10)
    store.volumes[1].set_draining(True)
    assert not move_replica(store, *store.volumes[:2], replica, lambda size: None)
    assert holders(store, 2) == [store.volumes[0]]


def test_a_replica_whose_file_another_block_goes_on_with_moves(store: BlockStore) -> None:
    """An append shares the file of the block that it begins from, and writes behind its end."""
    source, target = store.volumes[:2]
    put(alone(store, source), 2)
    owner = object()
    replica = store.begin_from(ref(3), owner, ref(2), len(content(2)))
    assert replica is not None
    replica.append(owner, len(content(2)), memoryview(b"more"), digest_of(b"more"))
    (stored,) = source.index.page(-1, 10)
    assert source.final_path(2, 1).stat().st_size == stored.length + 4
    assert move_replica(store, source, target, stored, lambda size: None)
    assert read(store, 2) == content(2)
    store.finalize(replica, owner, durable=True)
    assert read(store, 3) == content(2) + b"more"
