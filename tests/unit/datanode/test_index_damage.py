"""What a disk changes in a volume, the scrubber's checks find; what they do not find makes no difference."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from twinfs.common.checksum import digest_of
from twinfs.common.errors import DfsError, StoreTooNew
from twinfs.common.model import BlockId, BlockRef, GenerationStamp
from twinfs.common.transfer import SmallBlock
from twinfs.datanode import quarantine, volumes
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.index import Added, Index, Replica
from twinfs.datanode.volumes import Volume

# A thousand of each take some minutes: DAMAGE_FLIPS=1000.
FLIPS = int(os.environ.get("DAMAGE_FLIPS", "25"))
SIZES = (0, 1, 700, 5_000, 60_000, 90_000, 300_000)


def contents() -> dict[int, bytes]:
    rng = random.Random(7)
    return {1_000 + n: rng.randbytes(SIZES[n % len(SIZES)]) for n in range(40)}


def fill(folder: Path) -> None:
    """A volume with small blocks inside the index and in files of their own, closed properly."""
    store = BlockStore(
        [Volume(folder, reserved_bytes=0)], small_block_bytes=64 * 1024, rng=random.Random(1)
    )
    for block_id, data in contents().items():
        item = SmallBlock(
            block_id=BlockId(block_id),
            generation=GenerationStamp(2_000),
            length=len(data),
            digest=digest_of(data) if data else b"",
        )
        for future in store.put_small([item], memoryview(data), durable=False):
            future.result()
    store.close()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a filled volume, by relative path."""
    folder = tmp_path_factory.mktemp("pristine") / "volume"
    fill(folder)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def restored(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


class Found(Exception):
    """The scrubber's checks saw something."""


def scrub(store: BlockStore) -> None:
    """What a pass does, without its pace; Found at the first thing that is wrong."""
    (volume,) = store.volumes
    if wrong := volume.index.inspect():
        raise Found(wrong)
    for replica, as_written in volume.index.look_at(-1, 1_000):
        if not as_written:
            raise Found(f"the row of block {replica.block_id}")
        block = BlockRef(
            block_id=BlockId(replica.block_id), generation=GenerationStamp(replica.generation)
        )
        if quarantine.verify(store, block) != "good":
            raise Found(f"block {replica.block_id}")
    if volume.strangers(2**62):
        raise Found("a file of no row")


def readable(store: BlockStore) -> Iterator[tuple[int, bytes | None]]:
    """Every block as a reader gets it who checks digests; None where it is refused."""
    for block_id, data in contents().items():
        block = BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(2_000))
        try:
            found = store.open(block)
        except DfsError:
            yield block_id, None
            continue
        got = found.data
        if got is None:
            got = os.pread(found.descriptor, 1 << 20, 0)
            os.close(found.descriptor)
        good = not data or digest_of(got) == digest_of(data)
        yield block_id, got if good else None


@pytest.mark.parametrize("part", ["replica", "index"])
def test_a_flipped_bit_anywhere_is_found(
    part: str, pristine: dict[str, bytes], tmp_path: Path
) -> None:
    """Method: flip one random bit of a random file, open the volume, scrub it. Also a bit that SQLite never reads is found."""
    rng = random.Random(f"flip {part}")
    names = [n for n in pristine if n == "index.db" or n.startswith("blocks/")]
    names = [n for n in names if (n == "index.db") == (part == "index")]
    found = 0
    for number in range(FLIPS):
        files = dict(pristine)
        name = rng.choice(names)
        changed = bytearray(files[name])
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        files[name] = bytes(changed)
        folder = restored(files, tmp_path / str(number))
        volume = Volume(folder, reserved_bytes=0)  # whatever has changed: a node must start
        store = BlockStore([volume], small_block_bytes=64 * 1024, rng=random.Random(1))
        try:
            if (folder / "quarantine").exists() and any((folder / "quarantine").iterdir()):
                found += 1  # at the start already: the index was made anew
                continue
            for block_id, data in readable(store):
                assert data in (contents()[block_id], None), f"flip {number} reached a reader"
            with pytest.raises(Found):
                scrub(store)
            found += 1
            volume.index.suspect = "found"
            if part == "index":
                volume.renew_index()
                assert volume.failure == ""
                scrub(store)  # nothing is wrong any more
        finally:
            store.close()
    assert found == FLIPS
    print(f"{part}: {found} of {FLIPS} flips found")


