"""Content on real processes: CIDs of paths, add, get, pins, collection, CAR, and what is refused."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from twinfs.client.filesystem import FileSystem
from twinfs.client.importer import Importer, NoSink
from twinfs.common.admin import CheckCluster, ClusterCheck
from twinfs.common.errors import (
    ChecksumMismatch,
    ContentNotFound,
    InvalidContent,
    LeaseConflict,
    LinkNotFound,
)
from twinfs.common.ipld import car, dag_pb, directory, unixfs
from twinfs.common.ipld.cid import DAG_PB, RAW, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.common.ipld.layout import PROFILES, TWINFS
from twinfs.common.ipld.unixfs import Kind, UnixFs
from twinfs.common.model import BlockId, FileBlocks, LocatedBlock

from ..support.cluster import Cluster, eventually, wait_until
from ..unit.common.ipld.contents import content, repeated
from ..unit.common.ipld.test_golden import CIDS
from .commands import MIB, Dfs

LARGE = random.Random(11).randbytes(5 * MIB + 77)


@pytest.fixture
async def fs(cluster: Cluster) -> AsyncIterator[FileSystem]:
    async with FileSystem.connect(cluster.url) as found:
        yield found


def golden_tree(folder: Path) -> Path:
    """The tree that tests/golden calls "nested", and a file of three chunks."""
    (folder / "d/x/y").mkdir(parents=True)
    (folder / "d/e").mkdir()
    (folder / "d/x/y/z").write_bytes(content(13, 10))
    (folder / "d/x/w").write_bytes(content(14, 20))
    (folder / "d/top").write_bytes(content(15, 30))
    (folder / "three").write_bytes(repeated(3, 3 * MIB - 7))
    return folder


async def hash_of(data: bytes) -> Cid:
    async def pieces() -> AsyncIterator[bytes]:
        yield data

    return (await Importer(TWINFS, NoSink()).stream(pieces(), "")).cid


# --- CIDs, as other software says them ---


def test_cids_are_those_of_the_javascript_importer(dfs: Dfs) -> None:
    golden_tree(dfs.folder)
    for profile in PROFILES:
        wanted = CIDS[profile]
        added = dfs("add", "-n", "-r", "-Q", "--profile", profile, "d", "three").split()
        assert added == [wanted["nested"]["cid"], wanted["three"]["cid"]]
        stored = dfs("add", "-r", "-Q", "--profile", profile, "d", "three").split()
        assert stored == added
    dfs("put", "-r", "d", "/golden")
    dfs("put", "three", "/three")
    assert dfs("cid", "/golden").strip() == CIDS["twinfs"]["nested"]["cid"]
    assert dfs("cid", "/three").strip() == CIDS["twinfs"]["three"]["cid"]
    # Once more by the command line proper, which `client/quick.py` spares such plain questions.
    paths = ("/three", "//golden/x/", "/golden/top")
    assert dfs("cid", *paths) == dfs("cid", "--base", "base32", *paths)
    assert dfs.fails("cid", "/none") == "cannot find the CID of '/none': No such file or directory"
    assert CIDS["twinfs"]["three"]["cid"] in dfs("stat", "/three")
    assert dfs.json("stat", "/three")[0]["cid"] == CIDS["twinfs"]["three"]["cid"]
    for profile in PROFILES:
        cid = CIDS[profile]["three"]["cid"]
        assert dfs.run("cat", cid).raw == repeated(3, 3 * MIB - 7)
        assert dfs.run("cat", f"{CIDS[profile]['nested']['cid']}/x/y/z").raw == content(13, 10)


async def test_the_cid_is_right_after_every_change(fs: FileSystem) -> None:
    async def check(data: bytes) -> None:
        named = await fs.content.cid("/changing")
        assert named.cid == await hash_of(data)
        assert (await fs.content.cid("/changing")) == named

    data = LARGE
    await fs.write_bytes("/changing", data, block_size=2 * MIB)
    await check(data)
    async with await fs.open("/changing", "ab") as file:
        await file.write(b"more" * 300_000)
        with pytest.raises(LeaseConflict):
            await fs.content.cid("/changing")
    data += b"more" * 300_000
    await check(data)
    for length in (3 * MIB + 5, 2 * MIB, 100, 0):
        await fs.truncate("/changing", length)
        data = data[:length]
        await check(data)
    async with await fs.open("/changing", "wb", block_size=MIB) as file:
        await file.write(LARGE)
    await check(LARGE)


async def test_a_concat_of_ragged_parts_is_valid_all_the_same(fs: FileSystem) -> None:
    parts = [LARGE[: MIB + 5], LARGE[MIB + 5 : MIB + 9], LARGE[MIB + 9 :]]
    for number, part in enumerate(parts):
        await fs.write_bytes(f"/part{number}", part)
    await fs.concat("/part0", ["/part1", "/part2"])
    named = await fs.content.cid("/part0")
    assert named.cid != await hash_of(LARGE)
    found = await fs.content.reader.entity(named.cid)
    assert b"".join([bytes(p) async for p in fs.content.reader.read(found)]) == LARGE
    middle = [bytes(p) async for p in fs.content.reader.read(found, MIB, 2 * MIB)]
    assert b"".join(middle) == LARGE[MIB : 2 * MIB]
    copied = await fs.copy("/part0", "/copied")
    assert (await fs.content.cid(copied.path)) == named


async def test_a_directory_has_the_cid_that_adding_it_gives(fs: FileSystem, tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "large").write_bytes(LARGE)
    (tmp_path / "d" / "sub" / "small").write_bytes(b"small")
    await fs.put_tree(tmp_path / "d", "/folder")
    node = await Importer(TWINFS, NoSink()).path(tmp_path / "d", "d")
    named = await fs.content.cid("/folder")
    assert (named.cid, named.tsize) == (node.cid, node.tsize)
    await fs.write_bytes("/folder/sub/other", b"other")
    (tmp_path / "d" / "sub" / "other").write_bytes(b"other")
    node = await Importer(TWINFS, NoSink()).path(tmp_path / "d", "d")
    assert (await fs.content.cid("/folder")).cid == node.cid

    # Pinned, it stays when its path goes; the bytes are where they were.
    before = (await fs.report()).blocks
    await fs.content.pin(node.cid, name="kept")
    assert (await fs.report()).blocks == before
    await fs.delete("/folder", recursive=True)
    async for _ in fs.content.collect():
        pass
    count, bad = await fs.content.check(node.cid)
    assert (bad, count) == ([], 6 + 1 + 2 + 2)
    cid = await fs.content.reader.resolve(node.cid, ["sub", "other"])
    assert await fs.content.reader.get(cid) == b"other"
    assert await fs.content.unpin(node.cid) == 1


# --- adding, fetching, linking ---


def test_add_and_get_a_tree(dfs: Dfs) -> None:
    tree = dfs.folder / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "large").write_bytes(LARGE)
    (tree / "none").write_bytes(b"")
    (tree / "sub" / "copy").write_bytes(LARGE)
    (tree / "sub" / "ünï").write_bytes(b"name")
    (tree / "sub" / "link").symlink_to("../large")
    (tree / "outside").symlink_to("/etc/passwd")
    lines = dfs("add", "-r", "tree").splitlines()
    assert len(lines) == 9
    root = lines[-1].split()[1]
    assert dfs("add", "-r", "-Q", "tree").strip() == root
    assert dfs("ls", root).split() == ["large", "none", "outside", "sub"]
    assert [entry["type"] for entry in dfs.json("ls", f"{root}/sub")] == [
        "file", "directory", "symlink", "file",
    ]  # fmt: skip
    answer = dfs.run("get", root, "out")
    assert answer.code == 1
    assert "leads outside" in answer.err
    out = dfs.folder / "out"
    assert (out / "large").read_bytes() == (out / "sub" / "copy").read_bytes() == LARGE
    assert (out / "none").read_bytes() == b""
    assert str((out / "sub" / "link").readlink()) == "../large"
    assert (out / "sub" / "empty").is_dir()
    assert not (out / "outside").is_symlink()
    assert "File exists" in dfs.fails("get", f"{root}/large", "out")
    assert dfs.run("cat", f"ipfs://{root}/sub/ünï").raw == b"name"
    assert dfs.run("get", f"/ipfs/{root}/large", "-").raw == LARGE
    assert "no entry" in dfs.fails("cat", f"{root}/absent")
    streamed = dfs.run("add", "-Q", "-", stdin=LARGE)
    assert streamed.raw.decode().strip() == lines[0].split()[1]


def test_files_of_one_name_are_all_kept(dfs: Dfs) -> None:
    for folder in ("one", "two"):
        (dfs.folder / folder).mkdir()
        (dfs.folder / folder / "same").write_bytes(folder.encode())
    added = [line.split()[1] for line in dfs("add", "one/same", "two/same").splitlines()]
    assert len(set(added)) == 2 and set(added) <= set(dfs("pin", "ls", "-q").split())
    assert dfs("add", "-Q", "one/same", "two/same").split() == added
    assert "two entries" in dfs.misused("add", "-w", "one/same", "two/same")


async def test_files_with_paths_are_not_stored_again(fs: FileSystem, dfs: Dfs) -> None:
    """`put -r --dedup` and `add`, of what the cluster has by path and of what a tree has twice."""
    data, other = random.Random(15).randbytes(3 * MIB + 5), random.Random(16).randbytes(2 * MIB)
    tree = dfs.folder / "twins"
    (tree / "sub").mkdir(parents=True)
    for name, what in (("a", data), ("sub/b", data), ("c", other), ("sub/d", other)):
        (tree / name).write_bytes(what)
    for name in ("small", "sub/small", "none"):
        (tree / name).write_bytes(b"few bytes" if name != "none" else b"")
    (dfs.folder / "a").write_bytes(data)

    def kept(found: FileBlocks) -> list[int]:
        return [located.block.block_id for located in found.blocks]

    await asyncio.to_thread(dfs, "put", "a", "/by-path")
    (facts,) = await asyncio.to_thread(dfs.json, "put", "-r", "--dedup", "twins", "/twins")
    assert facts["files"] == 7 and facts["errors"] == []
    assert facts["bytes"] == 2 * len(data) + 2 * len(other) + 18
    blocks = {
        name: kept(await fs.locate(f"/{name}"))
        for name in ("by-path", "twins/a", "twins/sub/b", "twins/c", "twins/sub/d")
    }
    assert blocks["by-path"] == blocks["twins/a"] == blocks["twins/sub/b"]
    assert blocks["twins/c"] == blocks["twins/sub/d"] != blocks["by-path"]
    assert kept(await fs.locate("/twins/small")) == kept(await fs.locate("/twins/sub/small"))
    await asyncio.to_thread(dfs, "get", "-r", "/twins", "twins.back")
    for name in ("a", "sub/b", "c", "sub/d", "small", "none"):
        assert (dfs.folder / "twins.back" / name).read_bytes() == (tree / name).read_bytes()

    # Content of the same bytes: held for itself, when the paths go.
    before = (await fs.report()).blocks
    root = (await asyncio.to_thread(dfs, "add", "-rQ", "twins")).strip()
    alone = (await asyncio.to_thread(dfs, "add", "-Q", "a")).strip()
    assert (await fs.report()).blocks <= before + 3  # two folders, and the empty file
    for path in ("/by-path", "/twins"):
        await fs.delete(path, recursive=True)
    await fs.content.unpin(Cid.parse(alone))
    async for _ in fs.content.collect():
        pass
    assert (await asyncio.to_thread(dfs.run, "cat", f"{root}/sub/b")).raw == data
    assert "0 bad" in await asyncio.to_thread(dfs, "verify", root)
    await fs.content.unpin(Cid.parse(root))
    async for _ in fs.content.collect():
        pass

    async def gone() -> bool:
        return (await fs.report()).blocks < before

    await eventually(gone, "the blocks that nothing refers to are gone")


async def test_small_files_with_paths_are_not_stored_again(
    fs: FileSystem, dfs: Dfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are blocks already, which the content shares; a block that goes just then is stored."""
    folder = dfs.folder / "leaflets"
    folder.mkdir()
    for number in range(600):
        (folder / f"{number}").write_bytes(b"leaflet %d" % number * 40)
    await asyncio.to_thread(dfs, "put", "-r", "leaflets", "/leaflets")
    before = (await fs.report()).blocks
    root = (await asyncio.to_thread(dfs, "add", "-rQ", "leaflets")).strip()
    assert (await fs.report()).blocks <= before + 1  # the folder's own
    await fs.delete("/leaflets", recursive=True)
    async for _ in fs.content.collect():
        pass
    assert "0 bad" in await asyncio.to_thread(dfs, "verify", root)
    assert (await asyncio.to_thread(dfs.run, "cat", f"{root}/7")).raw == b"leaflet 7" * 40

    where = fs.content.reader.places

    async def places(wanted: Sequence[Cid]) -> list[tuple[LocatedBlock, int, int] | None]:
        """As it is, and then the block is gone."""
        found = await where(wanted)
        assert found[0] is not None
        located = found[0][0]
        gone = replace(located, block=replace(located.block, block_id=BlockId(2**50)))
        return [(gone, *found[0][1:]), *found[1:]]

    await fs.write_bytes("/vanishing", b"vanishing")
    monkeypatch.setattr(fs.content.reader, "places", places)
    async with fs.content.sink() as sink:
        cid = Cid.of(RAW, b"vanishing")
        await sink.raw(cid, b"vanishing")
        await sink.finish()
    assert sink.added == 1
    assert await fs.content.reader.get(cid) == b"vanishing"


