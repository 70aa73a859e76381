"""The exchange against peers that lie, stall, drip, never end, send elsewhere, refuse, and vanish."""

from __future__ import annotations

import asyncio
import gzip
import random
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from aiohttp import web

from twinfs.client.exchange import Exchange, NoFinder
from twinfs.client.ranking import Ranking
from twinfs.common.errors import ContentNotFound
from twinfs.common.ipld.cid import RAW, Cid
from twinfs.common.runtime import SystemClock

DATA = random.Random(1).randbytes(100_000)
CID = Cid.of(RAW, DATA)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Zoo:
    """Gateways that behave as told."""

    def __init__(self) -> None:
        self.runners: list[web.AppRunner] = []
        self.asked: dict[str, int] = {}

    async def peer(self, handler: Handler) -> str:
        app = web.Application()
        place = [""]

        async def count(request: web.Request) -> web.StreamResponse:
            self.asked[place[0]] = self.asked.get(place[0], 0) + 1
            return await handler(request)

        app.router.add_get("/{rest:.*}", count)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.runners.append(runner)
        place[0] = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return place[0]

    def exchange(self, *peers: str, give_up_s: float = 20.0) -> Exchange:
        return Exchange(
            NoFinder(),
            clock=SystemClock(),
            rng=random.Random(1),
            peers=peers,
            stall_s=0.5,
            give_up_s=give_up_s,
        )


@pytest_asyncio.fixture
async def zoo() -> AsyncIterator[Zoo]:
    found = Zoo()
    yield found
    for runner in found.runners:
        await runner.cleanup()


async def good(request: web.Request) -> web.StreamResponse:
    return web.Response(body=DATA)


async def missing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def broken(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def lying(request: web.Request) -> web.StreamResponse:
    return web.Response(body=DATA[:-1] + bytes((DATA[-1] ^ 1,)))


async def short(request: web.Request) -> web.StreamResponse:
    return web.Response(body=DATA[:100])


async def elsewhere(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/secret"})


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(100_000))


async def huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(10**12)})
    await response.prepare(request)
    await response.write(b"x")
    return response


async def stalled(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(DATA))})
    await response.prepare(request)
    await response.write(DATA[:10])
    await asyncio.get_running_loop().create_future()
    return response


async def dripping(request: web.Request) -> web.StreamResponse:
    """Never silent for long, and never done."""
    response = web.StreamResponse(headers={"Content-Length": str(len(DATA))})
    await response.prepare(request)
    for at in range(len(DATA)):
        await response.write(DATA[at : at + 1])
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, later.set)
        await later.wait()
    return response


async def headers_without_end(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 1_000_000)
    return await stalled(request)


async def packed(request: web.Request) -> web.StreamResponse:
    """A small body that claims to unpack to much."""
    body = gzip.compress(bytes(50_000_000))
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(DATA))})
    await response.prepare(request)
    await response.write(DATA[:1000])
    assert request.transport is not None
    request.transport.abort()
    return response


LIARS = [lying, short, endless, huge, packed]
FAILING = [missing, broken, elsewhere, stalled, dripping, headers_without_end, cut]


@pytest.mark.parametrize("bad", [*LIARS, *FAILING])
async def test_a_bad_peer_beside_a_good_one_changes_nothing(zoo: Zoo, bad: Handler) -> None:
    urls = [await zoo.peer(bad), await zoo.peer(good)]
    exchange = zoo.exchange(*urls)
    try:
        for _ in range(6):
            assert await exchange.block(CID) == DATA
        state = exchange.ranking.peers[urls[0]]
        if bad in LIARS and zoo.asked.get(urls[0]):
            assert state.lies == 1 and zoo.asked[urls[0]] == 1
        if bad is missing:
            assert zoo.asked.get(urls[0], 0) <= 1
    finally:
        await exchange.close()


@pytest.mark.parametrize("bad", [*LIARS, missing])
async def test_bad_peers_alone_end_in_an_error_soon(zoo: Zoo, bad: Handler) -> None:
    exchange = zoo.exchange(await zoo.peer(bad), await zoo.peer(bad))
    try:
        with pytest.raises(ContentNotFound):
            await exchange.block(CID)
        assert sum(zoo.asked.values()) == 2
    finally:
        await exchange.close()


