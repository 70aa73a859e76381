"""Answers of delegated routing: what caches and clients are told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from twinfs.common.routing_http import answer_records
from twinfs.common.routing_v1 import peer_json

PEER = "12D3KooWGRUacXDdcPcMnLFYXzYfMvbWmVUGVU1vBWhZ4PzTVCPt"


@pytest.mark.parametrize("found", [0, 3])
async def test_json_and_ndjson(found: int) -> None:
    """Both vary by Accept; what was found is kept for minutes, that nothing was for seconds."""
    records = [peer_json(PEER, [f"127.0.0.1:{4000 + n}"]) for n in range(found)]

    async def all_of_them() -> AsyncIterator[dict[str, Any]]:
        for record in records:
            yield record

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answer_records(request, "Providers", all_of_them())

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestClient(TestServer(app)) as client:
        async with client.get("/", headers={"Accept": "application/json"}) as given:
            assert (given.status, given.headers["Vary"]) == (200, "Accept")
            assert given.content_type == "application/json"
            seconds = 300 if found else 15
            assert f"max-age={seconds}," in given.headers["Cache-Control"]
            assert await given.json() == {"Providers": records}
        accept = "application/x-ndjson, application/json"
        async with client.get("/", headers={"Accept": accept}) as given:
            assert (given.status, given.headers["Vary"]) == (200, "Accept")
            assert given.content_type == "application/x-ndjson"
            lines = (await given.text()).splitlines()
            assert [json.loads(line) for line in lines] == records
        query = {"filter-protocols": "transport-bitswap"}
        async with client.get("/", params=query) as given:
            assert await given.json() == {"Providers": []}
