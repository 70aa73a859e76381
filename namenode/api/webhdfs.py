"""The NameNode's half of WebHDFS: `/webhdfs/v1`. Bytes are the DataNodes' affair: those requests are sent on to one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from urllib.parse import quote_plus

import aiohttp
from aiohttp import hdrs, web
from yarl import URL

from ...common import tokens
from ...common.errors import (
    DfsError,
    InvalidRequest,
    IsADirectory,
    PathNotFound,
    ShuttingDown,
    Unavailable,
)
from ...common.messages import Locate, Stat
from ...common.model import NodeAddress, NodeId
from ...common.tokens import Claim
from ...common.webhdfs import (
    PREFIX,
    JavaError,
    Origins,
    Parameters,
    accepts_gzip,
    operation,
    path_of,
    remote_exception,
    require_creatable,
    url_path,
    user_name,
)
from .. import tokens as token_store
from ..datanodes import DataNodes
from ..dispatch import Dispatcher, described
from ..permissions import Caller
from . import webhdfs_json as j
from .webhdfs_ops import DELETES, POSTS, PUTS, READS, Operation, Request

log = logging.getLogger(__name__)
REDIRECTED = {
    "GET": frozenset({"OPEN", "GETFILECHECKSUM"}),
    "PUT": frozenset({"CREATE"}),
    "POST": frozenset({"APPEND"}),
    "DELETE": frozenset[str](),
}
ANSWERED: dict[str, dict[str, Operation]] = {
    "GET": READS,
    "PUT": PUTS,
    "POST": POSTS,
    "DELETE": DELETES,
}
# Answered here, but not by one object built in memory.
OWN = {"GET": frozenset({"LISTSTATUS"}), "POST": frozenset({"TRUNCATE"})}
KNOWN = {
    method: frozenset(table) | REDIRECTED[method] | OWN.get(method, frozenset())
    for method, table in ANSWERED.items()
}
PAGE = 1_000
COMPRESS_FROM_BYTES = 512  # less is hardly smaller then
# Parameters that are not the DataNode's, or that this NameNode says in its own words.
NOT_PASSED_ON = frozenset({"user.name", "doas", "delegation", "noredirect", "namenoderpcaddress"})
TRUNCATE_LIMIT_S = 120.0


class WebHdfsApi:
    """Routes of WebHDFS on a NameNode."""

    def __init__(self, dispatcher: Dispatcher, nodes: DataNodes, origins: tuple[str, ...]) -> None:
        self._dispatcher = dispatcher
        self._nodes = nodes
        self._origins = Origins(origins)
        self._session: aiohttp.ClientSession | None = None
        self._closing = False

    def routes(self) -> list[web.RouteDef]:
        pattern = PREFIX + r"{path:(?s:/.*|)}"
        return [web.route("*", pattern, self.handle, expect_handler=_no_continue)]

    async def close(self) -> None:
        self._closing = True
        if self._session is not None:
            await self._session.close()

    # --- a request ---

    async def handle(self, request: web.Request) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN, "")
        cors = self._origins.answer(origin) if origin else {}
        op = "webhdfs"
        try:
            raw_path, _, query = request.raw_path.partition("?")
            if request.method == "OPTIONS":
                return web.Response(status=200, headers=cors or {"Allow": Origins.METHODS})
            self._origins.refuse(request.method, request.headers)
            parameters = Parameters(query)
            method = "GET" if request.method == "HEAD" else request.method
            if method not in KNOWN:
                raise InvalidRequest(f"the method {method[:20]!r} is not supported")
            op = operation(parameters, method, KNOWN, "the NameNode")
            if self._closing:
                raise ShuttingDown("the NameNode is stopping")
            caller = await self._caller(parameters, request.remote or "")
            call = Request(self._dispatcher, caller, path_of(raw_path), parameters)
            if op in REDIRECTED[method]:
                return await self._redirect(request, op, call, cors)
            if op == "LISTSTATUS":
                return await self._list(request, call, cors)
            if op == "TRUNCATE":
                answer = await self._truncate(call)
            else:
                answer = await ANSWERED[method][op](call)
            return _json(request, 200, j.encode(answer) if answer else b"", cors)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failed, reference = described(error, op)
            return _json(request, *remote_exception(failed, reference), cors)

    async def _caller(self, parameters: Parameters, host: str) -> Caller:
        claim = Claim(
            user=user_name(parameters.text("user.name")),
            acting_as=user_name(parameters.text("doas")),
            token=parameters.text("delegation"),
        )
        user = claim.user
        if claim.token:
            token, now_ms = tokens.decode(claim.token), self._dispatcher.now_ms()
            user = await self._dispatcher.store.read(
                lambda tx: token_store.owner_of(tx, token, now_ms=now_ms)
            )
        caller = await self._dispatcher.caller(user, host)
        if claim.acting_as:
            self._dispatcher.impersonate(caller, claim.acting_as)
            caller = await self._dispatcher.caller(claim.acting_as, host)
        return caller

    # --- sending on to a DataNode ---

    async def _redirect(
        self, request: web.Request, op: str, call: Request, cors: Mapping[str, str]
    ) -> web.Response:
        node = await self._target(op, call)
        location = self._location(node, op, call, request.host)
        if call.parameters.boolean("noredirect", False):
            answer = _json(request, 200, j.encode({"Location": location}), cors)
        else:
            answer = web.Response(
                status=307, headers={"Location": location, "Content-Length": "0", **cors}
            )
        if request.body_exists:
            # A client that sends the bytes here although they do not belong here: none of them is read.
            answer.force_close()
        return answer

    async def _target(self, op: str, call: Request) -> NodeAddress:
        """Who has the bytes, or, for new ones, who is near and has room."""
        if op in ("OPEN", "GETFILECHECKSUM"):
            offset = call.parameters.number("offset", 0) or 0 if op == "OPEN" else 0
            call.parameters.number("length")  # refused here already, if it is no number
            call.parameters.buffer_size()
            request = Locate(path=call.path, offset=offset, length=1)
            try:
                found = await call.read("locate", request)
            except IsADirectory:
                raise PathNotFound(f"Path is not a file: {call.path}") from None
            size = found.status.length
            if offset > size:
                raise JavaError(
                    f"Offset={offset} out of the range [0, {size}); {op}, path={call.path}"
                )
            excluded = self._excluded(call.parameters)
            holders: list[NodeAddress] = [n for located in found.blocks for n in located.nodes]
            for node in holders:
                if node.node_id not in excluded:
                    return node
        elif op == "APPEND":
            call.parameters.buffer_size()
            status = await call.read("stat", Stat(path=call.path))
            if status.is_directory:
                raise PathNotFound(f"Path is not a file: {call.path}")
        else:
            await _check_creation(call)
        (chosen,) = self._nodes.choose(
            1,
            client_host=call.caller.host,
            length=0,
            exclude=self._excluded(call.parameters),
            minimum=1,
        )
        return chosen

    def _excluded(self, parameters: Parameters) -> list[NodeId]:
        """`excludedatanodes`: HOST:PORT of what the client could not reach."""
        named = set(parameters.text("excludedatanodes").split(",")) - {""}
        if not named:
            return []
        return [
            report.address.node_id
            for report in self._nodes.report()
            if named & {report.address.data, report.address.http, report.address.host}
        ]

    def _location(self, node: NodeAddress, op: str, call: Request, host: str) -> str:
        """The absolute URL at *node*, good for any offset and as often as one likes."""
        passed = [
            (name, value)
            for name, value in call.parameters.names
            if name.lower() not in NOT_PASSED_ON and name.lower() != "op"
        ]
        query = [("op", op), ("user.name", call.caller.user), *passed, ("namenoderpcaddress", host)]
        text = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in query)
        return f"http://{node.http}{url_path(call.path)}?{text}"

    async def _truncate(self, call: Request) -> dict[str, object]:
        """Cutting inside a block takes a pipeline, so a DataNode does it; the client need not know."""
        length = call.parameters.number("newlength")
        if length is None:
            raise InvalidRequest('Required param "newlength" for the operation is missing')
        status = await call.read("stat", Stat(path=call.path))
        if status.is_directory:
            raise PathNotFound(f"Path is not a file: {call.path}")
        if length > status.length:
            raise JavaError(
                "Cannot truncate to a larger file size. "
                f"Current size: {status.length}, truncate size: {length}."
            )
        (node,) = self._nodes.choose(1, client_host=call.caller.host, length=0, minimum=1)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TRUNCATE_LIMIT_S)
            )
        text = f"op=TRUNCATE&user.name={quote_plus(call.caller.user)}&newlength={length}"
        url = f"http://{node.http}{url_path(call.path)}?{text}"
        try:
            async with self._session.post(
                URL(url, encoded=True),
                data=b"",
                headers={"Content-Type": "application/octet-stream"},
            ) as answer:
                body = await answer.json(content_type=None)
                if answer.status == 200:
                    return {"boolean": bool(body["boolean"])}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"the DataNode {node.http} can't be reached: {error}") from None
        told = body["RemoteException"]
        raise JavaError(told["message"], told["javaClassName"], answer.status)

    # --- listing ---

    async def _list(
        self, request: web.Request, call: Request, cors: Mapping[str, str]
    ) -> web.StreamResponse:
        """All entries in one answer, however many: pages are sent as they are read."""
        page, _ = await call.list("")
        entries = b",".join(map(j.encode, j.listing(page)))
        head, tail = b'{"FileStatuses":{"FileStatus":[', b"]}}"
        if not page.more:
            return _json(request, 200, head + entries + tail, cors)
        response = web.StreamResponse(
            headers={"Content-Type": "application/json;charset=utf-8", **cors}
        )
        if accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
            response.enable_compression(web.ContentCoding.gzip)
        try:
            await response.prepare(request)
            await response.write(head + entries)
            while page.more:
                after = page.entries[-1].name
                page, _ = await call.list(after)
                if page.entries:
                    await response.write(b"," + b",".join(map(j.encode, j.listing(page))))
            await response.write_eof(tail)
        except DfsError:
            # Too late for an error: an answer that breaks off says that it is not whole.
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass  # who asked is gone
        return response


async def _check_creation(call: Request) -> None:
    """Refuse here what the DataNode would refuse: before the client has sent a byte."""
    parameters = call.parameters
    parameters.mode("permission")
    parameters.mode("unmaskedpermission")
    parameters.replication()
    parameters.block_size()
    parameters.buffer_size()
    await require_creatable(
        call.read,
        call.path,
        overwrite=parameters.overwrites(),
        create_parents=parameters.boolean("createparent", True),
    )


def _json(
    request: web.Request, status: int, body: bytes, headers: Mapping[str, str]
) -> web.Response:
    """A JSON answer; one without a body has no type either."""
    response = web.Response(status=status, body=body, headers=headers)
    if body:
        response.headers[hdrs.CONTENT_TYPE] = "application/json;charset=utf-8"
        if len(body) >= COMPRESS_FROM_BYTES and accepts_gzip(
            request.headers.get(hdrs.ACCEPT_ENCODING, "")
        ):
            response.enable_compression(web.ContentCoding.gzip)
    else:
        response.headers[hdrs.CONTENT_TYPE] = "application/octet-stream"
    if request.body_exists and request.can_read_body:
        response.force_close()  # nobody reads it
    return response


async def _no_continue(request: web.Request) -> None:
    """No "100 Continue" from here: the bytes belong to a DataNode, and the answer tells to which."""
