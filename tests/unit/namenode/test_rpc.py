"""The RPC connection, where a real client can't be made to behave so at will."""

from __future__ import annotations

from unittest.mock import AsyncMock, MagicMock

from aiohttp import web
from aiohttp.client_exceptions import ClientConnectionResetError
from aiohttp.test_utils import make_mocked_request

from twinfs.namenode.api.rpc import RpcApi


async def test_a_client_that_goes_while_it_is_greeted_is_no_failure_of_ours() -> None:
    writer = MagicMock()
    writer.write_headers = AsyncMock(side_effect=ClientConnectionResetError("closing"))
    request = make_mocked_request(
        "GET",
        "/v1/rpc",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
        },
        writer=writer,
    )
    api = RpcApi(
        MagicMock(), cluster_id="c", version="1", max_request_bytes=1000, metrics=MagicMock()
    )
    assert isinstance(await api.websocket(request), web.Response)
