"""What operators and their programs ask of a DataNode: metrics, readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ...common import codec
from ...common.metrics import CONTENT_TYPE, Exposition


class StatusApi:
    """Routes for Prometheus and for whoever starts and stops the process."""

    def __init__(
        self, exposition: Exposition, readiness: Callable[[], tuple[int, dict[str, Any]]]
    ) -> None:
        self._exposition = exposition
        self._readiness = readiness

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/metrics", self.metrics), web.get("/readyz", self.readyz)]

    async def metrics(self, request: web.Request) -> web.Response:
        # In a thread: looking at a volume that hangs must not stop the process.
        body = await asyncio.to_thread(self._exposition.text)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def readyz(self, request: web.Request) -> web.Response:
        status, facts = self._readiness()
        return web.Response(
            body=codec.to_json(facts) + b"\n", status=status, content_type="application/json"
        )
