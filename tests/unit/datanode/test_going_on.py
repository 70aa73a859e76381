"""Going on with bytes that are there: appends, truncations, pipelines that lost a node, recoveries.

The chunk that is gone on with gets a new digest. Damage must not get one that fits it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.common.checksum import CHUNK_BYTES, digest_of
from twinfs.common.errors import ChecksumMismatch
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.quarantine import is_marked
from twinfs.datanode.volumes import Volume

BASE = BlockRef(block_id=BlockId(7), generation=GenerationStamp(3))
NEXT = BlockRef(block_id=BlockId(8), generation=GenerationStamp(4))
NEWER = BlockRef(block_id=BlockId(7), generation=GenerationStamp(5))
DATA = random.Random(1).randbytes(2 * CHUNK_BYTES + 5_000)


@pytest.fixture(params=[0, 64 * 1024], ids=["file", "inline"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BlockStore]:
    volume = Volume(tmp_path, reserved_bytes=0)
    store = BlockStore([volume], small_block_bytes=request.param, rng=random.Random(1))
    yield store
    store.close()


def digests_of(data: bytes) -> bytes:
    return b"".join(
        digest_of(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)
    )


def write(store: BlockStore, data: bytes, owner: object) -> None:
    replica = store.begin(BASE, owner, len(data))
    for at in range(0, len(data), CHUNK_BYTES):
        part = data[at : at + CHUNK_BYTES]
        replica.append(owner, at, memoryview(part), digest_of(part))


def finalized(store: BlockStore, data: bytes) -> None:
    owner = object()
    write(store, data, owner)
    replica = store.writing(BASE.block_id)
    assert replica is not None
    assert store.finalize(replica, owner, durable=False) == digests_of(data)


def damage(store: BlockStore, how: str, at: int) -> None:
    """Of the finalized replica: the bytes in the volume's index, or the file."""
    (volume,) = store.volumes
    stored = volume.index.get(BASE.block_id)
    assert stored is not None
    path = volume.final_path(BASE.block_id, BASE.generation)
    data = bytearray(
        (volume.index.data(BASE.block_id) or b"") if stored.inline else path.read_bytes()
    )
    if how == "flip":
        data[at] ^= 1
    else:
        del data[at:]
    if stored.inline:
        volume.add([stored], [(BASE.block_id, bytes(data))]).result()
    else:
        path.write_bytes(data)


@pytest.mark.parametrize("size", [1, 5_000, CHUNK_BYTES - 1, CHUNK_BYTES, len(DATA)])
@pytest.mark.parametrize("part", [0.0, 0.4, 1.0])
def test_what_is_whole_is_gone_on_with(store: BlockStore, size: int, part: float) -> None:
    finalized(store, DATA[:size])
    length = int(size * part)
    owner = object()
    replica = store.begin_from(NEXT, owner, BASE, length)
    assert replica is not None
    room = CHUNK_BYTES - length % CHUNK_BYTES
    more = DATA[-min(room, 1_000) :]
    replica.append(owner, length, memoryview(more), digest_of(more))
    assert replica.snapshot()[1:] == (length + len(more), digests_of(DATA[:length] + more))
    assert store.finalize(replica, owner, durable=False) == digests_of(DATA[:length] + more)
    found = store.open(BASE)
    assert found.digests == digests_of(DATA[:size])


@pytest.mark.parametrize("how", ["flip", "cut"])
@pytest.mark.parametrize("part", [0.9, 1.0])
@pytest.mark.parametrize("size", [5_000, len(DATA)])
def test_nothing_is_made_of_a_damaged_base(
    store: BlockStore, size: int, part: float, how: str
) -> None:
    finalized(store, DATA[:size])
    last = (size - 1) // CHUNK_BYTES * CHUNK_BYTES
    length = last + int((size - last) * part)
    damage(store, how, last + 100)
    assert store.begin_from(NEXT, object(), BASE, length) is None
    assert is_marked(store, BASE.block_id)
    assert store.writing(NEXT.block_id) is None
    assert list((store.volumes[0].path / "writing").iterdir()) == []


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_damaged_replica_is_not_taken_back_into_writing(store: BlockStore, how: str) -> None:
    finalized(store, DATA[:5_000])
    damage(store, how, 100)
    with pytest.raises(ChecksumMismatch):
        store.resume(NEWER, object(), 5_000)
    assert store.writing(BASE.block_id) is None
    assert is_marked(store, BASE.block_id)
    found = store.find(BASE.block_id)
    assert found is not None
    assert found[1].generation == BASE.generation


@pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1, len(DATA)])
def test_a_replica_being_written_is_cut(store: BlockStore, length: int) -> None:
    write(store, DATA, object())
    replica = store.resume(NEWER, object(), length)
    assert replica.snapshot() == (NEWER.generation, length, digests_of(DATA[:length]))


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_nothing_is_made_of_a_replica_that_changed_while_it_was_written(
    store: BlockStore, how: str
) -> None:
    write(store, DATA, object())
    replica = store.writing(BASE.block_id)
    assert replica is not None
    with replica.path.open("r+b") as file:
        if how == "flip":
            file.seek(2 * CHUNK_BYTES)
            file.write(bytes([DATA[2 * CHUNK_BYTES] ^ 1]))
        else:
            file.truncate(2 * CHUNK_BYTES + 100)
    for _ in range(2):
        with pytest.raises(ChecksumMismatch):
            store.resume(NEWER, object(), len(DATA) - 1_000)
    with pytest.raises(ChecksumMismatch):
        store.begin_recovery(BASE, NEWER.generation)
