"""Several NameNodes on one PostgreSQL: any of them may serve, and any may die."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig
from twinfs.common.errors import PathExists
from twinfs.common.messages import ClusterReport, GetReport
from twinfs.common.model import MIB

from ..support.cluster import Cluster, Server, eventually, wait_until
from .test_crashes import settled, until
from .workload import Worker, check

NAMENODES = 2
DATANODES = 3


class Shared(Cluster):
    """A cluster whose NameNodes share a database; the client is told all of them."""

    def __init__(self, folder: Path, database: str) -> None:
        options = ("--lease-timeout-s", "5", "--delete-grace-s", "1", "--log-level", "WARNING")
        super().__init__(folder, datanodes=DATANODES)
        self.namenodes = [
            Server(
                folder,
                f"namenode{number}",
                "twinfs.namenode",
                [
                    *("--dir", str(folder / f"nn{number}"), "--port", "0"),
                    *("--database", database, *options),
                ],
            )
            for number in range(1, NAMENODES + 1)
        ]

    @property
    def urls(self) -> list[str]:
        return [f"http://{server.facts['http']}" for server in self.namenodes]

    def start(self) -> Shared:
        for server in self.namenodes:
            server.start()
        self.namenode = self.namenodes[0]
        for _ in range(DATANODES):
            self.add_datanode(*(x for url in self.urls[1:] for x in ("--namenode", url)))
        self.wait_live(DATANODES)
        return self

    def stop(self) -> None:
        for server in [*self.datanodes, *self.namenodes]:
            server.stop()

    def tracebacks(self) -> list[str]:
        servers = [*self.namenodes, *self.datanodes]
        return [server.name for server in servers if "Traceback" in server.log_text()]


@pytest.fixture
def shared(tmp_path: Path, postgres_url: str) -> Iterator[Shared]:
    cluster = Shared(tmp_path / "cluster", postgres_url)
    try:
        yield cluster.start()
    finally:
        cluster.stop()
        print("\n".join(f"--- {s.name}\n{s.log_text()[-3000:]}" for s in cluster.namenodes))


async def test_what_one_has_answered_the_other_knows(shared: Shared) -> None:
    first, second = (FileSystem.connect(url) for url in shared.urls)
    async with first, second:
        for number in range(20):
            one, other = (first, second) if number % 2 else (second, first)
            await one.write_bytes(f"/d/{number}", b"%d" % number)
            assert await other.read_bytes(f"/d/{number}") == b"%d" % number
            await other.rename(f"/d/{number}", f"/d/moved{number}")
            assert not await one.exists(f"/d/{number}")
        await first.write_bytes("/large", b"L" * (2 * MIB + 1))
        assert await second.read_bytes("/large") == b"L" * (2 * MIB + 1)

        # Of two that make one name at the same time, one does.
        async def make(fs: FileSystem, number: int) -> int:
            try:
                await fs.mkdirs(f"/race/{number}", parents=False)
            except PathExists:
                return 0
            return 1

        await first.mkdirs("/race")
        for number in range(20):
            made = await asyncio.gather(make(first, number), make(second, number))
            assert sum(made) == 1

        # One order of events, whoever asks.
        async def sealed() -> bool:
            pages = [[e async for e in fs.events()] for fs in (first, second)]
            paths = {event.path for event in pages[0]}
            return pages[0] == pages[1] and {f"/race/{n}" for n in range(20)} <= paths

        await eventually(sealed, "both show the same sealed events")
    assert shared.tracebacks() == []


async def test_namenodes_die_in_turn_and_nothing_is_lost(shared: Shared) -> None:
    """Clients go over to the one that lives; a request whose answer got lost is not carried out again by the other."""
    rng = random.Random(1)
    config = ClientConfig(namenode=",".join(shared.urls), retry_s=60.0, read_timeout_s=10.0)
    async with FileSystem(config) as fs:
        workers = []
        for number in range(3):
            await fs.mkdirs(f"/w{number}")
            workers.append(Worker(fs, f"/w{number}", random.Random(number)))
        stop = asyncio.Event()
        running = [asyncio.create_task(worker.run(stop)) for worker in workers]

        def finished() -> int:
            return sum(worker.done + worker.undecided for worker in workers)

        try:
            for turn in range(3):
                victim = shared.namenodes[turn % NAMENODES]
                goal = finished() + rng.randrange(10, 25)
                await until(lambda goal=goal: finished() >= goal, running)  # type: ignore[misc]
                victim.kill()
                # For a while there is only the other one.
                goal = finished() + 15
                await until(lambda goal=goal: finished() >= goal, running)  # type: ignore[misc]
                await asyncio.to_thread(victim.restart)
                await asyncio.to_thread(_all_live, shared, victim)
        finally:
            stop.set()
            await asyncio.gather(*running, return_exceptions=True)
        for task in running:
            task.result()
    async with FileSystem(config) as fresh:
        await settled(fresh, workers)
        wrong = [line for worker in workers for line in await check(fresh, worker)]
    assert wrong == []
    assert shared.tracebacks() == []


def _all_live(shared: Shared, server: Server) -> None:
    from twinfs.client.http_namenode import HttpNameNode

    namenode = HttpNameNode(f"http://{server.facts['http']}", user="root")

    def live() -> bool:
        report: ClusterReport = namenode.call("report", GetReport())
        return sum(node.state == "live" for node in report.nodes) == DATANODES

    try:
        wait_until(live, "the restarted NameNode knows its DataNodes")
    finally:
        namenode.close()
