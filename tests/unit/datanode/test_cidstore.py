"""CID blocks over a real block store: derived from replicas, kept on their own, found again after a crash."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from twinfs.common.checksum import CHUNK_BYTES, digest_of
from twinfs.common.errors import BlockNotFound, ChecksumMismatch, InvalidContent, Unsupported
from twinfs.common.ipld import multihash
from twinfs.common.ipld.cid import DAG_PB, RAW, SHA2_256, Cid
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.datanode import cidindex
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.cidstore import CidStore
from twinfs.datanode.index import FIRST_LOCAL_BLOCK
from twinfs.datanode.volumes import Volume


class Node:
    """A block store on two volumes, and the CID store over it; `open` again is a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bad: list[BlockRef] = []
        self.open()

    def open(self) -> None:
        volumes = [Volume(self.folder / name, reserved_bytes=0) for name in ("a", "b")]
        self.store = BlockStore(volumes, small_block_bytes=65536, rng=random.Random(1))
        self.cids = CidStore(self.store, wall_ms=lambda: 1_700_000_000_000, on_bad=self.bad.append)

    def close(self) -> None:
        self.store.close()

    def write(self, block_id: int, data: bytes) -> BlockRef:
        """A replica as the path world writes it."""
        block = BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(7))
        replica = self.store.begin(block, self, len(data))
        for start in range(0, len(data), CHUNK_BYTES):
            piece = memoryview(data)[start : start + CHUNK_BYTES]
            replica.append(self, start, piece, digest_of(piece))
        self.store.finalize(replica, self, durable=True)
        return block


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    found = Node(tmp_path)
    yield found
    found.close()


