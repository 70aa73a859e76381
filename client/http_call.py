"""One HTTP connection of our own to a server of ours: a request with a body, an answer with a body, again and again.

The standard library's client takes longer to import than a whole command is to take. Of HTTP/1.1 this knows what answers to
calls can be: a status, a length or chunks, and whether the connection stays open.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import NamedTuple

from ..common.errors import InvalidRequest
from ..common.proxy import Proxy, connect_tcp

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024 * 1024
PIECE_BYTES = 256 * 1024


class Answer(NamedTuple):
    """What a server said."""

    status: int
    reason: str
    body: bytes


class HttpConnection:
    """A connection to HOST:PORT, made with the first request and kept. Not to be shared between threads."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connect_timeout_s: float,
        timeout_s: float,
        proxy: Proxy | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._proxy = proxy
        self._socket: socket.socket | None = None
        self._seen = bytearray()  # received, and not used yet

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to a POST. OSError if there is none, or if what comes is no HTTP; then the connection is closed."""
        name = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"POST {path} HTTP/1.1", f"Host: {name}:{self._port}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        if head.count(b"\n") != len(lines) - 1:
            raise InvalidRequest("a header can't have more than one line")
        try:
            if self._socket is None:
                self._socket = connect_tcp(
                    self._host, self._port, self._connect_timeout_s, self._proxy
                )
                self._socket.settimeout(self._timeout_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(head + body)
            return self._answer()
        except BaseException:
            self.close()
            raise

    def _answer(self) -> Answer:
        status = 100
        while 100 <= status < 200:  # "Continue", before the answer proper
            version, status, reason, fields = self._head()
        length = fields.get("content-length", "")
        stays = version == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = self._chunks()
        elif length:
            good = length.isascii() and length.isdigit() and len(length) <= 12
            if not good or int(length) > MAX_BODY_BYTES:
                raise ConnectionError(f"the answer can't be {length} bytes long")
            body = self._exactly(int(length))
        elif status == 204:
            body = b""
        else:
            body, stays = self._rest(), False
        if not stays:
            self.close()
        return Answer(status, reason, body)

    def _head(self) -> tuple[str, int, str, dict[str, str]]:
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        number, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or len(number) != 3 or not number.isdigit():
            raise ConnectionError("the answer is no HTTP")
        fields = {}
        for line in lines:
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()
        return version, int(number), reason, fields

    def _until(self, end: bytes) -> bytes:
        """What comes before *end*, which is skipped."""
        looked = 0
        while (at := self._seen.find(end, looked)) < 0:
            looked = max(0, len(self._seen) - len(end) + 1)
            if len(self._seen) > MAX_HEAD_BYTES:
                raise ConnectionError("the answer has too long a head")
            if not self._receive():
                raise ConnectionError("the server closed the connection without an answer")
        found = bytes(self._seen[:at])
        del self._seen[: at + len(end)]
        return found

    def _exactly(self, length: int) -> bytes:
        while len(self._seen) < length:
            if not self._receive():
                raise ConnectionError("the server closed the connection within its answer")
        found = bytes(self._seen[:length])
        del self._seen[:length]
        return found

    def _chunks(self) -> bytes:
        parts = []
        total = 0
        while True:
            size = self._until(b"\r\n").partition(b";")[0].strip()
            if not size or len(size) > 8 or size.strip(b"0123456789abcdefABCDEF"):
                raise ConnectionError("a chunk of the answer has no good size")
            length = int(size, 16)
            total += length
            if total > MAX_BODY_BYTES:
                raise ConnectionError("the answer is too long")
            if not length:
                break
            parts.append(self._exactly(length))
            if self._exactly(2) != b"\r\n":
                raise ConnectionError("a chunk of the answer is longer than it says")
        while self._until(b"\r\n"):
            pass  # trailers
        return b"".join(parts)

    def _rest(self) -> bytes:
        while self._receive():
            if len(self._seen) > MAX_BODY_BYTES:
                raise ConnectionError("the answer is too long")
        found = bytes(self._seen)
        self._seen.clear()
        return found

    def _receive(self) -> bool:
        """Take in what comes next; False at the end of the connection."""
        assert self._socket is not None
        piece = self._socket.recv(PIECE_BYTES)
        self._seen += piece
        return bool(piece)

    def close(self) -> None:
        """End the connection; the next request makes another."""
        self._seen.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
