"""What chaos runs found in the block store."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.common.checksum import digest_of
from twinfs.common.config import DataNodeConfig
from twinfs.common.errors import DiskFull, StaleGeneration
from twinfs.common.model import BlockId, BlockRef, GenerationStamp, NodeId
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
