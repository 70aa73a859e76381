"""What operators and their programs ask of a NameNode: metrics, health, readiness."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ...common import codec
from ...common.errors import DfsError
from ...common.metrics import CONTENT_TYPE, Exposition, readiness
from ..safemode import SafeModeGate
from ..store.base import MetadataStore

STORE_LIMIT_S = 5.0  # a store that answers nothing for so long does not work


class StatusApi:
    """Routes for Prometheus and for whoever starts and stops the process."""

    def __init__(self, exposition: Exposition, store: MetadataStore, gate: SafeModeGate) -> None:
        self._exposition = exposition
        self._store = store
        self._gate = gate

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
        ]

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._exposition.text(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(self, request: web.Request) -> web.Response:
        """Whether the process works at all. If not, restarting it is the thing to do."""
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """Whether clients can be sent here: the database answers, and writes are allowed."""
        problems = []
        try:
            async with asyncio.timeout(STORE_LIMIT_S):
                await self._store.read(lambda tx: tx.one("SELECT 1"))
        except TimeoutError:
            problems.append(f"the metadata store has not answered for {STORE_LIMIT_S:.0f} s")
        except DfsError as error:
            problems.append(error.message)
        reason = self._gate.reason()
        if reason:
            problems.append(f"safe mode: {reason}")
        status, facts = readiness(problems, safe_mode=reason)
        return web.Response(
            body=codec.to_json(facts) + b"\n", status=status, content_type="application/json"
        )
