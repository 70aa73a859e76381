"""Delegated routing, version 1, on a DataNode: `/routing/v1/providers`, `/peers`, `/ipns`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ...common.errors import ContentNotFound, DfsError, InvalidRequest
from ...common.ipns import MAX_RECORD_BYTES
from ...common.peerid import parse, shown
from ...common.routing_http import CORS, answer_records, refused
from ...common.routing_v1 import peer_json
from ..content import Content
from ..gateway.asked import parse_cid
from .node import PeerNode

if TYPE_CHECKING:
    from .service import PeerService

MAX_PROVIDERS = 100
RECORD_TYPE = "application/vnd.ipfs.ipns-record"


class RoutingApi:
    """*service*: its parts are made once the server's address is known."""

    def __init__(self, service: PeerService) -> None:
        self._service = service

    @property
    def _node(self) -> PeerNode:
        return self._service.node

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/routing/v1/providers/{cid}", self.providers),
            web.get("/routing/v1/peers/{peer}", self.peers),
            web.get("/routing/v1/ipns/{name}", self.get_name),
            web.put("/routing/v1/ipns/{name}", self.put_name),
            web.options("/routing/v1/{rest:.*}", self.options),
        ]

    async def options(self, request: web.Request) -> web.Response:
        methods = "GET, PUT, OPTIONS" if "/ipns/" in request.path else "GET, OPTIONS"
        return web.Response(status=204, headers={**CORS, "Access-Control-Allow-Methods": methods})

    async def providers(self, request: web.Request) -> web.StreamResponse:
        try:
            cid = parse_cid(request.match_info["cid"])
        except DfsError as error:
            return refused(error)

        async def found() -> AsyncIterator[dict[str, Any]]:
            if await self._service.content.run(_has, self._service.content, cid.multihash):
                yield peer_json(shown(self._node.identity.peer_id), self._node.me.addresses)
            async for record in self._node.find_providers(cid.multihash, MAX_PROVIDERS):
                yield peer_json(shown(record.peer), record.addresses)

        return await answer_records(request, "Providers", found())

    async def peers(self, request: web.Request) -> web.StreamResponse:
        try:
            peer = parse(request.match_info["peer"])
        except DfsError as error:
            return refused(error)

        async def found() -> AsyncIterator[dict[str, Any]]:
            try:
                record = await self._node.find_peer(peer)
            except ContentNotFound:
                return
            yield peer_json(shown(record.peer), record.addresses)

        return await answer_records(request, "Peers", found())

    async def get_name(self, request: web.Request) -> web.Response:
        try:
            record = await self._node.resolve_name(parse(request.match_info["name"]))
        except DfsError as error:
            return refused(error)
        headers = {
            **CORS,
            "Cache-Control": f"public, max-age={int(min(record.ttl_s, 300))}",
            "Etag": f'"{record.sequence}-{record.expires_ms}"',
            "Vary": "Accept",
        }
        return web.Response(body=record.raw, content_type=RECORD_TYPE, headers=headers)

    async def put_name(self, request: web.Request) -> web.Response:
        try:
            if request.content_type != RECORD_TYPE:
                raise InvalidRequest(f"a record comes as {RECORD_TYPE}")
            if (request.content_length or 0) > MAX_RECORD_BYTES:
                raise InvalidRequest("an IPNS record is at most 10 KiB long")
            body = await request.content.read(MAX_RECORD_BYTES + 1)
            while len(body) <= MAX_RECORD_BYTES and not request.content.at_eof():
                body += await request.content.read(MAX_RECORD_BYTES + 1)
            await self._service.names.accept(parse(request.match_info["name"]), body)
        except DfsError as error:
            return refused(error)
        return web.Response(status=200, headers=CORS)


def _has(content: Content, hashed: bytes) -> bool:
    try:
        return content.cids.has(hashed)
    except DfsError:
        return False  # of a hash function that is not kept here