def test_a_damaged_index_is_made_anew_of_what_is_left(
    pristine: dict[str, bytes], tmp_path: Path
) -> None:
    """Whatever bits change, afterwards every block in a file is there, and no wrong byte is served."""
    for seed in range(5):
        rng = random.Random(seed)
        files = dict(pristine)
        changed = bytearray(files["index.db"])
        for _ in range(40):
            # Beyond the first page, so that it opens.
            changed[rng.randrange(4_096, len(changed))] ^= 1 << rng.randrange(8)
        files["index.db"] = bytes(changed)
        volume = Volume(restored(files, tmp_path / str(seed)), reserved_bytes=0)
        store = BlockStore([volume], small_block_bytes=64 * 1024, rng=rng)
        volume.index.suspect = "a test says so"
        volume.renew_index()
        assert volume.failure == ""
        there = dict(readable(store))
        for block_id, data in contents().items():
            assert there[block_id] in (data, None)
            if len(data) > 64 * 1024:
                assert there[block_id] == data
        assert volume.index.inspect() == ""
        store.close()


def test_a_volume_whose_index_can_not_be_read_to_its_end_starts(tmp_path: Path) -> None:
    """A DataNode refused to start: it met the damage while it settled what a crash had left, after the index had opened."""
    volume = Volume(tmp_path / "whole", reserved_bytes=0)
    data = {block_id: b"%d" % block_id for block_id in range(1_000, 3_000)}
    rows = [Replica(n, 1, len(found), True, digest_of(found)) for n, found in data.items()]
    volume.index.add(rows, list(data.items())).result()
    volume.close()
    whole = (tmp_path / "whole" / "index.db").read_bytes()
    page = 4_096
    pages = len(whole) // page
    renewed = 0
    for number in range(1, pages, pages // 8):
        changed = bytearray(whole)
        changed[number * page : number * page + 12] = b"\xff" * 12  # the head of a page
        folder = restored({"index.db": bytes(changed)}, tmp_path / str(number))
        volume = Volume(folder, reserved_bytes=0)
        assert volume.failure == ""
        for block_id, written in data.items():
            with contextlib.suppress(DfsError):  # bytes that can't be read are not served
                assert volume.index.data(block_id) in (written, None)
        renewed += volume.replicas > 0 and any((folder / "quarantine").iterdir())
        volume.close()
    assert renewed > 0


def test_a_flipped_bit_in_the_number_of_the_format_is_damage(tmp_path: Path) -> None:
    """A DataNode refused to start, since its index seemed to be of a later version. One that really is stays refused."""
    fill(tmp_path)
    file = tmp_path / "index.db"
    good = file.read_bytes()
    file.write_bytes(good[:62] + bytes([good[62] ^ 0x80]) + good[63:])  # of the four at 60
    volume = Volume(tmp_path, reserved_bytes=0)
    assert volume.failure == ""
    assert any((tmp_path / "quarantine").iterdir())
    assert volume.replicas > 0
    volume.close()
    Path(f"{file}-sums").unlink()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreTooNew):
        Volume(tmp_path, reserved_bytes=0)


@pytest.mark.parametrize("what", ["format", "column", "text"])
def test_what_sqlite_takes_for_another_kind_of_database_is_damage(
    tmp_path: Path, what: str
) -> None:
    """As SQLite sees it, these are no damage, but a file format to come, or a mistake of ours."""
    fill(tmp_path)
    file = tmp_path / "index.db"
    content = bytearray(file.read_bytes())
    if what == "format":
        content[47] ^= 0x40  # the last of the four of the schema's format
    elif what == "column":
        at = content.index(b"block_id", content.index(b"CREATE TABLE damaged"))
        content[at] ^= 0x04
    else:
        at = content.index(b"INTEGER", content.index(b"CREATE TABLE replicas"))
        content[at + 5] ^= 0x80
    file.write_bytes(content)
    volume = Volume(tmp_path, reserved_bytes=0)
    assert volume.failure == ""
    assert any((tmp_path / "quarantine").iterdir())
    assert volume.replicas > 0
    volume.close()


@pytest.mark.parametrize(
    "change", ["generation = generation + 16384", "inline = 1", "length = length + 1048576"]
)
def test_no_file_goes_by_a_row_that_has_changed(tmp_path: Path, change: str) -> None:
    """The start removes files of older generations, and sets those aside that are cut short: of what the index says."""
    fill(tmp_path)
    large = {block_id: data for block_id, data in contents().items() if len(data) > 64 * 1024}
    # As a disk would: the row's own digest stays as it was.
    with contextlib.closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        connection.execute(f"UPDATE replicas SET {change} WHERE block_id = {min(large)}")
        connection.commit()
    Path(tmp_path / "index.db-sums").unlink()
    volume = Volume(tmp_path, reserved_bytes=0)
    for block_id, data in large.items():
        replica = volume.index.get(block_id)
        assert replica is not None
        assert (replica.generation, replica.length, replica.inline) == (2_000, len(data), False)
        assert volume.final_path(block_id, 2_000).read_bytes() == data
    assert volume.replicas == len(contents())
    volume.close()


