"""One client process of the WebHDFS benchmark: URL CONNECTIONS QUESTIONS. Prints how many were answered a second."""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import urlsplit

from twinfs.common.runtime import elapsed_timer

TARGET = "/webhdfs/v1/?op=GETFILESTATUS&user.name=root"


class Asker(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again."""

    def __init__(self, host: str, budget: list[int], done: asyncio.Future[None]) -> None:
        self._request = f"GET {TARGET} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._budget = budget  # questions left, shared by all
        self._done = done
        self._told = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        if not self._budget[0]:
            self._transport.close()
            return
        self._budget[0] -= 1
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._told += data
        head, found, body = self._told.partition(b"\r\n\r\n")
        if not found:
            return
        start = head.index(b"Content-Length: ") + 16
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200") or b'"FileStatus"' not in body:
            raise SystemExit(f"a question was answered by {self._told[:300]!r}")
        self._told = b""
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


async def main(url: str, connections: int, questions: int) -> None:
    loop = asyncio.get_running_loop()
    where = urlsplit(url)
    budget = [questions]
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    began_s = elapsed_timer()
    for end in ends:
        await loop.create_connection(
            lambda end=end: Asker(where.netloc, budget, end),  # type: ignore[misc]
            where.hostname,
            where.port,
        )
    await asyncio.gather(*ends)
    print(json.dumps({"per_s": questions / (elapsed_timer() - began_s)}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
