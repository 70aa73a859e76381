"""One client process of the metadata benchmark: URL OPERATION COUNT IN_FLIGHT NUMBER.

Says "ready" when it is connected, begins at the first line of its input, and prints when it began and ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from twinfs.client.filesystem import FileSystem
from twinfs.common.messages import Complete, Create, Mkdirs, Rename, Stat
from twinfs.common.runtime import elapsed_timer

FOLDERS = 16


def path_of(kind: str, client: int, number: int) -> str:
    return f"/bench/{number % FOLDERS}/{kind}-{client}-{number}"


def work_of(fs: FileSystem, operation: str, client: int) -> Callable[[int], Awaitable[object]]:
    """What one call is; the mkdirs and creates leave what the others stat and rename."""
    holder = f"bench-{client}"

    async def mkdir(number: int) -> object:
        return await fs.call("mkdirs", Mkdirs(path=path_of("d", client, number), parents=False))

    async def create(number: int) -> object:
        path = path_of("f", client, number)
        status = await fs.call("create", Create(path=path, holder=holder))
        return await fs.call(
            "complete", Complete(path=path, inode_id=status.inode_id, holder=holder)
        )

    async def stat(number: int) -> object:
        return await fs.call("stat", Stat(path=path_of("f", client, number % 10_000)))

    async def rename(number: int) -> object:
        if number < 10_000:
            source, target = path_of("f", client, number), path_of("g", client, number)
        else:
            source, target = path_of("d", client, number), path_of("e", client, number)
        return await fs.call("rename", Rename(source=source, destination=target))

    return {"mkdir": mkdir, "create": create, "stat": stat, "rename": rename}[operation]


async def main(url: str, operation: str, count: int, in_flight: int, client: int) -> None:
    async with FileSystem.connect(url) as fs:
        await fs.stat("/bench")
        print("ready", flush=True)
        sys.stdin.readline()
        work = work_of(fs, operation, client)
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                await work(number)

        began_s = elapsed_timer()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        print(json.dumps({"began_s": began_s, "ended_s": elapsed_timer()}))


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    )
