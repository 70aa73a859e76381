"""Small networks of real peers: finding, fetching from many, pins kept together, names, restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from twinfs.common.checksum import CHUNK_BYTES
from twinfs.common.ipld.cid import RAW, Cid
from twinfs.common.peerid import name_of, shown
from twinfs.datanode.peers.group import holders

from ..support.cluster import eventually
from .peers_help import Peer, Peers, file_dag

LIMIT_S = 100.0
pytestmark = pytest.mark.timeout(400)  # a loaded machine is slow to notice who is gone


@pytest_asyncio.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    found = Peers(tmp_path)
    try:
        yield found
    finally:
        await found.close()


async def know_each_other(peers: Peers) -> None:
    alive = [peer for peer in peers.all if peer.alive]

    async def complete() -> bool:
        ids = {peer.id for peer in alive}
        for peer in alive:
            living = {r.peer for r in peer.service.keeper.group.alive(peer.service.now_s())}
            table = {contact.peer for contact in peer.service.node.table.contacts()}
            if living != ids or not ids - {peer.id} <= table:
                return False
        return True

    await eventually(complete, "that everybody knows everybody", LIMIT_S)


async def test_a_dag_is_found_fetched_and_provided_on(peers: Peers) -> None:
    first, second, third = await peers.grow(3)
    root, blocks, data = file_dag(1, 5 * CHUNK_BYTES + 99)
    await first.content.put(list(blocks.items()))
    await know_each_other(peers)
    await peers.ask(first, "POST", "/v1/peer/provide", json={"cids": [str(root)]})
    async with peers.session.post(second.url + "/v1/peer/fetch", json={"cid": str(root)}) as answer:
        lines = [json.loads(line) for line in (await answer.read()).splitlines()]
    assert lines[-1]["done"] and lines[-1]["bytes"] == sum(map(len, blocks.values()))
    assert await second.whole(blocks)
    found = await peers.ask(third, "GET", f"/routing/v1/providers/{root}")
    ids = {record["ID"] for record in found["Providers"]}
    assert ids == {shown(first.id), shown(second.id)}
    # The path gateway of a peer that has nothing of it fetches what it needs.
    async with peers.session.get(f"{third.url}/ipfs/{root}") as answer:
        assert await answer.read() == data
    # Raw blocks come from a peer's own disks alone.
    async with peers.session.get(f"{third.url}/ipfs/{root}?format=raw") as answer:
        assert answer.status == 404
    # Once more costs nothing.
    again = await second.service.fetch(root, lambda progress: None)
    assert again.blocks == 0 and again.here == len(blocks)


async def test_ndjson_filters_and_what_nobody_has(peers: Peers) -> None:
    (only,) = await peers.grow(1)
    cid = Cid.of(RAW, b"x")
    await only.content.put([(cid, b"x")])
    headers = {"Accept": "application/x-ndjson"}
    async with peers.session.get(
        f"{only.url}/routing/v1/providers/{cid}", headers=headers
    ) as answer:
        assert answer.content_type == "application/x-ndjson"
        (line,) = (await answer.read()).splitlines()
    record = json.loads(line)
    host, port = only.address.split(":")
    assert record == {
        "Schema": "peer",
        "ID": shown(only.id),
        "Addrs": [f"/ip4/{host}/tcp/{port}/http"],
        "Protocols": ["transport-ipfs-gateway-http"],
    }
    for query, count in (
        ("?filter-protocols=transport-ipfs-gateway-http", 1),
        ("?filter-protocols=transport-bitswap", 0),
        ("?filter-addrs=http", 1),
        ("?filter-addrs=!ip4", 0),
        ("?filter-addrs=webtransport", 0),
    ):
        found = await peers.ask(only, "GET", f"/routing/v1/providers/{cid}{query}")
        assert len(found["Providers"]) == count, query
    missing = Cid.of(RAW, b"nobody")
    found = await peers.ask(only, "GET", f"/routing/v1/providers/{missing}")
    assert found == {"Providers": []}
    for bad in ("providers/nonsense", "peers/nonsense", "ipns/nonsense"):
        async with peers.session.get(f"{only.url}/routing/v1/{bad}") as answer:
            assert answer.status in (400, 422)
    found = await peers.ask(only, "GET", f"/routing/v1/peers/{shown(only.id)}")
    assert found["Peers"][0]["ID"] == shown(only.id)


async def test_an_interrupted_fetch_goes_on_from_the_disk(peers: Peers) -> None:
    first, second = await peers.grow(2)
    root, blocks, _ = file_dag(2, 40 * CHUNK_BYTES)
    await first.content.put(list(blocks.items()))
    await know_each_other(peers)
    seen = asyncio.Event()

    def told(progress: object) -> None:
        if getattr(progress, "blocks", 0) >= 15:
            seen.set()

    task = asyncio.create_task(second.service.fetch(root, told))
    await seen.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await second.stop()
    await second.start()
    await know_each_other(peers)
    progress = await second.service.fetch(root, lambda progress: None)
    assert progress.blocks <= len(blocks) - 14
    assert await second.whole(blocks)
    assert not list((second.folder / "fetching").iterdir())


async def lying_server(blocks: dict[Cid, bytes]) -> tuple[aiohttp.web.AppRunner, str, list[int]]:
    """A gateway that answers every block with a bit flipped."""
    asked: list[int] = []

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        asked.append(1)
        data = bytearray(blocks[Cid.parse(request.match_info["cid"])])
        data[len(data) // 2] ^= 1
        return aiohttp.web.Response(body=bytes(data))

    app = aiohttp.web.Application()
    app.router.add_get("/ipfs/{cid}", answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}", asked


async def test_a_liar_and_a_dead_peer_do_not_stop_a_fetch(peers: Peers) -> None:
    first, second, third = await peers.grow(3)
    root, blocks, _ = file_dag(3, 30 * CHUNK_BYTES)
    for holder in (first, second):
        await holder.content.put(list(blocks.items()))
    await know_each_other(peers)
    runner, url, asked = await lying_server(blocks)
    third.service.exchange.ranking.add(url)

    def told(progress: object) -> None:
        if getattr(progress, "blocks", 0) == 5:
            stopping.append(asyncio.create_task(second.stop()))

    stopping: list[asyncio.Task[None]] = []
    try:
        await third.service.fetch(root, told)
    finally:
        await runner.cleanup()
    await asyncio.gather(*stopping)
    assert await third.whole(blocks)
    assert third.service.exchange.ranking.peers[url].lies
    assert 1 <= len(asked) <= 4  # what was under way when the first lie was found


async def shared(peers: Peers, root: Cid) -> list[Peer]:
    return [p for p in peers.all if p.alive and bytes(root) in p.service.keeper.held]


async def test_shared_pins_are_placed_repaired_and_move_only_their_share(peers: Peers) -> None:
    await peers.grow(4)
    dags = [file_dag(seed, 2 * CHUNK_BYTES + seed) for seed in range(12)]
    first = peers.all[0]
    for _, blocks, _ in dags:
        await first.content.put(list(blocks.items()))
    await know_each_other(peers)
    for root, _, _ in dags:
        await peers.ask(first, "POST", "/v1/peer/pins", json={"cid": str(root), "replicas": 2})

    def right_places() -> bool:
        alive = [peer for peer in peers.all if peer.alive]
        for root, _, _ in dags:
            wanted = set(holders([peer.id for peer in alive], bytes(root), 2))
            have = {p.id for p in alive if bytes(root) in p.service.keeper.held}
            if wanted != have:
                return False
        return True

    async def placed() -> bool:
        return right_places()

    await eventually(placed, "that every pin is where it belongs", LIMIT_S)
    before = {p.id: set(p.service.keeper.held) for p in peers.all}
    # One comes: it takes over what it now leads, and nobody else fetches anything.
    (fifth,) = await peers.grow(1)
    await know_each_other(peers)
    await eventually(placed, "that the new peer has its share", LIMIT_S)
    moved = len(fifth.service.keeper.held)
    ids = [peer.id for peer in peers.all]
    assert moved == sum(fifth.id in holders(ids, bytes(root), 2) for root, _, _ in dags)
    for peer in peers.all[:4]:
        assert set(peer.service.keeper.held) <= before[peer.id]
    # One goes: the others have its pins after a while, from each other.
    victim = peers.all[2]
    await victim.stop()
    await eventually(placed, "that the lost copies are made again", LIMIT_S)
    for root, blocks, _ in dags:
        places = await shared(peers, root)
        assert len(places) == 2
        for peer in places:
            assert await peer.whole(blocks)
    # What nobody wants any more is let go, everywhere.
    async with peers.session.delete(f"{first.url}/v1/peer/pins/{dags[0][0]}") as answer:
        assert answer.status == 200

    async def gone() -> bool:
        return not await shared(peers, dags[0][0])

    await eventually(gone, "that the pin is gone", LIMIT_S)


async def test_names_are_published_resolved_followed_and_survive_a_restart(peers: Peers) -> None:
    first, second = await peers.grow(2)
    root, blocks, data = file_dag(5, 1000)
    del root
    (leaf,) = (cid for cid in blocks if cid.codec == RAW)
    await first.content.put(list(blocks.items()))
    await know_each_other(peers)
    made = await peers.ask(first, "POST", "/v1/peer/names", json={"value": f"/ipfs/{leaf}"})
    assert made["name"] == name_of(first.id) and made["sequence"] == 0
    found = await peers.ask(second, "GET", f"/v1/peer/names?name={made['name']}")
    assert found["path"] == f"/ipfs/{leaf}"
    again = await peers.ask(
        first, "POST", "/v1/peer/names", json={"value": f"/ipfs/{leaf}", "key": "site"}
    )
    made = await peers.ask(
        first, "POST", "/v1/peer/names", json={"value": f"/ipns/{again['name']}"}
    )
    assert made["sequence"] == 1
    async with peers.session.get(f"{second.url}/ipns/{made['name']}") as answer:
        assert await answer.read() == data
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        assert answer.headers["X-Ipfs-Path"] == f"/ipns/{made['name']}"
    async with peers.session.get(f"{second.url}/routing/v1/ipns/{made['name']}") as answer:
        assert answer.content_type == "application/vnd.ipfs.ipns-record"
        record = await answer.read()
    await first.stop()
    await second.stop()
    await first.start()
    found = await peers.ask(first, "GET", f"/v1/peer/names?name={made['name']}")
    assert found["path"] == f"/ipfs/{leaf}"
    headers = {"Content-Type": "application/vnd.ipfs.ipns-record"}
    for body, status in ((record, 200), (record[:-1] + b"x", 422), (b"junk", 400)):
        async with peers.session.put(
            f"{first.url}/routing/v1/ipns/{made['name']}", data=body, headers=headers
        ) as answer:
            assert answer.status == status


async def test_a_peer_takes_no_orders_from_pages_or_bad_input(peers: Peers) -> None:
    (only,) = await peers.grow(1)
    async with peers.session.post(
        only.url + "/v1/peer/pins",
        json={"cid": "bafkqaaa"},
        headers={"Origin": "http://evil.example"},
    ) as answer:
        assert answer.status == 403
    # Pages whose own name has come to mean this machine. Their requests to read have no Origin.
    for host in ("evil.example", "evil.example:9864", "127.0.0.1.evil.example"):
        async with peers.session.get(
            only.url + "/v1/peer/status", headers={"Host": host}
        ) as answer:
            assert answer.status == 403, host
    for host in ("localhost", "LOCALHOST.:1", "peer.localhost", "[::1]:9864", "127.0.0.2"):
        async with peers.session.get(
            only.url + "/v1/peer/status", headers={"Host": host}
        ) as answer:
            assert answer.status == 200, host
    for path, body in (
        ("/v1/peer/pins", b"{"),
        ("/v1/peer/pins", b'{"cid": "nonsense"}'),
        ("/v1/peer/pins", b'{"cid": "bafkqaaa", "replicas": 65}'),
        ("/v1/peer/import", b"no car"),
        ("/v1/peer/names", b'{"value": "/etc/passwd"}'),
        ("/v1/peer/names", b'{"value": "/ipfs/bafkqaaa", "key": "../../x"}'),
        ("/v1/peers/find", b"junk"),
        ("/v1/peers/find", b"\x80"),
        ("/v1/peers/nonsense", b""),
        ("/v1/peers/find", b"x" * 200_000),
    ):
        async with peers.session.post(only.url + path, data=body) as answer:
            assert answer.status in (400, 404, 413), (path, body, await answer.read())
    async with peers.session.get(only.url + "/healthz") as answer:
        assert answer.status == 200
