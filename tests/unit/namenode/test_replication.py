"""The replication monitor: the rarest blocks first, nothing copied twice, no last copy dropped."""

from __future__ import annotations

import collections
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfs.common.model import Block, BlockId, GenerationStamp, NodeId
from twinfs.namenode.placement import Candidate
from twinfs.namenode.replication import (
    COPY_TIMEOUT_S,
    PARTS,
    Action,
    BlockState,
    CopyTo,
    Drop,
    Limits,
    ReplicationMonitor,
)

GIB = 1024**3


def monitor(per_node: int = 8, seed: int = 0) -> ReplicationMonitor:
    return ReplicationMonitor(random.Random(seed), Limits(per_node=per_node, whole_bytes=100))


def live(*numbers: int, remaining_bytes: int = 100 * GIB) -> list[Candidate]:
    """Nodes on hosts of their own, odd ones in one rack and even ones in another."""
    return [Candidate(NodeId(n), f"h{n}", f"/r{n % 2}", remaining_bytes, 0) for n in numbers]


def state(block_id: int, *holders: int, wanted: int = 3, length: int = 100) -> BlockState:
    block = Block(block_id=BlockId(block_id), generation=GenerationStamp(1), length=length)
    return BlockState(block, wanted, tuple(NodeId(holder) for holder in holders))


def copies(actions: Sequence[Action]) -> list[tuple[int, int]]:
    """(block, target) of every copy."""
    return [(a.block.block_id, a.target) for a in actions if isinstance(a, CopyTo)]


def drops(actions: Sequence[Action]) -> list[tuple[int, int]]:
    return [(a.block.block_id, a.node_id) for a in actions if isinstance(a, Drop)]


# --- what waits ---


def test_blocks_wait_in_order_and_once() -> None:
    core = monitor()
    core.consider([3, 1])
    core.consider([1, 2, 3])
    assert core.waiting == 3
    assert core.take(2) == [3, 1]
    assert core.take(9) == [2]
    assert core.take(9) == []
    assert core.waiting == 0


def test_a_block_taken_may_be_considered_again() -> None:
    core = monitor()
    core.consider([1])
    core.take(1)
    core.consider([1])
    assert core.take(1) == [1]


# --- too few copies ---


def test_a_block_with_one_copy_gets_two_more() -> None:
    actions = monitor().decide([state(1, 1)], live(1, 2, 3, 4), 0.0)
    targets = [target for _, target in copies(actions)]
    assert len(targets) == len(actions) == 2
    assert len(set(targets)) == 2
    assert 1 not in targets
    assert all(isinstance(action, CopyTo) and action.sources == (1,) for action in actions)


def test_a_block_with_enough_copies_is_left_alone() -> None:
    core = monitor()
    assert core.decide([state(1, 1, 2, 3)], live(1, 2, 3, 4), 0.0) == []
    assert (core.waiting, core.copying) == (0, 0)


def test_one_copy_left_is_more_urgent_than_two() -> None:
    states = [state(1, 1, 2), state(2, 1, 2), state(3, 2), state(4, 1, 2), state(5, 1)]
    actions = monitor(per_node=100).decide(states, live(1, 2, 3, 4), 0.0)
    assert [block for block, _ in copies(actions)] == [3, 3, 5, 5, 1, 2, 4]


def test_when_only_some_can_be_copied_the_rarest_are() -> None:
    core = monitor(per_node=1)
    states = [state(1, 1, 3), state(2, 1, 3), state(3, 1, wanted=2), state(4, 3, wanted=2)]
    assert [block for block, _ in copies(core.decide(states, live(1, 2, 3, 4), 0.0))] == [3, 4]
    assert core.take(9) == [1, 2]


def test_copies_on_dead_nodes_do_not_count() -> None:
    """Node 2 is silent: its copy is neither counted nor read, and it is not a target."""
    actions = monitor().decide([state(1, 1, 2, 3)], live(1, 3, 4), 0.0)
    assert copies(actions) == [(1, 4)]
    [copy] = actions
    assert isinstance(copy, CopyTo)
    assert set(copy.sources) == {1, 3}


def test_a_block_without_a_living_copy_can_only_wait_for_its_nodes() -> None:
    core = monitor()
    assert core.decide([state(1, 5, 6)], live(1, 2), 0.0) == []
    assert core.decide([state(2)], live(1, 2), 0.0) == []
    assert core.copying == 0


