"""New copies go where HDFS's default policy puts them, and a surplus is taken from where it is least missed."""

from __future__ import annotations

import collections
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfs.common.model import NodeId
from twinfs.namenode.placement import Candidate, choose_excess, choose_targets

GIB = 1024**3
SEEDS = range(20)


def node(
    number: int,
    rack: str = "/r1",
    *,
    host: str = "",
    remaining_bytes: int = 100 * GIB,
    load: int = 0,
) -> Candidate:
    return Candidate(NodeId(number), host or f"host{number}", rack, remaining_bytes, load)


def racks(count: int, per_rack: int) -> list[Candidate]:
    """Nodes 1, 2, ... on hosts of their own, *per_rack* in each of *count* racks."""
    return [node(i + 1, f"/r{i // per_rack + 1}") for i in range(count * per_rack)]


def pick(
    candidates: Sequence[Candidate], chosen: Sequence[NodeId], field: str = "rack"
) -> list[str]:
    by_id = {candidate.node_id: candidate for candidate in candidates}
    return [getattr(by_id[node_id], field) for node_id in chosen]


# --- the default policy ---


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_copy_stays_on_the_writers_host(seed: int) -> None:
    chosen = choose_targets(racks(3, 3), 3, random.Random(seed), client_host="host5")
    assert chosen[0] == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_copy_stays_on_the_node_that_writes(seed: int) -> None:
    """Even where its host has others; not when it is full or excluded."""
    nodes = racks(3, 3)
    rng = random.Random(seed)
    chosen = choose_targets(nodes, 3, rng, client_host="host5", client_node=NodeId(7))
    assert chosen[0] == 7
    assert len({node.rack for node in nodes if node.node_id in chosen}) == 2
    (other,) = choose_targets(nodes, 1, rng, client_node=NodeId(7), exclude=[NodeId(7)])
    assert other != 7


@pytest.mark.parametrize("seed", SEEDS)
def test_three_copies_are_on_two_racks(seed: int) -> None:
    """One on a rack of its own, the second and the third together on another."""
    nodes = racks(4, 3)
    first, second, third = pick(nodes, choose_targets(nodes, 3, random.Random(seed)))
    assert first != second
    assert second == third


@pytest.mark.parametrize("seed", SEEDS)
def test_more_copies_than_three_go_anywhere_but_never_twice_to_a_node(seed: int) -> None:
    nodes = racks(3, 3)
    chosen = choose_targets(nodes, 7, random.Random(seed))
    assert len(set(chosen)) == 7


def test_a_writer_from_outside_begins_anywhere() -> None:
    nodes = racks(3, 3)
    firsts = {choose_targets(nodes, 1, random.Random(s), client_host="laptop")[0] for s in SEEDS}
    assert len(firsts) > 3


@pytest.mark.parametrize("seed", SEEDS)
def test_one_rack_is_enough(seed: int) -> None:
    chosen = choose_targets(racks(1, 4), 3, random.Random(seed), client_host="host2")
    assert chosen[0] == 2
    assert len(set(chosen)) == 3


def test_fewer_are_chosen_when_no_more_qualify() -> None:
    assert len(choose_targets(racks(2, 1), 3, random.Random(0))) == 2
    assert choose_targets([], 3, random.Random(0)) == []


# --- copies that are there already ---


