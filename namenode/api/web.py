"""The dashboard: its first page, and the stream that keeps open pages up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from ...common import codec, page_tokens
from ...common.assets import SECURITY, Assets
from ...common.codec import failure_of
from ...common.errors import Busy, DfsError, PermissionDenied, http_status
from ...common.runtime import Clock
from ...common.watch import GetPageToken, PageToken
from ..datanodes import DataNodes
from ..overview import Watcher
from ..permissions import Caller

log = logging.getLogger(__name__)
MAX_PAGES = 200  # open dashboards
MAX_ORIGINS = 1_000  # DataNodes that a page may talk to: they are named in one header
SEND_TIMEOUT_S = 30.0  # a browser that takes nothing for so long has gone


class WebApi:
    """Routes of the dashboard."""

    def __init__(self, watcher: Watcher, nodes: DataNodes, clock: Clock, page_key: bytes) -> None:
        """*page_key* signs the tokens with which pages talk to DataNodes."""
        self._watcher = watcher
        self._nodes = nodes
        self._clock = clock
        self._page_key = page_key
        self._assets = Assets()
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.front),
            web.get("/bytes.js", self.bytes),
            *self._assets.routes(),
            web.get("/v1/live", self.live),
        ]

    def close(self) -> None:
        """Let the pages go: they connect again when there is a NameNode again."""
        self._closing.set()

    async def front(self, request: web.Request) -> web.Response:
        return self._assets.page(request, "index.html")

    async def bytes(self, request: web.Request) -> web.Response:
        """The script through which pages reach DataNodes: all that are known, for the dead may come back while a page is open."""
        living = sorted(self._nodes.all(), key=lambda node: self._nodes.state(node) == "dead")
        origins = [f"http://{node.address.http}" for node in living if node.address.http]
        return self._assets.worker(request, "bytes.js", origins[:MAX_ORIGINS])

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `overview` every two seconds. A page that is slow misses some, and sees the newest."""
        watcher = self._watcher
        if watcher.pages >= MAX_PAGES:
            error = Busy(f"{MAX_PAGES} dashboards are open already")
            return web.Response(body=codec.to_json(failure_of(error)), status=http_status(error))
        response = web.StreamResponse(
            headers={
                **SECURITY,
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        watcher.pages += 1
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            while not closing.done():
                body = codec.to_json(watcher.look())
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await response.write(b"event: overview\ndata: " + body + b"\n\n")
                tick = asyncio.ensure_future(watcher.ticked())
                try:
                    await asyncio.wait((tick, closing), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    tick.cancel()
        except (ConnectionError, TimeoutError):
            pass  # the browser has gone
        finally:
            closing.cancel()
            watcher.pages -= 1
        return response

    async def page_token(self, caller: Caller, request: GetPageToken) -> PageToken:
        expires_ms = self._clock.wall_ms() + page_tokens.LIFE_MS
        token = page_tokens.make(self._page_key, caller.user, expires_ms)
        return PageToken(token=token, expires_ms=expires_ms, user=caller.user)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a page of another site makes a browser send to the NameNode's own interface.

    Nothing is authenticated yet, so the network is what protects a cluster; but a browser inside that network also runs pages
    from outside. Programs send no Origin and are not concerned.
    """
    origin = request.headers.get("Origin")
    if origin is not None and request.path.startswith("/v1/"):
        host = origin.partition("://")[2]
        if host != request.host:
            error: DfsError = PermissionDenied("pages of other sites may not talk to this NameNode")
            log.warning("refused a request that a page of %.100r sent", origin)
            return web.Response(
                body=codec.to_json(failure_of(error)),
                status=http_status(error),
                content_type="application/json",
            )
    return await handler(request)
