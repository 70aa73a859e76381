"""The DataNode's HTTP interface: bytes of a replica by range, status, health."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiohttp import web

from ...common import codec
from ...common.checksum import block_digest
from ...common.codec import failure_of
from ...common.errors import DfsError, http_status
from ...common.model import BlockId, BlockRef, GenerationStamp
from ..blockstore import BlockStore
from .asked import number_of, range_of

PIECE_BYTES = 1024 * 1024


class BlocksApi:
    """Routes of a DataNode."""

    def __init__(self, store: BlockStore, status: dict[str, Any]) -> None:
        self._store = store
        self._status = status

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/blocks/{block_id}", self.block),
            web.get("/v1/status", self.status),
            web.get("/healthz", self.healthz),
        ]

    async def healthz(self, request: web.Request) -> web.Response:
        working = any(not volume.failure for volume in self._store.volumes)
        return web.Response(
            text="ok\n" if working else "no volume\n", status=200 if working else 503
        )

    async def status(self, request: web.Request) -> web.Response:
        volumes = await asyncio.to_thread(lambda: [v.report() for v in self._store.volumes])
        body = codec.to_json({**self._status, "blocks": self._store.totals(), "volumes": volumes})
        return web.Response(body=body, content_type="application/json")

    async def block(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/blocks/ID?generation=N`, with Range."""
        try:
            return await self._block(request)
        except DfsError as error:
            return web.Response(
                body=codec.to_json(failure_of(error)),
                status=http_status(error),
                content_type="application/json",
            )

    async def _block(self, request: web.Request) -> web.StreamResponse:
        block = BlockRef(
            block_id=BlockId(number_of(request.match_info["block_id"], "block id")),
            generation=GenerationStamp(
                number_of(request.query.get("generation", ""), "generation")
            ),
        )
        found = await asyncio.to_thread(self._store.open, block)
        try:
            start, end, partial = range_of(request, found.length)
            response = web.StreamResponse(
                status=206 if partial else 200,
                headers={
                    "Content-Type": "application/octet-stream",
                    "Accept-Ranges": "bytes",
                    "Content-Length": str(end - start),
                    "ETag": f'"{block_digest(found.digests).hex()}"',
                },
            )
            if partial:
                response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.length}"
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            while start < end:
                size = min(PIECE_BYTES, end - start)
                if found.data is not None:
                    piece = found.data[start : start + size]
                else:
                    piece = await asyncio.to_thread(os.pread, found.descriptor, size, start)
                if not piece:
                    # The promised length can't be kept: a broken connection says so.
                    if request.transport is not None:
                        request.transport.abort()
                    return response
                await response.write(piece)
                start += len(piece)
            await response.write_eof()
            return response
        finally:
            if found.descriptor >= 0:
                os.close(found.descriptor)