@pytest.mark.parametrize("seed", SEEDS)
def test_the_second_copy_leaves_the_rack_of_the_first(seed: int) -> None:
    nodes = racks(2, 3)
    chosen = choose_targets(nodes, 1, random.Random(seed), having=[nodes[0]])
    assert pick(nodes, chosen) == ["/r2"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_third_copy_leaves_a_rack_that_has_both_others(seed: int) -> None:
    nodes = racks(2, 3)
    chosen = choose_targets(nodes, 1, random.Random(seed), having=nodes[:2])
    assert pick(nodes, chosen) == ["/r2"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_holder_and_an_excluded_node_are_not_chosen(seed: int) -> None:
    nodes = racks(2, 3)
    chosen = choose_targets(
        nodes, 6, random.Random(seed), having=[nodes[0]], exclude=[NodeId(4), NodeId(6)]
    )
    assert sorted(chosen) == [2, 3, 5]


def test_the_writers_host_counts_for_the_first_copy_only() -> None:
    nodes = racks(2, 3)
    chosen = choose_targets(nodes, 1, random.Random(0), client_host="host2", having=[nodes[0]])
    assert pick(nodes, chosen) == ["/r2"]


# --- hosts with several nodes ---


@pytest.mark.parametrize("seed", SEEDS)
def test_two_copies_share_a_host_only_when_there_is_no_other(seed: int) -> None:
    nodes = [node(1, host="a"), node(2, host="a"), node(3, host="b"), node(4, host="b")]
    chosen = choose_targets(nodes, 4, random.Random(seed))
    hosts = pick(nodes, chosen, "host")
    assert set(hosts[:2]) == {"a", "b"}
    assert len(set(chosen)) == 4


@pytest.mark.parametrize("seed", SEEDS)
def test_another_host_is_preferred_even_when_the_wanted_rack_has_none(seed: int) -> None:
    """The rack of the second copy has only its own host left: the third goes to a third host."""
    nodes = [
        node(1, "/r1", host="a"),
        node(2, "/r2", host="b"),
        node(3, "/r2", host="b"),
        node(4, "/r1", host="c"),
    ]
    chosen = choose_targets(nodes, 1, random.Random(seed), having=nodes[:2])
    assert chosen == [4]


@pytest.mark.parametrize("seed", SEEDS)
def test_another_host_is_preferred_when_the_other_rack_is_full(seed: int) -> None:
    nodes = [
        node(1, "/r1", host="a"),
        node(2, "/r1", host="a"),
        node(3, "/r1", host="b"),
        node(4, "/r2", host="c", remaining_bytes=0),
    ]
    assert choose_targets(nodes, 1, random.Random(seed), having=nodes[:1], length=1) == [3]


# --- space and load ---


def test_a_node_needs_room_for_more_than_two_such_blocks() -> None:
    nodes = [node(1, remaining_bytes=200), node(2, remaining_bytes=201)]
    assert choose_targets(nodes, 2, random.Random(0), length=100) == [2]


def test_a_full_node_takes_not_even_an_empty_block() -> None:
    assert choose_targets([node(1, remaining_bytes=0)], 1, random.Random(0), length=0) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_writer_on_a_full_node_writes_elsewhere(seed: int) -> None:
    nodes = [node(1, remaining_bytes=10), node(2), node(3)]
    chosen = choose_targets(nodes, 2, random.Random(seed), client_host="host1", length=100)
    assert sorted(chosen) == [2, 3]


@pytest.mark.parametrize("seed", SEEDS)
def test_of_two_nodes_the_less_busy_one_is_taken_then_the_emptier_one(seed: int) -> None:
    busy, idle = node(1, load=5, remaining_bytes=900), node(2, load=1, remaining_bytes=100)
    assert choose_targets([busy, idle], 1, random.Random(seed)) == [2]
    fuller, emptier = node(1, remaining_bytes=100), node(2, remaining_bytes=900)
    assert choose_targets([fuller, emptier], 1, random.Random(seed)) == [2]


def test_busy_nodes_get_less_but_not_everybody_runs_to_the_idlest() -> None:
    nodes = [node(i, load=i) for i in range(1, 9)]
    rng = random.Random(7)
    counts = collections.Counter(choose_targets(nodes, 1, rng)[0] for _ in range(2_000))
    assert counts[NodeId(8)] == 0  # in every pair the other one is better
    assert counts[NodeId(1)] < 1_000
    assert counts[NodeId(1)] > counts[NodeId(4)] > counts[NodeId(7)] > 0


def test_a_seed_replays_the_choice_whatever_the_order_of_the_nodes() -> None:
    nodes = racks(3, 4)
    shuffled = list(nodes)
    random.Random(1).shuffle(shuffled)
    for seed in SEEDS:
        chosen = choose_targets(nodes, 4, random.Random(seed))
        assert choose_targets(shuffled, 4, random.Random(seed)) == chosen


CLUSTERS = st.lists(
    st.tuples(
        st.integers(0, 3),  # rack
        st.integers(0, 5),  # host
        st.sampled_from([0, 50, 1_000]),  # remaining bytes
        st.integers(0, 3),  # load
    ),
    max_size=12,
)


@given(
    cluster=CLUSTERS,
    count=st.integers(1, 6),
    seed=st.integers(0, 1_000),
    excluded=st.sets(st.integers(1, 12), max_size=4),
    held=st.sets(st.integers(1, 12), max_size=3),
    client=st.integers(0, 6),
)
def test_whatever_the_cluster_the_choice_is_valid_and_complete(
    cluster: list[tuple[int, int, int, int]],
    count: int,
    seed: int,
    excluded: set[int],
    held: set[int],
    client: int,
) -> None:
    """As many nodes as qualify, each once; a host twice only when every free host has a copy."""
    nodes = [
        node(i, f"/r{rack}", host=f"{rack}.{host}", remaining_bytes=remaining, load=load)
        for i, (rack, host, remaining, load) in enumerate(cluster, 1)
    ]
    having = [n for n in nodes if n.node_id in held]
    exclude = [NodeId(number) for number in excluded]
    chosen = choose_targets(
        nodes,
        count,
        random.Random(seed),
        client_host=f"0.{client}",
        length=100,
        exclude=exclude,
        having=having,
    )
    fit = {
        n.node_id: n
        for n in nodes
        if n.remaining_bytes > 200 and n.node_id not in excluded and n not in having
    }
    assert len(chosen) == len(set(chosen)) == min(count, len(fit))
    assert set(chosen) <= set(fit)
    used = {n.host for n in having}
    for at, node_id in enumerate(chosen):
        others = {n.host for n in fit.values() if n.node_id not in chosen[:at]}
        assert fit[node_id].host not in used or others <= used
        used.add(fit[node_id].host)


# --- surplus ---


def test_the_fullest_node_of_a_crowded_rack_gives_up_its_copy() -> None:
    holders = [
        node(1, "/r1", remaining_bytes=10),
        node(2, "/r2", remaining_bytes=30),
        node(3, "/r2", remaining_bytes=20),
    ]
    assert choose_excess(holders, 1) == [3]


def test_among_single_racks_the_fullest_node_gives_up_its_copy() -> None:
    holders = [node(i, f"/r{i}", remaining_bytes=i) for i in (3, 1, 2)]
    assert choose_excess(holders, 2) == [1, 2]


def test_the_last_copy_is_never_given_up() -> None:
    assert choose_excess([node(1)], 1) == []
    assert len(choose_excess(racks(1, 3), 9)) == 2
    assert choose_excess([], 1) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=9), st.integers(0, 9))
def test_giving_up_copies_keeps_as_many_racks_as_can_be(
    spread: list[tuple[int, int]], count: int
) -> None:
    holders = [node(i, f"/r{r}", remaining_bytes=free) for i, (r, free) in enumerate(spread, 1)]
    dropped = choose_excess(holders, count)
    left = [holder for holder in holders if holder.node_id not in dropped]
    assert len(dropped) == len(set(dropped)) == min(count, max(0, len(holders) - 1))
    before = {holder.rack for holder in holders}
    assert len({holder.rack for holder in left}) == min(len(before), len(left))