def data_of(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def raw(data: bytes, code: int = multihash.BLAKE3) -> Cid:
    return Cid.of(RAW, data, code)


def test_chunks_of_a_replica_are_cid_blocks(node: Node) -> None:
    data = data_of(1, 3 * CHUNK_BYTES + 77)
    node.write(5, data)
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        assert node.cids.read(raw(chunk)) == chunk
        assert node.cids.size(raw(chunk).multihash) == len(chunk)


def test_deleted_replicas_take_their_cids_with_them_unless_another_has_the_bytes(
    node: Node,
) -> None:
    data = data_of(2, 100_000)
    first, second = node.write(5, data), node.write(6, data)
    assert node.cids.has(raw(data).multihash)
    node.store.remove([first])
    assert node.cids.read(raw(data)) == data
    node.store.remove([second])
    assert not node.cids.has(raw(data).multihash)
    with pytest.raises(BlockNotFound):
        node.cids.read(raw(data))


@pytest.mark.parametrize("written", [False, True])
def test_what_a_peer_keeps_does_not_go_with_the_files_of_a_namenode(
    node: Node, written: bool
) -> None:
    """Who relies on a block gets a copy that no NameNode can delete, however many of its blocks have the same bytes."""
    data = data_of(3, 1_000)
    theirs = [node.write(number, data) for number in range(5, 45)]
    for volume in node.store.volumes if written else []:
        volume.cids.settle()
    assert node.cids.has(raw(data).multihash)
    assert not node.cids.claim(raw(data).multihash)
    assert node.cids.own(raw(data).multihash) == []
    assert node.cids.put([(raw(data), data)]) == 1
    for volume in node.store.volumes if written else []:
        volume.cids.settle()
    assert node.cids.claim(raw(data).multihash)
    assert [copy.block_id >= FIRST_LOCAL_BLOCK for copy in node.cids.own(raw(data).multihash)] == [
        True
    ]
    node.store.remove(theirs)
    assert node.cids.read(raw(data)) == data


@pytest.mark.timeout(60)
def test_finding_waits_for_no_writer(node: Node) -> None:
    """While the directory of hashes is being written (or checkpointed), what came and what went since is known all the same."""
    data = [data_of(n, 300) for n in range(4)]
    with contextlib.ExitStack() as stack:
        for volume in node.store.volumes:
            stack.enter_context(volume.cids._lock)  # its writer gets no further
        blocks = [node.write(n, one) for n, one in enumerate(data[:3], 5)]
        assert node.cids.put([(raw(data[3], SHA2_256), data[3])]) == 1
        assert all(node.cids.has(raw(one).multihash) for one in data)
        assert node.cids.has(raw(data[3], SHA2_256).multihash)
        assert not node.cids.has(raw(b"not here").multihash)
        node.store.remove(blocks[:1])
        assert not node.cids.has(raw(data[0]).multihash)
    for volume in node.store.volumes:
        volume.cids.settle()
        assert not volume.cids._noted
    assert [node.cids.has(raw(one).multihash) for one in data] == [False, True, True, True]


@pytest.mark.parametrize(
    "size", [0, 1, 65_536, 65_537, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES]
)
@pytest.mark.parametrize("code", [multihash.BLAKE3, SHA2_256])
def test_kept_blocks_come_back_whatever_the_codec_that_asks(
    node: Node, size: int, code: int
) -> None:
    data = data_of(size, size)
    assert node.cids.put([(raw(data, code), data)]) == 1
    assert node.cids.put([(raw(data, code), data)]) == 0
    assert node.cids.read(Cid.of(DAG_PB, data, code)) == data


def test_what_was_kept_is_found_after_a_restart_and_after_losing_the_index_of_hashes(
    node: Node,
) -> None:
    blocks = [data_of(seed, seed * 40_000) for seed in range(30)]
    codes = [SHA2_256 if seed % 2 else multihash.BLAKE3 for seed in range(30)]
    cids = [raw(data, code) for data, code in zip(blocks, codes, strict=True)]
    node.cids.put(list(zip(cids, blocks, strict=True)))
    node.write(5, data_of(99, CHUNK_BYTES * 2))
    for lose in (False, True):
        node.close()
        if lose:
            for volume in ("a", "b"):
                for file in (node.folder / volume).glob("cids.db*"):
                    file.unlink()
        node.open()
        if lose:
            # Going through the index happens beside; what is asked meanwhile may not be found yet.
            for volume in node.store.volumes:
                volume.cids.wait_complete()
        for cid, data in zip(cids, blocks, strict=True):
            assert node.cids.read(cid) == data
        assert node.cids.has(raw(data_of(99, CHUNK_BYTES * 2)[CHUNK_BYTES:]).multihash)


def test_a_kill_loses_no_hash(node: Node, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The files as a kill leaves them: copied while the store is open and nothing was settled."""
    data = data_of(3, 30_000)
    node.write(5, data)
    copy = tmp_path_factory.mktemp("killed")
    for volume in ("a", "b"):
        shutil.copytree(node.folder / volume, copy / volume)
    killed = Node(copy)
    for volume in killed.store.volumes:
        volume.cids.wait_complete()
    try:
        assert killed.cids.read(raw(data)) == data
    finally:
        killed.close()


@pytest.mark.parametrize("run", ["this", "another", "unknown"])
def test_what_a_power_failure_took_from_the_index_of_hashes_is_found_again(
    node: Node,
    run: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pages reach the disk in any order: one that says that all is there may come without one of what is there."""
    data = data_of(3, 30_000)
    node.write(5, data)
    for opened in node.store.volumes:
        opened.cids.settle()
    copy = tmp_path_factory.mktemp("stopped")
    for volume in ("a", "b"):
        shutil.copytree(node.folder / volume, copy / volume)
        with contextlib.closing(sqlite3.connect(copy / volume / "cids.db")) as connection:
            connection.execute("DELETE FROM places")
            connection.execute("UPDATE state SET complete = 1")
            connection.commit()
    if run != "this":
        boot_id = copy / "boot_id"
        monkeypatch.setattr(cidindex, "BOOT_ID", boot_id)
        if run == "another":
            boot_id.write_text("2c4f\n")
    started = Node(copy)
    for volume_of in started.store.volumes:
        volume_of.cids.wait_complete()
    try:
        # After a kill alone the file is as this process left it, so what it says is believed.
        assert started.cids.has(raw(data).multihash) == (run != "this")
    finally:
        started.close()


def test_a_stop_leaves_the_index_of_hashes_whole(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write(5, data_of(3, 30_000))
    node.close()
    boot_id = node.folder / "boot_id"
    boot_id.write_text("2c4f\n")
    monkeypatch.setattr(cidindex, "BOOT_ID", boot_id)
    places = 0
    for volume in ("a", "b"):
        assert [path.name for path in (node.folder / volume).glob("cids.db*")] == ["cids.db"]
        with contextlib.closing(sqlite3.connect(node.folder / volume / "cids.db")) as connection:
            assert connection.execute("SELECT complete FROM state").fetchall() == [(1,)]
            assert connection.execute("SELECT run FROM opened").fetchall() == []
            places += connection.execute("SELECT COUNT(*) FROM places").fetchone()[0]
    assert places == 1
    node.open()


def test_a_damaged_index_of_hashes_is_made_again(node: Node) -> None:
    data = data_of(4, 2_000_000)
    node.write(5, data)
    node.close()
    for volume in ("a", "b"):
        (node.folder / volume / "cids.db").write_bytes(b"no database at all" * 1000)
    node.open()
    for opened in node.store.volumes:
        opened.cids.wait_complete()
    assert node.cids.has(raw(data[:CHUNK_BYTES]).multihash)


def test_wrong_bytes_are_refused_and_nothing_of_their_batch_is_kept(node: Node) -> None:
    good, other = data_of(5, 1000), data_of(6, 1000)
    with pytest.raises(ChecksumMismatch):
        node.cids.put([(raw(good), good), (raw(good), other)])
    assert not node.cids.has(raw(good).multihash)
    with pytest.raises(InvalidContent):
        node.cids.put([(raw(b"x"), bytes(2 * CHUNK_BYTES + 1))])
    with pytest.raises(Unsupported):
        node.cids.has(b"\x13\x02ab")


def test_bytes_damaged_on_the_disk_are_never_returned(node: Node) -> None:
    data = data_of(7, CHUNK_BYTES)
    block = node.write(5, data)
    (file,) = node.folder.glob("?/blocks/*/blk_5_7")
    with file.open("r+b") as stream:
        stream.seek(1234)
        stream.write(b"wrong")
    with pytest.raises(ChecksumMismatch):
        node.cids.read(raw(data))
    assert node.bad == [block]


def test_content_of_a_peer_is_in_no_block_report(node: Node) -> None:
    node.write(5, b"of the cluster")
    node.cids.put([(raw(b"of the peer"), b"of the peer")])
    reported = [r.block_id for _, page, _ in node.store.pages(10) for r in page]
    assert reported == [5]
    assert all(node.cids.next_id() >= FIRST_LOCAL_BLOCK for _ in range(10))


def identity_cases() -> list[Callable[[CidStore], object]]:
    empty = Cid(1, RAW, b"\x00\x00")
    text = Cid(1, RAW, b"\x00\x05hello")
    return [
        lambda cids: cids.read(empty) == b"",
        lambda cids: cids.read(text) == b"hello",
        lambda cids: cids.has(text.multihash),
        lambda cids: cids.size(text.multihash) == 5,
        lambda cids: cids.put([(text, b"hello")]) == 0,
    ]


@pytest.mark.parametrize("case", range(5))
def test_identity_cids_are_always_here(node: Node, case: int) -> None:
    assert identity_cases()[case](node.cids)
