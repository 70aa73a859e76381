"""The NameNode's own interface: `POST /v1/<operation>` and the WebSocket `/v1/rpc`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from aiohttp import WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from ...common import codec, tracing
from ...common.codec import JSON, MSGPACK, failure_of, pack
from ...common.errors import (
    DfsError,
    InvalidRequest,
    RequestTooLarge,
    ShuttingDown,
    TimedOut,
    UnknownOperation,
    VersionMismatch,
    WrongMediaType,
    WrongMethod,
    http_status,
)
from ...common.messages import (
    MAX_CALLS_PER_FRAME,
    MAX_FRAME_BYTES,
    WIRE_VERSION,
    Call,
    Hello,
    Welcome,
)
from ...common.operations import OPERATIONS
from ...common.runtime import elapsed_timer, new_uuid
from ..dispatch import FOLLOWED, Dispatcher, described
from ..history import Hot
from ..metrics import OperationMetrics
from ..permissions import Caller
from ..store.base import RequestId
from . import openapi

log = logging.getLogger(__name__)
GET_ONLY = frozenset({"rpc", "openapi.json"})
HELLO_TIMEOUT_S = 10.0
MAX_CALLS_IN_FLIGHT = 8_192  # of one connection
WAITING = frozenset({"heartbeat"})  # answered late on purpose
SEND_TIMEOUT_S = 60.0  # a client that takes no answer for so long is dropped


class RpcApi:
    """Routes of the NameNode's own interface."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        cluster_id: str,
        version: str,
        max_request_bytes: int,
        metrics: OperationMetrics,
    ) -> None:
        self._dispatcher = dispatcher
        self._cluster_id = cluster_id
        self._version = version
        self._max_request_bytes = max_request_bytes
        self._metrics = metrics
        self._connections: set[_Connection] = set()
        self._closing = False

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/rpc", self.websocket),
            web.get("/v1/openapi.json", self.openapi),
            web.post("/v1/{operation}", self.post),
            web.route("*", "/v1/{operation:.*}", self.refuse),
        ]

    async def openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=openapi.document(), content_type=JSON)

    async def refuse(self, request: web.Request) -> web.Response:
        """What no other route takes: another method than the resource's, or no such resource."""
        name = request.match_info["operation"]
        error: DfsError = UnknownOperation(f"there is nothing at /v1/{name}")
        allowed = "GET" if name in GET_ONLY else "POST" if name in OPERATIONS else ""
        if allowed:
            error = WrongMethod(f"/v1/{name} takes {allowed}, not {request.method}")
        answer = _response(failure_of(error), JSON, http_status(error))
        if allowed:
            answer.headers["Allow"] = allowed
        return answer

    async def close(self) -> None:
        """Let no new call in, answer those in flight, close the connections."""
        self._closing = True
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))

    # --- one request, one answer ---

    async def post(self, request: web.Request) -> web.Response:
        if request.match_info["operation"] in GET_ONLY:
            return await self.refuse(request)
        form = MSGPACK if request.content_type == MSGPACK else JSON
        accept = request.headers.get("Accept", "")
        answer_form = MSGPACK if MSGPACK in accept else JSON if JSON in accept else form
        name, metrics, began_s = request.match_info["operation"], self._metrics, elapsed_timer()
        span = tracing.begin(
            name if name in OPERATIONS else "unknown",
            tracing.from_headers(request.headers),
            "server",
            transport="http",
        )
        try:
            with tracing.within(span.origin):
                answer = await self._post(request, form)
        except asyncio.CancelledError:
            span.end("cancelled")
            raise
        except Exception as error:
            failed, reference = described(error, name)
            span.end(failed.code)
            metrics.failed(failed)
            refusal = _response(failure_of(failed, reference), answer_form, http_status(failed))
            if isinstance(error, _BrokenBody):
                await _last_word(request, refusal)
            return refusal
        took_s = elapsed_timer() - began_s
        span.end()
        metrics.done(name, took_s)
        user, request_id = request.headers.get("X-TwinFS-User", ""), span.origin.request_id
        if log.isEnabledFor(logging.DEBUG):
            _tell(name, user, request_id, took_s)
        if took_s >= metrics.slow_s and name not in WAITING:
            metrics.slow(name, took_s, user, request_id, self._cause())
        return _response(answer, answer_form, 200)

    async def _post(self, request: web.Request, form: str) -> Any:
        if self._closing:
            raise ShuttingDown("the NameNode is stopping")
        name = request.match_info["operation"]
        operation = self._dispatcher.operation(name)
        # A browser asks before it sends such a type to another site; forms and plain text it just sends.
        if request.content_type not in (JSON, MSGPACK):
            raise WrongMediaType(f"Content-Type must be {JSON} or {MSGPACK}")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            # A few bytes may stand for a great many.
            raise WrongMediaType("requests can't be compressed")
        body = await self._body(request)
        decode = codec.unpack if form == MSGPACK else codec.from_json
        message = decode(body, operation.request)
        request_id = _request_id(request.headers.get("X-TwinFS-Request"))
        caller = await self._dispatcher.caller(
            request.headers.get("X-TwinFS-User", ""), request.remote or ""
        )
        special = self._dispatcher.specials.get(name)
        if special is not None:
            return await special(caller, message)
        if self._dispatcher.is_read(name):
            return await self._dispatcher.store.read(self._dispatcher.read(caller, name, message))
        given = request_id or RequestId(bytes.fromhex(new_uuid().replace("-", "")), 1)
        answer = await self._dispatcher.write(
            caller, name, message, given, resent=request_id is not None
        )
        return codec.unpack(answer, operation.response)

    def _cause(self) -> str:
        """What holds calls up just now."""
        pressure = self._dispatcher.store.pressure()
        last_s = pressure.last_sync_s
        disk = f"the disk took {last_s:.2f} s for the last commit, " if last_s >= 0.1 else ""
        return f"{disk}{pressure.queued} operations wait for the store, {self._metrics.in_flight} calls are open"

    async def _body(self, request: web.Request) -> bytes:
        too_large = RequestTooLarge(f"the request is larger than {self._max_request_bytes} bytes")
        if (request.content_length or 0) > self._max_request_bytes:
            raise too_large
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise too_large from None
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            raise _BrokenBody(f"the body is cut off or damaged: {error}") from None

    # --- many calls on one connection ---

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            max_msg_size=MAX_FRAME_BYTES, compress=False, heartbeat=30.0, autoping=True
        )
        try:
            await socket.prepare(request)
        except ConnectionResetError:  # the client has gone; aiohttp would log it as our failure
            return web.Response()
        connection = None
        try:
            caller, client_id = await self._greet(socket, request.remote or "")
            connection = _Connection(
                self._dispatcher, socket, caller, client_id, self._metrics, self._cause
            )
            self._connections.add(connection)
            self._metrics.connections = len(self._connections)
            await connection.run()
        except DfsError as error:
            if not socket.closed:
                await socket.send_bytes(pack(failure_of(error)))
        finally:
            if connection is not None:
                self._connections.discard(connection)
                self._metrics.connections = len(self._connections)
                await connection.close()
            await socket.close()
        return socket

    async def _greet(self, socket: web.WebSocketResponse, host: str) -> tuple[Caller, bytes]:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await socket.receive()
        except TimeoutError:
            raise TimedOut("no Hello came in time") from None
        if first.type != WSMsgType.BINARY:
            raise InvalidRequest("the first message must be a Hello")
        hello = codec.unpack(first.data, Hello)
        if hello.wire_version != WIRE_VERSION:
            raise VersionMismatch(
                f"this NameNode speaks wire version {WIRE_VERSION}, not {hello.wire_version}"
            )
        if self._closing:
            raise ShuttingDown("the NameNode is stopping")
        caller = await self._dispatcher.caller(hello.user, host)
        welcome = Welcome(
            wire_version=WIRE_VERSION, cluster_id=self._cluster_id, version=self._version
        )
        await socket.send_bytes(pack(welcome))
        return caller, hello.client_id


