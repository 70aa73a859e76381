"""One writer of the benchmark of events: URL NUMBER SECONDS RATE ROUND. It makes directories, a list of them in a call.

RATE: events a second that it keeps to; 0: as fast as they are answered. Says "ready" when it is connected, begins at the first line of its
input, and prints how many it made and how long that took.
"""

from __future__ import annotations

import asyncio
import json
import sys

from twinfs.client.filesystem import FileSystem
from twinfs.common.messages import Mkdirs, MkdirsMany
from twinfs.common.runtime import elapsed_timer

IN_FLIGHT = 32
BATCH = 25


async def main(url: str, number: int, seconds: float, rate: float, round_: str) -> None:
    async with FileSystem.connect(url, user="root") as fs:
        folder = f"/events/{round_}-{number}"
        await fs.mkdirs(folder)
        print("ready", flush=True)
        sys.stdin.readline()
        began_s = elapsed_timer()
        batches = [0]

        async def worker() -> None:
            while elapsed_timer() - began_s < seconds:
                batch = batches[0]
                batches[0] += 1
                if rate:
                    # A batch's moment does not depend on when others were answered: what is late is caught up with.
                    early_s = began_s + batch * BATCH / rate - elapsed_timer()
                    if early_s > 0:
                        await asyncio.sleep(early_s)
                first = batch * BATCH
                paths = [f"{folder}/d{n:07}" for n in range(first, first + BATCH)]
                found = await fs.call(
                    "mkdirs_many", MkdirsMany(directories=[Mkdirs(path=path) for path in paths])
                )
                assert not any(entry.failure for entry in found.results)

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
        took_s = elapsed_timer() - began_s
    print(json.dumps({"events": batches[0] * BATCH, "seconds": took_s}))


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
    )
