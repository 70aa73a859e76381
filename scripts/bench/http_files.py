"""A small, fast HTTP/1.1 client on kept-alive connections, for driving a rival that speaks HTTP.

Only what the benchmark needs, so that the rival is not measured by the slowness of its driver.
"""

from __future__ import annotations

import asyncio
import re
import urllib.parse

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._bodiless = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> tuple[int, bytes]:
        """(status, body)"""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._bodiless = method == "HEAD"
        head = f"{method} {path} HTTP/1.1\r\nHost: rival\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None or self._answer.done():
            return
        head = bytes(self._received[: end + 2])
        status = int(head[9:12])
        start = end + 4
        if self._bodiless or status == 204:
            body, after = b"", start
        elif length := _LENGTH.search(head):
            after = start + int(length[1])
            if len(self._received) < after:
                return
            body = bytes(self._received[start:after])
        elif _CHUNKED.search(head):
            if not self._received.endswith(b"0\r\n\r\n"):
                return
            body, after = _joined(self._received, start), len(self._received)
        else:
            body, after = b"", start
        del self._received[:after]
        self._answer.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _joined(received: bytearray, at: int) -> bytes:
    """The chunks of a body."""
    parts = []
    while True:
        line = received.index(b"\r\n", at)
        size = int(received[at:line], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(bytes(received[line + 2 : line + 2 + size]))
        at = line + 2 + size + 2


class Pool:
    """As many connections as calls are in flight."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._idle: list[Connection] = []

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> tuple[int, bytes]:
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, self._host, self._port)
        answer = await connection.request(method, path, body, headers)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
