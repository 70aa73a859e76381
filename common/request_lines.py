"""Raw bytes in request lines: some clients send UTF-8 names unescaped, and HTTP parsers refuse them.

`RequestLines` follows the framing of one connection's bytes (lines, bodies of known length, chunked bodies, pipelined requests) and
percent-escapes bytes from 0x80 up in request lines only. Where it can't be sure what comes next (a framing header it does not
understand, an upgrade to another protocol), it hands everything on untouched for the rest of the connection: what is no HTTP
is for the parser behind it to refuse, and no byte of a body is ever changed.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import re
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web

from .http_body import Rest
from .http_metrics import HttpMetrics

log = logging.getLogger(__name__)
MAX_LINE_BYTES = 256 * 1024
LINE_START_BYTES = 40  # of a request line that are kept
ANSWERED_WHEN_CLOSED = b"/webhdfs/v1"  # what is never a stream without an end
_HIGH = re.compile(rb"[\x80-\xff]")
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]{1,16})\s*(?:;.*)?\r?\n", re.DOTALL)


class _Expect(enum.Enum):
    REQUEST_LINE = 0
    HEADER = 1
    BODY = 2
    CHUNK_SIZE = 3
    CHUNK_DATA = 4
    TRAILER = 5
    ANYTHING = 6  # no more looking


def _escaped(line: bytes) -> bytes:
    return _HIGH.sub(lambda match: b"%%%02X" % match[0][0], line)


class RequestLines:
    """The bytes of one connection, in the order they came."""

    def __init__(self) -> None:
        self._expect = _Expect.REQUEST_LINE
        self._line = bytearray()  # of a header or chunk size, as far as it has come
        self._left = 0  # bytes of the body or chunk (its line end included) to come
        self._length: int | None = None
        self._chunked = False
        self._upgrade = False
        self.body_bytes = 0  # of the present request's body, as far as they have come
        self._begun = b""  # how the last request line begins

    def ends_after(self, prefix: bytes) -> bool:
        """Whether all requests so far are whole, and the last one asks for what begins with *prefix*."""
        if self._expect is not _Expect.REQUEST_LINE or self._line:
            return False
        return self._begun.partition(b" ")[2].startswith(prefix)

    def rest(self) -> Rest | None:
        """Where in a body the bytes so far end; None if that is not within one, or nearly at its end."""
        if self._expect is _Expect.BODY:
            return Rest(chunked=False, left=self._left)
        if self._expect is _Expect.CHUNK_DATA:
            return Rest(chunked=True, left=max(0, self._left - 2), ends=min(2, self._left))
        if self._expect is _Expect.CHUNK_SIZE:
            return Rest(chunked=True, left=0, line=bytes(self._line))
        return None

    def feed(self, data: bytes) -> bytes:
        """*data* as it should be handed on; all of it at once, nothing is kept back."""
        if self._expect is _Expect.ANYTHING:
            return data
        out: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._expect is _Expect.ANYTHING:
                out.append(data[at:])
                break
            if self._expect in (_Expect.BODY, _Expect.CHUNK_DATA):
                step = min(self._left, end - at)
                out.append(data[at : at + step])
                at += step
                line_end = 2 if self._expect is _Expect.CHUNK_DATA else 0
                self.body_bytes += max(0, min(step, self._left - line_end))
                self._left -= step
                if not self._left:
                    whole = self._expect is _Expect.BODY
                    self._expect = _Expect.REQUEST_LINE if whole else _Expect.CHUNK_SIZE
                continue
            newline = data.find(b"\n", at)
            stop = end if newline < 0 else newline + 1
            piece = data[at:stop]
            at = stop
            if self._expect is _Expect.REQUEST_LINE:
                out.append(_escaped(piece))
                self._line += piece[: max(0, LINE_START_BYTES - len(self._line))]
                if newline >= 0:
                    if self._line.strip():
                        self._begun = bytes(self._line)
                        self._expect = _Expect.HEADER
                        self._length, self._chunked, self._upgrade = None, False, False
                        self.body_bytes = 0
                    self._line.clear()
                continue
            out.append(piece)
            self._line += piece
            if len(self._line) > MAX_LINE_BYTES:
                self._expect = _Expect.ANYTHING
            elif newline >= 0:
                line = bytes(self._line)
                self._line.clear()
                self._take(line)
        return b"".join(out) if len(out) != 1 else out[0]

    def _take(self, line: bytes) -> None:
        """A whole header, chunk size or trailer line."""
        if self._expect is _Expect.CHUNK_SIZE:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                self._expect = _Expect.ANYTHING
                return
            size = int(match[1], 16)
            self._expect, self._left = _Expect.CHUNK_DATA, size + 2
            if not size:
                self._expect = _Expect.TRAILER
        elif line not in (b"\r\n", b"\n"):
            if self._expect is _Expect.HEADER:
                self._header(line)
        elif self._expect is _Expect.TRAILER:
            self._expect = _Expect.REQUEST_LINE
        elif self._upgrade:
            self._expect = _Expect.ANYTHING
        elif self._chunked:
            # Both framings at once: a smuggler's request, not ours to read.
            self._expect = _Expect.CHUNK_SIZE if self._length is None else _Expect.ANYTHING
        elif self._length:
            self._expect, self._left = _Expect.BODY, self._length
        else:
            self._expect = _Expect.REQUEST_LINE

    def _header(self, line: bytes) -> None:
        # The shortest test first: most headers are neither.
        if line[:1] not in b"cCtTuU \t":
            return
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        if name[:1] in b" \t":
            self._expect = _Expect.ANYTHING  # a folded header may go on with anything
        elif name == b"content-length":
            number = int(value) if value.isdigit() and len(value) < 19 else -1
            if number < 0 or self._length not in (None, number):
                self._expect = _Expect.ANYTHING
            self._length = number
        elif name == b"transfer-encoding":
            self._chunked = True
            if value.lower() != b"chunked":
                self._expect = _Expect.ANYTHING
        elif name == b"upgrade":
            self._upgrade = True


class _Connection(asyncio.Protocol):
    """Stands before aiohttp's protocol of one connection."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self.lines = RequestLines()
        self.taken = False  # what still comes is not for the parser
        # Called when nothing comes any more, once it was taken.
        self.over: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.taken:
            self._inner.data_received(self.lines.feed(data))

    def eof_received(self) -> bool | None:
        # A client that only reads any more shall have its answer; then aiohttp closes the connection.
        if self.taken:
            self.over()
            return True
        if self.lines.ends_after(ANSWERED_WHEN_CLOSED) and self._answering():
            self._inner.close()  # type: ignore[attr-defined]
            return True
        return self._inner.eof_received()

    def _answering(self) -> bool:
        """Whether a request is being handled. There is no public way to know; where this is not known, the connection is simply
        closed."""
        return getattr(self._inner, "_waiter", self) is None

    def connection_lost(self, error: Exception | None) -> None:
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class TakenBody:
    """A request's body that aiohttp no longer reads, from where it stopped. The answer must close the connection."""

    def __init__(self, request: web.Request, connection: socket.socket, rest: Rest) -> None:
        """Use `take_over`."""
        self.rest = rest
        self.socket = connection
        self._request = request

    def received(self) -> None:
        """All of it came; nobody reads `socket` any more."""
        self.socket.close()
        self._request.content.feed_eof()

    def given_up(self) -> None:
        """The rest is not wanted; nobody reads `socket` any more. What is still sent is thrown away for as long as aiohttp
        lingers, so that the client can read its answer."""
        self.socket.close()
        if (transport := self._request.transport) is not None:
            connection = transport.get_protocol()
            assert isinstance(connection, _Connection)
            connection.over = self._request.content.feed_eof
            transport.resume_reading()


