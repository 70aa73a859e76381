"""The DataNode's own page, and the door through which pages of the dashboard send and fetch the bytes of files.

The NameNode moves no bytes, so its pages talk to DataNodes. Every request carries a token of the NameNode's
(common/page_tokens.py) in its query; with a good one, the browser is told that it may (CORS). Nothing of a file is ever shown
by the browser as a page of ours: it is downloaded, or handed to the dashboard's script.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from aiohttp import web

from ...client.filesystem import FileSystem
from ...common import codec, page_tokens
from ...common.assets import SECURITY, Assets
from ...common.codec import failure_of
from ...common.config import ClientConfig, DataNodeConfig
from ...common.errors import (
    Busy,
    DfsError,
    InvalidRequest,
    IsADirectory,
    PathExists,
    Unavailable,
    http_status,
)
from ...common.model import FileStatus
from ...common.runtime import Clock, new_uuid
from .asked import MAX_TIME_DIGITS, number_of, range_of

log = logging.getLogger(__name__)
MAX_TRANSFERS: Final = 64  # of browsers, at a time
WHOLE_BYTES: Final = 1024 * 1024  # an upload up to this size is one step
PIECE_BYTES: Final = 1024 * 1024
STALL_S: Final = 60.0  # a browser that moves no byte for so long has gone
PATH: Final = "/v1/web/file"


class WebApi:
    """Routes for browsers."""

    def __init__(
        self,
        config: DataNodeConfig,
        clock: Clock,
        *,
        page_keys: Callable[[], Sequence[bytes]],
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        """*page_keys*: of the NameNodes this node is registered with. *facts*: for the node's own page."""
        self._config = config
        self._clock = clock
        self._page_keys = page_keys
        self._facts = facts
        self._assets = Assets()
        self._transfers = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.front),
            *self._assets.routes(),
            web.get("/v1/web/node", self.node),
            web.get(PATH, self.download),
            web.put(PATH, self.upload),
            web.options(PATH, self.preflight),
        ]

    async def front(self, request: web.Request) -> web.Response:
        return self._assets.page(request, "datanode.html")

    async def node(self, request: web.Request) -> web.Response:
        """What the node's own page shows."""
        facts = await asyncio.to_thread(self._facts)
        return web.Response(
            body=codec.to_json(facts), content_type="application/json", headers=SECURITY
        )

    # --- who asks ---

    def _user(self, request: web.Request) -> str:
        token = request.query.get("token", "")
        return page_tokens.user_of(self._page_keys(), token, self._clock.wall_ms())

    @staticmethod
    def _headers(request: web.Request) -> dict[str, str]:
        """For an answer to a request whose token was good."""
        origin = request.headers.get("Origin")
        if origin is None:
            return dict(SECURITY)
        return {
            **SECURITY,
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "Content-Length, Content-Range",
            "Vary": "Origin",
        }

    async def preflight(self, request: web.Request) -> web.Response:
        try:
            self._user(request)
        except DfsError as error:
            return self._failed(request, error, {})
        return web.Response(
            status=204,
            headers={
                **self._headers(request),
                "Access-Control-Allow-Methods": "GET, PUT",
                "Access-Control-Allow-Headers": "Content-Type, Range",
                "Access-Control-Max-Age": "600",
                # Browsers ask this where a page of a public site reaches into a private network.
                "Access-Control-Allow-Private-Network": "true",
            },
        )

    @staticmethod
    def _failed(request: web.Request, error: DfsError, headers: dict[str, str]) -> web.Response:
        return web.Response(
            body=codec.to_json(failure_of(error)),
            status=http_status(error),
            content_type="application/json",
            headers=headers,
        )

    @contextlib.asynccontextmanager
    async def acting_as(self, user: str) -> AsyncIterator[FileSystem]:
        """A client that acts as *user*; Busy when there are too many already."""
        if not self._config.namenodes:
            raise Unavailable("this DataNode belongs to no NameNode")
        if self._transfers >= MAX_TRANSFERS:
            raise Busy(f"the DataNode serves {MAX_TRANSFERS} browsers already; try again")
        self._transfers += 1
        try:
            config = ClientConfig(
                namenode=",".join(self._config.namenodes), user=user, retry_s=10.0
            )
            async with FileSystem(config) as fs:
                yield fs
        finally:
            self._transfers -= 1

    # --- from the cluster to the browser ---

    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET ?path=&token=`, with Range: bytes of a file, as an attachment."""
        headers: dict[str, str] = {}
        try:
            user = self._user(request)
            headers = self._headers(request)
            async with self.acting_as(user) as fs:
                return await self._download(request, fs, headers)
        except DfsError as error:
            return self._failed(request, error, headers)

    async def _download(
        self, request: web.Request, fs: FileSystem, headers: dict[str, str]
    ) -> web.StreamResponse:
        path = request.query.get("path", "")
        if (await fs.stat(path)).is_directory:
            raise IsADirectory(f"{path!r} is a directory")
        async with await fs.open(path, "rb") as reader:
            start, end, partial = range_of(request, reader.length, headers)
            name = path.rpartition("/")[2]
            plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
            response = web.StreamResponse(
                status=206 if partial else 200,
                headers={
                    **headers,
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(end - start),
                    "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''"
                    + urllib.parse.quote(name, safe=""),
                    "Content-Security-Policy": "sandbox; default-src 'none'",
                    "Cache-Control": "no-store",
                    "Accept-Ranges": "bytes",
                },
            )
            if partial:
                response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{reader.length}"
            # Nothing has left yet while the first piece is fetched: what fails there is told as an error.
            reader.seek(start)
            piece = await reader.read(min(PIECE_BYTES, end - start))
            await response.prepare(request)
            try:
                while piece:
                    async with asyncio.timeout(STALL_S):
                        await response.write(piece)
                    start += len(piece)
                    piece = await reader.read(min(PIECE_BYTES, end - start))
            except TimeoutError:
                log.info("a browser took nothing for %.0f s", STALL_S)
            except DfsError as error:
                log.warning("a download broke off: %s", error.message)
            if start < end:
                # The promised length can't be kept: a broken connection says so.
                if request.transport is not None:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response

    # --- from the browser to the cluster ---

    async def upload(self, request: web.Request) -> web.Response:
        """`PUT ?path=&token=&overwrite=`: the body becomes the file, whole or not at all."""
        headers: dict[str, str] = {}
        try:
            user = self._user(request)
            headers = self._headers(request)
            async with self.acting_as(user) as fs:
                status = await self._upload(request, fs)
        except DfsError as error:
            # What is still coming is not worth reading.
            response = self._failed(request, error, headers)
            response.force_close()
            return response
        return web.Response(
            body=codec.to_json(status), content_type="application/json", headers=headers, status=201
        )

    async def _upload(self, request: web.Request, fs: FileSystem) -> FileStatus:
        path = request.query.get("path", "")
        overwrite = request.query.get("overwrite", "false") == "true"
        mtime_ms = (
            number_of(request.query.get("mtime", "0"), "mtime", digits=MAX_TIME_DIGITS) or None
        )
        if not path.startswith("/") or path.endswith("/"):
            raise InvalidRequest("the path must be absolute and name a file")
        size = request.content_length
        if size is not None and size <= WHOLE_BYTES:
            data = b"".join([piece async for piece in _body(request)])
            if len(data) != size:
                raise InvalidRequest("the upload stopped before its end: nothing was stored")
            return await fs.write_bytes(
                path, data, overwrite=overwrite, create_parents=False, mtime_ms=mtime_ms
            )
        if not overwrite and await fs.exists(path):
            raise PathExists(f"{path!r} exists already")
        folder, _, name = path.rpartition("/")
        # Under a name of its own until it is whole: what stops half-way is never seen under the name that was meant.
        temporary = f"{folder}/.{name[:60]}.uploading-{new_uuid()[:8]}"
        writer = await fs.open(temporary, "xb", create_parents=False)
        try:
            received = 0
            async for piece in _body(request):
                await writer.write(piece)
                received += len(piece)
            if size is not None and received != size:
                raise InvalidRequest("the upload stopped before its end: nothing was stored")
            await writer.close()
            if mtime_ms is not None:
                await fs.set_times(temporary, mtime_ms=mtime_ms)
            await fs.rename(temporary, path, overwrite=overwrite)
            return await fs.stat(path)
        except BaseException:
            with contextlib.suppress(DfsError):
                await asyncio.shield(_drop(fs, writer, temporary))
            raise


async def _drop(fs: FileSystem, writer: Any, temporary: str) -> None:
    with contextlib.suppress(DfsError):
        await writer.abandon()
    await fs.delete(temporary)


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """The body, in the pieces that come; an error when it stalls or breaks."""
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                piece = await request.content.readany()
        except TimeoutError:
            raise InvalidRequest(f"no byte came for {STALL_S:.0f} s: nothing was stored") from None
        except Exception as error:
            raise InvalidRequest(
                f"the upload broke off ({type(error).__name__}): nothing was stored"
            ) from None
        if not piece:
            return
        yield piece
