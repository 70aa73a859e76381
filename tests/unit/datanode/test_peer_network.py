"""Networks of peers in one process: finding, leaving, expiring, lying, parting and meeting again."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from twinfs.common.errors import ChecksumMismatch, ContentNotFound, InvalidRequest
from twinfs.common.ipns import make_record
from twinfs.common.peerid import Identity
from twinfs.common.peering import Announce, FindPeers, sign_announce, sign_record
from twinfs.datanode.peers.node import PeerNode, PeerSettings
from twinfs.datanode.peers.records import MAX_PAIRS_OF_PEER, ProviderStore

from .peers_help import Network


def key(number: int) -> bytes:
    return b"\x1e\x20" + number.to_bytes(32, "big")


async def providers(node: PeerNode, wanted: bytes, limit: int = 20) -> list[bytes]:
    return [record.peer async for record in node.find_providers(wanted, limit)]


@pytest_asyncio.fixture
async def network() -> AsyncIterator[Network]:
    found = Network()
    yield found
    await found.close()


async def test_everybody_finds_what_anybody_provides(network: Network) -> None:
    await network.grow(40)
    nodes = network.living()
    for number, node in enumerate(nodes):
        assert await node.provide([key(number)]) >= 10
    for number, node in enumerate(nodes):
        asking = network.rng.choice([other for other in nodes if other is not node])
        assert await providers(asking, key(number)) == [node.identity.peer_id]
    assert await providers(nodes[0], key(999)) == []


@pytest.mark.parametrize("seed", range(3))
async def test_half_may_leave_and_the_rest_is_still_found(seed: int) -> None:
    network = Network(seed)
    await network.grow(60)
    nodes = network.living()
    for number, node in enumerate(nodes):
        await node.provide([key(number)])
    network.kill(30)
    living = network.living()
    for number, node in enumerate(nodes):
        if node in living:
            asking = network.rng.choice([other for other in living if other is not node])
            assert node.identity.peer_id in await providers(asking, key(number))
    await network.close()


async def test_records_of_peers_that_are_gone_expire(network: Network) -> None:
    await network.grow(10)
    nodes = network.living()
    await nodes[3].provide([key(1)])
    assert await providers(nodes[7], key(1)) == [nodes[3].identity.peer_id]
    network.clock.advance(network.settings.provider_ttl_s + 1)
    assert await providers(nodes[7], key(1)) == []
    for node in nodes:
        node.providers.expire(network.clock.wall_ms())
        assert len(node.providers) == 0


async def test_withdrawn_is_not_found(network: Network) -> None:
    await network.grow(10)
    nodes = network.living()
    await nodes[3].provide([key(1), key(2)])
    await nodes[3].withdraw([key(1)])
    assert await providers(nodes[7], key(1)) == []
    assert await providers(nodes[7], key(2)) == [nodes[3].identity.peer_id]


@pytest.mark.timeout(600)  # thousands of signatures, on a machine that may be busy
async def test_searches_cost_a_number_of_messages_that_grows_as_the_logarithm() -> None:
    """Medians over 40 searches in networks of 16, 64, 256 and 500 peers with buckets of 8."""
    medians = {}
    network = Network(9, PeerSettings(width=8))
    for size in (16, 64, 256, 500):
        await network.grow(size - len(network.nodes))
        nodes = network.living()
        counts = []
        for number in range(40):
            provider, asking = network.rng.sample(nodes, 2)
            await provider.provide([key(size * 1_000 + number)])
            before = asking.questions
            assert await providers(asking, key(size * 1_000 + number), 1)
            counts.append(asking.questions - before)
        medians[size] = statistics.median(counts)
    await network.close()
    for size, median in medians.items():
        assert median <= 2 * math.log2(size), medians
    assert medians[500] <= 4 * max(1.0, medians[64]), medians


async def test_a_name_converges_to_its_highest_sequence_after_a_partition(
    network: Network,
) -> None:
    await network.grow(30)
    nodes = network.living()
    owner = Identity(bytes(31) + b"\x07")
    expires_ms = network.clock.wall_ms() + 3_600_000

    def record(sequence: int, value: str) -> bytes:
        return make_record(owner, f"/ipfs/{value}", sequence, expires_ms=expires_ms, ttl_s=60)

    first, second = record(1, "bafkqaaa"), record(2, "bafkqabtimvwgy3yk")
    assert await nodes[0].publish_name(first, owner.peer_id) >= 10
    for number, address in enumerate(network.nodes):
        network.side[address] = number % 2
    assert await nodes[1].publish_name(second, owner.peer_id) >= 5
    assert (await nodes[1].resolve_name(owner.peer_id)).sequence == 2
    assert (await nodes[0].resolve_name(owner.peer_id)).sequence == 1
    network.side.clear()
    for node in nodes:
        await node._look_around()
    # Whoever asks sees the newer one, and those who kept the older one learn of it.
    assert (await nodes[2].resolve_name(owner.peer_id)).sequence == 2
    for node in nodes:
        assert (await node.resolve_name(owner.peer_id)).sequence == 2
    # An old record put again changes nothing.
    await nodes[4].publish_name(first, owner.peer_id)
    assert (await nodes[5].resolve_name(owner.peer_id)).raw == second


async def test_lies_are_not_believed(network: Network) -> None:
    await network.grow(5)
    node, other = network.living()[:2]
    liar = Identity(bytes(32))
    record = sign_record(liar, ["127.0.0.1:10001"], 1)
    forged = msgspec.structs.replace(record, addresses=["127.0.0.1:10002"])
    await node.answer(FindPeers(target=bytes(32), sender=forged))
    await node.settle()
    assert liar.peer_id not in node.table
    # Its own word for an address where another peer answers.
    await node.answer(FindPeers(target=bytes(32), sender=record))
    await node.settle()
    assert liar.peer_id not in node.table
    # An announcement in another's name, for another peer, changed on the way.
    expires_ms = network.clock.wall_ms() + 1000
    good = sign_announce(liar, record, node.identity.peer_id, [key(1)], expires_ms)
    assert (await node.answer(good)).stored == 1
    with pytest.raises(InvalidRequest):
        await other.answer(good)
    for change in ({"keys": [key(2)]}, {"expires_ms": expires_ms + 1}, {"sender": other.me}):
        with pytest.raises(ChecksumMismatch):
            await node.answer(msgspec.structs.replace(good, **change))
    assert isinstance(good, Announce)


async def test_addresses_of_this_machine_are_not_taken_from_elsewhere() -> None:
    network = Network()
    node = network.add()
    node._local_only = False
    with pytest.raises(InvalidRequest):
        node.check(sign_record(Identity(bytes(32)), ["127.0.0.1:80"], 1))
    node.check(sign_record(Identity(bytes(32)), ["192.0.2.7:80"], 1))
    await network.close()


async def test_finding_a_peer(network: Network) -> None:
    await network.grow(50)
    nodes = network.living()
    for _ in range(20):
        asking, wanted = network.rng.sample(nodes, 2)
        assert (await asking.find_peer(wanted.identity.peer_id)).addresses == wanted.me.addresses
    with pytest.raises(ContentNotFound):
        await nodes[0].find_peer(Identity(bytes(32)).peer_id)


def test_one_peer_can_not_fill_the_provider_store() -> None:
    store = ProviderStore()
    record = sign_record(Identity(bytes(32)), ["127.0.0.1:1"], 1)
    stored = sum(
        store.add(record, [key(n) for n in range(start, start + 1000)], 10_000, 0)
        for start in range(0, MAX_PAIRS_OF_PEER + 5000, 1000)
    )
    assert stored == len(store) == MAX_PAIRS_OF_PEER
    other = sign_record(Identity(b"\x01" * 32), ["127.0.0.1:2"], 1)
    assert store.add(other, [key(1)], 10_000, 0) == 1
    rng = random.Random(1)
    assert len(store.of(key(1), 0, 10, rng)) == 2
    store.forget_peer(record.peer)
    assert [found.peer for found in store.of(key(1), 0, 10, rng)] == [other.peer]
    assert len(store) == 1