class _BrokenBody(InvalidRequest):
    """The framing of the request is damaged: nothing after it can be understood."""


async def _last_word(request: web.Request, answer: web.Response) -> None:
    """Answer and hang up. aiohttp would go on to read the rest of the body, and log what it finds as a fault."""
    with contextlib.suppress(ConnectionError):
        await answer.prepare(request)
        await answer.write_eof()
    request.protocol.force_close()


class _Connection:
    """One client's WebSocket: calls come in frames, answers leave in frames, in any order."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        socket: web.WebSocketResponse,
        caller: Caller,
        client_id: bytes,
        metrics: OperationMetrics,
        cause: Callable[[], str],
    ) -> None:
        self._dispatcher = dispatcher
        self._socket = socket
        self._caller = caller
        self._client_id = client_id
        self._metrics = metrics
        self._cause = cause
        self._replies: list[bytes] = []
        self._reply_count = 0
        self._has_replies = asyncio.Event()
        # By call id: what the store is doing, and when it came.
        self._writing: dict[int, tuple[Call, float]] = {}
        self._spans: dict[int, tracing.Span] = {}  # of calls that come with a trace
        self._in_flight = 0
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sender: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until the client goes."""
        self._sender = asyncio.create_task(self._send_loop(), name="rpc sender")
        async for message in self._socket:
            if message.type != WSMsgType.BINARY:
                raise InvalidRequest("frames are binary messages")
            self._metrics.bytes["received"] += len(message.data)
            calls = codec.unpack_calls(message.data)
            if len(calls) > MAX_CALLS_PER_FRAME:
                raise RequestTooLarge(f"a frame may have {MAX_CALLS_PER_FRAME} calls")
            self._in_flight += len(calls)
            self._metrics.in_flight += len(calls)
            self._take(calls)
            while self._in_flight > MAX_CALLS_IN_FLIGHT:
                self._room.clear()
                await self._room.wait()

    def _take(self, calls: list[Call]) -> None:
        dispatcher = self._dispatcher
        reads: list[Call] = []
        came_s = elapsed_timer()
        if dispatcher.hot is not None and calls:
            _sample(dispatcher.hot, calls)
        if tracing.is_on():
            self._trace(calls)
        for call in calls:
            name = call.operation
            try:
                if dispatcher.is_read(name):
                    reads.append(call)
                elif name in dispatcher.specials:
                    task = asyncio.create_task(self._special(call), name=name)
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                else:
                    dispatcher.operation(name)
                    request_id = RequestId(self._client_id, call.call_id)
                    if name in FOLLOWED:
                        future = dispatcher.write(
                            self._caller, name, call.request, request_id, resent=call.resent
                        )
                        self._writing[call.call_id] = (call, came_s)
                        future.add_done_callback(lambda done, c=call: self._written(c, done))  # type: ignore[misc]
                    else:
                        self._writing[call.call_id] = (call, came_s)
                        dispatcher.write_to(
                            self, self._caller, name, call.request, request_id, resent=call.resent
                        )
            except Exception as error:
                self._writing.pop(call.call_id, None)
                self._fail(call, error)
        if reads:
            count = len(reads)
            frame = dispatcher.store.submit_reads([dispatcher.read_frame(self._caller, reads)])
            frame.add_done_callback(lambda done: self._read(reads, count, came_s, done))

    def _written(self, call: Call, done: asyncio.Future[bytes]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._fail(call, error)
        else:
            self.answered([(call.call_id, done.result())])

    # --- the store's `ReplySink` ---

    def answered(self, answers: Sequence[tuple[int, bytes]]) -> None:
        now_s, metrics, writing = elapsed_timer(), self._metrics, self._writing
        told = log.isEnabledFor(logging.DEBUG)
        for call_id, _ in answers:
            known = writing.pop(call_id, None)
            if known is not None:
                call, came_s = known
                metrics.done(call.operation, now_s - came_s)
                if told:
                    self._tell(call, now_s - came_s)
                if now_s - came_s >= metrics.slow_s:
                    self._slow(call, now_s - came_s)
        if self._spans:
            self._ended([call_id for call_id, _ in answers])
        # Each an array of three, whose last element is encoded already.
        encoded = b"".join(
            b"\x93" + pack(call_id) + b"\xc3" + answer for call_id, answer in answers
        )
        self._reply(encoded, len(answers))

    def refused(self, call_id: int, error: BaseException) -> None:
        known = self._writing.pop(call_id, None)  # a client that uses an id twice may get None
        failed, reference = described(error, known[0].operation if known else "call")
        self._ended([call_id], failed.code)
        self._metrics.failed(failed)
        self._reply(pack((call_id, False, failure_of(failed, reference))), 1)
        if known is not None:
            call = known[0]
            self._dispatcher.refused(self._caller, call.operation, call.request, error)

    # --- the others ---

    def _id(self, call: Call) -> str:
        """The request that *call* is, or is part of."""
        return call.request_id or f"{self._client_id.hex()}-{call.call_id}"

    def _slow(self, call: Call, seconds: float) -> None:
        user = self._caller.user
        self._metrics.slow(call.operation, seconds, user, self._id(call), self._cause())

    def _tell(self, call: Call, seconds: float) -> None:
        _tell(call.operation, self._caller.user, self._id(call), seconds)

    def _trace(self, calls: Sequence[Call]) -> None:
        """Begin the spans of those that come with a trace."""
        for call in calls:
            if call.traceparent:
                name = call.operation if call.operation in OPERATIONS else "unknown"
                origin = tracing.Origin(self._id(call), call.traceparent)
                self._spans[call.call_id] = tracing.begin(name, origin, "server", transport="rpc")

    def _ended(self, call_ids: Iterable[int], error: str = "") -> None:
        for call_id in call_ids:
            span = self._spans.pop(call_id, None)
            if span is not None:
                span.end(error)

    def _read(
        self, calls: list[Call], count: int, came_s: float, done: asyncio.Future[list[Any]]
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        result: bytes | BaseException = error if error is not None else done.result()[0]
        if isinstance(result, BaseException):
            for call in calls:
                self._fail(call, result)
        else:
            took_s, metrics, first = elapsed_timer() - came_s, self._metrics, calls[0].operation
            # A frame is read on one snapshot and answered at once: most are many calls of one kind.
            same = sum(1 for call in calls if call.operation == first)
            metrics.done(first, took_s, same)
            if same < count:
                for call in calls:
                    if call.operation != first:
                        metrics.done(call.operation, took_s)
            if took_s >= metrics.slow_s:
                self._slow(calls[0], took_s)
            if log.isEnabledFor(logging.DEBUG):
                for call in calls:
                    self._tell(call, took_s)
            if self._spans:
                self._ended([call.call_id for call in calls])
            self._reply(result, count)

    async def _special(self, call: Call) -> None:
        came_s = elapsed_timer()
        try:
            operation = OPERATIONS[call.operation]
            message = codec.unpack(call.request, operation.request)
            tracing.bind(tracing.Origin(self._id(call), call.traceparent))
            answer = await self._dispatcher.specials[call.operation](self._caller, message)
            self._metrics.done(call.operation, elapsed_timer() - came_s)
            self._ended([call.call_id])
            if log.isEnabledFor(logging.DEBUG):
                self._tell(call, elapsed_timer() - came_s)
            self._reply(pack((call.call_id, True, answer)), 1)
        except Exception as error:
            self._fail(call, error)

    def _fail(self, call: Call, error: BaseException) -> None:
        self._writing.pop(call.call_id, None)
        failed, reference = described(error, call.operation)
        self._ended([call.call_id], failed.code)
        self._metrics.failed(failed)
        self._reply(pack((call.call_id, False, failure_of(failed, reference))), 1)

    def _reply(self, encoded: bytes, count: int) -> None:
        self._replies.append(encoded)
        self._reply_count += count
        self._has_replies.set()

    async def _send_loop(self) -> None:
        """Everything that is ready leaves in one frame."""
        while True:
            await self._has_replies.wait()
            self._has_replies.clear()
            replies, count = self._replies, self._reply_count
            self._replies, self._reply_count = [], 0
            if not replies:
                continue
            frame = b"\xdd" + count.to_bytes(4, "big") + b"".join(replies)
            self._metrics.bytes["sent"] += len(frame)
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._socket.send_bytes(frame)
            except (TimeoutError, ConnectionError, RuntimeError):
                await self._socket.close()
                return
            finally:
                self._in_flight -= count
                self._metrics.in_flight -= count
                self._room.set()

    async def close(self) -> None:
        self._metrics.in_flight -= self._in_flight  # whoever asked has gone
        self._in_flight = 0
        self._ended(list(self._spans), "disconnected")
        for task in list(self._tasks):
            task.cancel()
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, *self._tasks, return_exceptions=True)
            self._sender = None
        await self._socket.close()


class _Entry(msgspec.Struct, gc=False):
    path: str = ""


class _Named(msgspec.Struct, gc=False):
    """What requests that name a path have in common."""

    path: str = ""
    files: list[_Entry] = []


_named = msgspec.msgpack.Decoder(_Named).decode


def _sample(hot: Hot, calls: Sequence[Call]) -> None:
    """One call stands for all of its frame: most frames are many calls about one place."""
    try:
        named = _named(calls[0].request)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # whoever carries it out will say what is wrong with it
    path = named.path or (named.files[0].path if named.files else "")
    if path.startswith("/"):
        hot.note(path, len(calls) * max(1, len(named.files)))


def _tell(operation: str, user: str, request_id: str, seconds: float) -> None:
    """One line for each call, in a log that has everything."""
    fields = {
        "operation": operation,
        "user": user,
        "request_id": request_id,
        "duration_ms": round(seconds * 1e3, 1),
    }
    log.debug("%s of %s took %.1f ms", operation, user, seconds * 1e3, extra={"fields": fields})


def _request_id(text: str | None) -> RequestId | None:
    """`<32 hex digits>-<number>`."""
    if text is None:
        return None
    client, _, call = text.partition("-")
    try:
        client_id = bytes.fromhex(client)
        if len(client_id) != 16 or not call.isascii() or not call.isdigit() or len(call) > 18:
            raise ValueError
        return RequestId(client_id, int(call))
    except ValueError:
        raise InvalidRequest(
            "X-TwinFS-Request must be 32 hex digits, a hyphen and a number"
        ) from None


def _response(message: Any, form: str, status: int) -> web.Response:
    body = pack(message) if form == MSGPACK else codec.to_json(message)
    return web.Response(body=body, status=status, content_type=form)