@pytest.mark.parametrize("bad", [broken, elsewhere, stalled, dripping, headers_without_end, cut])
async def test_failing_peers_are_asked_again_but_not_for_ever(zoo: Zoo, bad: Handler) -> None:
    exchange = zoo.exchange(await zoo.peer(bad), give_up_s=2.0)
    try:
        with pytest.raises(ContentNotFound):
            await exchange.block(CID)
        assert 1 <= sum(zoo.asked.values()) <= 8
    finally:
        await exchange.close()


async def test_a_redirect_leads_nowhere(zoo: Zoo) -> None:
    """Whoever fetches from peers can't be sent to other hosts, though they had the block."""
    goal = await zoo.peer(good)

    async def away(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"{goal}{request.path_qs}"})

    exchange = zoo.exchange(await zoo.peer(away), give_up_s=1.0)
    try:
        with pytest.raises(ContentNotFound):
            await exchange.block(CID)
        assert goal not in zoo.asked
    finally:
        await exchange.close()


@pytest.mark.parametrize("bad", LIARS)
async def test_a_liar_is_logged_once_and_costs_little(
    zoo: Zoo, bad: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    """Several of its answers are under way when the first turns out wrong."""
    url = await zoo.peer(bad)
    exchange = zoo.exchange(url)
    others = [Cid.of(RAW, DATA + bytes((n,))) for n in range(4)]
    tracemalloc.start()
    try:
        ended = await asyncio.gather(*map(exchange.block, others), return_exceptions=True)
        assert all(isinstance(error, ContentNotFound) for error in ended)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
        await exchange.close()
    assert len([r for r in caplog.records if r.name.endswith("client.exchange")]) == 1


async def test_those_who_ask_together_share_one_request(zoo: Zoo) -> None:
    url = await zoo.peer(good)
    exchange = zoo.exchange(url)
    try:
        answers = await asyncio.gather(*(exchange.block(CID) for _ in range(20)))
        assert set(answers) == {DATA} and zoo.asked[url] == 1
    finally:
        await exchange.close()


async def test_cancelling_one_of_them_does_not_hurt_the_others(zoo: Zoo) -> None:
    exchange = zoo.exchange(await zoo.peer(good))
    try:
        first = asyncio.ensure_future(exchange.block(CID))
        second = asyncio.ensure_future(exchange.block(CID))
        await asyncio.wait([first], timeout=0)
        first.cancel()
        assert await second == DATA
    finally:
        await exchange.close()


def test_the_faster_peer_gets_more() -> None:
    ranking = Ranking(random.Random(1), per_peer=8)
    for name, speed in (("slow", 10e6), ("fast", 40e6)):
        ranking.add(name)
        ranking.peers[name].bytes_s = speed
    chosen = []
    for _ in range(5):
        name = ranking.choose(b"k", 1 << 20, 0.0)
        assert name is not None
        ranking.began(name, 1 << 20)
        chosen.append(name)
    assert chosen.count("fast") == 4 and chosen.count("slow") == 1


def test_a_failed_peer_is_left_alone_longer_each_time() -> None:
    ranking = Ranking(random.Random(1))
    ranking.add("a")
    waits = []
    for _ in range(8):
        ranking.failed("a", 0.0)
        waits.append(ranking.peers["a"].until_s)
        assert ranking.choose(b"k", 1, 0.0) is None
        assert ranking.choose(b"k", 1, waits[-1] + 0.01) == "a"
    assert waits[-1] > 10 * waits[0] and max(waits) <= 30
    assert not ranking.hopeless(b"k")
    ranking.lied("a")
    assert ranking.hopeless(b"k")


def test_a_thousand_peers_cost_no_more_than_64_and_liars_do_not_come_back() -> None:
    ranking = Ranking(random.Random(1))
    ranking.add("liar")
    ranking.lied("liar")
    ranking.add("useful")
    ranking.peers["useful"].blocks = 100
    for number in range(1000):
        ranking.add(f"peer{number}")
    assert len(ranking.peers) == 64 and "useful" in ranking.peers
    assert "liar" not in ranking.peers and not ranking.add("liar")
