"""The DataNode's half of WebHDFS: the bytes. Any range of any file, whichever DataNodes hold it, every chunk verified."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor

from aiohttp import hdrs, web

from ...client.file_reader import FileReader
from ...client.file_writer import FileWriter
from ...client.filesystem import FileSystem
from ...common import codec
from ...common.checksum import CHUNK_BYTES
from ...common.errors import (
    ConnectionLost,
    DfsError,
    InternalError,
    InvalidRequest,
    IsADirectory,
    PathNotFound,
)
from ...common.messages import PutFile
from ...common.model import FileStatus
from ...common.paths import parse
from ...common.request_lines import TakenBody, take_over
from ...common.runtime import new_uuid
from ...common.webhdfs import (
    PREFIX,
    JavaError,
    Origins,
    Parameters,
    operation,
    path_of,
    remote_exception,
    require_creatable,
    url_path,
    user_name,
)
from ..direct import ClientGone, Outlet, Relay, outlet_of
from ..hadoop_checksum import BlockChecksum, file_checksum
from ..intake import Intake
from ..slots import Slots
from ..users import UserClients

log = logging.getLogger(__name__)
KNOWN = {
    "GET": frozenset({"OPEN", "GETFILECHECKSUM"}),
    "PUT": frozenset({"CREATE"}),
    "POST": frozenset({"APPEND", "TRUNCATE"}),
}
MAX_STREAMS = 64  # transfers at once; further ones wait their turn
FIRST_PIECE_BYTES = (
    256 * 1024
)  # many readers take a little and go: reading ahead for them would be waste
PIECE_BYTES = 4 * CHUNK_BYTES
DIRECT_FROM_BYTES = 1 << 20  # less is not worth a thread
STALL_TIMEOUT_S = 60.0  # a client that takes no byte for so long is given up
LOOK_S = 1.0  # how often whoever waits for a body looks whether it waits for too long
TAKEN = "taken"  # of a request whose connection was read by ourselves, and is of no use to aiohttp any more
NOBODY = "dr.who"  # HDFS's name for somebody who gave none


class WebHdfsApi:
    """Routes of WebHDFS on a DataNode."""

    def __init__(self, users: UserClients, origins: tuple[str, ...]) -> None:
        self._users = users
        self._origins = Origins(origins)
        self._slots = Slots(MAX_STREAMS)
        self._threads = ThreadPoolExecutor(2 * MAX_STREAMS, thread_name_prefix="webhdfs")

    async def close(self) -> None:
        """Once no request is served any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def routes(self) -> list[web.RouteDef]:
        pattern = PREFIX + r"{path:(?s:/.*|)}"
        return [web.route("*", pattern, self.handle, expect_handler=_continue_later)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN, "")
        cors = self._origins.answer(origin) if origin else {}
        if request.method == "OPTIONS":
            return web.Response(status=200, headers=cors or {"Allow": Origins.METHODS})
        op = "webhdfs"
        try:
            self._origins.refuse(request.method, request.headers)
            raw_path, _, query = request.raw_path.partition("?")
            parameters = Parameters(query)
            method = "GET" if request.method == "HEAD" else request.method
            if method not in KNOWN:
                raise InvalidRequest(f"the method {method[:20]!r} is not supported")
            op = operation(parameters, method, KNOWN, "a DataNode")
            path = path_of(raw_path)
            parse(path)
            user = user_name(parameters.text("user.name")) or NOBODY
            async with self._slots.one(), self._users.of(user) as files:
                call = _Call(request, files, path, parameters, cors, self._threads, self._slots)
                return await OPERATIONS[op](call)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            return _refusal(request, error, op, cors)


class _Call:
    """One request, by somebody, about a path."""

    def __init__(
        self,
        request: web.Request,
        files: FileSystem,
        path: str,
        parameters: Parameters,
        cors: Mapping[str, str],
        threads: Executor,
        slots: Slots,
    ) -> None:
        self.threads = threads
        self.slots = slots
        self.request = request
        self.files = files
        self.path = path
        self.parameters = parameters
        self.cors = cors


def _refusal(
    request: web.Request, error: BaseException, op: str, cors: Mapping[str, str]
) -> web.Response:
    reference = ""
    if isinstance(error, ClientGone | ConnectionError):
        failed: DfsError = ConnectionLost("the client broke the connection")
    elif isinstance(error, DfsError):
        failed = error
    else:
        reference = new_uuid()[:8]
        log.error("WebHDFS %s failed [%s]", op, reference, exc_info=error)
        failed = InternalError(f"the DataNode failed to carry out {op}")
    status, body = remote_exception(failed, reference)
    return _json(request, status, body, cors)


