"""`dfs get` of a large file from three DataNodes on other machines: from all replicas at once, and from the nearest."""

from __future__ import annotations

import asyncio

import bounds
from cluster import dfs, running
from figures import Figure, Series
from settings import MIB, Settings

from twinfs.client.filesystem import FileSystem
from twinfs.common.config import ClientConfig
from twinfs.common.runtime import elapsed_timer

LIMIT_BYTES_S = 50_000_000
NODES = 3


def measure(settings: Settings) -> list[Figure]:
    """1 GiB with 3 copies: DataNodes of 50 MB/s each, and of no limit. No short circuit: as from another machine."""
    file = settings.large_file()
    found: dict[tuple[bool, str], list[float]] = {}
    streams = []
    for limited in (True, False):
        options = ("--serve-bytes-per-s", str(LIMIT_BYTES_S)) if limited else ()
        with running(settings.fresh("replicas"), NODES, datanode_options=options) as cluster:
            dfs(cluster.url, "put", "--replication", str(NODES), str(file), "/large")
            for _ in range(settings.runs):
                for way in ("always", "never"):
                    bounds.use_memory(settings.folder, settings.large_bytes + 256 * MIB)
                    took_s = asyncio.run(_get(cluster.url, way, settings))
                    found.setdefault((limited, way), []).append(settings.large_bytes / 1e6 / took_s)
                if not limited:
                    streams.append(settings.large_bytes / 1e6 / bounds.stream_and_hash_s(file))
    most = Series("three times 50 MB/s", (NODES * LIMIT_BYTES_S / 1e6,))
    return [
        Figure(
            "get 1 GiB, DataNodes of 50 MB/s: all replicas", "MB/s", found[True, "always"], most
        ),
        Figure("get 1 GiB, DataNodes of 50 MB/s: nearest", "MB/s", found[True, "never"], most),
        Figure(
            "get 1 GiB, no limit: all replicas",
            "MB/s",
            found[False, "always"],
            Series("nearest", tuple(found[False, "never"])),
        ),
        Figure(
            "get 1 GiB, no limit: nearest",
            "MB/s",
            found[False, "never"],
            Series("loopback + BLAKE3, into memory", tuple(streams)),
        ),
    ]


async def _get(url: str, way: str, settings: Settings) -> float:
    config = ClientConfig(namenode=url, short_circuit=False, all_replicas=way)
    target = settings.folder / "got"
    async with FileSystem.connect(config=config) as fs:
        await fs.stat("/large")
        began_s = elapsed_timer()
        await fs.get_file("/large", target)
        took_s = elapsed_timer() - began_s
    assert target.stat().st_size == settings.large_bytes
    target.unlink()
    return took_s