def test_with_too_few_nodes_as_many_copies_as_there_can_be() -> None:
    core = monitor()
    assert copies(core.decide([state(1, 1)], live(1, 2), 0.0)) == [(1, 2)]
    assert core.waiting == 0  # a look every now and then finds it; asking at once would be in vain


def test_full_nodes_are_no_targets() -> None:
    nodes = [*live(1, 2), *live(3, 4, remaining_bytes=150)]
    assert copies(monitor().decide([state(1, 1)], nodes, 0.0)) == [(1, 2)]


def test_a_copy_leaves_the_rack_that_has_the_others() -> None:
    assert copies(monitor().decide([state(1, 1, 3)], live(1, 2, 3, 5, 7, 9), 0.0)) == [(1, 2)]


# --- under way ---


def test_what_is_being_copied_is_not_copied_again() -> None:
    core = monitor()
    nodes = live(1, 2, 3, 4, 5)
    assert len(copies(core.decide([state(1, 1)], nodes, 0.0))) == 2
    assert core.copying == 2
    assert core.decide([state(1, 1)], nodes, 1.0) == []


def test_only_what_is_missing_beside_the_copies_under_way_is_added() -> None:
    core = monitor()
    [(_, target)] = copies(core.decide([state(1, 1, wanted=2)], live(1, 2, 3, 4), 0.0))
    actions = core.decide([state(1, 1, wanted=4)], live(1, 2, 3, 4), 1.0)
    assert sorted([target, *(t for _, t in copies(actions))]) == [2, 3, 4]


def test_a_copy_that_arrived_counts_as_a_holder() -> None:
    core = monitor()
    [(_, target)] = copies(core.decide([state(1, 1, wanted=2)], live(1, 2, 3), 0.0))
    core.received(1, NodeId(target))
    assert core.copying == 0
    assert core.decide([state(1, 1, target, wanted=2)], live(1, 2, 3), 1.0) == []


def test_another_node_or_block_that_arrives_settles_nothing() -> None:
    core = monitor()
    [(_, target)] = copies(core.decide([state(1, 1, wanted=2)], live(1, 2, 3), 0.0))
    core.received(1, NodeId(5 - target))
    core.received(2, NodeId(target))
    assert core.copying == 1


def test_a_copy_that_does_not_arrive_is_tried_again() -> None:
    core = monitor()
    nodes = live(1, 2)
    core.decide([state(1, 1, wanted=2)], nodes, 0.0)
    assert core.decide([], nodes, COPY_TIMEOUT_S - 0.1) == []
    assert (core.copying, core.waiting) == (1, 0)
    assert core.decide([], nodes, COPY_TIMEOUT_S) == []
    assert (core.copying, core.take(9)) == (0, [1])
    assert copies(core.decide([state(1, 1, wanted=2)], nodes, COPY_TIMEOUT_S)) == [(1, 2)]


def test_a_copy_that_came_in_time_is_not_looked_at_again() -> None:
    core = monitor()
    core.decide([state(1, 1, wanted=2)], live(1, 2), 0.0)
    core.received(1, NodeId(2))
    core.decide([], live(1, 2), 2 * COPY_TIMEOUT_S)
    assert core.waiting == 0


# --- how much at once ---


def test_a_node_takes_only_so_many_copies_at_once() -> None:
    core = monitor(per_node=2)
    nodes = live(1, 2, 3, 4)
    states = [state(block, block % 3 + 1, wanted=2) for block in range(1, 13)]
    busy: collections.Counter[int] = collections.Counter()
    for action in core.decide(states, nodes, 0.0):
        assert isinstance(action, CopyTo)
        busy[action.target] += 1
        busy[action.sources[0]] += 1
    assert max(busy.values()) <= 2
    assert core.waiting + core.copying == 12


def test_a_node_sends_only_so_many_copies_at_once() -> None:
    """Many blocks whose only copy is on node 1: it must not be asked for all of them together."""
    core = monitor(per_node=3)
    states = [state(block, 1, wanted=2) for block in range(1, 21)]
    nodes = live(*range(1, 11))
    assert len(copies(core.decide(states, nodes, 0.0))) == 3
    assert core.waiting == 17