def _json(
    request: web.Request, status: int, body: bytes, headers: Mapping[str, str]
) -> web.Response:
    response = web.Response(status=status, body=body, headers=headers)
    if body:
        response.headers[hdrs.CONTENT_TYPE] = "application/json;charset=utf-8"
    if TAKEN in request or (request.body_exists and request.can_read_body):
        response.force_close()
    return response


# --- reading -----------------------------------------------------------------------------------


async def _open_reader(call: _Call) -> FileReader:
    try:
        reader: FileReader = await call.files.open(call.path)
    except IsADirectory:
        raise PathNotFound(f"Path is not a file: {call.path}") from None
    return reader


async def open_file(call: _Call) -> web.StreamResponse:
    """Content-Length is what is left of the file: clients take position plus it as the file's length."""
    offset = call.parameters.number("offset", 0) or 0
    length = call.parameters.number("length")
    call.parameters.buffer_size()
    async with await _open_reader(call) as reader:
        size = reader.length
        if offset > size:
            raise JavaError(f"Offset={offset} out of the range [0, {size}); OPEN, path={call.path}")
        end = size if length is None else min(size, offset + length)
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(end - offset),
                **call.cors,
            }
        )
        if call.request.method == "HEAD" or end == offset:
            await response.prepare(call.request)
            await response.write_eof()
            return response
        # The first piece before the head: what can't be read at all is an error, not a broken answer.
        piece = await reader.pread(offset, min(FIRST_PIECE_BYTES, end - offset))
        reader.seek(offset + len(piece))
        try:
            await response.prepare(call.request)
            await _send(response, piece)
            await _rest(call, response, reader, end)
            await response.write_eof()
        except (ConnectionError, ClientGone):
            pass  # readers go when they have enough
        except DfsError as error:
            # The promised length can't be kept: a broken connection says so.
            log.warning("OPEN of %s broke off: %s", call.path, error.message)
            if call.request.transport is not None:
                call.request.transport.abort()
        return response


async def _send(response: web.StreamResponse, piece: bytes) -> None:
    try:
        async with asyncio.timeout(STALL_TIMEOUT_S):
            await response.write(piece)
    except TimeoutError:
        raise DfsError("the client takes nothing") from None


async def _rest(call: _Call, response: web.StreamResponse, reader: FileReader, end: int) -> None:
    """From the reader's position to *end*: by a thread, where the connection is a plain socket."""
    start = reader.tell()
    outlet = None
    if end - start >= DIRECT_FROM_BYTES:
        outlet = await outlet_of(call.request, STALL_TIMEOUT_S)
    if outlet is not None:
        return await _relayed(call, reader, outlet, end)
    while reader.tell() < end:
        piece = await reader.read(min(PIECE_BYTES, end - reader.tell()))
        if not piece:
            raise DfsError("the file became shorter")
        await _send(response, piece)


async def _relayed(call: _Call, reader: FileReader, outlet: Outlet, end: int) -> None:
    """One thread reads and verifies, another sends."""
    relay = Relay(outlet)
    sending = asyncio.get_running_loop().run_in_executor(call.threads, relay.run)
    reading = asyncio.ensure_future(reader.stream(reader.tell(), end, relay.take, call.threads))
    try:
        await asyncio.shield(reading)
        relay.finish()
        await asyncio.shield(sending)
    finally:
        # The socket must not be closed, and the reader neither, while the threads are at it.
        outlet.stop()
        relay.finish()
        await asyncio.gather(reading, sending, return_exceptions=True)
        outlet.close()


async def get_file_checksum(call: _Call) -> web.StreamResponse:
    async with await _open_reader(call) as reader:
        located = await call.files.locate(call.path)
        digests = []
        for block in located.blocks:
            reader.seek(block.offset)
            end = block.offset + block.block.length
            checksum = BlockChecksum()
            while reader.tell() < end:
                piece = await reader.read(min(PIECE_BYTES, end - reader.tell()))
                if not piece:
                    raise DfsError("the file became shorter")
                await asyncio.to_thread(checksum.update, piece)
            digests.append(checksum.digest())
    first = located.blocks[0].block.length if located.blocks else 0
    found = file_checksum(digests, first)
    body = codec.to_json(
        {
            "FileChecksum": {
                "algorithm": found.algorithm,
                "bytes": found.data.hex(),
                "length": len(found.data),
            }
        }
    )
    return _json(call.request, 200, body, call.cors)


# --- writing -----------------------------------------------------------------------------------


async def _next(call: _Call) -> bytes:
    """What comes next of the body; b"" at its end. Raises ClientGone for a client that sends nothing for too long."""
    waited_s = 0.0
    while True:
        try:
            async with asyncio.timeout(LOOK_S):
                return await call.request.content.readany()
        except TimeoutError:
            waited_s += LOOK_S
            if waited_s >= call.slots.patience_s():
                raise ClientGone("the client sends nothing") from None


