"""What a client keeps of its speed while a DataNode reads and verifies everything that it has."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

from cluster import Cluster, running, wait_for
from figures import Figure, Series
from settings import MIB, Settings

from twinfs.client.filesystem import FileSystem
from twinfs.common.admin import OrderNodes
from twinfs.common.runtime import elapsed_timer

NODES = 1  # of several, the first could be through before the last has heard of it
FILES = 8  # of 1 GiB: a pass without a limit takes longer than the readings beside it
LEAST_KEPT = 0.7


def measure(settings: Settings) -> list[Figure]:
    """1 GiB read over TCP again and again, in turns alone and beside a pass without a limit, which is ordered anew each time."""
    source = settings.large_file()
    with running(settings.fresh("scrub"), NODES) as cluster:
        return asyncio.run(_measure(settings, cluster, source))


async def _measure(settings: Settings, cluster: Cluster, source: Path) -> list[Figure]:
    alone, beside, passed_mib_s = [], [], []
    async with FileSystem.connect(cluster.url, short_circuit=False) as fs:
        for number in range(FILES):
            await fs.put_file(source, f"/file-{number}", replication=1)
        await _read(fs, settings)
        for _ in range(settings.runs):
            alone.append(await _read(fs, settings))
            await fs.call("order_nodes", OrderNodes(action="scrub", nodes=[], bytes_per_s=0))
            await asyncio.to_thread(wait_for, lambda: _running(cluster) == NODES, "a pass")
            beside.append(await _read(fs, settings))
            if _running(cluster) != NODES:
                raise SystemExit("the pass was over before the reading was")
            began_s = elapsed_timer()
            await asyncio.to_thread(wait_for, lambda: not _running(cluster), "its end", 600.0)
            # What it had read beside the reader is little.
            took_s = elapsed_timer() - began_s
            passed_mib_s.append(
                _total(cluster, "twinfs_datanode_scrub_checked_bytes") / MIB / took_s
            )
    return [
        Figure(
            "a reader beside a pass of the scrubber",
            "MiB/s",
            beside,
            Series("alone", tuple(alone)),
            at_least=LEAST_KEPT,
            of_bound=True,
        ),
        Figure("the pass when nobody reads, about", "MiB/s", passed_mib_s),
    ]


async def _read(fs: FileSystem, settings: Settings) -> float:
    """MiB/s of one file."""
    buffer = bytearray(16 * MIB)
    began_s = elapsed_timer()
    async with await fs.open("/file-0") as reader:
        while await reader.readinto(buffer):
            pass
    return settings.large_bytes / MIB / (elapsed_timer() - began_s)


def _running(cluster: Cluster) -> int:
    return int(_total(cluster, "twinfs_datanode_scrub_running"))


def _total(cluster: Cluster, name: str) -> float:
    """Of a metric of all DataNodes' volumes."""
    total = 0.0
    for node in cluster.datanodes:
        with urllib.request.urlopen(f"http://{node.facts['http']}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        total += sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{")
        )
    return total
