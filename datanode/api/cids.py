"""Where CID blocks lie on this DataNode, for clients that read replicas: `POST /v1/cids/find`."""

from __future__ import annotations

from aiohttp import web

from ...common import codec
from ...common.codec import failure_of, unpack
from ...common.errors import DfsError, RequestTooLarge, Unsupported, http_status
from ...common.peering import CidPlace, FindPlaces, FoundPlaces
from ..cidstore import CidStore
from ..content import Content

MAX_BODY_BYTES = 256 * 1024


class CidsApi:
    def __init__(self, content: Content) -> None:
        self._content = content

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/cids/find", self.find)]

    async def find(self, request: web.Request) -> web.Response:
        try:
            if request.content_length is None or request.content_length > MAX_BODY_BYTES:
                raise RequestTooLarge(f"a question has at most {MAX_BODY_BYTES} bytes")
            wanted = unpack(await request.read(), FindPlaces)
            answer = await self._content.run(_places, self._content.cids, wanted)
        except DfsError as error:
            return web.Response(
                body=codec.pack(failure_of(error)),
                status=http_status(error),
                content_type=codec.MSGPACK,
            )
        return web.Response(body=codec.pack(answer), content_type=codec.MSGPACK)


def _places(cids: CidStore, wanted: FindPlaces) -> FoundPlaces:
    found: list[CidPlace | None] = []
    for key in wanted.keys:
        try:
            place = cids.place(key)
        except Unsupported:
            place = None
        found.append(
            None
            if place is None
            else CidPlace(
                block_id=place[0].block_id,
                generation=place[0].generation,
                offset=place[1],
                length=place[2],
            )
        )
    return FoundPlaces(places=found)
