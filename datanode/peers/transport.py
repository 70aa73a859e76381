"""Questions between peers over HTTP: `POST /v1/peers/QUESTION`, msgpack, bounded both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp import web

from ...common import codec
from ...common.codec import failure_of, unpack
from ...common.errors import (
    DfsError,
    InvalidRequest,
    RequestTooLarge,
    TimedOut,
    Unavailable,
    UnknownOperation,
    http_status,
)
from ...common.messages import Failure
from ...common.peering import (
    MAX_ANSWER_BYTES,
    MAX_QUESTION_BYTES,
    NAME_OF,
    QUESTIONS,
    Answer,
    Question,
    split_address,
)
from .node import PeerNode


class HttpTransport:
    """Asks other peers. Whatever they answer, it costs a bounded amount of time and memory."""

    def __init__(self, *, timeout_s: float, max_connections: int = 256) -> None:
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, address: str, question: Question) -> Answer:
        """Raises Unavailable, TimedOut, or what the peer refused with."""
        split_address(address)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, limit_per_host=8),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        url = f"http://{address}/v1/peers/{NAME_OF[type(question)]}"
        try:
            async with self._session.post(
                url,
                data=codec.pack(question),
                headers={"Content-Type": codec.MSGPACK},
                allow_redirects=False,
            ) as response:
                body = await _read(response)
                status = response.status
        except TimeoutError:
            raise TimedOut(f"the peer at {address} does not answer") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"can't reach the peer at {address}: {error}") from None
        if status == 200:
            return unpack(body, Answer)
        try:
            failure = unpack(body, Failure)
        except InvalidRequest:
            raise Unavailable(f"what answers at {address} is no peer (status {status})") from None
        raise codec.error_of(failure)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            raise Unavailable("the peer's answer is longer than an answer may be")
    return bytes(body)


class PeersApi:
    """Answers other peers."""

    def __init__(self, node: Callable[[], PeerNode], *, max_busy: int = 128) -> None:
        """*node* gives the peer; it is made once the server's address is known."""
        self._node = node
        self._slots = asyncio.Semaphore(max_busy)

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/peers/{question}", self.ask)]

    async def ask(self, request: web.Request) -> web.Response:
        try:
            kind = QUESTIONS.get(request.match_info["question"])
            if kind is None:
                raise UnknownOperation("peers have no such question")
            if (request.content_length or 0) > MAX_QUESTION_BYTES:
                raise RequestTooLarge(f"a question has at most {MAX_QUESTION_BYTES} bytes")
            body = await request.content.read(MAX_QUESTION_BYTES + 1)
            while len(body) <= MAX_QUESTION_BYTES and not request.content.at_eof():
                body += await request.content.read(MAX_QUESTION_BYTES + 1)
            if len(body) > MAX_QUESTION_BYTES:
                raise RequestTooLarge(f"a question has at most {MAX_QUESTION_BYTES} bytes")
            question = unpack(body, kind)
            async with self._slots:
                answer = await self._node().answer(question)  # type: ignore[arg-type]
        except DfsError as error:
            return web.Response(
                body=codec.pack(failure_of(error)),
                status=http_status(error),
                content_type=codec.MSGPACK,
            )
        return web.Response(body=codec.pack(answer), content_type=codec.MSGPACK)