async def test_the_same_content_is_stored_once(fs: FileSystem, dfs: Dfs) -> None:
    data = random.Random(5).randbytes(3 * MIB + 1)
    (dfs.folder / "f").write_bytes(data)
    (dfs.folder / "small").write_bytes(data[:1000])
    cid = await asyncio.to_thread(lambda: dfs("add", "-Q", "f").strip())
    small = await asyncio.to_thread(lambda: dfs("add", "-Q", "small").strip())
    # Counted now: the blocks of a report are those of a moment ago.
    before: ClusterCheck = await fs._session.namenode.call("check_cluster", CheckCluster())
    for arguments in (
        ("add", "-Q", "f", "small"),
        ("link", cid, "/linked"),
        ("link", small, "/linked-small"),
        ("put", "--dedup", "f", "/dedup"),
        ("put", "--dedup", "small", "/dedup-small"),
        ("cp", "/linked", "/linked-again"),
    ):
        answer = await asyncio.to_thread(dfs.run, *arguments)
        assert (answer.code, answer.err) == (0, "")
    # Not more: what other tests deleted may go meanwhile. What the files have is looked at below.
    after: ClusterCheck = await fs._session.namenode.call("check_cluster", CheckCluster())
    assert after.content_blocks <= before.content_blocks
    kept = [
        [located.block.block_id for located in (await fs.locate(path)).blocks]
        for path in ("/linked", "/dedup", "/linked-again", "/linked-small", "/dedup-small")
    ]
    assert kept[0] == kept[1] == kept[2] and kept[3] == kept[4]
    for path in ("/linked", "/dedup", "/linked-again"):
        assert await fs.read_bytes(path) == data
        assert str((await fs.content.cid(path)).cid) == cid
    assert (
        await fs.read_bytes("/linked-small") == await fs.read_bytes("/dedup-small") == data[:1000]
    )

    # Deleting respects every reference.
    await fs.content.unpin(Cid.parse(cid))
    await fs.content.unpin(Cid.parse(small))
    for path in ("/linked", "/dedup"):
        await fs.delete(path)
    async for _ in fs.content.collect():
        pass
    assert await fs.read_bytes("/linked-again") == data
    assert await fs.read_bytes("/dedup-small") == data[:1000]


