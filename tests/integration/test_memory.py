"""A DataNode's memory is bounded by its configuration, whatever its clients do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, running
from twinfs.client.datanode_api import ConnectionPool
from twinfs.client.filesystem import FileSystem
from twinfs.common.checksum import CHUNK_BYTES, digest_of
from twinfs.common.errors import PathNotFound
from twinfs.common.framing import FrameSocket, ask
from twinfs.common.messages import Allocate, Allocation
from twinfs.common.model import BlockRef
from twinfs.common.transfer import Flag, WriteBlock, WriteReady, pack_packet_header

WRITERS = 32
FILE_BYTES = 6 * CHUNK_BYTES
LIMIT_MIB = 200


def peak_mib(pid: int) -> float:
    """The most memory that was ever resident."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


def stall(fs: FileSystem, allocation: Allocation, data: bytes) -> FrameSocket:
    """Open a block, send a packet and half of another, and say nothing more."""
    block = BlockRef(block_id=allocation.first_block_id, generation=allocation.generation)
    connection = ConnectionPool(fs.config).open(allocation.nodes[0])
    ask(connection, WriteBlock(block=block), WriteReady)
    connection.send_packet(0, 0, digest_of(data), data, Flag.NONE)
    header = pack_packet_header(1, len(data), digest_of(data), len(data), Flag.NONE)
    connection.send(header, data[: len(data) // 2])
    return connection


async def write(cluster: Cluster) -> None:
    data = bytes(CHUNK_BYTES)

    async def client(number: int) -> None:
        async with FileSystem.connect(cluster.url) as fs:
            async with await fs.open(f"/{number}", "wb", replication=1) as writer:
                for _ in range(FILE_BYTES // len(data)):
                    await writer.write(data)

    async with FileSystem.connect(cluster.url) as fs:
        request = Allocate(holder="stalled", count=1, length=FILE_BYTES, replication=1)
        connection = await asyncio.to_thread(stall, fs, await fs.call("allocate", request), data)
        try:
            # None of them waits for the one that stalls.
            await asyncio.gather(*(client(number) for number in range(WRITERS - 1)))
            for number in range(WRITERS - 1):
                assert (await fs.stat(f"/{number}")).length == FILE_BYTES
            with pytest.raises(PathNotFound):
                await fs.stat(f"/{WRITERS - 1}")
        finally:
            connection.close()


@pytest.mark.timeout(240)
def test_many_writers_of_which_one_stalls_cost_a_bounded_amount(tmp_path: Path) -> None:
    with running(tmp_path, datanodes=1) as cluster:
        asyncio.run(write(cluster))
        assert peak_mib(cluster.datanodes[0].pid) < LIMIT_MIB
        assert not cluster.tracebacks()