async def _pieces(call: _Call) -> AsyncGenerator[bytes, None]:
    """The body as aiohttp receives it; raises ClientGone if it breaks off."""
    request = call.request
    try:
        while piece := await _next(call):
            yield piece
    except ClientGone:
        raise
    except (ConnectionError, web.HTTPException, web.PayloadAccessError, OSError) as error:
        raise ClientGone from error
    except Exception as error:
        # What aiohttp raises for a body that is cut short or malformed has no common class.
        if type(error).__module__.startswith("aiohttp"):
            raise ClientGone from error
        raise
    if request.transport is None or request.transport.is_closing():
        raise ClientGone


async def create(call: _Call) -> web.StreamResponse:
    """The file appears, whole and durable, before 201 is answered; an upload that breaks off leaves what was there before."""
    parameters = call.parameters
    parameters.buffer_size()
    file = PutFile(
        path=call.path,
        mode=parameters.mode("permission", 0o644) or 0,
        unmasked=parameters.mode("unmaskedpermission"),
        overwrite=parameters.overwrites(),
        create_parents=parameters.boolean("createparent", True),
        replication=parameters.replication(),
        block_size=parameters.block_size(),
    )
    await require_creatable(
        call.files.call, call.path, overwrite=file.overwrite, create_parents=file.create_parents
    )
    await _write(call, await call.files.stream_put(file))
    host = parameters.text("namenoderpcaddress")
    headers = dict(call.cors)
    if host and host.isascii() and host.isprintable():
        headers["Location"] = f"webhdfs://{host}{url_path(call.path)[len(PREFIX) :]}"
    return _empty(call, 201, headers)


async def _write(call: _Call, writer: FileWriter) -> None:
    """The body, into a file that is closed at its end and abandoned if it does not come to that."""
    request = call.request
    async with writer:
        if "100-continue" in request.headers.get(hdrs.EXPECT, "").lower():
            try:
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            except ConnectionError as error:
                raise ClientGone from error
            request.writer.output_size = 0
        gathered: list[bytes] = []
        async with contextlib.aclosing(_pieces(call)) as pieces:
            size = 0
            async for piece in pieces:
                gathered.append(piece)
                size += len(piece)
                if size >= DIRECT_FROM_BYTES:
                    break
            else:
                await writer.write(b"".join(gathered))
                return
        first, body = take_over(request)
        gathered += first
        if body is not None:
            return await _taken(call, writer, body, gathered)
        await writer.write(b"".join(gathered))
        async for piece in _pieces(call):
            await writer.write(piece)


async def _taken(call: _Call, writer: FileWriter, body: TakenBody, first: list[bytes]) -> None:
    """One thread receives, another hashes and writes."""
    call.request[TAKEN] = True
    intake = Intake(body, first, writer.chunk_room, call.slots.patience_s)
    receiving = asyncio.get_running_loop().run_in_executor(call.threads, intake.run)
    writing = asyncio.ensure_future(writer.write_from(intake, call.threads))
    whole = False
    try:
        await asyncio.shield(writing)
        whole = True
    finally:
        # The socket must not be closed, and the writer neither, while the threads are at it.
        intake.stop()
        await asyncio.gather(receiving, writing, return_exceptions=True)
        if whole:
            body.received()
        else:
            body.given_up()


async def append(call: _Call) -> web.StreamResponse:
    """All of the body is added, or nothing."""
    call.parameters.buffer_size()
    try:
        writer = await call.files.stream_append(call.path)
    except IsADirectory:
        raise PathNotFound(f"Path is not a file: {call.path}") from None
    await _write(call, writer)
    return _empty(call, 200, call.cors)


async def truncate(call: _Call) -> web.StreamResponse:
    """For the NameNode, which answers the client."""
    length = call.parameters.number("newlength")
    if length is None:
        raise InvalidRequest('Required param "newlength" for the operation is missing')
    status: FileStatus = await call.files.truncate(call.path, length)
    body = codec.to_json({"boolean": status.length == length})
    return _json(call.request, 200, body, call.cors)


def _empty(call: _Call, status: int, headers: Mapping[str, str]) -> web.Response:
    response = web.Response(
        status=status,
        headers={"Content-Type": "application/octet-stream", "Content-Length": "0", **headers},
    )
    if TAKEN in call.request:
        response.force_close()
    return response


async def _continue_later(request: web.Request) -> None:
    """ "100 Continue" is said when the file can be written (`_body`), not as soon as the request has come."""


OPERATIONS = {
    "OPEN": open_file,
    "GETFILECHECKSUM": get_file_checksum,
    "CREATE": create,
    "APPEND": append,
    "TRUNCATE": truncate,
}
