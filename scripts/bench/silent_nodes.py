"""DataNodes that only register and send heartbeats: URL COUNT. Says "ready" when all have registered; ends with its input."""

from __future__ import annotations

import asyncio
import sys

from twinfs import __version__
from twinfs.client.namenode_api import RpcNameNode
from twinfs.common.messages import WIRE_VERSION, Heartbeat, Register, VolumeReport
from twinfs.common.model import NodeAddress, NodeId

GIB = 1024**3
RACKS = 5
VOLUMES = 4


def volumes_of(number: int) -> list[VolumeReport]:
    return [
        VolumeReport(
            volume_id=f"v{number}-{volume}",
            path=f"/disk{volume}/twinfs",
            capacity_bytes=4096 * GIB,
            used_bytes=(1000 + 10 * number) * GIB,
            remaining_bytes=(3096 - 10 * number) * GIB,
        )
        for volume in range(VOLUMES)
    ]


async def node(url: str, number: int, registered: asyncio.Semaphore) -> None:
    namenode = RpcNameNode([url], user="datanode", retry_s=600.0)
    uuid = f"node-{number}"  # the first three are those that hold the blocks
    address = NodeAddress(
        node_id=NodeId(0),
        host=f"10.0.{number % RACKS}.{number}",
        data=f"10.0.{number % RACKS}.{number}:9866",
        http=f"10.0.{number % RACKS}.{number}:9864",
        rack=f"/row/rack{number % RACKS}",
    )
    volumes = volumes_of(number)
    count = 0
    while True:
        joined = await namenode.call(
            "register",
            Register(
                wire_version=WIRE_VERSION,
                version=__version__,
                uuid=uuid,
                address=address,
                volumes=volumes,
            ),
        )
        registered.release()
        again = False
        while not again:
            count += 1
            answer = await namenode.call(
                "heartbeat",
                Heartbeat(
                    node_id=joined.node_id,
                    uuid=uuid,
                    wait_s=joined.heartbeat_interval_s,
                    blocks=60_000,
                    volumes=volumes,
                    received_bytes=count * 200_000_000,
                    sent_bytes=count * 300_000_000,
                    requests=count * 500,
                ),
            )
            again = answer.register_again


async def main(url: str, count: int) -> None:
    registered = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(node(url, n, registered)) for n in range(1, count + 1)]
        for _ in range(count):
            await registered.acquire()
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        for task in running:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