def test_a_replica_marked_damaged_stays_marked_until_it_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path)
    block = BlockRef(block_id=BlockId(1_005), generation=GenerationStamp(2_000))
    volume = Volume(tmp_path, reserved_bytes=0)
    path = volume.final_path(block.block_id, block.generation)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    store = BlockStore([volume], small_block_bytes=64 * 1024, rng=random.Random(1))
    assert quarantine.verify(store, block) == "corrupt"
    store.close()
    volume = Volume(tmp_path, reserved_bytes=0)
    store = BlockStore([volume], small_block_bytes=64 * 1024, rng=random.Random(1))
    assert quarantine.is_marked(store, block.block_id)
    report = store.report_of(block)
    assert report is not None
    assert report.damaged
    # It is no base for an append, and its bytes are still there for whoever has nothing better.
    assert store.begin_from(block, object(), block, 10) is None
    assert path.exists()
    path.write_bytes(good)
    assert quarantine.verify(store, block) == "good"
    assert not quarantine.is_marked(store, block.block_id)
    store.close()


def test_an_index_damaged_all_over_is_made_anew_in_the_end(
    pristine: dict[str, bytes], tmp_path: Path
) -> None:
    """Rows that were out of order led the salvage round in circles: the DataNode never came up."""
    rng = random.Random(3)
    for number in range(12):
        folder = restored(pristine, tmp_path / str(number))
        index = folder / "index.db"
        data = bytearray(index.read_bytes())
        for _ in range(rng.choice([64, 500, 3_000])):
            data[rng.randrange(4_096, len(data))] ^= 1 << rng.randrange(8)
        index.write_bytes(data)
        try:
            volume = Volume(folder, reserved_bytes=0)
        except DfsError:
            continue  # told, and for the operator
        volume.index.suspect = "damaged on purpose"
        volume.renew_index()
        assert not volume.failure
        assert volume.index.inspect() == ""
        ids = [replica.block_id for replica in volume.index.page(-1, 1_000)]
        assert set(ids) <= set(contents())
        volume.close()


@pytest.mark.parametrize("lost", [True, False])
def test_a_rebuild_that_was_broken_off_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """What it had not come to was finalized before, and is no write that is left over."""
    folder = tmp_path / "volume"
    fill(folder)
    if lost:
        for file in folder.glob("index.db*"):
            file.unlink()
    else:
        (folder / "index.db").write_bytes(b"no database at all" * 1_000)
    files = {path.name for path in (folder / "blocks").rglob("blk_*")}
    assert len(files) > 8
    record = Volume._record
    seen = 0

    def dies(*arguments: object) -> Future[Added]:
        nonlocal seen
        seen += 1
        if seen == 6:
            raise KeyboardInterrupt
        return record(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(volumes, "RECORDED_AT_ONCE", 2)
        patched.setattr(Volume, "_record", staticmethod(dies))
        with pytest.raises(KeyboardInterrupt):
            Volume(folder, reserved_bytes=0)
    volume = Volume(folder, reserved_bytes=0)
    recorded = {f"blk_{r.block_id}_{r.generation}" for r in volume.index.page(0, 1_000)}
    assert recorded == files
    assert not list((folder / "writing").iterdir()) and not (folder / "rebuilding").exists()
    volume.close()


@pytest.mark.parametrize("at", ["before the first row", "among the files"])
def test_small_blocks_outlive_the_death_of_who_makes_their_index_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """They are nowhere else: what was salvaged once is salvaged again."""
    folder = tmp_path / "volume"
    fill(folder)
    volume = Volume(folder, reserved_bytes=0)
    volume.index.suspect = "a row has changed"

    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if at == "before the first row":
            patched.setattr(Index, "add", dies)
        else:
            patched.setattr(Volume, "_rebuild", dies)
        with pytest.raises(KeyboardInterrupt):
            volume.renew_index()
    volume.close()
    store = BlockStore(
        [Volume(folder, reserved_bytes=0)], small_block_bytes=64 * 1024, rng=random.Random(1)
    )
    for block_id, data in contents().items():
        found = store.find(block_id)
        assert found is not None and found[1].length == len(data)
        if found[1].inline:
            assert store.small([block_id])[block_id][1] == data
    assert not (folder / "rebuilding").exists()
    store.close()