def test_a_link_of_other_profiles(dfs: Dfs) -> None:
    data = random.Random(6).randbytes(2 * MIB + 1)
    (dfs.folder / "f").write_bytes(data)
    raw = dfs("add", "-Q", "--profile", "unixfs-v1-2025", "f").strip()
    old = dfs("add", "-Q", "--profile", "unixfs-v0-2015", "f").strip()
    assert old.startswith("Qm")
    dfs("link", raw, "/from-sha2")
    assert "give --copy" in dfs.fails("link", old, "/from-v0")
    dfs("link", "--copy", old, "/from-v0")
    assert dfs.run("cat", "/from-sha2").raw == dfs.run("cat", "/from-v0").raw == data
    assert dfs("cid", "/from-v0") == dfs("cid", "/from-sha2") == dfs("add", "-n", "-Q", "f")
    assert "File exists" in dfs.fails("link", raw, "/from-v0")


# --- pins, collection ---


def test_pins_and_collection(dfs: Dfs) -> None:
    (dfs.folder / "p").mkdir()
    (dfs.folder / "p" / "a").write_bytes(b"pinned a")
    root = dfs("add", "-r", "-Q", "--pin-name", "mine", "p").strip()
    leaf = dfs("add", "-n", "-Q", "p/a").strip()
    assert [(p["kind"], p["name"]) for p in dfs.json("pin", "ls", root)] == [("recursive", "mine")]
    assert dfs("pin", "add", "--direct", f"{root}/a") == f"pinned {leaf}\n"
    assert f"{root}  2 blocks  good" in dfs("pin", "verify", root)
    assert dfs("pin", "rm", root) == f"unpinned {root}\n"
    assert dfs.json("gc")[0]["blocks"] >= 1
    # Until the DataNodes have deleted them, their gateways still give the bytes.
    wait_until(lambda: dfs.run("ls", root).code == 74, "the folder is gone")
    assert "does not hold it" in dfs.fails("ls", root, code=74)
    assert dfs.run("cat", leaf).raw == b"pinned a"
    assert dfs.fails("pin", "rm", root).endswith("no such pin")
    dfs("pin", "rm", leaf)
    assert dfs("add", "--no-pin", "-Q", "p/a").strip() == leaf
    dfs("gc", "--grace", "1000")
    assert dfs.run("cat", leaf).raw == b"pinned a"
    assert "would collect" in dfs("gc", "--dry-run")
    assert "collected" in dfs("gc")
    assert dfs.json("verify")[0]["bad"] == 0


