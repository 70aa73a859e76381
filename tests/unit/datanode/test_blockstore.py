"""What chaos runs found in the block store."""

from __future__ import annotations

import os
import random
import resource
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twinfs.common import disk
from twinfs.common.checksum import digest_of
from twinfs.common.config import DataNodeConfig
from twinfs.common.errors import DiskFull, StaleGeneration, VolumeFailed
from twinfs.common.model import BlockId, BlockRef, GenerationStamp, NodeId
from twinfs.common.transfer import SmallBlock
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.server import DataNodeServer
from twinfs.datanode.volumes import Volume
from twinfs.datanode.writing import WritingReplica

BLOCK = BlockRef(block_id=BlockId(7), generation=GenerationStamp(3))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockStore]:
    volume = Volume(tmp_path, reserved_bytes=0)
    store = BlockStore([volume], small_block_bytes=0, rng=random.Random(1))
    yield store
    store.close()


def test_a_writer_whose_replica_was_deleted_is_told_so(store: BlockStore) -> None:
    """It met an assertion about the hasher, which the deletion had taken away, before it was asked who it was."""
    owner = object()
    replica = store.begin(BLOCK, owner, 100)
    store.remove([BLOCK])
    with pytest.raises(StaleGeneration):
        replica.append(owner, 0, memoryview(b"x"), digest_of(b"x"))


def test_a_batch_of_files_needs_few_descriptors(store: BlockStore) -> None:
    """All of a batch were open at once: a thousand for one request, and a process may have no more by default."""
    content = b"x" * 100
    items = [
        SmallBlock(
            block_id=BlockId(number),
            generation=GenerationStamp(1),
            length=len(content),
            digest=digest_of(content),
        )
        for number in range(1, 301)
    ]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = [number for number in range(1_000) if number not in in_use]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[100], limits[1]))
    try:
        for future in store.put_small(items, memoryview(content * len(items)), durable=True):
            future.result()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert reported(store) == list(range(1, 301))


def reported(store: BlockStore) -> list[int]:
    return [replica.block_id for _, page, _ in store.pages(10) for replica in page]


def test_a_copy_under_way_is_not_reported(store: BlockStore) -> None:
    """The NameNode took it for the rest of a broken write, and had it deleted while it was being made."""
    owner = object()
    replica = store.begin(BLOCK, owner, 100, copy=True)
    replica.append(owner, 0, memoryview(b"x"), digest_of(b"x"))
    assert reported(store) == []
    store.finalize(replica, owner, durable=True)
    assert reported(store) == [7]


def test_a_write_under_way_is_reported(store: BlockStore) -> None:
    store.begin(BLOCK, object(), 100)
    assert reported(store) == [7]


def test_a_replica_found_cut_short_at_the_start_is_put_aside(tmp_path: Path) -> None:
    """Its record was dropped, but its file stayed where replicas are, for nobody to see and nobody to delete."""
    volume = Volume(tmp_path, reserved_bytes=0)
    store = BlockStore([volume], small_block_bytes=0, rng=random.Random(1))
    owner = object()
    replica = store.begin(BLOCK, owner, 100)
    replica.append(owner, 0, memoryview(b"whole"), digest_of(b"whole"))
    store.finalize(replica, owner, durable=True)
    store.close()
    file = volume.final_path(7, 3)
    file.write_bytes(b"who")
    volume = Volume(tmp_path, reserved_bytes=0)
    try:
        assert volume.index.get(7) is None
        assert not file.exists()
        assert (tmp_path / "quarantine" / file.name).read_bytes() == b"who"
    finally:
        volume.close()


def test_a_volume_that_is_gone_when_the_node_registers_again_is_given_up(tmp_path: Path) -> None:
    """The NameNode was restarted after a volume had been deleted: writing down whose it is failed, and ended the whole process."""
    volumes = [Volume(tmp_path / name, reserved_bytes=0) for name in ("a", "b")]
    store = BlockStore(volumes, small_block_bytes=0, rng=random.Random(1))
    server = DataNodeServer(DataNodeConfig(dir=("a", "b")))
    server._store = store
    server._identify("cluster", NodeId(3))
    shutil.rmtree(tmp_path / "a")
    server._identify("cluster", NodeId(3))
    assert volumes[0].failure
    assert not volumes[1].failure
    store.close()


