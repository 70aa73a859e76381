"""Following the change stream over HTTP: `GET /v1/events` (long poll) and the WebSocket `/v1/events/stream`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from ...common import codec
from ...common.codec import failure_of
from ...common.errors import Busy, DfsError, InvalidRequest, ShuttingDown, http_status
from ...common.follow import CommitOffset, Group, Groups
from ...common.messages import EventPage, ReadEvents
from ...common.runtime import Clock
from ..groups import committed_offset, list_groups
from ..permissions import Caller
from ..store.base import MetadataStore
from ..tail import Entry, Tail, matches, page_of
from ..visible import Visibility

log = logging.getLogger(__name__)
MAX_FOLLOWERS: Final = 1_000
MAX_WAIT_S: Final = 60.0
SCAN_LIMIT: Final = 50_000  # events looked at for one answer, when few of them match
SEND_TIMEOUT_S: Final = (
    60.0  # a consumer that takes nothing for so long is let go; it comes back to where it was
)
GATHER_S: Final = 0.03  # what comes this close together travels together
PROGRESS_S: Final = 5.0  # how often a consumer hears how far its filter has looked
Commit = Callable[[Caller, CommitOffset], Awaitable[Any]]
Who = Callable[[str, str], Awaitable[Caller]]


class EventsApi:
    """Reads of the stream; committing an offset is an operation like any other."""

    def __init__(
        self,
        store: MetadataStore,
        tail: Tail,
        clock: Clock,
        visible: Visibility,
        *,
        who: Who,
        commit: Commit,
    ) -> None:
        self._visible = visible
        self._store = store
        self._tail = tail
        self._clock = clock
        self._who = who
        self._commit = commit
        self._closing = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/events", self.poll), web.get("/v1/events/stream", self.stream)]

    def close(self) -> None:
        """Let everybody go who waits."""
        self._closing.set()

    # --- one page ---

    async def read(self, caller: Caller, request: ReadEvents) -> EventPage:
        """The operation "events"."""
        self._visible.admit(caller)
        entries, after = await self._page(caller, request)
        return EventPage(
            events=[entry.event for entry in entries],
            last_offset=self._tail.last,
            next_after=after,
        )

    async def groups(self, caller: Caller, request: Any) -> Groups:
        self._visible.admit(caller)
        found = await self._store.read(list_groups)
        last = max(self._tail.last, *(row[1] for row in found), 0)
        return Groups(
            groups=[
                Group(name=name, offset=offset, committed_ms=at_ms, lag=last - offset, owner=owner)
                for name, offset, at_ms, owner in found
            ],
            first_offset=self._tail.first,
            last_offset=last,
        )

    async def _start(self, request: ReadEvents) -> int:
        """Where *request* begins. 0 means the oldest event there is."""
        after = request.after
        if not after and request.group:
            name = request.group
            after = await self._store.read(lambda tx: committed_offset(tx, name))
        return after or self._tail.first - 1

    async def _page(self, caller: Caller, request: ReadEvents) -> tuple[list[Entry], int]:
        """(events that match, where to go on): waits as asked for when there is none."""
        after = await self._start(request)
        found: list[Entry] = []
        deadline_s = self._clock.monotonic_s() + request.wait_s
        looked = 0
        while len(found) < request.limit and looked < SCAN_LIMIT:
            part = await self._tail.read(after)
            if not part:
                left_s = deadline_s - self._clock.monotonic_s()
                if found or left_s <= 0 or self._closing.is_set():
                    break
                if not await self._tail.wait(after, min(left_s, 5.0)):
                    continue
                await asyncio.sleep(GATHER_S)
                continue
            looked += len(part)
            chosen = await self._choose(caller, request, part)
            room = request.limit - len(found)
            after = (part if len(chosen) <= room else chosen[:room])[-1].event.offset
            found += chosen[:room]
        return found, after

    async def _choose(self, caller: Caller, wanted: ReadEvents, part: list[Entry]) -> list[Entry]:
        """Of *part* what *caller* asks for and may see; *part* itself, if that is all of it."""
        prefix, kinds = wanted.path_prefix.rstrip("/"), wanted.kinds
        chosen = part
        if prefix or kinds:
            chosen = [entry for entry in part if matches(entry.event, prefix, kinds)]
        if chosen and not self._visible.sees_all(caller):
            seen = await self._visible.choose(caller, chosen)
            # An end that he may not see is none that he could have asked for.
            chosen = [entry for entry in seen if matches(entry.event, prefix, kinds)]
        return chosen

    async def _caller(self, request: web.Request) -> Caller:
        """Who asks; PermissionDenied if he may not follow."""
        # Browsers can't give a WebSocket headers.
        user = request.headers.get("X-TwinFS-User", "") or request.query.get("user", "")
        caller = await self._who(user, request.remote or "")
        self._visible.admit(caller)
        return caller

    async def poll(self, request: web.Request) -> web.Response:
        """`?after=&limit=&path=&kind=&group=&wait_s=&user=`: a page as JSON."""
        try:
            wanted = _parse(request, self._tail.last)
            caller = await self._caller(request)
            with self._tail.following():
                entries, after = await self._page(caller, wanted)
            whole = bool(entries) and self._visible.sees_all(caller)
            if whole and entries[-1].event.offset - entries[0].event.offset == len(entries) - 1:
                body = self._tail.page(entries, self._tail.last, after)
            else:
                body = page_of(entries, self._tail.last, after)
            return web.Response(body=body + b"\n", content_type="application/json")
        except DfsError as error:
            return _failed(error)

    # --- without end ---

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The same query; pages as text messages, as events come. A consumer commits for its group by sending {"commit": OFFSET}."""
        socket = web.WebSocketResponse(heartbeat=30.0, max_msg_size=4_096, compress=False)
        try:
            if self._closing.is_set():
                raise ShuttingDown("the NameNode is stopping")
            if self._tail.followers >= MAX_FOLLOWERS:
                raise Busy(f"{MAX_FOLLOWERS} consumers follow already")
            wanted = _parse(request, self._tail.last)
            caller = await self._caller(request)
        except DfsError as error:
            return _failed(error)
        await socket.prepare(request)
        sender = asyncio.ensure_future(self._send(socket, caller, wanted))
        closing = asyncio.ensure_future(self._closing.wait())
        receiver = asyncio.ensure_future(self._receive(socket, wanted.group, caller))
        tasks = {sender, closing, receiver}
        try:
            with self._tail.following():
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result in results:
                if isinstance(result, DfsError) and not socket.closed:
                    with contextlib.suppress(ConnectionError, RuntimeError):
                        await socket.send_str(codec.to_json(failure_of(result)).decode())
                elif isinstance(result, Exception) and not isinstance(result, OSError):
                    log.error("a consumer's stream failed", exc_info=result)
            with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
                async with asyncio.timeout(5.0):
                    await socket.close()
        return socket

    async def _send(
        self, socket: web.WebSocketResponse, caller: Caller, wanted: ReadEvents
    ) -> None:
        after = told = await self._start(wanted)
        told_s = float("-inf")  # a consumer hears at once where it begins
        while True:
            part = await self._tail.read(after)
            found = await self._choose(caller, wanted, part)
            if part:
                after = part[-1].event.offset
            now_s = self._clock.monotonic_s()
            if found or ((after != told or told_s < 0) and now_s - told_s > PROGRESS_S):
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    if part and found is part:
                        body = self._tail.page(part, self._tail.last, after)
                    else:
                        body = page_of(found, self._tail.last, after)
                    await socket.send_frame(body, WSMsgType.TEXT)
                told, told_s = after, now_s
            if not part:
                await self._tail.wait(after, PROGRESS_S)
                await asyncio.sleep(GATHER_S)

    async def _receive(self, socket: web.WebSocketResponse, group: str, caller: Caller) -> None:
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                raise InvalidRequest("a consumer sends text messages")
            try:
                asked = msgspec.json.decode(message.data, type=_Commit)
            except msgspec.DecodeError:
                raise InvalidRequest('a consumer may send {"commit": OFFSET}') from None
            if not group:
                raise InvalidRequest("only a consumer with a group can commit")
            await self._commit(caller, CommitOffset(group=group, offset=asked.commit))