async def test_collecting_while_adding(fs: FileSystem, cluster: Cluster, tmp_path: Path) -> None:
    """Whatever an add has been told is there stays there, although collectors run all the while."""
    stop = asyncio.Event()

    async def collector() -> None:
        async with FileSystem.connect(cluster.url) as other:
            while not stop.is_set():
                async for _ in other.content.collect():
                    pass
                await asyncio.sleep(0)

    async def adder(number: int) -> Cid:
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in range(30):
            (folder / str(name)).write_bytes(b"shared %d" % name)
        (folder / "own").write_bytes(b"own %d" % number)
        async with FileSystem.connect(cluster.url) as own, own.content.sink() as sink:
            root = await Importer(TWINFS, sink).path(folder, "")
            await sink.finish()
            await own.content.pin_if_new(root.cid)
            if number % 2:
                await own.content.unpin(root.cid)
            return root.cid

    task = asyncio.create_task(collector())
    try:
        for start in range(0, 8, 4):
            roots = await asyncio.gather(*(adder(start + n) for n in range(4)))
            for root in roots[::2]:
                count, bad = await fs.content.check(root)
                assert (count, bad) == (32, [])
                await fs.content.unpin(root)
    finally:
        stop.set()
        await task


# --- blocks and DAGs ---


def test_blocks(dfs: Dfs) -> None:
    (dfs.folder / "b").write_bytes(b"a block")
    cid = dfs("block", "put", "b").strip()
    assert cid == str(Cid.of(RAW, b"a block"))
    other = dfs("block", "put", "--hash", "sha2-256", "b").strip()
    assert dfs.run("block", "get", cid, other).raw == b"a block" * 2
    assert dfs.json("block", "stat", other)[0] == {
        "cid": other, "size": 7, "codec": "raw", "hash": "sha2-256",
    }  # fmt: skip
    (dfs.folder / "two").write_bytes(bytes(2 * MIB))
    (dfs.folder / "more").write_bytes(bytes(2 * MIB + 1))
    big = dfs("block", "put", "--pin", "two").strip()
    assert dfs.run("block", "get", big).raw == bytes(2 * MIB)
    assert "at most" in dfs.fails("block", "put", "more")
    assert "dag-pb" in dfs.fails("block", "put", "--codec", "dag-pb", "b")
    (dfs.folder / "j").write_text(json.dumps({"a": {"/": cid}, "b": [1, 2]}))
    made = dfs("dag", "put", "j").strip()
    assert json.loads(dfs("dag", "get", made)) == {"a": {"/": cid}, "b": [1, 2]}
    assert dfs("dag", "get", "--json", made) == dfs("dag", "get", made)
    cbor = dfs.run("dag", "get", "--cbor", made).raw
    assert cbor == dfs.run("block", "get", made).raw  # as it was put
    assert dfs.run("block", "get", f"{made}/a").raw == b"a block"