def test_an_append_that_can_not_begin_leaves_no_file(
    store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk refused the first bytes of an append; its file stayed in `writing`, unknown until the next start."""
    owner = object()
    replica = store.begin(BLOCK, owner, 100)
    replica.append(owner, 0, memoryview(b"whole"), digest_of(b"whole"))
    store.finalize(replica, owner, durable=True)
    later = BlockRef(block_id=BlockId(8), generation=GenerationStamp(4))

    def full(*_: object) -> None:
        raise DiskFull("no space left")

    monkeypatch.setattr(WritingReplica, "open_existing", full)
    with pytest.raises(DiskFull):
        store.begin_from(later, owner, BLOCK, 5)
    assert list((store.volumes[0].path / "writing").iterdir()) == []


def test_what_is_left_of_a_copy_goes_when_the_whole_one_is_back(tmp_path: Path) -> None:
    """The volume of a replica was out of service, its block was being copied to the other when the process died. After the
    restart both were there; the unfinished one stayed for ever, and no copy could be made here any more."""
    volumes = [Volume(tmp_path / name, reserved_bytes=0) for name in ("one", "two")]
    store = BlockStore(volumes, small_block_bytes=0, rng=random.Random(1))
    owner = object()
    replica = store.begin(BLOCK, owner, 100)
    replica.append(owner, 0, memoryview(b"whole"), digest_of(b"whole"))
    store.finalize(replica, owner, durable=True)
    where = replica.volume
    (other,) = [volume for volume in volumes if volume is not where]
    where.fail("Input/output error")
    copy = store.begin(BLOCK, owner, 100, copy=True)
    copy.append(owner, 0, memoryview(b"who"), digest_of(b"who"))
    later = store.begin(BlockRef(block_id=BlockId(8), generation=GenerationStamp(3)), owner, 100)
    assert copy.volume is other
    store.close()
    volumes = [Volume(tmp_path / name, reserved_bytes=0) for name in ("one", "two")]
    again = BlockStore(volumes, small_block_bytes=0, rng=random.Random(1))
    assert not copy.path.exists()
    assert later.path.exists(), "what nobody has whole is kept for recovery"
    assert again.writing(7) is None
    again.begin(BLOCK, owner, 100, copy=True)
    again.close()


def finalized(store: BlockStore, data: bytes) -> None:
    owner = object()
    replica = store.begin(BLOCK, owner, len(data))
    replica.append(owner, 0, memoryview(data), digest_of(data))
    store.finalize(replica, owner, durable=True)


@pytest.mark.parametrize("inline", [False, True])
def test_two_who_take_a_replica_back_come_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    """Both found it finalized; what the second made of it was registered in place of the first's, over the same file."""
    volume = Volume(tmp_path, reserved_bytes=0)
    store = BlockStore([volume], small_block_bytes=100 if inline else 0, rng=random.Random(1))
    data = b"synced bytes"
    finalized(store, data)
    owners = {generation: object() for generation in (4, 5)}
    half_way, go_on = threading.Event(), threading.Event()
    fsync_directory = disk.fsync_directory

    def slow(path: Path, name: str) -> None:
        if name == "reopen.folder" and not half_way.is_set():
            half_way.set()
            assert go_on.wait(30)
        fsync_directory(path, name)

    monkeypatch.setattr(disk, "fsync_directory", slow)

    def resume(generation: int) -> WritingReplica:
        block = BlockRef(block_id=BLOCK.block_id, generation=GenerationStamp(generation))
        return store.resume(block, owners[generation], len(data))

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(resume, 4)
        assert half_way.wait(30)
        second = threads.submit(resume, 5)
        go_on.set()
        replica = second.result(30)
        first.exception(30)  # it had its turn, or was overtaken in it
    assert store.writing(BLOCK.block_id) is replica
    assert replica.generation == 5
    more = memoryview(b" and more")
    with pytest.raises(StaleGeneration):
        replica.append(owners[4], len(data), more, digest_of(more))
    replica.append(owners[5], len(data), more, digest_of(more))
    store.finalize(replica, owners[5], durable=True)
    found = store.open(BlockRef(block_id=BLOCK.block_id, generation=GenerationStamp(5)))
    assert found.length == len(data) + len(more)
    if found.descriptor >= 0:
        os.close(found.descriptor)
    assert list((tmp_path / "writing").iterdir()) == []
    store.close()


def test_a_replica_that_can_not_be_taken_back_stays_as_it_was(
    store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    finalized(store, b"synced bytes")

    def failing(path: Path, name: str) -> None:
        raise OSError(5, "the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr(disk, "fsync_directory", failing)
        broken.setattr(Volume, "check", lambda volume: None)
        newer = BlockRef(block_id=BLOCK.block_id, generation=GenerationStamp(4))
        with pytest.raises(VolumeFailed):
            store.resume(newer, object(), 12)
    assert store.writing(BLOCK.block_id) is None
    found = store.open(BLOCK)
    assert os.pread(found.descriptor, 100, 0) == b"synced bytes"
    os.close(found.descriptor)


def test_what_is_stored_again_counts_once(store: BlockStore) -> None:
    """A client sends a batch again whose answer was lost; the volume seemed fuller than it was from then on."""
    (volume,) = store.volumes
    data = b"a small block"
    item = SmallBlock(
        block_id=BlockId(9), generation=GenerationStamp(1), length=len(data), digest=digest_of(data)
    )
    for _ in range(3):
        for future in store.put_small([item, item], memoryview(data * 2), durable=True):
            future.result()
        assert (volume.replicas, volume.used_bytes) == (1, len(data))
    finalized(store, b"another")
    assert (volume.replicas, volume.used_bytes) == (2, len(data) + 7)
    store.remove([BLOCK, BlockRef(block_id=BlockId(9), generation=GenerationStamp(1))])
    assert (volume.replicas, volume.used_bytes) == (0, 0)
