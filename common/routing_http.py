"""Answers of delegated routing over HTTP, as NameNodes and peers give them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from .codec import failure_of, to_json
from .errors import ContentNotFound, DfsError, http_status
from .routing_v1 import JSON, NDJSON, filtered, wants_ndjson

FOUND = "public, max-age=300, stale-while-revalidate=172800, stale-if-error=172800"
NOTHING = "public, max-age=15, stale-while-revalidate=172800, stale-if-error=172800"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, OPTIONS",
    "Access-Control-Allow-Headers": "Accept, Content-Type",
}


def refused(error: DfsError) -> web.Response:
    """An error of a routing request."""
    status = 404 if isinstance(error, ContentNotFound) else http_status(error)
    return web.Response(
        body=to_json(failure_of(error)), status=status, content_type=JSON, headers=CORS
    )


async def answer_records(
    request: web.Request, name: str, found: AsyncIterator[dict[str, Any]]
) -> web.StreamResponse:
    """Records as JSON, or one a line as they come."""
    query = request.query
    if not wants_ndjson(request.headers.get("Accept", "")):
        try:
            listed = [r async for record in found if (r := filtered(record, query)) is not None]
        except DfsError as error:
            return refused(error)
        headers = {**CORS, "Vary": "Accept", "Cache-Control": FOUND if listed else NOTHING}
        body = json.dumps({name: listed}).encode()
        return web.Response(body=body, content_type=JSON, headers=headers)
    # Whether there are any is not known when the headers go.
    headers = {**CORS, "Vary": "Accept", "Cache-Control": NOTHING, "Content-Type": NDJSON}
    response = web.StreamResponse(headers=headers)
    try:
        await response.prepare(request)
        async for record in found:
            if (kept := filtered(record, query)) is not None:
                await response.write(json.dumps(kept).encode() + b"\n")
        await response.write_eof()
    except (DfsError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()
    return response