def test_cars(dfs: Dfs) -> None:
    (dfs.folder / "c").mkdir()
    (dfs.folder / "c" / "large").write_bytes(LARGE)
    (dfs.folder / "c" / "x").write_bytes(b"x of the car")
    root = dfs("add", "-r", "-Q", "c").strip()
    (facts,) = dfs.json("dag", "stat", root)
    assert facts["blocks"] == 1 + 1 + 6 + 1
    first = dfs.run("dag", "export", root).raw
    dfs("dag", "export", root, "--version", "2", "-o", "two.car")
    second = (dfs.folder / "two.car").read_bytes()
    assert first in second
    for data in (first, second):
        roots, blocks = car.read_all(data)
        assert [str(cid) for cid in roots] == [root]
        assert len(blocks) == facts["blocks"]
    dfs("pin", "rm", root)
    dfs("gc")
    wait_until(lambda: dfs.run("ls", root).code == 74, "the folder is gone")
    for name, data in (("one.car", first), ("two.car", second)):
        (dfs.folder / name).write_bytes(data)
        assert f"pinned {root}" in dfs("dag", "import", name)
    assert dfs.run("cat", f"{root}/large").raw == LARGE
    assert f"{root}  9 blocks  good" in dfs("pin", "verify", root)
    assert len(dfs("dag", "export", "--json", root).splitlines()) == 9

    # Parents before children, in pieces that come late: complete all the same.
    roots, blocks = car.read_all(first)
    backwards = car.header(roots) + b"".join(car.frame(b.cid, b.data) for b in reversed(blocks))
    assert f"pinned {root}" in dfs.run("dag", "import", "-", stdin=backwards).out


