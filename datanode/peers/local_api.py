"""What a peer's own user may ask of it: `/v1/peer/...`. From this machine, or with the token in the first volume."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web

from ...common.codec import failure_of, from_json, to_json
from ...common.errors import (
    ConnectionLost,
    DfsError,
    InvalidContent,
    InvalidRequest,
    PermissionDenied,
    RequestTooLarge,
    http_status,
)
from ...common.hosts import NOT_OUR_NAME, OwnNames, is_loopback
from ...common.ipld import car
from ...common.ipld.cid import Cid
from ...common.model import MAX_BLOCK_BYTES, Struct
from ...common.peerid import name_of, shown
from ...common.peering import LEAVES_PROTOCOL, MAX_REPLICAS
from . import leaves
from .checking import check_everything
from .fetching import Progress

if TYPE_CHECKING:
    from .service import PeerService

ADDING = (
    "X-TwinFS-Add"  # the add that a request is part of: what it is told is here is not collected
)
CLAIMING = ("/v1/peer/have", "/v1/peer/import", "/v1/peer/leaves")
BATCH_BYTES = 4 * 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024
SIGN_OF_LIFE_S = 5.0
T = TypeVar("T")


class PinRequest(Struct, frozen=True, kw_only=True):
    cid: str
    kind: Literal["recursive", "direct"] = "recursive"
    replicas: Annotated[int, msgspec.Meta(ge=0, le=MAX_REPLICAS)] = 0  # 0: this peer alone
    name: Annotated[str, msgspec.Meta(max_length=255)] = ""
    here: bool = False  # the caller has just put all of it here: don't look


class CollectRequest(Struct, frozen=True, kw_only=True):
    """*grace_s*: what was made in the last so many seconds stays."""

    grace_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    dry_run: bool = False


class CidRequest(Struct, frozen=True, kw_only=True):
    cid: str


class PublishRequest(Struct, frozen=True, kw_only=True):
    value: str
    key: str = "self"
    lifetime_s: float = 48 * 3600.0
    ttl_s: float = 300.0


class HaveRequest(Struct, frozen=True, kw_only=True):
    cids: Annotated[list[str], msgspec.Meta(max_length=4096)]


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LocalApi:
    """*service*: its parts are made once the server's address is known."""

    def __init__(self, service: PeerService, token: str, names: OwnNames) -> None:
        self._service = service
        self._token = token
        self._names = names
        self.leaves = leaves.Leaves(service.content.cids)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/peer/status", self._checked(self.status)),
            web.post("/v1/peer/pins", self._checked(self.pin)),
            web.delete("/v1/peer/pins/{cid}", self._checked(self.unpin)),
            web.get("/v1/peer/pins", self._checked(self.pins)),
            web.post("/v1/peer/fetch", self._checked(self.fetch)),
            web.post("/v1/peer/import", self._checked(self.take_car)),
            web.post("/v1/peer/leaves", self._checked(self.take_leaves)),
            web.post("/v1/peer/have", self._checked(self.have)),
            web.post("/v1/peer/provide", self._checked(self.provide)),
            web.post("/v1/peer/adds", self._checked(self.begin_add)),
            web.delete("/v1/peer/adds/{name}", self._checked(self.end_add)),
            web.get("/v1/peer/content", self._checked(self.totals)),
            web.post("/v1/peer/collect", self._checked(self.collect)),
            web.post("/v1/peer/verify", self._checked(self.verify)),
            web.post("/v1/peer/names", self._checked(self.publish)),
            web.get("/v1/peer/names", self._checked(self.names)),
        ]

    def _checked(self, handler: Handler) -> Handler:
        async def run(request: web.Request) -> web.StreamResponse:
            try:
                self._permit(request)
                self._renew(request)
                return await handler(request)
            except DfsError as error:
                return web.Response(
                    body=to_json(failure_of(error)),
                    status=http_status(error),
                    content_type="application/json",
                )

        return run

    def _renew(self, request: web.Request) -> None:
        """The add that a request is part of goes on. Unavailable if it is not known any more."""
        claims = self._service.content.cids.claims
        if adding := request.headers.get(ADDING):
            claims.renew_add(adding)
        elif request.path in CLAIMING:
            claims.unnamed()

    def _permit(self, request: web.Request) -> None:
        # A page in a browser on this machine may not act for its user: it can't leave this header out.
        if "Origin" in request.headers:
            raise PermissionDenied("a peer takes no orders from web pages")
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and hmac.compare_digest(given.encode(), self._token.encode()):
            return
        if not is_loopback(request.remote or ""):
            raise PermissionDenied("a peer takes orders from its own machine, or with its token")
        # Nor may one whose own name has come to mean this machine: what it asks for has no Origin.
        if not self._names.has(request.headers.get("Host", "")):
            raise PermissionDenied(NOT_OUR_NAME)

    async def _body(self, request: web.Request, kind: type[Any]) -> Any:
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise RequestTooLarge(f"a request has at most {MAX_BODY_BYTES} bytes")
        return from_json(await request.read(), kind)

    async def status(self, request: web.Request) -> web.Response:
        service = self._service
        node = service.node
        alive = {record.peer for record in service.keeper.group.alive(service.now_s())}
        known = {c.peer: c.record for c in node.table.contacts()}
        known.update({record.peer: record for record in service.keeper.group.members()})
        peers = [
            {"id": shown(peer), "addresses": record.addresses, "alive": peer in alive}
            for peer, record in sorted(known.items())
        ]
        return _json(
            {
                "id": shown(node.identity.peer_id),
                "name": name_of(node.identity.peer_id),
                "addresses": node.me.addresses,
                "peers": peers,
                "provided": len(node.provided),
                "records": len(node.providers),
                "names": len(node.names),
            }
        )

    async def pin(self, request: web.Request) -> web.Response:
        wanted = await self._body(request, PinRequest)
        cid = Cid.parse(wanted.cid)
        if wanted.replicas:
            holders = await self._service.keeper.pin_shared(cid, wanted.replicas, name=wanted.name)
        else:
            await self._service.keeper.pin(
                cid, kind=wanted.kind, name=wanted.name, here=wanted.here
            )
            holders = [self._service.node.identity.peer_id]
        return _json(
            {
                "cid": str(cid),
                "holders": [shown(peer) for peer in holders],
                "owner": shown(self._service.node.identity.peer_id),
                "pinned_ms": self._service.wall_ms(),
            }
        )

    async def unpin(self, request: web.Request) -> web.Response:
        kind, name = request.query.get("kind", ""), request.query.get("name")
        cid = Cid.parse(request.match_info["cid"])
        return _json({"count": await self._service.keeper.unpin(cid, kind=kind, name=name)})

    async def pins(self, request: web.Request) -> web.Response:
        keeper = self._service.keeper
        now_s = self._service.now_s()
        found: list[dict[str, Any]] = [
            {
                "cid": str(Cid.from_bytes(pin.cid)),
                "kind": pin.kind,
                "name": pin.name,
                "replicas": 0,
                "owner": shown(self._service.node.identity.peer_id),
                "pinned_ms": pin.created_ms,
            }
            for _, pin in sorted(keeper.own.items())
        ]
        for pin in keeper.group.pins():
            holders = keeper.group.holders_of(pin.cid, pin.replicas, now_s)
            found.append(
                {
                    "cid": str(Cid.from_bytes(pin.cid)),
                    "kind": "recursive",
                    "name": pin.name,
                    "replicas": pin.replicas,
                    "owner": shown(pin.owner),
                    "pinned_ms": pin.changed_ms,
                    "holders": [shown(peer) for peer in holders],
                    "held_here": pin.cid in keeper.held,
                }
            )
        return _json({"pins": found})

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        """A DAG from other peers; lines of JSON: progress now and then, the end, or the error."""
        wanted = await self._body(request, CidRequest)
        cid = Cid.parse(wanted.cid)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        latest: list[Progress] = []

        def told(progress: Progress) -> None:
            latest[:] = [progress]

        task = self._service.spawn(self._service.fetch(cid, told))
        try:
            while not await self._service.done_within(task, 0.5):
                if latest:
                    await response.write(_line(latest[0], done=False))
            try:
                line = _line(task.result(), done=True)
            except DfsError as error:
                line = to_json({"error": failure_of(error)}) + b"\n"
            await response.write(line)
            await response.write_eof()
        finally:
            task.cancel()
        return response

    async def take_car(self, request: web.Request) -> web.Response:
        """The blocks of a CAR, each verified, durable when this answers."""
        reader = car.Reader(verify=False)  # the store does
        batch: list[tuple[Cid, bytes | memoryview]] = []
        size_bytes = blocks = new = total_bytes = 0
        content = self._service.content
        async for piece in request.content.iter_any():
            for block in reader.feed(piece):
                batch.append((block.cid, block.data))
                size_bytes += len(block.data)
                if size_bytes >= BATCH_BYTES or len(batch) >= 1024:
                    new += await content.put(batch)
                    blocks += len(batch)
                    total_bytes += size_bytes
                    batch, size_bytes = [], 0
        reader.finish()
        if reader.roots is None:
            raise InvalidContent("the CAR has no header")
        new += await content.put(batch)
        return _json(
            {
                "roots": [str(root) for root in reader.roots],
                "blocks": blocks + len(batch),
                "new": new,
                "bytes": total_bytes + size_bytes,
            }
        )

    async def take_leaves(self, request: web.Request) -> web.StreamResponse:
        """?length= bytes of whole chunks, the last may be shorter, as one replica: see `leaves.py`."""
        if request.headers.get("Upgrade") != LEAVES_PROTOCOL:
            raise InvalidRequest(f"leaves are sent after an upgrade to {LEAVES_PROTOCOL}")
        text = request.query.get("length", "")
        length = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0
        if not 0 < length <= MAX_BLOCK_BYTES:
            raise RequestTooLarge("leaves come up to 128 MiB at a time, with their length said")
        code = leaves.hash_code(request.query.get("hash", "blake3"))
        self.leaves.require_open()
        response = web.StreamResponse(
            status=101, headers={"Connection": "Upgrade", "Upgrade": LEAVES_PROTOCOL}
        )
        response.force_close()
        transport = request.transport
        if transport is None or not isinstance(transport, asyncio.ReadTransport):
            raise ConnectionLost("the client has gone")
        transport.pause_reading()  # before it is told to send: what comes next is not HTTP
        await response.prepare(request)
        if response._payload_writer is not None:
            response._payload_writer.send_headers()
        await self.leaves.take(
            transport.get_extra_info("socket"), length, code, lambda: self._renew(request)
        )
        return response

    async def have(self, request: web.Request) -> web.Response:
        wanted = await self._body(request, HaveRequest)
        cids = [Cid.parse(text) for text in wanted.cids]
        content = self._service.content
        found = await content.run(lambda: [content.cids.claim(cid.multihash) for cid in cids])
        return _json({"have": found})

    async def begin_add(self, request: web.Request) -> web.Response:
        return _json({"add": self._service.content.cids.claims.begin_add()})

    async def end_add(self, request: web.Request) -> web.Response:
        self._service.content.cids.claims.end_add(request.match_info["name"])
        return _json({})

    async def totals(self, request: web.Request) -> web.Response:
        replicas, size_bytes = await self._service.own_content()
        return _json({"replicas": replicas, "bytes": size_bytes})

    async def collect(self, request: web.Request) -> web.StreamResponse:
        """A collection; a line of JSON for each step, and one at the end. It ends when the client goes."""
        wanted = await self._body(request, CollectRequest)
        collector = self._service.collector

        async def steps() -> AsyncGenerator[dict[str, Any]]:
            found = collector.collect(grace_s=wanted.grace_s, dry_run=wanted.dry_run)
            async with contextlib.aclosing(found) as removed:
                async for step in removed:
                    yield {"blocks": step.replicas, "bytes": step.size_bytes, "done": False}
            if not wanted.dry_run:
                await self._service.withdraw_lost()
            yield {"done": True}

        return await _lines(request, steps())

    async def verify(self, request: web.Request) -> web.StreamResponse:
        """Everything of this peer's own, read and hashed; lines of JSON."""

        async def pages() -> AsyncGenerator[dict[str, Any]]:
            async for page in check_everything(self._service.content):
                yield {"blocks": page.blocks, "bytes": page.size_bytes, "bad": page.bad}

        return await _lines(request, pages())

    async def provide(self, request: web.Request) -> web.Response:
        wanted = await self._body(request, HaveRequest)
        keys = [Cid.parse(text).multihash for text in wanted.cids]
        return _json({"told": await self._service.node.provide(keys)})

    async def publish(self, request: web.Request) -> web.Response:
        wanted = await self._body(request, PublishRequest)
        record, told = await self._service.names.publish(
            wanted.value, key=wanted.key, lifetime_s=wanted.lifetime_s, ttl_s=wanted.ttl_s
        )
        return _json(
            {
                "name": name_of(record.peer_id),
                "value": record.value,
                "sequence": record.sequence,
                "told": told,
            }
        )

    async def names(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        if not name:
            keys = await self._service.content.run(self._service.names.keys)
            found = {called: name_of(key.peer_id) for called, key in keys.items()}
            return _json({"keys": found})
        root, path, holds_s, _ = await self._service.names.resolve(name.removeprefix("/ipns/"))
        if len(path) > 1000:
            raise InvalidRequest("the path is too deep")
        return _json({"path": "/".join([f"/ipfs/{root}", *path]), "holds_s": holds_s})


async def _lines(request: web.Request, found: AsyncGenerator[dict[str, Any]]) -> web.StreamResponse:
    """Each document on a line of its own, as it comes; the error that ends them, too."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async with contextlib.aclosing(found) as documents:
            while (document := await _waiting(response, anext(documents, None))) is not None:
                await response.write(json.dumps(document).encode() + b"\n")
    except DfsError as error:
        await response.write(to_json({"error": failure_of(error)}) + b"\n")
    await response.write_eof()
    return response


async def _waiting(response: web.StreamResponse, wanted: Awaitable[T]) -> T:
    """What is waited for; an empty line now and then tells the client that somebody works."""
    task = asyncio.ensure_future(wanted)
    try:
        while not (await asyncio.wait([task], timeout=SIGN_OF_LIFE_S))[0]:
            await response.write(b"\n")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _json(value: Any) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), content_type="application/json")


def _line(progress: Progress, *, done: bool) -> bytes:
    return (
        json.dumps(
            {
                "blocks": progress.blocks,
                "bytes": progress.size_bytes,
                "here": progress.here,
                "resumed": progress.resumed,
                "done": done,
            }
        ).encode()
        + b"\n"
    )
