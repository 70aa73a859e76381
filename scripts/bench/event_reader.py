"""One consumer of the benchmark of events: HOW URL AFTER. HOW: poll, socket or group (a WebSocket that commits offsets).

Says "ready" when it follows. The first line of its input is the offset of the last event there will be; when it has come there, it
prints how many events it had, whether one was missing or came twice, and when it was done.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import aiohttp
import msgspec

from twinfs.common.runtime import elapsed_timer

COMMIT_S = 0.5


class Event(msgspec.Struct):
    """What a consumer would use of an event."""

    offset: int
    kind: str
    path: str


class Page(msgspec.Struct):
    events: list[Event]
    next_after: int


_page = msgspec.json.Decoder(Page).decode


async def polled(session: aiohttp.ClientSession, url: str, after: int) -> AsyncIterator[Page]:
    """`GET /v1/events`, again and again."""
    while True:
        query = f"after={after}&wait_s=30&limit=5000"
        async with session.get(f"{url}/v1/events?{query}") as answer:
            answer.raise_for_status()
            page = _page(await answer.read())
        after = page.next_after
        yield page


async def streamed(
    session: aiohttp.ClientSession, url: str, after: int, group: str
) -> AsyncIterator[Page]:
    """The WebSocket; with a *group*, what came is committed twice a second."""
    query = f"after={after}" + (f"&group={group}" if group else "")
    committed_s = elapsed_timer()
    async with session.ws_connect(f"{url}/v1/events/stream?{query}") as socket:
        async for message in socket:
            page = _page(message.data)
            yield page
            if group and page.events and elapsed_timer() - committed_s > COMMIT_S:
                await socket.send_str(json.dumps({"commit": page.next_after}))
                committed_s = elapsed_timer()


async def main(how: str, url: str, after: int) -> None:
    last = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    count, place, in_order = 0, after, True
    headers = {"X-TwinFS-User": "root"}
    async with aiohttp.ClientSession(headers=headers) as session:
        if how == "poll":
            pages = polled(session, url, after)
        else:
            pages = streamed(session, url, after, "bench" if how == "group" else "")
        print("ready", flush=True)
        while not (last.done() and place >= int(last.result())):
            waiting = asyncio.ensure_future(anext(pages))
            await asyncio.wait({waiting, last}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and place >= int(last.result()):
                waiting.cancel()
                break
            for event in (await waiting).events:
                in_order = in_order and event.offset == place + 1
                place = event.offset
                count += 1
        ended_s = elapsed_timer()
    print(json.dumps({"events": count, "in_order": in_order, "ended_s": ended_s}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
