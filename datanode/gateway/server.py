"""The gateway's routes: from what was asked to bytes on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mimetypes
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache

from aiohttp import web

from ...client.content_reader import read_file
from ...common.codec import failure_of, to_json
from ...common.errors import (
    BlockNotFound,
    ContentNotFound,
    DfsError,
    InvalidRequest,
    IsADirectory,
    LinkNotFound,
    NotADirectory,
    Unsupported,
    http_status,
)
from ...common.ipld import car, dag
from ...common.ipld.cid import MAX_BLOCK_BYTES, Cid
from ...common.ipld.dag import Block, Entity, Resolved
from ...common.ipld.unixfs import Kind
from ..cidstore import Opened
from ..content import Content
from ..pacing import ServeLimit
from . import tar
from .asked import (
    Asked,
    Form,
    OutsideRange,
    byte_range,
    disposition,
    escape,
    is_page_wanted,
    location,
    matches,
    parse_cid,
    parse_form,
    parse_path,
)
from .cars import car_blocks, frames
from .pages import folder_page
from .values import NotAcceptable, answer, is_value

log = logging.getLogger(__name__)
IMMUTABLE = "public, max-age=29030400, immutable"
FOLDER_CACHING = "public, max-age=604800, stale-while-revalidate=2678400"  # pages made here
MAX_LISTED = 100_000  # entries on a page
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Accept, Content-Type, If-None-Match, Range",
    "Access-Control-Expose-Headers": "Content-Range, Content-Length, X-Ipfs-Path, X-Ipfs-Roots",
}
# Pages from content must not act in the name of this server: they run in an origin of their own.
SANDBOX = {
    "Content-Security-Policy": "sandbox allow-scripts allow-forms allow-popups allow-downloads"
}
ResolveName = Callable[[str], Awaitable[tuple[Cid, list[str], int, bytes]]]


@lru_cache(maxsize=8192)
def _cid(text: str) -> Cid:
    return parse_cid(text)


class Gateway:
    """`/ipfs/` and `/ipns/`. *names*: what resolves a mutable name to (root, path, seconds it holds, record)."""

    def __init__(
        self,
        content: Content,
        limit: ServeLimit,
        *,
        names: ResolveName | None = None,
        max_busy: int = 256,
    ) -> None:
        self._limit = limit
        self._content = content
        self._names = names
        self._slots = asyncio.Semaphore(max_busy)  # of answers that take more than one block

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/ipfs/{path:.*}", self.ipfs),
            web.get("/ipns/{path:.*}", self.ipns),
            web.options("/{kind:ipfs|ipns}/{path:.*}", self.options),
        ]

    async def options(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers=CORS)

    async def ipfs(self, request: web.Request) -> web.StreamResponse:
        return await _answered(self._ipfs(request))

    async def _ipfs(self, request: web.Request) -> web.StreamResponse:
        root, names, slash = parse_path(request.rel_url.raw_path, "/ipfs/")
        cid = _cid(root)
        _refuse_worker(request, slash or bool(names))
        asked = parse_form(request.query, request.headers.get("Accept", ""))
        if asked.form == Form.RAW and not names:
            return await self._raw(request, asked, cid, [cid], f"/ipfs/{root}")
        return await self._under(request, asked, cid, names, slash, f"/ipfs/{root}", IMMUTABLE)

    async def ipns(self, request: web.Request) -> web.StreamResponse:
        return await _answered(self._ipns(request))

    async def _ipns(self, request: web.Request) -> web.StreamResponse:
        name, names, slash = parse_path(request.rel_url.raw_path, "/ipns/")
        if self._names is None:
            raise Unsupported("this gateway knows no mutable names")
        _refuse_worker(request, slash or bool(names))
        asked = parse_form(request.query, request.headers.get("Accept", ""))
        root, before, holds_s, record = await self._names(name)
        caching = f"public, max-age={holds_s}"
        if asked.form == Form.RECORD:
            headers = {
                **CORS,
                "Content-Type": "application/vnd.ipfs.ipns-record",
                "Cache-Control": caching,
                "X-Content-Type-Options": "nosniff",
                "Content-Disposition": disposition("attachment", f"{name}.ipns-record"),
            }
            return web.Response(body=record, headers=headers)
        where = f"/ipns/{name}"
        if asked.form == Form.RAW and not names and not before:
            return await self._raw(request, asked, root, [root], where, caching)
        return await self._under(
            request, asked, root, before + names, slash, where, caching, len(before)
        )

    # --- one block ---

    async def _raw(
        self,
        request: web.Request,
        asked: Asked,
        cid: Cid,
        steps: list[Cid],
        path: str,
        caching: str = IMMUTABLE,
    ) -> web.StreamResponse:
        """A block as it is. Whoever gets it has its hash, so it is not verified once more here."""
        etag = f'"{cid}.raw"'
        headers = {
            **CORS,
            "Content-Type": "application/vnd.ipld.raw",
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": disposition("attachment", asked.filename or f"{cid}.bin"),
            "Etag": etag,
            "Cache-Control": caching,
            "X-Ipfs-Path": escape(path),
            "X-Ipfs-Roots": ",".join(map(str, steps)),
            "Vary": "Accept",
            **_content_location(request, asked),
        }
        if (known := request.headers.get("If-None-Match")) and matches(known, etag):
            return web.Response(status=304, headers=headers)
        opened = await self._content.open(cid.multihash)
        if opened is None:
            # At once: a client that asks many peers waits for the slowest of them.
            raise _not_here(request, cid)
        if opened.data is not None:
            body = opened.data
            if (wanted := request.headers.get("Range")) and (part := byte_range(wanted, len(body))):
                headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{len(body)}"
                return web.Response(
                    status=206, body=bytes(body[part[0] : part[1]]), headers=headers
                )
            headers["Content-Length"] = str(len(body))  # also of nothing, and to HEAD
            await self._limit.wait(len(body))
            return web.Response(body=body, headers=headers)
        try:
            return await self._send_range(request, opened, headers)
        finally:
            os.close(opened.descriptor)

    async def _send_range(
        self, request: web.Request, opened: Opened, headers: dict[str, str]
    ) -> web.StreamResponse:
        """A range of a replica's file, by the kernel."""
        start, end, status = 0, opened.length, 200
        if (wanted := request.headers.get("Range")) and (part := byte_range(wanted, end)):
            headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{end}"
            start, end, status = *part, 206
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - start
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        transport = request.transport
        if transport is None:
            return response
        writer = response._payload_writer
        loop = asyncio.get_running_loop()
        with os.fdopen(os.dup(opened.descriptor), "rb", buffering=0) as file:
            if writer is not None:
                # Headers that wait for the first bytes of the body go before what the kernel sends.
                writer.send_headers()
            sent, step = 0, self._limit.slice_bytes or MAX_BLOCK_BYTES
            try:
                for at in range(start, end, step):
                    size = min(step, end - at)
                    await self._limit.wait(size)
                    sent += await loop.sendfile(transport, file, opened.start + at, size)
            except (OSError, RuntimeError):
                transport.abort()  # the client has gone, most likely
                return response
        if sent != end - start:
            transport.abort()  # the promised length can't be kept: a broken connection says so
        return response

    # --- paths ---

    async def _under(
        self,
        request: web.Request,
        asked: Asked,
        root: Cid,
        names: list[str],
        slash: bool,
        where: str,
        caching: str,
        hidden: int = 0,
    ) -> web.StreamResponse:
        """What *names* below *root* lead to. *hidden*: names that are in a record and not in the URL."""
        get = self._getter(request, asked)
        async with self._slots:
            try:
                found = await dag.run_async(dag.resolve(root, names), get)
            except ContentNotFound:
                raise _not_here(request, root) from None
            path = "/".join([where, *names[hidden:]])
            if asked.form == Form.RAW:
                return await self._raw(request, asked, found.cid, found.steps, path, caching)
            if asked.form == Form.CAR:
                return await self._car(request, asked, found, path, caching, get)
            if asked.form == Form.RECORD:
                raise Unsupported("only names have records")
            try:
                block = await get(found.cid)
            except ContentNotFound:
                raise _not_here(request, found.cid) from None
            headers = {
                **CORS,
                "Cache-Control": caching,
                "X-Ipfs-Path": escape(path + ("/" if slash else "")),
                "X-Ipfs-Roots": ",".join(map(str, found.steps)),
                "Vary": "Accept",
                **_content_location(request, asked),
            }
            if is_value(asked.form, found.cid.codec):
                return await self._value(request, asked, found.cid, block, path, headers)
            entity = dag.entity(found.cid, block)
            if asked.form == Form.TAR:
                return await self._tar(request, asked, entity, headers, get)
            if entity.kind in (Kind.DIRECTORY, Kind.HAMT_SHARD):
                return await self._folder(request, asked, entity, path, slash, headers, get)
            name = names[-1] if names else ""
            return await self._file(request, asked, entity, name, headers, get)

    def _getter(self, request: web.Request, asked: Asked) -> Callable[[Cid], Awaitable[Block]]:
        local = "only-if-cached" in request.headers.get("Cache-Control", "")

        async def get(cid: Cid) -> Block:
            if not local:
                return await self._content.block(cid)
            try:
                return cid.digest if cid.is_identity else await self._content.local(cid)
            except BlockNotFound:
                raise ContentNotFound(f"the block {cid} is not here") from None

        return get

    async def _value(
        self,
        request: web.Request,
        asked: Asked,
        cid: Cid,
        block: Block,
        path: str,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        """A block of dag-json, dag-cbor or their kin, and whatever was asked for as such."""
        html = is_page_wanted(request.headers.get("Accept", ""))
        value = await self._content.run(lambda: answer(cid, block, asked, html=html, path=path))
        tag = f".{value.tag}" if value.tag else ""
        etag = headers["Etag"] = f'"DagIndex-1_CID-{cid}"' if value.page else f'"{cid}{tag}"'
        if (known := request.headers.get("If-None-Match")) and matches(known, etag):
            return web.Response(status=304, headers=headers)
        body, status = value.body, 200
        if value.page:
            headers["Cache-Control"] = FOLDER_CACHING
        else:
            kind = "inline" if value.extension == "json" and not asked.download else "attachment"
            name = asked.filename or f"{cid}.{value.extension}"
            headers["Content-Disposition"] = disposition(kind, name)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Accept-Ranges"] = "bytes"
            if (wanted := request.headers.get("Range")) and (part := byte_range(wanted, len(body))):
                headers["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{len(body)}"
                body, status = body[part[0] : part[1]], 206
        headers["Content-Type"] = value.content_type
        await self._limit.wait(len(body))
        return web.Response(status=status, body=bytes(body), headers=headers)

    async def _file(
        self,
        request: web.Request,
        asked: Asked,
        entity: Entity,
        name: str,
        headers: dict[str, str],
        get: Callable[[Cid], Awaitable[Block]],
    ) -> web.StreamResponse:
        etag = headers["Etag"] = f'"{entity.cid}"'
        if (known := request.headers.get("If-None-Match")) and matches(known, etag):
            return web.Response(status=304, headers=headers)
        shown = asked.filename or name
        if asked.filename or asked.download:
            kind = "attachment" if asked.download else "inline"
            headers["Content-Disposition"] = disposition(kind, shown or str(entity.cid))
        if entity.kind == Kind.SYMLINK:
            assert entity.value is not None
            headers["Content-Type"] = "inode/symlink"
            return web.Response(body=entity.value.data or b"", headers=headers)
        start, end, status = 0, entity.size, 200
        if (wanted := request.headers.get("Range")) and (part := byte_range(wanted, entity.size)):
            start, end, status = *part, 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{entity.size}"
        headers["Accept-Ranges"] = "bytes"
        pieces = read_file(get, entity, start, end)
        try:
            first = await anext(pieces, b"")
            headers["Content-Type"] = content_type(shown, first, whole=start == 0)
            if "html" in headers["Content-Type"] or "xml" in headers["Content-Type"]:
                headers.update(SANDBOX)
            response = web.StreamResponse(status=status, headers=headers)
            response.content_length = end - start
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            await _write_all(request, response, first, pieces, self._limit)
            return response
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]

    async def _folder(
        self,
        request: web.Request,
        asked: Asked,
        entity: Entity,
        path: str,
        slash: bool,
        headers: dict[str, str],
        get: Callable[[Cid], Awaitable[Block]],
    ) -> web.StreamResponse:
        if not slash:
            query = (
                f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
            )
            headers["Location"] = escape(path) + "/" + query
            headers.pop("Cache-Control")
            return web.Response(status=301, headers=headers)
        with contextlib.suppress(LinkNotFound):
            index = await dag.run_async(dag.lookup(entity, "index.html"), get)
            page = dag.entity(index, await get(index))
            if page.kind in (Kind.FILE, Kind.RAW):
                return await self._file(request, asked, page, "index.html", headers, get)
        etag = headers["Etag"] = f'"DirIndex-1_CID-{entity.cid}"'
        headers["Cache-Control"] = FOLDER_CACHING
        if (known := request.headers.get("If-None-Match")) and matches(known, etag):
            return web.Response(status=304, headers=headers)
        listed = await dag.run_async(dag.entries(entity, max_entries=MAX_LISTED), get)
        listed.sort(key=lambda entry: entry.name.encode("utf-8", "surrogateescape"))
        body = await self._content.run(
            lambda: folder_page(path + "/", str(entity.cid), listed, has_parent=path.count("/") > 2)
        )
        headers["Content-Type"] = "text/html; charset=utf-8"
        return web.Response(body=body, headers=headers)

    async def _tar(
        self,
        request: web.Request,
        asked: Asked,
        entity: Entity,
        headers: dict[str, str],
        get: Callable[[Cid], Awaitable[Block]],
    ) -> web.StreamResponse:
        etag = headers["Etag"] = f'W/"{entity.cid}.x-tar"'
        headers["Content-Type"] = "application/x-tar"
        headers["X-Content-Type-Options"] = "nosniff"
        name = asked.filename or f"{entity.cid}.tar"
        headers["Content-Disposition"] = disposition("attachment", name)
        headers["Accept-Ranges"] = "none"
        if (known := request.headers.get("If-None-Match")) and matches(known, etag):
            return web.Response(status=304, headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            pieces = tar.stream(get, entity, str(entity.cid))
            await _write_all(request, response, b"", pieces, self._limit)
        return response

    async def _car(
        self,
        request: web.Request,
        asked: Asked,
        found: Resolved,
        path: str,
        caching: str,
        get: Callable[[Cid], Awaitable[Block]],
    ) -> web.StreamResponse:
        options = asked.car
        etag = f'W/"{found.cid}.car.{options.tag}"'
        headers = {
            **CORS,
            "Content-Type": f"application/vnd.ipld.car; version=1; order=dfs; dups={'y' if options.dups else 'n'}",
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": disposition("attachment", asked.filename or f"{found.cid}.car"),
            "Accept-Ranges": "none",
            "Etag": etag,
            "Cache-Control": caching,
            "X-Ipfs-Path": escape(path),
            "X-Ipfs-Roots": ",".join(map(str, found.steps)),
            "Vary": "Accept",
            **_content_location(request, asked),
        }
        if (known := request.headers.get("If-None-Match")) and matches(known, etag):
            return web.Response(status=304, headers=headers)
        try:
            root = await get(
                found.cid
            )  # a root that is not here is a 404, not a CAR that breaks off
        except ContentNotFound:
            raise _not_here(request, found.cid) from None
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        blocks = car_blocks(found, root, asked, get)
        head = car.header([found.cid])
        await _write_all(request, response, head, frames(blocks), self._limit)
        return response


async def _write_all(
    request: web.Request,
    response: web.StreamResponse,
    first: Block,
    pieces: AsyncIterator[Block],
    limit: ServeLimit,
) -> None:
    """Send *first* and *pieces*. What fails in the middle breaks the connection: a clean end would say that it was all."""
    try:
        if first:
            await response.write(first)
        async for piece in pieces:
            await limit.wait(len(piece))
            await response.write(piece)
        await response.write_eof()
    except (DfsError, ConnectionError) as error:
        if isinstance(error, DfsError):
            log.info("%s breaks off: %s", request.path[:200], error.message)
        if request.transport is not None:
            request.transport.abort()


def content_type(name: str, first: Block, *, whole: bool) -> str:
    """By the name; else text if the first bytes are text."""
    guessed, encoding = mimetypes.guess_type(name) if name else (None, None)
    if encoding == "gzip":
        return "application/gzip"
    if encoding:
        return "application/octet-stream"
    if guessed is not None:
        return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed
    head = bytes(first[:512])
    if not whole or b"\0" in head:
        return "application/octet-stream"
    for start, kind in (
        (b"\x89PNG\r\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF-", "application/pdf"),
    ):
        if head.startswith(start):
            return kind
    for cut in range(4):
        with contextlib.suppress(UnicodeDecodeError):
            head[: len(head) - cut].decode()
            return "text/plain; charset=utf-8"
    return "application/octet-stream"


def _content_location(request: web.Request, asked: Asked) -> dict[str, str]:
    if not asked.negotiated:
        return {}
    return {
        "Content-Location": location(
            request.rel_url.raw_path, request.rel_url.raw_query_string, asked
        )
    }


def _refuse_worker(request: web.Request, inside: bool) -> None:
    """A page's script may take over what lies in its own content, not this whole server."""
    if not inside and request.headers.get("Service-Worker") == "script":
        raise InvalidRequest("a service worker is registered for what is below a content root")


def _not_here(request: web.Request, cid: Cid) -> DfsError:
    if "only-if-cached" in request.headers.get("Cache-Control", ""):
        return NotCached(f"{cid} is not here, and it was not to be fetched")
    return ContentNotFound(f"{cid} is not here")


class NotCached(ContentNotFound):
    """412, where the client asked for what is here alone."""


async def _answered(answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
    """*answer*, or what the client is told where there is none."""
    try:
        return await answer
    except DfsError as error:
        return refused(error)
    except ConnectionError:
        return web.Response(status=499)  # the client has gone, as is its right
    except OutsideRange as outside:
        return web.Response(status=416, headers={**CORS, "Content-Range": str(outside)})


def refused(error: DfsError) -> web.Response:
    """An error as the gateway answers it."""
    status = http_status(error)
    if isinstance(error, NotCached):
        status = 412
    elif isinstance(error, NotAcceptable):
        status = 406
    elif isinstance(error, dag.EndsInside):
        status = 501
    elif isinstance(error, ContentNotFound | LinkNotFound | NotADirectory | IsADirectory):
        status = 404
    elif isinstance(error, Unsupported):
        status = 400
    elif status == 422:
        status = 502  # our own copy is damaged: nothing is wrong with the request
    headers = (
        {**CORS, "Cache-Control": "no-store"}
        if status != 404
        else {**CORS, "Cache-Control": "public, max-age=5"}
    )
    return web.Response(
        status=status,
        body=to_json(failure_of(error)),
        content_type="application/json",
        headers=headers,
    )


__all__ = ["CORS", "Gateway", "content_type", "refused"]