def take_over(request: web.Request) -> tuple[list[bytes], TakenBody | None]:
    """What aiohttp has received of the body, and the rest of it, to be read by ourselves from now on. None: aiohttp has to go on,
    since the body is nearly over, or is not framed as `RequestLines` understands, or comes over no plain socket."""
    transport, content = request.transport, request.content
    # All in one step of the loop, so that nothing is received meanwhile. Reading has the parser go on with what it held back.
    first = []
    while piece := content.read_nowait():
        first.append(piece)
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return first, None
    connection = transport.get_protocol()
    plain = transport.get_extra_info("socket")
    if not isinstance(connection, _Connection) or plain is None or transport.is_closing():
        return first, None
    rest = connection.lines.rest()
    if rest is None or content.is_eof() or content.total_bytes != connection.lines.body_bytes:
        return first, None
    connection.taken = True
    transport.pause_reading()
    return first, TakenBody(request, plain.dup(), rest)


class _Server:
    """aiohttp's server, whose connections are made with a `_Connection` before them."""

    def __init__(self, inner: Callable[[], asyncio.Protocol]) -> None:
        self._inner = inner

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self._inner())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Runner(web.AppRunner):
    """An AppRunner whose server takes raw UTF-8 in request lines, as long ones as paths can be."""

    def __init__(
        self, app: web.Application, *, counted: HttpMetrics | None = None, **more: Any
    ) -> None:
        """*counted*: is told of every answer."""
        if counted is not None:
            more["access_log_class"] = counted.logger()
        # Nothing is logged: with a logger, aiohttp tells the class of answers.
        told = log if counted is not None else None
        super().__init__(app, access_log=told, max_line_size=MAX_LINE_BYTES, **more)

    async def _make_server(self) -> Any:
        return _Server(await super()._make_server())


__all__ = ["RequestLines", "Runner", "TakenBody", "take_over"]
