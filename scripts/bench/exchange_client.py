"""A peer that fetches one DAG: exchange_client.py FOLDER ROOT PID URL... Prints the seconds it took.

PID gets SIGUSR1 when a third is here (0: nobody does).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from twinfs.common.config import DataNodeConfig
from twinfs.common.ipld import dag
from twinfs.common.ipld.cid import Cid
from twinfs.common.runtime import elapsed_timer
from twinfs.datanode.peers.fetching import Progress
from twinfs.datanode.server import DataNodeServer


async def main() -> None:
    folder, text, pid, *urls = sys.argv[1:]
    root = Cid.parse(text)
    server = DataNodeServer(
        DataNodeConfig(dir=(folder,), bootstrap=("none",), port=0, data_port=0, socket="none")
    )
    await server.start()
    assert server.peer is not None and server.content is not None
    for url in urls:
        server.peer.exchange.ranking.add(url)
    victim = int(pid)

    def told(progress: Progress) -> None:
        nonlocal victim
        if victim and progress.size_bytes > 300_000_000:
            os.kill(victim, signal.SIGUSR1)
            victim = 0

    began_s = elapsed_timer()
    progress = await server.peer.fetcher.fetch(root, told=told)
    took_s = elapsed_timer() - began_s
    assert progress.size_bytes > 1_000_000_000, progress
    # Some leaves, read from the disk again.
    found = await dag.run_async(dag.resolve(root, []), server.content.local)
    links = dag.links_of(found.cid, await server.content.local(found.cid))
    for cid in random.Random(1).sample(links, 20):
        await server.content.local(cid)
    await server.stop()
    print(took_s)


assert Path(sys.argv[1]).exists()
asyncio.run(main())