def test_bad_cars_and_cids_are_refused(dfs: Dfs) -> None:
    (dfs.folder / "y").write_bytes(b"y" * 1000)
    root = Cid.of(RAW, b"y" * 1000)
    good = car.header([root]) + car.frame(root, b"y" * 1000)
    for number, bad in enumerate(
        (good[:-1], good[:-1] + b"?", b"", b"\x00" * 100, b"not a car at all", good + b"\xff" * 12)
    ):
        (dfs.folder / f"bad{number}").write_bytes(bad)
        answer = dfs.run("dag", "import", "--no-pin", f"bad{number}")
        assert answer.code in (1, 74)
        assert answer.err.startswith("dfs: cannot import")
    absent = Cid.of(RAW, b"nobody has this")
    lonely = car.header([absent])
    (dfs.folder / "lonely").write_bytes(lonely)
    assert dfs.run("dag", "import", "lonely").code != 0
    for text in (
        "hello",
        "bafy",
        "Qm",
        "/ipfs/x",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyk",
    ):
        assert dfs.run("block", "get", text).code == 2
        assert dfs.run("pin", "add", text).code == 2


async def test_what_lies_is_not_extracted(fs: FileSystem, dfs: Dfs) -> None:
    leaf = Cid.of(RAW, b"evil")

    async def folder(name: str, target: Cid = leaf) -> Cid:
        block = dag_pb.encode([PBLink(target, name, 4)], unixfs.DIRECTORY_DATA)
        cid = Cid.of(DAG_PB, block)
        await fs.content.put_blocks([(leaf, b"evil"), (cid, block)])
        return cid

    for name in ("..", "../x", "/etc/x", "a/b", ".", "nul\0"):
        cid = await folder(name)
        answer = await asyncio.to_thread(dfs.run, "get", str(cid), "out" + str(cid)[-5:])
        assert answer.code == 1
        assert "has an entry named" in answer.err
    link, made = directory.symlink(TWINFS, "..")
    below = await folder("escape", leaf)
    await fs.content.put_blocks([(link.cid, made.block)])
    entries = [PBLink(link.cid, "a", 1), PBLink(below, "b", 1)]
    block = dag_pb.encode(entries, unixfs.DIRECTORY_DATA)
    cid = Cid.of(DAG_PB, block)
    await fs.content.put_blocks([(cid, block)])
    answer = await asyncio.to_thread(dfs.run, "get", str(cid), "linked")
    assert answer.code == 1
    assert not (dfs.folder / "linked" / "a").is_symlink()
    assert (dfs.folder / "linked" / "b" / "escape").read_bytes() == b"evil"

    lie = unixfs.encode(UnixFs(kind=Kind.FILE, filesize=5, blocksizes=[5]))
    block = dag_pb.encode([PBLink(leaf, "", 4)], lie)
    cid = Cid.of(DAG_PB, block)
    await fs.content.put_blocks([(cid, block)])
    assert "another length" in (await asyncio.to_thread(dfs.run, "cat", str(cid))).err
    with pytest.raises(ChecksumMismatch):
        await fs.content.put_blocks([(leaf, b"good")])
    with pytest.raises(LinkNotFound):
        await fs.content.reader.resolve(below, ["absent"])
    with pytest.raises(InvalidContent):
        await fs.content.reader.entity(await folder("x", cid)) and await fs.content.put_blocks(
            [(Cid.of(DAG_PB, b"\xff"), b"\xff")]
        )