def test_small_copies_count_for_their_part() -> None:
    """A node has as many bytes in flight as with whole copies, but no more than `PARTS` times as many copies."""
    nodes = live(1, 2)
    for length, at_once in ((100, 2), (50, 4), (25, 8), (1, 2 * PARTS), (0, 2 * PARTS)):
        core = monitor(per_node=2)
        states = [state(block, 1, wanted=2, length=length) for block in range(1, 101)]
        begun = copies(core.decide(states, nodes, 0.0))
        assert len(begun) == at_once == core.copying, length
        assert core.busy(NodeId(1)) == core.busy(NodeId(2)) == 2
        for block, target in begun:
            core.received(block, NodeId(target))
        assert core.busy(NodeId(1)) == core.busy(NodeId(2)) == core.copying == 0


def test_what_a_copy_costs_does_not_change_on_its_way() -> None:
    """An append makes the block longer while it is copied: what was counted is what is taken off again."""
    core = monitor(per_node=2)
    core.decide([state(1, 1, wanted=2, length=10)], live(1, 2), 0.0)
    core.decide([state(1, 1, wanted=3, length=100)], live(1, 2, 3), 0.0)
    for node in (2, 3):
        core.received(1, NodeId(node))
    assert core.busy(NodeId(1)) == 0
    assert len(copies(core.decide([state(n, 1, wanted=2) for n in (4, 5)], live(1, 2), 1.0))) == 2


def test_the_limit_of_the_cluster_counts_parts_too() -> None:
    limits = Limits(per_node=100, in_all=1, whole_bytes=100)
    core = ReplicationMonitor(random.Random(0), limits)
    states = [state(block, 1, wanted=2, length=50) for block in range(1, 9)]
    assert len(copies(core.decide(states, live(1, 2), 0.0))) == 2


def test_no_more_is_looked_at_than_there_is_room_for() -> None:
    """With everything under way that may be, what waits stays where it is."""
    core = monitor(per_node=2)
    states = [state(block, 1, wanted=2, length=50) for block in range(1, 31)]
    assert len(copies(core.decide(states, live(1, 2), 0.0))) == 4
    assert core.take(500, 2) == []
    core.received(1, NodeId(2))
    assert len(core.take(500, 2)) in (1, 2)


def test_what_was_put_off_goes_on_when_copies_arrive() -> None:
    core = monitor(per_node=1)
    nodes = live(1, 2)
    done: list[int] = []
    core.consider(range(1, 6))
    for now_s in range(20):
        states = [state(block, 1, wanted=2) for block in core.take(100)]
        for block, target in copies(core.decide(states, nodes, float(now_s))):
            done.append(block)
            core.received(block, NodeId(target))
    assert sorted(done) == [1, 2, 3, 4, 5]


def test_sources_are_given_with_the_idlest_first() -> None:
    core = monitor()
    nodes = live(1, 2, 3)
    core.decide([state(1, 1, wanted=2)], [*live(1), *live(3)], 0.0)
    [copy] = core.decide([state(2, 1, 2, wanted=3)], nodes, 0.0)
    assert isinstance(copy, CopyTo)
    assert copy.sources == (2, 1)


def test_two_copies_of_a_block_come_from_two_nodes() -> None:
    actions = monitor().decide([state(1, 1, 2, wanted=4)], live(1, 2, 3, 4), 0.0)
    firsts = [action.sources[0] for action in actions if isinstance(action, CopyTo)]
    assert sorted(firsts) == [1, 2]


# --- too many copies ---


def test_a_surplus_is_dropped() -> None:
    nodes = [*live(1, 2, 3), *live(4, remaining_bytes=GIB)]
    actions = monitor().decide([state(1, 1, 2, 3, 4)], nodes, 0.0)
    assert drops(actions) == [(1, 4)]
    assert copies(actions) == []


def test_copies_on_silent_nodes_are_no_surplus() -> None:
    """Four copies are known, three live: were one dropped and the fourth lost, two would be left."""
    assert monitor().decide([state(1, 1, 2, 3, 4)], live(1, 2, 3), 0.0) == []


def test_nothing_is_dropped_while_a_copy_is_under_way() -> None:
    core = monitor()
    core.decide([state(1, 1, wanted=2)], live(1, 2), 0.0)
    assert core.decide([state(1, 1, 3, 4, wanted=2)], live(1, 2, 3, 4), 1.0) == []


