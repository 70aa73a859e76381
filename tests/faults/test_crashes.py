"""Processes are killed under a mixed workload: everything acknowledged must be there, byte for byte.

`CRASH_SEEDS=50 scripts/test tests/faults` runs fifty different courses of each test.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig

from ..support.cluster import Cluster, Server, eventually, running
from .workload import Worker, check

WORKERS = 4
SEEDS = range(int(os.environ.get("CRASH_SEEDS", "1")))
NAMENODE_OPTIONS = ("--lease-timeout-s", "5", "--delete-grace-s", "1", "--log-level", "WARNING")


async def disturbed(
    cluster: Cluster, seed: int, kills: int, victim: Callable[[random.Random], Server]
) -> None:
    """Run the workload, killing and restarting a process every few operations; then compare."""
    rng = random.Random(seed)
    config = ClientConfig(namenode=cluster.url, retry_s=60.0, read_timeout_s=10.0)
    async with FileSystem(config) as fs:
        workers = []
        for number in range(WORKERS):
            home = f"/w{number}"
            await fs.mkdirs(home)
            workers.append(Worker(fs, home, random.Random(seed * 100 + number)))
        stop = asyncio.Event()
        running = [asyncio.create_task(worker.run(stop)) for worker in workers]

        def finished() -> int:
            return sum(worker.done + worker.undecided for worker in workers)

        try:
            for _ in range(kills):
                goal = finished() + rng.randrange(10, 40)
                await until(lambda goal=goal: finished() >= goal, running)  # type: ignore[misc]
                server = victim(rng)
                server.kill()
                await asyncio.to_thread(server.restart)
            goal = finished() + 20
            await until(lambda: finished() >= goal, running)
        finally:
            stop.set()
            await asyncio.gather(*running, return_exceptions=True)
        for task in running:
            task.result()
        assert sum(worker.done for worker in workers) > 5 * kills
    async with FileSystem(config) as fresh:
        await settled(fresh, workers)
        wrong = [line for worker in workers for line in await check(fresh, worker)]
    assert wrong == []
    assert cluster.tracebacks() == []


async def until(condition: Callable[[], bool], tasks: list[asyncio.Task[None]]) -> None:
    """Wait for progress of the workload; its failure ends the wait."""
    while not condition():
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.wait(tasks, timeout=0.02)


async def settled(fs: FileSystem, workers: list[Worker]) -> None:
    """Close what lost its writer, so that every file can be read to its end."""
    for worker in workers:
        async for status in fs.list(worker.home):

            async def closed(path: str = status.path) -> bool:
                if not (await fs.stat(path)).under_construction:
                    return True
                await fs.recover_lease(path)
                return False

            await eventually(closed, f"{status.path} closed")


@pytest.mark.parametrize("seed", SEEDS)
async def test_namenode_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    with running(tmp_path, namenode_options=NAMENODE_OPTIONS) as cluster:
        await disturbed(cluster, seed, 5, lambda rng: cluster.namenode)


@pytest.mark.parametrize("seed", SEEDS)
async def test_datanodes_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    with running(tmp_path, datanodes=4, namenode_options=NAMENODE_OPTIONS) as cluster:
        await disturbed(cluster, 2000 + seed, 5, lambda rng: rng.choice(cluster.datanodes))


@pytest.mark.parametrize("seed", SEEDS)
async def test_anything_killed(tmp_path: Path, seed: int) -> None:
    with running(tmp_path, datanodes=4, namenode_options=NAMENODE_OPTIONS) as cluster:
        await disturbed(
            cluster, 1000 + seed, 8, lambda rng: rng.choice([cluster.namenode, *cluster.datanodes])
        )


async def test_everything_killed_at_once_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    with running(tmp_path, namenode_options=NAMENODE_OPTIONS) as cluster:
        config = ClientConfig(namenode=cluster.url, retry_s=60.0)
        async with FileSystem(config) as fs:
            worker = Worker(fs, "/w", random.Random(6))
            await fs.mkdirs("/w")
            for _ in range(60):
                await worker.step()
        for server in [cluster.namenode, *cluster.datanodes]:
            server.signal(signal.SIGKILL)
        for server in [cluster.namenode, *cluster.datanodes]:
            server.kill()
        await asyncio.to_thread(cluster.namenode.restart)
        for server in cluster.datanodes:
            await asyncio.to_thread(server.restart)
        async with FileSystem(config) as fresh:
            assert await check(fresh, worker) == []
            assert worker.undecided == 0


async def test_a_node_lost_in_the_middle_of_a_write_and_of_a_read(tmp_path: Path) -> None:
    data = random.Random(7).randbytes(9 << 20)
    with running(tmp_path, datanodes=4, namenode_options=NAMENODE_OPTIONS) as cluster:
        config = ClientConfig(namenode=cluster.url, short_circuit=False)
        async with FileSystem(config) as fs:
            async with await fs.open("/streamed", "xb", block_size=16 << 20) as file:
                await file.write(data[: 3 << 20])
                await file.sync()
                (located,) = (await fs.locate("/streamed")).blocks
                by_data = {server.facts["data"]: server for server in cluster.datanodes}
                victim = by_data[located.nodes[0].data]
                victim.kill()
                await file.write(data[3 << 20 :])
            assert await fs.read_bytes("/streamed") == data
            await asyncio.to_thread(victim.restart)
            reader = await fs.open("/streamed")
            assert await reader.read(1 << 20) == data[: 1 << 20]
            (located,) = (await fs.locate("/streamed")).blocks
            by_data[located.nodes[0].data].kill()
            assert await reader.read() == data[1 << 20 :]
            await reader.close()
