"""Calls to the NameNode over its WebSocket: pipelined, coalesced, resent after a lost connection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import aiohttp
import msgspec

from ..common import codec, tracing
from ..common.codec import error_of, pack
from ..common.errors import (
    Busy,
    DfsError,
    InvalidRequest,
    RequestTooLarge,
    SafeMode,
    ShuttingDown,
    StoreConflict,
    StoreUnavailable,
    Unavailable,
    system_reason,
)
from ..common.messages import (
    MAX_FRAME_BYTES,
    WIRE_VERSION,
    Failure,
    Hello,
    Welcome,
)
from ..common.model import Struct
from ..common.operations import OPERATIONS
from ..common.retry import Patience, backoff_s
from ..common.runtime import Clock, SystemClock, elapsed_timer, system_random

log = logging.getLogger(__name__)
T = TypeVar("T")
MAX_CALLS = 1_024  # in one frame
MAX_FRAME_FILL = MAX_FRAME_BYTES // 2
RETRY_BASE_S, RETRY_CAP_S = 0.05, 2.0
# What a NameNode answers that will do later what it can't do now. (NotEnoughDataNodes is `placing`'s: there another request helps.)
RETRIED = (SafeMode, ShuttingDown, Busy, StoreConflict, StoreUnavailable)


class NameNode(Protocol):
    """Whatever carries out operations of `operations.OPERATIONS`."""

    async def call(self, operation: str, request: Struct) -> Any:
        """The operation's response; raises the DfsError the NameNode answered with, or Unavailable."""


class _Pending:
    """A call that has no answer yet."""

    __slots__ = ("decode", "encoded", "future", "origin", "sent")

    def __init__(
        self,
        encoded: bytes,
        future: asyncio.Future[Any],
        decode: Callable[[Any], Any],
        origin: bytes,
    ) -> None:
        self.encoded = encoded  # operation and request, as they stand in the frame
        self.origin = origin  # what stands at the end of it, if anything does
        self.future = future
        self.decode = decode
        self.sent = False


@functools.cache
def _decoder(operation: str) -> Callable[[Any], Any]:
    """Made when it is first needed: all of them together take 15 ms, which every short program would pay for."""
    return msgspec.msgpack.Decoder(OPERATIONS[operation].response).decode


@functools.cache
def _prefix(operation: str) -> bytes:
    return pack(operation)