STATES = st.lists(
    st.tuples(st.sets(st.integers(1, 9), max_size=6), st.integers(1, 4)), min_size=1, max_size=12
)


@given(
    states=STATES,
    alive=st.sets(st.integers(1, 9)),
    per_node=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_whatever_the_cluster_no_step_does_harm(
    states: list[tuple[set[int], int]], alive: set[int], per_node: int, seed: int
) -> None:
    """Copies go from living holders to living others within limits; drops leave what was asked for."""
    core = monitor(per_node, seed)
    nodes = live(*sorted(alive))
    blocks = {i: state(i, *sorted(held), wanted=wanted) for i, (held, wanted) in enumerate(states)}
    busy: collections.Counter[int] = collections.Counter()
    good = {i: set(blocks[i].holders) & alive for i in blocks}
    for action in core.decide(list(blocks.values()), nodes, 0.0):
        there = good[action.block.block_id]
        if isinstance(action, CopyTo):
            assert action.target in alive
            assert action.target not in blocks[action.block.block_id].holders
            assert set(action.sources) == there
            busy[action.target] += 1
            busy[action.sources[0]] += 1
        else:
            there.remove(action.node_id)
            assert len(there) >= blocks[action.block.block_id].wanted
    assert all(count <= per_node for count in busy.values())
    again = core.decide(list(blocks.values()), nodes, 1.0)
    assert len(set(copies(again))) == len(copies(again))
    for i, one in blocks.items():
        coming = sum(1 for block, _ in copies(again) if block == i)
        assert coming <= max(0, one.wanted - len(set(one.holders) & alive))


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_node_is_made_up_for_and_its_return_too(seed: int) -> None:
    """Any node may go and come back: in the end every block has three copies, and always one or more.

    Method: copies arrive at once; drops take effect at once.
    """
    rng = random.Random(seed)
    core = monitor(per_node=2, seed=seed)
    holders = {block: set(rng.sample(range(1, 7), 3)) for block in range(60)}
    alive = set(range(1, 7))

    def settle(now_s: float) -> None:
        core.consider(list(holders))
        for _ in range(500):
            taken = core.take(7)
            states = [state(block, *sorted(holders[block])) for block in taken]
            for action in core.decide(states, live(*sorted(alive)), now_s):
                block = int(action.block.block_id)
                if isinstance(action, CopyTo):
                    assert action.sources[0] in holders[block]
                    holders[block].add(int(action.target))
                    core.received(block, action.target)
                    core.consider([block])  # as every report of an arrival does
                elif isinstance(action, Drop):
                    holders[block].remove(int(action.node_id))
                assert holders[block] & alive
            if not taken:
                return
        pytest.fail("the monitor never came to rest")

    lost = rng.randrange(1, 7)
    alive.remove(lost)
    settle(0.0)
    assert all(len(held & alive) == 3 for held in holders.values())
    alive.add(lost)
    settle(1_000.0)
    assert all(len(held) == 3 for held in holders.values())


def test_copies_of_a_node_that_begins_anew_are_not_waited_for() -> None:
    """Found by chaos runs: a target was killed and came back before it was dead, and its copies blocked repair until they timed out."""
    core = monitor()
    core.consider([1, 2])
    core.take(9)
    begun = copies(core.decide([state(1, 1, 2), state(2, 1, 2)], live(1, 2, 3), 0.0))
    assert begun == [(1, 3), (2, 3)]
    core.forget(NodeId(3))
    assert core.copying == 0
    assert core.busy(NodeId(3)) == core.busy(NodeId(1)) == core.busy(NodeId(2)) == 0
    assert sorted(core.take(9)) == [1, 2]
    again = copies(core.decide([state(1, 1, 2), state(2, 1, 2)], live(1, 2, 3), 1.0))
    assert sorted(again) == [(1, 3), (2, 3)]


def test_copies_between_others_go_on_when_a_node_begins_anew() -> None:
    core = monitor()
    core.consider([1])
    core.take(9)
    core.decide([state(1, 1, 2)], live(1, 2, 3, 4), 0.0)
    before = core.copying
    core.forget(NodeId(9))
    assert core.copying == before == 1
