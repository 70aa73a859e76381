"""Metadata through the network API: two client processes, 64 calls in flight together, one NameNode."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys

import bounds
from clients import seconds_of
from cluster import Cluster, dfs, running
from figures import Figure, Series
from settings import Settings

from twinfs.client.filesystem import FileSystem
from twinfs.common.runtime import elapsed_timer

PROCESSES = 2
IN_FLIGHT = 64
FOLDERS = 16
COUNTS = {"mkdir": 40_000, "create": 20_000, "stat": 100_000, "rename": 30_000}
ASKED = {"mkdir": 15_000, "create": 8_000, "stat": 40_000, "rename": 12_000}
NAMES = {
    "mkdir": "mkdir, durable",
    "create": "create+complete, durable",
    "stat": "stat",
    "rename": "rename, durable",
}
SINGLE_STATS = 2_000


def measure(settings: Settings) -> list[Figure]:
    rates: dict[str, list[float]] = {name: [] for name in COUNTS}
    inserts, lookups, single = [], [], []
    for number in range(settings.runs):
        with running(settings.fresh("metadata"), datanodes=1) as cluster:
            folder = settings.folder / f"raw-{number}"
            inserts.append(bounds.sqlite_inserts_per_s(folder, 40_000))
            lookups.append(bounds.sqlite_lookups_per_s(folder))
            asyncio.run(_prepare(cluster))
            for name in COUNTS:
                rates[name].append(_rate(cluster, name))
            single.append(asyncio.run(_single_stat_ms(cluster)))
    figures = []
    for name in ("stat", "mkdir", "create", "rename"):
        bound = (
            Series("raw SQLite reads", tuple(lookups))
            if name == "stat"
            else Series("raw SQLite inserts by 64", tuple(inserts))
        )
        figures.append(Figure(NAMES[name], "/s", rates[name], bound, at_least=float(ASKED[name])))
    figures.append(Figure("one stat, unpipelined", "ms", single, at_most=0.5))
    return figures


def measure_command(settings: Settings) -> list[Figure]:
    """`dfs ls` of a small directory, beside a Python process that does nothing."""
    with running(settings.fresh("command"), datanodes=1) as cluster:
        asyncio.run(_prepare(cluster))
        dfs(cluster.url, "mkdir", "-p", "/small/a", "/small/b", "/small/c")
        values, bare = [], []
        for _ in range(max(7, settings.runs)):
            values.append(dfs(cluster.url, "ls", "/small"))
            began_s = elapsed_timer()
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            bare.append(elapsed_timer() - began_s)
    return [
        Figure(
            "dfs ls, whole process",
            "s",
            values,
            Series("python -c pass", tuple(bare)),
            at_most=0.25,
        )
    ]


async def _prepare(cluster: Cluster) -> None:
    async with FileSystem.connect(cluster.url) as fs:
        for number in range(FOLDERS):
            await fs.mkdirs(f"/bench/{number}")


def _rate(cluster: Cluster, operation: str) -> float:
    """Calls a second from the first client's start to the last one's end."""
    count = COUNTS[operation] // PROCESSES
    share = [str(count), str(IN_FLIGHT // PROCESSES)]
    took_s = seconds_of(
        "metadata_client.py",
        [[cluster.url, operation, *share, str(number)] for number in range(PROCESSES)],
    )
    return count * PROCESSES / took_s


async def _single_stat_ms(cluster: Cluster) -> float:
    """The median of stats that each wait for the one before."""
    async with FileSystem.connect(cluster.url) as fs:
        found = []
        for _ in range(SINGLE_STATS):
            began_s = elapsed_timer()
            await fs.stat("/bench/1")
            found.append(elapsed_timer() - began_s)
    return statistics.median(found[100:]) * 1000
