"""One client process of a race: SYSTEM URL OPERATION COUNT IN_FLIGHT CLIENT.

Says "ready" when it is connected, begins at the first line of its input, and prints when it began and ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from systems import Files, client_of

from twinfs.common.runtime import elapsed_timer

FOLDERS = 16
FILES = 2_000  # each client's own


def path_of(client: int, number: int, kind: str = "f") -> str:
    return f"/race/{number % FOLDERS}/{kind}-{client}-{number}"


def work_of(files: Files, operation: str, client: int) -> Callable[[int], Awaitable[None]]:
    """What one call is. Files are put before, renamed once, then deleted."""

    async def mkdir(number: int) -> None:
        await files.mkdir(path_of(client, number, "d"))

    async def stat(number: int) -> None:
        await files.stat(path_of(client, number % FILES))

    async def rename(number: int) -> None:
        await files.rename(path_of(client, number), path_of(client, number, "g"))

    async def delete(number: int) -> None:
        await files.delete(path_of(client, number, "g"))

    return {"mkdir": mkdir, "stat": stat, "rename": rename, "delete": delete}[operation]


async def main(
    system: str, url: str, operation: str, count: int, in_flight: int, client: int
) -> None:
    async with client_of(system, url) as files:
        await files.stat("/race/0")
        print("ready", flush=True)
        sys.stdin.readline()
        work = work_of(files, operation, client)
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                await work(number)

        began_s = elapsed_timer()
        await asyncio.gather(*(worker() for _ in range(in_flight)))
        print(json.dumps({"began_s": began_s, "ended_s": elapsed_timer()}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], *(int(word) for word in sys.argv[4:])))
