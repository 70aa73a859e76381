"""Lists a directory in the largest pages, several times: URL PATH. Prints how many entries it has."""

from __future__ import annotations

import asyncio
import json
import sys

from twinfs.client.filesystem import FileSystem
from twinfs.common.messages import MAX_PAGE

TIMES = 5


async def main(url: str, path: str) -> None:
    async with FileSystem.connect(url) as fs:
        await fs.stat(path)
        print("ready", flush=True)
        count = 0
        for _ in range(TIMES):
            count = 0
            async for _ in fs.list(path, page=MAX_PAGE):
                count += 1
        print(json.dumps({"entries": count}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