class _Commit(msgspec.Struct, forbid_unknown_fields=True):
    commit: int


def _failed(error: DfsError) -> web.Response:
    return web.Response(
        body=codec.to_json(failure_of(error)),
        status=http_status(error),
        content_type="application/json",
    )


def _parse(request: web.Request, last: int) -> ReadEvents:
    """The query as a message. `after=latest` is what comes from now on, `after=latest-N` N events before."""
    query = request.query
    unknown = sorted(set(query) - {"after", "limit", "path", "kind", "group", "wait_s", "user"})
    if unknown:
        raise InvalidRequest(f"unknown parameter {unknown[0]!r}")
    after = query.get("after", "0")
    if after.startswith("latest"):
        back = after.removeprefix("latest").removeprefix("-") or "0"
        if not back.isascii() or not back.isdigit() or len(back) > 9:
            raise InvalidRequest("after must be an offset, latest, or latest-N")
        after = str(max(0, last - int(back)))
    try:
        found: dict[str, Any] = {
            "after": int(after),
            "limit": int(query.get("limit", "1000")),
            "path_prefix": query.get("path", ""),
            "kinds": query.getall("kind", []),
            "group": query.get("group", ""),
            "wait_s": min(MAX_WAIT_S, float(query.get("wait_s", "0"))),
        }
    except ValueError:
        raise InvalidRequest("after and limit must be whole numbers, wait_s a number") from None
    try:
        return msgspec.convert(found, ReadEvents)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None