class RpcNameNode:
    """A client of one cluster's NameNodes. Calls of one turn of the event loop leave as one frame.

    A connection that is lost is made anew, and calls without an answer are sent again, marked as resent, so
    that a mutation is never carried out twice. After *retry_s* without a NameNode, calls fail with Unavailable.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        user: str,
        software: str = "twinfs",
        retry_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        proxy: str = "",
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._user = user
        self._software = software
        self._retry_s = retry_s
        self._connect_timeout_s = connect_timeout_s
        self._proxy = proxy or None
        self._clock = clock or SystemClock()
        self._rng = rng or system_random()
        self._client_id = os.urandom(16)
        self._next_id = 0
        self._pending: dict[int, _Pending] = {}
        self._queue: list[int] = []
        self._flushing = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._session: aiohttp.ClientSession | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._sends: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> RpcNameNode:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- calling ---

    async def call(self, operation: str, request: Struct) -> Any:
        """See `NameNode`. What the NameNode asks to try later is tried again for `retry_s`."""
        if tracing.is_on() or log.isEnabledFor(logging.DEBUG):
            return await self._told(operation, request)
        return await self._call(operation, request)

    async def _call(self, operation: str, request: Struct) -> Any:
        call_id = self._next_id = self._next_id + 1
        try:
            return await self._start(operation, request, call_id, again=False)
        except RETRIED as error:
            return await self._again(operation, request, call_id, error)

    async def _told(self, operation: str, request: Struct) -> Any:
        """A call that is traced, or logged."""
        began_s = elapsed_timer()
        origin = tracing.current() or tracing.Origin(self.new_request_id())
        with tracing.span(operation, "client", origin=origin):
            try:
                return await self._call(operation, request)
            finally:
                log.debug("%s took %.1f ms", operation, (elapsed_timer() - began_s) * 1e3)

    def new_request_id(self) -> str:
        """For work of several calls: of the same form as a call's, and like none of them."""
        self._next_id += 1
        return f"{self._client_id.hex()}-{self._next_id}"

    def start(self, operation: str, request: Struct) -> asyncio.Future[Any]:
        """Send a call without waiting for it; not tried again when refused."""
        call_id = self._next_id = self._next_id + 1
        return self._start(operation, request, call_id, again=False)

    def _start(
        self, operation: str, request: Struct, call_id: int, *, again: bool
    ) -> asyncio.Future[Any]:
        if self._closed:
            raise Unavailable("the connection to the NameNode is closed")
        if self._keeper is None:
            self._loop = asyncio.get_running_loop()
            self._keeper = self._loop.create_task(self._keep(), name="namenode connection")
        assert self._loop is not None
        encoded = _prefix(operation) + pack(request)
        if len(encoded) > MAX_FRAME_BYTES - 64:
            raise RequestTooLarge(f"a request of {len(encoded)} bytes is too large; split it")
        future = self._loop.create_future()
        origin = tracing.current()
        tail = b"" if origin is None else pack(origin.request_id) + pack(origin.traceparent)
        pending = _Pending(encoded, future, _decoder(operation), tail)
        # Under its former id: an earlier sending may have been carried out although this one was refused.
        pending.sent = again
        self._pending[call_id] = pending
        self._queue.append(call_id)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return future

    async def _again(self, operation: str, request: Struct, call_id: int, error: DfsError) -> Any:
        patience = Patience(log, self._clock.monotonic_s(), self._retry_s)
        attempt = 0
        while True:
            delay_s = backoff_s(attempt, self._rng, base_s=0.1, cap_s=RETRY_CAP_S)
            now_s = self._clock.monotonic_s()
            if now_s + delay_s > patience.deadline_s:
                raise error
            patience.tell(error.message, now_s)
            await asyncio.sleep(delay_s)
            attempt += 1
            try:
                return await self._start(operation, request, call_id, again=True)
            except RETRIED as again:
                error = again

    def _flush(self) -> None:
        """Send what has gathered, if there is a connection (else it is sent once there is one)."""
        self._flushing = False
        socket = self._socket
        if socket is None or socket.closed:
            self._wanted.set()
            return
        queue, self._queue = self._queue, []
        self._send_calls(socket, queue)

    def _send_calls(self, socket: aiohttp.ClientWebSocketResponse, queue: list[int]) -> None:
        assert self._loop is not None
        parts: list[bytes] = []
        size = 0
        for call_id in queue:
            pending = self._pending.get(call_id)
            if pending is None:
                continue
            origin = pending.origin
            encoded = (
                (b"\x96" if origin else b"\x94")
                + pack(call_id)
                + pending.encoded
                + (b"\xc3" if pending.sent else b"\xc2")
                + origin
            )
            if parts and (size + len(encoded) > MAX_FRAME_FILL or len(parts) >= MAX_CALLS):
                self._send_frame(socket, parts)
                parts, size = [], 0
            pending.sent = True
            parts.append(encoded)
            size += len(encoded)
        if parts:
            self._send_frame(socket, parts)

    def _send_frame(self, socket: aiohttp.ClientWebSocketResponse, parts: list[bytes]) -> None:
        assert self._loop is not None
        frame = b"\xdd" + len(parts).to_bytes(4, "big") + b"".join(parts)
        task = self._loop.create_task(self._send(socket, frame))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    @staticmethod
    async def _send(socket: aiohttp.ClientWebSocketResponse, frame: bytes) -> None:
        # A failure shows in the receiving loop, which makes a new connection and sends again.
        with contextlib.suppress(ConnectionError, RuntimeError, aiohttp.ClientError):
            await socket.send_bytes(frame)

    # --- the connection ---

    async def _keep(self) -> None:
        """Connect when there are calls, receive answers, connect again; until closed."""
        attempt = 0
        patience: Patience | None = None  # while there is no connection
        turn = 0
        while True:
            if not self._pending:
                self._wanted.clear()
                await self._wanted.wait()
            url = self._urls[turn % len(self._urls)]
            try:
                socket = await self._connect(url)
            except DfsError as error:
                if not error.retryable:
                    self._fail_all(error)
                    continue
                turn += 1
                now_s = self._clock.monotonic_s()
                patience = patience or Patience(log, now_s, self._retry_s)
                if now_s >= patience.deadline_s:
                    self._fail_all(error)
                    attempt, patience = 0, None
                    continue
                patience.tell(error.message, now_s)
                await asyncio.sleep(
                    backoff_s(attempt, self._rng, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
                )
                attempt += 1
                continue
            attempt, patience = 0, None
            self._socket = socket
            self._queue.clear()
            self._send_calls(socket, sorted(self._pending))
            try:
                await self._receive(socket)
            finally:
                self._socket = None
                with contextlib.suppress(Exception):
                    await socket.close()

    async def _connect(self, url: str) -> aiohttp.ClientWebSocketResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                socket = await self._session.ws_connect(
                    f"{url}/v1/rpc",
                    max_msg_size=0,
                    compress=0,
                    heartbeat=30.0,
                    autoclose=True,
                    proxy=self._proxy,
                )
                hello = Hello(
                    wire_version=WIRE_VERSION,
                    client_id=self._client_id,
                    user=self._user,
                    software=self._software,
                )
                await socket.send_bytes(pack(hello))
                first = await socket.receive()
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            raise Unavailable(f"can't reach the NameNode at {url}: {_reason(error)}") from None
        if first.type != aiohttp.WSMsgType.BINARY:
            await socket.close()
            raise Unavailable(f"the NameNode at {url} closed the connection")
        try:
            codec.unpack(first.data, Welcome)
        except InvalidRequest:
            await socket.close()
            raise error_of(codec.unpack(first.data, Failure)) from None
        return socket

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        pending = self._pending
        async for message in socket:
            if message.type != aiohttp.WSMsgType.BINARY:
                return
            for reply in codec.unpack_replies(message.data):
                entry = pending.pop(reply.call_id, None)
                if entry is None or entry.future.done():
                    continue
                future = entry.future
                try:
                    if reply.ok:
                        future.set_result(entry.decode(reply.value))
                    else:
                        future.set_exception(error_of(codec.unpack(reply.value, Failure)))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    future.set_exception(InvalidRequest(f"the answer is malformed: {error}"))

    def _fail_all(self, error: DfsError) -> None:
        pending, self._pending = self._pending, {}
        self._queue.clear()
        for entry in pending.values():
            if not entry.future.done():
                entry.future.set_exception(type(error)(error.message))

    async def close(self) -> None:
        """Give up what has no answer, and disconnect."""
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, *self._sends, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        self._fail_all(Unavailable("the connection to the NameNode was closed"))


def _reason(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else system_reason(error)
