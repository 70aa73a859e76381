"""What a peer's own user may ask of it: `/v1/peer/...`. From this machine, or with the token in the first volume."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from aiohttp import web

from ...common.checksum import CHUNK_BYTES
from ...common.codec import failure_of, from_json, to_json
from ...common.errors import (
    DfsError,
    InvalidContent,
    InvalidRequest,
    PermissionDenied,
    RequestTooLarge,
    http_status,
)
from ...common.ipld import car, multihash
from ...common.ipld.cid import Cid
from ...common.model import MAX_BLOCK_BYTES, Struct
from ...common.peerid import name_of, shown
from ...common.peering import MAX_REPLICAS
from ..cidstore import LocalWriter
from .fetching import Progress

if TYPE_CHECKING:
    from .service import PeerService

BATCH_BYTES = 4 * 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024


class PinRequest(Struct, frozen=True, kw_only=True):
    cid: str
    kind: Literal["recursive", "direct"] = "recursive"
    replicas: Annotated[int, msgspec.Meta(ge=0, le=MAX_REPLICAS)] = 0  # 0: this peer alone
    name: Annotated[str, msgspec.Meta(max_length=255)] = ""
    here: bool = False  # the caller has just put all of it here: don't look


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

    def __init__(self, service: PeerService, token: str) -> None:
        self._service = service
        self._token = token

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
            web.post("/v1/peer/names", self._checked(self.publish)),
            web.get("/v1/peer/names", self._checked(self.names)),
        ]

    def _checked(self, handler: Handler) -> Handler:
        async def run(request: web.Request) -> web.StreamResponse:
            try:
                self._permit(request)
                return await handler(request)
            except DfsError as error:
                return web.Response(
                    body=to_json(failure_of(error)),
                    status=http_status(error),
                    content_type="application/json",
                )

        return run

    def _permit(self, request: web.Request) -> None:
        # A page in a browser on this machine may not act for its user: it can't leave this header out.
        if "Origin" in request.headers:
            raise PermissionDenied("a peer takes no orders from web pages")
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and hmac.compare_digest(given.encode(), self._token.encode()):
            return
        try:
            if ipaddress.ip_address((request.remote or "").partition("%")[0]).is_loopback:
                return
        except ValueError:
            pass
        raise PermissionDenied("a peer takes orders from its own machine, or with its token")

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
            return _json({"cid": str(cid), "holders": [shown(peer) for peer in holders]})
        await self._service.keeper.pin(cid, kind=wanted.kind, name=wanted.name, here=wanted.here)
        return _json({"cid": str(cid), "holders": [shown(self._service.node.identity.peer_id)]})

    async def unpin(self, request: web.Request) -> web.Response:
        await self._service.keeper.unpin(Cid.parse(request.match_info["cid"]))
        return _json({})

    async def pins(self, request: web.Request) -> web.Response:
        keeper = self._service.keeper
        now_s = self._service.now_s()
        found: list[dict[str, Any]] = [
            {"cid": str(Cid.from_bytes(pin.cid)), "kind": pin.kind, "name": pin.name, "replicas": 0}
            for pin in keeper.own.values()
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

    async def take_leaves(self, request: web.Request) -> web.Response:
        """Chunks of a file, whole ones but for the last, as one replica; the digests that were found, of ?hash=."""
        length = request.content_length
        if length is None or not 0 < length <= MAX_BLOCK_BYTES:
            raise RequestTooLarge("leaves come up to 128 MiB at a time, with their length said")
        code = multihash.NAMES.get(request.query.get("hash", "blake3"), -1)
        if code not in (multihash.BLAKE3, multihash.SHA2_256):
            raise InvalidRequest("leaves are hashed by blake3 or sha2-256")
        content = self._service.content
        writer = await content.run(content.cids.begin, length)
        digests: list[bytes] = []
        writing: asyncio.Future[bytes] | None = None
        try:
            left = length
            while left:
                # The next chunk comes in while the one before is hashed and written.
                chunk = await request.content.readexactly(min(CHUNK_BYTES, left))
                left -= len(chunk)
                if writing is not None:
                    digests.append(await writing)
                writing = asyncio.ensure_future(content.run(_take, writer, chunk, code))
            assert writing is not None
            digests.append(await writing)
            names = []
            if code != multihash.BLAKE3:
                names = [
                    (
                        bytes((code,)) + digest,
                        n * CHUNK_BYTES,
                        min(CHUNK_BYTES, length - n * CHUNK_BYTES),
                    )
                    for n, digest in enumerate(digests)
                ]
            await content.run(writer.finish, names)
        except asyncio.IncompleteReadError:
            raise InvalidRequest("the leaves end too early") from None
        finally:
            if writing is not None:
                await asyncio.gather(writing, return_exceptions=True)
            await content.run(writer.abandon)
        return _json({"digests": [digest.hex() for digest in digests]})

    async def have(self, request: web.Request) -> web.Response:
        wanted = await self._body(request, HaveRequest)
        cids = [Cid.parse(text) for text in wanted.cids]
        content = self._service.content
        found = await content.run(lambda: [content.cids.has(cid.multihash) for cid in cids])
        return _json({"have": found})

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


def _take(writer: LocalWriter, chunk: bytes, code: int) -> bytes:
    """Write one chunk; its digest by the hash function *code*."""
    digest = multihash.digest(code, chunk)[2:]
    writer.write(memoryview(chunk), digest if code == multihash.BLAKE3 else b"")
    return digest


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
