"""Files from all of their replicas at once: which nodes give, what happens when one dies, hangs or lies, and going on."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from twinfs.client import swarm
from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig
from twinfs.common.errors import BlockUnavailable, DfsError, InvalidConfig

from ..support.cluster import Cluster, Server, eventually, running
from .commands import Dfs

MIB = 1 << 20
DATA = random.Random(7).randbytes(40 * MIB + 123)
LIMIT_BYTES_S = 40 * MIB
NODES = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    options = ("--serve-bytes-per-s", str(LIMIT_BYTES_S))
    folder = tmp_path_factory.mktemp("cluster")
    with running(folder, datanodes=NODES, datanode_options=options) as found:

        async def put() -> None:
            async with FileSystem.connect(found.url) as fs:
                for path in ("/file", "/rotten"):
                    await fs.write_bytes(path, DATA, block_size=16 * MIB, replication=NODES)

        asyncio.run(put())
        yield found
        assert found.tracebacks() == []


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def connect(cluster: Cluster, **settings: Any) -> FileSystem:
    chosen = {"short_circuit": False, "all_replicas": "always"} | settings
    return FileSystem.connect(config=ClientConfig(namenode=cluster.url, **chosen))


async def given_bytes(cluster: Cluster) -> list[int]:
    """What each DataNode has sent, once it sends nothing any more: bytes are counted when a request is over."""
    found = []
    async with aiohttp.ClientSession() as session:
        for node in cluster.datanodes:
            lines: list[str] = []

            async def rests(node: Server = node, lines: list[str] = lines) -> bool:
                async with session.get(f"http://{node.facts['http']}/metrics") as answer:
                    lines[:] = (await answer.text()).splitlines()
                return 'twinfs_datanode_stream_connections{state="busy"} 0.0' in lines

            await eventually(rests, "no stream is served")
            found.append(
                sum(
                    int(float(line.rsplit(" ", 1)[1]))
                    for line in lines
                    if line.startswith("twinfs_datanode_stream_bytes_total{") and '"sent"' in line
                )
            )
    return found


async def test_every_replica_gives_its_share(cluster: Cluster, tmp_path: Path) -> None:
    before = await given_bytes(cluster)
    told: list[int] = []
    async with connect(cluster) as fs:
        await fs.get_file("/file", tmp_path / "got", progress=told.append)
    assert (tmp_path / "got").read_bytes() == DATA and sum(told) == len(DATA)
    shares = [a - b for a, b in zip(await given_bytes(cluster), before, strict=True)]
    assert min(shares) > len(DATA) / NODES / 4, shares
    assert names(tmp_path) == ["got"]


async def test_large_files_from_elsewhere_do_so_unasked_and_small_ones_do_not(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for least, many in ((len(DATA), True), (len(DATA) + 1, False)):
        monkeypatch.setattr("twinfs.client.swarm.LEAST_BYTES", least)
        async with connect(cluster, all_replicas="auto") as fs:
            found = await fs.locate("/file")
            assert swarm.pays(fs._session, found.blocks) is many
    monkeypatch.setattr("twinfs.client.swarm.LEAST_BYTES", 1)
    async with connect(cluster, all_replicas="auto", short_circuit=True) as fs:
        found = await fs.locate("/file")
        assert not swarm.pays(fs._session, found.blocks)  # it is on this machine
    with pytest.raises(InvalidConfig):
        ClientConfig(all_replicas="some")


async def test_a_get_that_was_broken_off_goes_on_and_checks_what_is_there(
    cluster: Cluster, tmp_path: Path
) -> None:
    came = 0
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(size: int) -> None:
        nonlocal came
        came += size
        if came > 20 * MIB:
            loop.call_soon_threadsafe(enough.set)

    async with connect(cluster) as fs:
        task = asyncio.ensure_future(fs.get_file("/file", tmp_path / "got", progress=told))
        await enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not (tmp_path / "got").exists()
    part = tmp_path / ".got.dfs-part"
    record = (tmp_path / ".got.dfs-part.map").read_bytes()[32:]
    there = record.count(1)
    assert 20 <= there < 41
    damaged = record.index(1)
    with part.open("r+b") as file:
        file.seek(damaged * MIB + 1000)
        byte = file.read(1)
        file.seek(damaged * MIB + 1000)
        file.write(bytes((byte[0] ^ 1,)))
    before = await given_bytes(cluster)
    sizes: list[int] = []
    async with connect(cluster) as fs:
        await fs.get_file("/file", tmp_path / "got", progress=sizes.append)
    assert (tmp_path / "got").read_bytes() == DATA and sum(sizes) == len(DATA)
    sent = sum(await given_bytes(cluster)) - sum(before)
    # A node that is slow for a moment has others asked for its pieces, too: more than what was missing may be sent.
    assert sent < len(DATA) and names(tmp_path) == ["got"]


async def test_what_is_there_is_not_replaced_unasked(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "got").write_bytes(b"mine")
    async with connect(cluster) as fs:
        with pytest.raises(DfsError):
            await fs.get_file("/file", tmp_path / "got", overwrite=False)
        assert (tmp_path / "got").read_bytes() == b"mine"
        await fs.get_file("/file", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


async def test_flipped_bits_in_one_replica_change_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """One node's copy of /rotten is damaged in every block."""
    async with connect(cluster) as fs:
        found = await fs.locate("/rotten")
        ids = [located.block.block_id for located in found.blocks]
    folder = cluster.folder / "datanode1"
    damaged = 0
    for path in folder.rglob("*"):
        if path.is_file() and any(str(number) in path.name for number in ids):
            with path.open("r+b") as file:
                for start in range(0, path.stat().st_size, MIB):
                    file.seek(start)
                    byte = file.read(1)
                    file.seek(start)
                    file.write(bytes((byte[0] ^ 1,)))
            damaged += 1
    assert damaged >= len(ids)
    async with connect(cluster) as fs:
        await fs.get_file("/rotten", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == DATA


def test_the_flag_of_the_command(cluster: Cluster, tmp_path: Path) -> None:
    dfs = Dfs(cluster.url, tmp_path)
    for flag in ("--all-replicas", "--no-all-replicas"):
        assert dfs("get", "-f", flag, "/file", "got") == ""
        assert (tmp_path / "got").read_bytes() == DATA


async def test_one_that_hangs_and_one_that_dies_in_the_middle(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Last: it ends with one node of three."""
    loop = asyncio.get_running_loop()
    hanging, dying = cluster.datanodes[1], cluster.datanodes[2]
    came, done = 0, asyncio.Event()

    def told(size: int) -> None:
        nonlocal came
        came += size
        if came > 6 * MIB and not done.is_set():
            loop.call_soon_threadsafe(done.set)

    async with connect(cluster) as fs:
        task = asyncio.ensure_future(fs.get_file("/file", tmp_path / "got", progress=told))
        try:
            await done.wait()
            hanging.signal(signal.SIGSTOP)
            dying.kill()
            await task
        finally:
            hanging.signal(signal.SIGCONT)
        assert (tmp_path / "got").read_bytes() == DATA
        cluster.datanodes[0].kill()
        hanging.kill()
        with pytest.raises(BlockUnavailable):
            await fs.get_file("/file", tmp_path / "other")
        assert names(tmp_path) == ["got"]
