"""Two of five DataNodes killed at once, while clients read and write.

`scripts/measure_repair.py two --seed N` does the same for longer, and measures the longest read and write.
`KILL_SEEDS=10` tries ten pairs of nodes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig
from twinfs.common.runtime import elapsed_timer

from ..support.cluster import Cluster, running

KIB = 1024
PIECE = 300 * KIB
# Twice what is promised of a machine that has nothing else to do: tests run on loaded ones.
LONGEST_READ_S = 4.0
NAMENODE_OPTIONS = ("--heartbeat-interval-s", "1", "--stale-after-s", "3", "--dead-after-s", "8")


class Readers:
    """Programs that read files again and again, and compare."""

    def __init__(self, fs: FileSystem, contents: dict[str, bytes], seed: int) -> None:
        self._fs = fs
        self._contents = contents
        self._rng = random.Random(seed)
        self.took_s: list[float] = []
        self.wrong: list[str] = []
        self._stop = asyncio.Event()

    async def _read(self) -> None:
        while not self._stop.is_set():
            path = self._rng.choice(sorted(self._contents))
            began_s = elapsed_timer()
            if await self._fs.read_bytes(path) != self._contents[path]:
                self.wrong.append(path)
            self.took_s.append(elapsed_timer() - began_s)

    async def __aenter__(self) -> Readers:
        self._tasks = [asyncio.create_task(self._read()) for _ in range(3)]
        return self

    async def until(self, more: int) -> None:
        """So many more reads; an error of one ends the test."""
        goal = len(self.took_s) + more
        while len(self.took_s) < goal:
            done, _ = await asyncio.wait(self._tasks, timeout=0.02)
            for task in done:
                task.result()

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


async def write_across(
    fs: FileSystem, path: str, data: bytes, half: asyncio.Semaphore, go_on: asyncio.Event
) -> None:
    """Write a file whose first half is with the DataNodes when *half* is released, the rest after *go_on*."""
    async with await fs.open(path, "xb") as file:
        middle = len(data) // 2
        for start in range(0, middle, PIECE):
            await file.write(data[start : min(start + PIECE, middle)])
        await file.flush()
        half.release()
        await go_on.wait()
        for start in range(middle, len(data), PIECE):
            await file.write(data[start : start + PIECE])


async def killed_beside_clients(cluster: Cluster, seed: int) -> None:
    rng = random.Random(seed)
    # Files of several blocks, of one, and small ones that have no block file of their own.
    sizes = [3_000 * KIB, 700 * KIB, 20 * KIB] * 4
    async with FileSystem(ClientConfig(namenode=cluster.url)) as fs:
        contents = {f"/r{n}": rng.randbytes(size) for n, size in enumerate(sizes)}
        for path, data in contents.items():
            await fs.write_bytes(path, data)
        new = {f"/w{n}": rng.randbytes(rng.randrange(1_000 * KIB, 2_500 * KIB)) for n in range(6)}
        small = {f"/s{n}": rng.randbytes(10 * KIB) for n in range(20)}
        half, go_on = asyncio.Semaphore(0), asyncio.Event()
        async with Readers(fs, contents, seed) as readers:
            await readers.until(6)
            writing = [
                asyncio.create_task(write_across(fs, path, data, half, go_on))
                for path, data in new.items()
            ]
            for _ in new:
                await half.acquire()
            readers.took_s.clear()
            victims = rng.sample(cluster.datanodes, 2)
            for victim in victims:
                os.kill(victim.pid, signal.SIGKILL)
            go_on.set()
            await asyncio.gather(*writing)
            for path, data in small.items():
                await fs.write_bytes(path, data)
            await readers.until(30)
        for victim in victims:
            victim.kill()
        assert readers.wrong == []
        assert max(readers.took_s) < LONGEST_READ_S
    async with FileSystem(ClientConfig(namenode=cluster.url)) as fresh:
        for path, data in {**contents, **new, **small}.items():
            assert await fresh.read_bytes(path) == data, path
    assert cluster.tracebacks() == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(1, 1 + int(os.environ.get("KILL_SEEDS", "1"))))
async def test_no_read_and_no_write_fails(tmp_path: Path, seed: int) -> None:
    """Three copies of everything: at least one is left. What was begun is ended, and is whole."""
    with running(tmp_path, datanodes=5, namenode_options=NAMENODE_OPTIONS) as cluster:
        await killed_beside_clients(cluster, seed)
