"""Delegated Routing V1 of a cluster: which of its DataNodes have a CID's block. Source: specs.ipfs.tech/routing/http-routing-v1.

A record's peer id stands for the DataNode: derived from its uuid, so that it is always the same and every client can parse it. Nothing is
signed by it; what a DataNode's gateway gives is proven by the CID alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp import web

from ...common.checksum import digest_of
from ...common.codec import MSGPACK, failure_of, pack, to_json, unpack
from ...common.content import FindCids
from ...common.errors import ContentNotFound, DfsError, http_status
from ...common.ipld.cid import Cid
from ...common.peerid import Identity, parse, shown
from ...common.peering import FindPlaces, FoundPlaces
from ...common.routing_v1 import JSON, NDJSON, filtered, peer_json, wants_ndjson
from .. import providers
from ..datanodes import DataNodes
from ..permissions import Caller
from ..store.base import MetadataStore

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, OPTIONS",
    "Access-Control-Allow-Headers": "Accept, Content-Type",
}
FOUND = "public, max-age=60"
NOTHING = "public, max-age=5"
ASK_TIMEOUT_S = 5.0
ASKED_AT_ONCE = 64
MAX_ANSWER_BYTES = 64 * 1024
NOBODY = Caller("routing", superuser=True)


@lru_cache(maxsize=4_096)
def peer_id(uuid: str) -> str:
    """The peer id that stands for a DataNode."""
    return shown(Identity(digest_of(b"twinfs datanode " + uuid.encode())).peer_id)


class RoutingApi:
    """Routes. *close* it on the loop it was used on."""

    def __init__(self, store: MetadataStore, nodes: DataNodes) -> None:
        self._store = store
        self._nodes = nodes
        self._http: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(ASKED_AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/routing/v1/providers/{cid}", self.providers),
            web.get("/routing/v1/peers/{peer}", self.peers),
            web.get("/routing/v1/ipns/{name}", self.names),
            web.options("/routing/v1/{rest:.*}", self.options),
        ]

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def options(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers=CORS)

    async def providers(self, request: web.Request) -> web.Response:
        try:
            cid = Cid.parse(request.match_info["cid"])
            records = await self._records(cid)
        except DfsError as error:
            return _refused(error)
        return _answer(request, "Providers", records)

    async def peers(self, request: web.Request) -> web.Response:
        try:
            wanted = shown(parse(request.match_info["peer"]))
        except DfsError as error:
            return _refused(error)
        records = [
            peer_json(wanted, [node.address.http])
            for node in self._nodes.all()
            if peer_id(node.uuid) == wanted
        ]
        return _answer(request, "Peers", records)

    async def names(self, request: web.Request) -> web.Response:
        """Mutable names are the peers' affair."""
        try:
            parse(request.match_info["name"])
        except DfsError as error:
            return _refused(error)
        return _refused(ContentNotFound("a NameNode keeps no mutable names; ask a peer"))

    async def _records(self, cid: Cid) -> list[dict[str, Any]]:
        """What the rows say; for a block that is none of its own (a chunk of a file), what the DataNodes say."""
        alive = {
            node.address.node_id: node
            for node in self._nodes.all()
            if node.address.node_id in self._nodes.not_dead()
        }
        request = FindCids(multihashes=[cid.multihash])
        nodes = self._nodes
        found = (
            await self._store.read(lambda tx: providers.find(tx, NOBODY, request, nodes=nodes))
        ).found[0]
        if found is not None:
            held = [address.node_id for address in found.located.nodes]
        else:
            held = await self._asked(cid, list(alive))
        return [
            peer_json(peer_id(alive[node_id].uuid), [alive[node_id].address.http])
            for node_id in held
            if node_id in alive
        ]

    async def _asked(self, cid: Cid, node_ids: Sequence[Any]) -> list[Any]:
        body = pack(FindPlaces(keys=[cid.multihash]))
        answers = await asyncio.gather(*(self._has(node_id, body) for node_id in node_ids))
        return [n for n, has in zip(node_ids, answers, strict=True) if has]

    async def _has(self, node_id: Any, body: bytes) -> bool:
        address = self._nodes.address(node_id)
        if address is None:
            return False
        if self._http is None:
            self._http = aiohttp.ClientSession(auto_decompress=False)
        try:
            async with self._slots, asyncio.timeout(ASK_TIMEOUT_S):
                async with self._http.post(
                    f"http://{address.http}/v1/cids/find",
                    data=body,
                    headers={"Content-Type": MSGPACK},
                    allow_redirects=False,
                ) as response:
                    if response.status != 200:
                        return False
                    answer = unpack(await response.content.read(MAX_ANSWER_BYTES), FoundPlaces)
        except (TimeoutError, OSError, aiohttp.ClientError, DfsError):
            return False
        return answer.places[:1] != [None] and bool(answer.places)


def _refused(error: DfsError) -> web.Response:
    return web.Response(
        body=to_json(failure_of(error)),
        status=http_status(error),
        content_type=JSON,
        headers=CORS,
    )


def _answer(request: web.Request, name: str, records: list[dict[str, Any]]) -> web.Response:
    kept = [r for record in records if (r := filtered(record, request.query)) is not None]
    headers = {**CORS, "Vary": "Accept", "Cache-Control": FOUND if kept else NOTHING}
    if wants_ndjson(request.headers.get("Accept", "")):
        lines = b"".join(json.dumps(record).encode() + b"\n" for record in kept)
        return web.Response(body=lines, content_type=NDJSON, headers=headers)
    return web.Response(body=json.dumps({name: kept}).encode(), content_type=JSON, headers=headers)
