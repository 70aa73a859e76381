"""The client library against real processes."""

from __future__ import annotations

import asyncio
import io
import os
import random
import threading
from pathlib import Path

import pytest

from twinfs.client import sync
from twinfs.client.filesystem import FileSystem
from twinfs.common.checksum import digest_of
from twinfs.common.errors import (
    BlockUnavailable,
    InvalidRequest,
    IsADirectory,
    LeaseConflict,
    NotADirectory,
    PathExists,
    PathNotFound,
)

from ..support.cluster import Cluster, eventually, wait_until

MIB = 1 << 20
SIZES = [0, 1, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 7]


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed * 1_000_003 + size).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
async def test_whole_files_come_back(cluster: Cluster, size: int) -> None:
    data = data_of(size)
    path = f"/whole/{size}"
    async with FileSystem.connect(cluster.url) as fs:
        status = await fs.write_bytes(path, data, block_size=2 * MIB)
        assert status.length == size
        assert await fs.read_bytes(path) == data
        assert await fs.read_bytes(path, size // 2, 10) == data[size // 2 : size // 2 + 10]
        with pytest.raises(PathExists):
            await fs.write_bytes(path, b"other")
        await fs.write_bytes(path, data[::-1], overwrite=True)
        assert await fs.read_bytes(path) == data[::-1]


@pytest.mark.parametrize("size", SIZES)
async def test_streamed_files_come_back_over_tcp_and_locally(cluster: Cluster, size: int) -> None:
    data = data_of(size)
    path = f"/stream/{size}"
    async with FileSystem.connect(cluster.url) as fs:
        async with await fs.open(path, "xb", block_size=MIB) as file:
            for start in range(0, size, 300_001):
                await file.write(data[start : start + 300_001])
        assert await fs.read_bytes(path) == data
    async with FileSystem.connect(cluster.url, short_circuit=False) as remote:
        assert await remote.read_bytes(path) == data
        async with await remote.open(path) as reader:
            parts = []
            while part := await reader.read(100_003):
                parts.append(part)
        assert b"".join(parts) == data


async def test_seek_tell_readinto_and_lines(cluster: Cluster) -> None:
    lines = [b"line %d\n" % n for n in range(200_000)]
    data = b"".join(lines) + b"no newline"
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes("/lines", data, block_size=MIB)
        async with await fs.open("/lines") as file:
            assert [line async for line in file] == [*lines, b"no newline"]
            assert file.seek(-10, 2) == len(data) - 10
            assert await file.read() == b"no newline"
            assert await file.read(5) == b""
            file.seek(MIB - 3)
            buffer = bytearray(6)
            assert await file.readinto(buffer) == 6
            assert bytes(buffer) == data[MIB - 3 : MIB + 3]
            assert file.tell() == MIB + 3
            file.seek(len(data) + 100)
            assert await file.read() == b""
            with pytest.raises(InvalidRequest):
                file.seek(-1)


async def test_flushed_bytes_are_seen_while_the_file_is_written(cluster: Cluster) -> None:
    data = data_of(3 * MIB)
    async with FileSystem.connect(cluster.url) as fs, FileSystem.connect(cluster.url) as other:
        async with await fs.open("/growing", "xb", block_size=MIB) as file:
            done = 0
            for size in (5, 100_000, MIB - 100_005, 1, MIB, 777):
                await file.write(data[done : done + size])
                done += size
                await (file.sync() if size % 2 else file.flush())
                assert (await other.stat("/growing")).length == done
                assert await other.read_bytes("/growing") == data[:done]
        assert await other.read_bytes("/growing") == data[:done]


@pytest.mark.parametrize("size", [0, 1, 70_000, MIB, MIB + 5])
async def test_append_and_truncate(cluster: Cluster, size: int) -> None:
    path, data = f"/cut/{size}", data_of(size)
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes(path, data, block_size=MIB)
        for more in (b"a", data_of(100_000, 2), data_of(MIB, 3)):
            async with await fs.open(path, "ab") as file:
                await file.write(more)
            data += more
            assert await fs.read_bytes(path) == data
        for length in (len(data) - 1, MIB + 1, MIB, MIB - 1, 65_000, 1, 0):
            if length < len(data):
                assert (await fs.truncate(path, length)).length == length
                data = data[:length]
                assert await fs.read_bytes(path) == data
        async with await fs.open(path, "ab") as file:
            await file.write(b"end")
        assert await fs.read_bytes(path) == b"end"


async def test_a_copy_is_not_changed_with_the_original(cluster: Cluster) -> None:
    data = data_of(MIB + 100_000)
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes("/c1", data, block_size=MIB)
        await fs.copy("/c1", "/c2")
        async with await fs.open("/c1", "ab") as file:
            await file.write(b"one")
        async with await fs.open("/c2", "ab") as file:
            await file.write(b"two")
        assert await fs.read_bytes("/c1") == data + b"one"
        assert await fs.read_bytes("/c2") == data + b"two"
        await fs.delete("/c1")
        await fs.concat("/c2", [(await fs.copy("/c2", "/c3")).path])
        assert await fs.read_bytes("/c2") == (data + b"two") * 2


async def test_concurrent_small_writers_each_get_their_own_answer(cluster: Cluster) -> None:
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes("/many/taken", b"x")
        calls = [fs.write_bytes(f"/many/{n}", b"%d" % n) for n in range(500)]
        calls.insert(250, fs.write_bytes("/many/taken", b"y"))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(results.pop(250), PathExists)
        assert not [r for r in results if isinstance(r, BaseException)]
        found = await asyncio.gather(*(fs.read_bytes(f"/many/{n}") for n in range(500)))
        assert found == [b"%d" % n for n in range(500)]
        with pytest.raises(PathNotFound):
            await fs.read_bytes("/many/nope")
        with pytest.raises(IsADirectory):
            await fs.read_bytes("/many")


async def test_trees_go_there_and_back(cluster: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(300):
        path = source / f"d{number % 7}" / f"file {number} é"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data_of(number * 37))
        path.chmod(0o600 if number % 2 else 0o755)
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
    (source / "empty").mkdir()
    (source / "large").write_bytes(data_of(5 * MIB))
    (source / "link").symlink_to("large")
    async with FileSystem.connect(cluster.url) as fs:
        report = await fs.put_tree(source, "/tree")
        assert (report.files, report.directories) == (301, 9)
        assert [Path(path).name for path, _ in report.errors] == ["link"]
        again = await fs.put_tree(source, "/tree", resume=True)
        assert (again.files, again.skipped) == (0, 301)
        back = tmp_path / "back"
        fetched = await fs.get_tree("/tree", back)
        assert (fetched.files, fetched.errors) == (301, [])
        (source / "link").unlink()
        for path in source.rglob("*"):
            copy = back / path.relative_to(source)
            assert copy.is_dir() == path.is_dir()
            if path.is_file():
                assert copy.read_bytes() == path.read_bytes()
                assert copy.stat().st_mode == path.stat().st_mode
                assert int(copy.stat().st_mtime) == int(path.stat().st_mtime)
        assert not list(back.rglob("*.part"))
        resumed = await fs.get_tree("/tree", back, resume=True)
        assert (resumed.files, resumed.skipped) == (0, 301)


async def test_nothing_is_written_through_a_symbolic_link(cluster: Cluster, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    goal = tmp_path / "goal"
    goal.mkdir()
    (goal / "sub").symlink_to(outside)
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes("/escape/sub/file", b"x")
        report = await fs.get_tree("/escape", goal, overwrite=True)
    assert list(outside.iterdir()) == []
    assert report.errors


async def test_globs(cluster: Cluster) -> None:
    async with FileSystem.connect(cluster.url) as fs:
        for path in ("/g/a1", "/g/a2", "/g/b1", "/g/d/a3", "/g/d/e/a4", "/g/.hidden"):
            await fs.write_bytes(path, b"")
        for pattern, wanted in (
            ("/g/a*", ["/g/a1", "/g/a2"]),
            ("/g/?1", ["/g/a1", "/g/b1"]),
            ("/g/[ab]1", ["/g/a1", "/g/b1"]),
            ("/g/{a1,d/a3,nope}", ["/g/a1", "/g/d/a3"]),
            ("/g/**/a*", ["/g/a1", "/g/a2", "/g/d/a3", "/g/d/e/a4"]),
            ("/g/.h*", ["/g/.hidden"]),
            ("/nope/*", []),
        ):
            assert [status.path for status in await fs.glob(pattern)] == wanted, pattern


async def test_two_writers_and_a_lost_one(cluster: Cluster) -> None:
    data = data_of(MIB + 5)
    async with FileSystem.connect(cluster.url) as first, FileSystem.connect(cluster.url) as second:
        file = await first.open("/lease", "xb", block_size=MIB)
        await file.write(data)
        await file.sync()
        with pytest.raises(LeaseConflict):
            await second.open("/lease", "xb")
        with pytest.raises(LeaseConflict):
            await second.open("/lease", "ab")
        if not await second.recover_lease("/lease"):
            status = await second.stat("/lease")
            for _ in range(200):
                if not status.under_construction:
                    break
                await asyncio.wait([asyncio.ensure_future(second.report())])
                await asyncio.to_thread(threading.Event().wait, 0.05)
                status = await second.stat("/lease")
            assert not status.under_construction
        assert await second.read_bytes("/lease") == data
        with pytest.raises(Exception, match=r"lease|closed|taken"):
            await file.write(b"late")
            await file.close()
        assert await second.read_bytes("/lease") == data


async def test_a_damaged_replica_is_never_returned_and_is_replaced(
    cluster: Cluster,
) -> None:
    data = data_of(2 * MIB + 9)
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes("/damaged", data)
        (located,) = (await fs.locate("/damaged")).blocks
        name = f"blk_{located.block.block_id}_{located.block.generation}"
        replicas = list(cluster.folder.glob(f"datanode*/blocks/*/{name}"))
        assert len(replicas) == 3
        for number, path in enumerate(replicas[:2]):
            content = bytearray(path.read_bytes())
            content[number * MIB + 5] ^= 1
            path.write_bytes(content)
        assert await fs.read_bytes("/damaged") == data
        async with FileSystem.connect(cluster.url, short_circuit=False) as remote:

            async def healed() -> bool:
                # Which replica is read is up to chance: readers come until each was met.
                assert await remote.read_bytes("/damaged") == data
                return all(path.exists() and path.read_bytes() == data for path in replicas)

            await eventually(healed, "the damaged replicas are replaced", 60.0)


async def test_what_is_damaged_everywhere_is_an_error(cluster: Cluster) -> None:
    data = data_of(2 * MIB + 9)
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes("/lost", data)
        (located,) = (await fs.locate("/lost")).blocks
        name = f"blk_{located.block.block_id}_{located.block.generation}"
        for path in cluster.folder.glob(f"datanode*/blocks/*/{name}"):
            content = bytearray(path.read_bytes())
            content[MIB + 5] ^= 1
            path.write_bytes(content)
        with pytest.raises(BlockUnavailable, match="digest"):
            await fs.read_bytes("/lost")
        # The chunks that are whole can still be had.
        assert await fs.read_bytes("/lost", 0, MIB) == data[:MIB]


async def test_checksums(cluster: Cluster) -> None:
    async with FileSystem.connect(cluster.url) as fs:
        small, large = data_of(1000), data_of(3 * MIB + 1)
        await fs.write_bytes("/sum/small", small)
        await fs.write_bytes("/sum/large", large, block_size=MIB)
        await fs.write_bytes("/sum/same", large, block_size=2 * MIB)
        await fs.write_bytes("/sum/empty", b"")
        assert await fs.checksum("/sum/small") == digest_of(small).hex()
        assert await fs.checksum("/sum/empty") == digest_of(b"").hex()
        assert await fs.checksum("/sum/large") == await fs.checksum("/sum/same")


async def test_replication_follows_setrep(cluster: Cluster) -> None:
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes("/rep", data_of(MIB), replication=2)

        async def copies() -> int:
            return len((await fs.locate("/rep")).blocks[0].nodes)

        assert await copies() == 2
        for wanted in (3, 1, 2):
            await fs.set_replication("/rep", wanted)
            for _ in range(400):
                if await copies() == wanted:
                    break
                await asyncio.to_thread(threading.Event().wait, 0.05)
            assert await copies() == wanted
        assert await fs.read_bytes("/rep") == data_of(MIB)


async def test_deleted_bytes_leave_the_disks(cluster: Cluster) -> None:
    async with FileSystem.connect(cluster.url) as fs:
        await fs.write_bytes("/gone", data_of(MIB + 1))
        (located,) = (await fs.locate("/gone")).blocks
        name = f"blk_{located.block.block_id}_{located.block.generation}"
        assert len(list(cluster.folder.glob(f"datanode*/blocks/*/{name}"))) == 3
        await fs.delete("/gone")
        await asyncio.to_thread(
            wait_until,
            lambda: not list(cluster.folder.glob(f"datanode*/blocks/*/{name}")),
            "the replicas are deleted",
        )


def test_the_blocking_face(cluster: Cluster) -> None:
    with sync.FileSystem.connect(cluster.url) as fs:
        with fs.open("/sync/text", "wb") as raw, io.TextIOWrapper(raw) as text:
            text.writelines(f"{n}\n" for n in range(1000))
        with fs.open("/sync/text") as raw, io.TextIOWrapper(raw) as text:
            assert [int(line) for line in text] == list(range(1000))
        assert [status.name for status in fs.list("/sync")] == ["text"]
        assert fs.stat("/sync/text").length == 3890
        with pytest.raises(NotADirectory):
            fs.stat("/sync/text/below")
        with pytest.raises(PathNotFound):
            fs.open("/sync/none")
        assert any(event.path == "/sync/text" for event in fs.events(path_prefix="/sync"))
        assert next(iter(fs.walk("/sync"))).path == "/sync/text"
