"""A DataNode's memory while 32 clients write at once and one of them stalls in the middle of a packet."""

from __future__ import annotations

import asyncio

from cluster import Cluster, peak_mib, resident_mib, running
from figures import Figure, Series
from settings import MIB, Settings

from twinfs.client.datanode_api import ConnectionPool
from twinfs.client.filesystem import FileSystem
from twinfs.common.checksum import digest_of
from twinfs.common.framing import FrameSocket, ask
from twinfs.common.messages import Allocate, Allocation
from twinfs.common.model import BlockRef
from twinfs.common.transfer import Flag, WriteBlock, WriteReady, pack_packet_header

CLIENTS = 32
FILE_BYTES = 48 * MIB
PIECE_BYTES = MIB


def measure(settings: Settings) -> list[Figure]:
    peaks, idle = [], []
    for _ in range(settings.runs):
        with running(settings.fresh("stalled")) as cluster:
            idle.append(max(resident_mib(node.pid) for node in cluster.datanodes))
            asyncio.run(_write(cluster, settings))
            peaks.append(max(peak_mib(node.pid) for node in cluster.datanodes))
    return [
        Figure(
            "DataNode, 32 writers, 1 stalled",
            "MiB",
            peaks,
            Series("idle", tuple(idle)),
            at_most=200.0,
        )
    ]


async def _write(cluster: Cluster, settings: Settings) -> None:
    """31 clients write a file each while the last one says nothing more."""
    data = settings.rng.randbytes(PIECE_BYTES)
    async with FileSystem.connect(cluster.url) as fs:
        stalled = await asyncio.to_thread(_stall, fs, await _allocation(fs), data)
        try:
            await asyncio.gather(
                *(_client(cluster.url, f"/w{n}", data) for n in range(CLIENTS - 1))
            )
        finally:
            stalled.close()


async def _client(url: str, path: str, data: bytes) -> None:
    async with FileSystem.connect(url) as fs:
        async with await fs.open(path, "wb") as writer:
            for _ in range(FILE_BYTES // len(data)):
                await writer.write(data)


async def _allocation(fs: FileSystem) -> Allocation:
    found: Allocation = await fs.call(
        "allocate", Allocate(holder="stalled", count=1, length=FILE_BYTES, replication=3)
    )
    return found


def _stall(fs: FileSystem, allocation: Allocation, data: bytes) -> FrameSocket:
    """Open a pipeline, send a few packets and half of another, and go silent."""
    first, *rest = allocation.nodes
    block = BlockRef(block_id=allocation.first_block_id, generation=allocation.generation)
    connection = ConnectionPool(fs.config).open(first)
    ask(connection, WriteBlock(block=block, targets=rest), WriteReady)
    for number in range(3):
        connection.send_packet(number, number * len(data), digest_of(data), data, Flag.NONE)
    header = pack_packet_header(3, 3 * len(data), digest_of(data), len(data), Flag.NONE)
    connection.send(header, data[: len(data) // 2])
    return connection