# --- who has it ---


async def test_providers_are_those_who_have_it(fs: FileSystem, cluster: Cluster, dfs: Dfs) -> None:
    (dfs.folder / "r").write_bytes(LARGE[: 3 * MIB])
    root = await asyncio.to_thread(lambda: dfs("add", "-Q", "r").strip())
    leaf = str(Cid.of(RAW, LARGE[:MIB]))
    addresses = {node.address.http for node in (await fs.report()).nodes}
    for cid in (root, leaf):
        found = await asyncio.to_thread(dfs.json, "providers", cid)
        assert len(found) == 3
        assert all(record["ID"].startswith("12D3KooW") for record in found)
        assert {record["Protocols"][0] for record in found} == {"transport-ipfs-gateway-http"}
        ports = {record["Addrs"][0].split("/")[4] for record in found}
        assert ports == {address.rpartition(":")[2] for address in addresses}
    nobody = str(Cid.of(RAW, b"nobody has this either"))
    url = f"{cluster.url}/routing/v1/providers/"
    async with aiohttp.ClientSession() as http:
        async with http.get(url + nobody) as answer:
            assert (answer.status, await answer.json()) == (200, {"Providers": []})
        async with http.get(url + root, headers={"Accept": "application/x-ndjson"}) as answer:
            assert answer.content_type == "application/x-ndjson"
            assert len((await answer.text()).splitlines()) == 3
        async with http.get(url + "nonsense") as answer:
            assert answer.status == 400


# --- damage ---


async def test_content_outlives_a_datanode(fs: FileSystem, cluster: Cluster, dfs: Dfs) -> None:
    (dfs.folder / "safe").write_bytes(LARGE)
    cid = Cid.parse(await asyncio.to_thread(lambda: dfs("add", "-Q", "safe").strip()))
    node = cluster.datanodes[0]
    node.kill()
    try:
        found = await fs.content.reader.entity(cid)
        assert b"".join([bytes(p) async for p in fs.content.reader.read(found)]) == LARGE
        assert (await fs.content.check(cid))[1] == []
    finally:
        node.restart()
    with pytest.raises(ContentNotFound):
        await fs.content.reader.get(Cid.of(RAW, b"never stored"))


async def test_a_thousand_small_files(fs: FileSystem, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1_000):
        (folder / f"{number:04}").write_bytes(b"%d" % number * 10)
    async with fs.content.sink() as sink:
        root = await Importer(TWINFS, sink).path(folder, "")
        await sink.finish()
        await fs.content.pin_if_new(root.cid)
    assert sink.added == 1_001
    assert not sink.incomplete
    count, bad = await fs.content.check(root.cid)
    assert (count, bad) == (1_001, [])
