"""The routing table and the search, alone."""

from __future__ import annotations

import random

import pytest

from twinfs.common.peerid import peer_id_of
from twinfs.common.peering import PeerRecord
from twinfs.datanode.peers.routing import Contact, RoutingTable, Search, contact_of


def contact(rng: random.Random, sequence: int = 1) -> Contact:
    peer = peer_id_of(rng.randbytes(32))
    return contact_of(PeerRecord(peer=peer, addresses=["127.0.0.1:1"], sequence=sequence))


@pytest.mark.parametrize("seed", range(20))
def test_nearest_is_what_sorting_everybody_gives(seed: int) -> None:
    rng = random.Random(seed)
    table = RoutingTable(peer_id_of(rng.randbytes(32)), width=rng.choice([2, 8, 20]))
    for _ in range(rng.choice([3, 50, 400])):
        table.alive(contact(rng), 0.0)
    everybody = table.contacts()
    assert len(everybody) == len(table)
    for target in (rng.getrandbits(256), table.point, table.point ^ 1, everybody[0].point):
        wanted = sorted(everybody, key=lambda c: c.point ^ target)[:7]
        assert table.nearest(target, 7) == wanted


def test_a_full_bucket_keeps_the_old_ones_until_they_fail() -> None:
    rng = random.Random(1)
    table = RoutingTable(peer_id_of(rng.randbytes(32)), width=4, max_failures=2)
    far = []
    while len(far) < 6:
        one = contact(rng)
        if (one.point ^ table.point).bit_length() == 256:
            far.append(one)
    assert [table.alive(one, 0.0) for one in far[:5]] == [True] * 4 + [False]
    assert not table.wants(far[4].peer)
    assert not table.failed(far[0].peer)
    assert table.wants(far[4].peer) and table.alive(far[4], 1.0)
    assert far[0].peer not in table and len(table) == 4
    assert not table.failed(far[1].peer) and table.failed(far[1].peer)
    assert far[1].peer not in table


def test_newer_addresses_replace_older_ones_only() -> None:
    rng = random.Random(2)
    table = RoutingTable(peer_id_of(rng.randbytes(32)))
    first = contact(rng, sequence=5)
    newer = first._replace(
        record=PeerRecord(peer=first.peer, addresses=["127.0.0.1:9"], sequence=6)
    )
    table.alive(first, 0.0)
    table.alive(newer, 1.0)
    table.alive(first, 2.0)
    found = table.get(first.peer)
    assert found is not None and found.record.addresses == ["127.0.0.1:9"]


def test_we_are_never_in_our_own_table() -> None:
    me = peer_id_of(bytes(32))
    table = RoutingTable(me)
    record = PeerRecord(peer=me, addresses=["127.0.0.1:1"], sequence=1)
    assert not table.alive(contact_of(record), 0.0) and not table.wants(me) and len(table) == 0


def test_a_search_ends_and_finds_the_nearest_though_half_do_not_answer() -> None:
    rng = random.Random(3)
    everybody = [contact(rng) for _ in range(300)]
    dead = {c.peer for c in rng.sample(everybody, 150)}
    target = rng.getrandbits(256)
    search = Search(target, everybody[:20], me=b"", width=8, parallel=3)
    while not search.done:
        asked = search.next()
        assert len(asked) <= 3
        if not asked:
            break
        for one in asked:
            if one.peer in dead:
                search.failed(one)
            else:
                near = sorted(everybody, key=lambda c: c.point ^ target)
                search.answered(one, near[:8] + rng.sample(everybody, 10))
    living = [c for c in everybody if c.peer not in dead]
    assert search.nearest(3) == sorted(living, key=lambda c: c.point ^ target)[:3]


def test_a_peer_that_invents_thousands_of_peers_costs_a_bounded_number_of_questions() -> None:
    rng = random.Random(4)
    search = Search(0, [contact(rng)], me=b"", width=20, max_asked=100)
    while not search.done:
        for one in search.next():
            # Each answer names a thousand peers that are nearer than all before.
            invented = [
                contact_of(
                    PeerRecord(
                        peer=peer_id_of(rng.randbytes(32)), addresses=["127.0.0.1:1"], sequence=1
                    )
                )
                for _ in range(200)
            ]
            search.answered(one, sorted(invented, key=lambda c: c.point))
    assert search.messages <= 100
    assert len(search._known) <= 1 + 100 * 32


def test_a_slow_peer_does_not_hold_the_search_up() -> None:
    rng = random.Random(5)
    contacts = [contact(rng) for _ in range(6)]
    search = Search(0, contacts, me=b"", width=6, parallel=2)
    stuck = search.next()
    assert search.next() == []
    for one in stuck:
        search.slow(one)
    assert len(search.next()) == 2
