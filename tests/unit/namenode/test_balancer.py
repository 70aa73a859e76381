"""The balancer moves no more than it must, only where there is room, and never below the rack spread."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinfs.common.model import Block, BlockId, GenerationStamp, NodeId
from twinfs.namenode.balancer import Mover, Usage, survey
from twinfs.namenode.placement import Candidate
from twinfs.namenode.replication import BlockState

GIB = 1 << 30


def usage(number: int, percent: float, rack: str = "/r", capacity_bytes: int = 100 * GIB) -> Usage:
    used = int(capacity_bytes * percent / 100)
    node = Candidate(NodeId(number), f"h{number}", rack, capacity_bytes - used, 0)
    return Usage(node, used, capacity_bytes)


def state(block_id: int, *holders: int, length: int = GIB, wanted: int = 3) -> BlockState:
    block = Block(block_id=BlockId(block_id), generation=GenerationStamp(1), length=length)
    return BlockState(block, wanted, tuple(NodeId(h) for h in holders))


def test_nodes_near_the_average_are_left_alone() -> None:
    outlook = survey([usage(1, 45), usage(2, 50), usage(3, 55)], 10.0)
    assert outlook.balanced
    assert not outlook.over
    assert outlook.average_percent == pytest.approx(50.0)
    assert outlook.spread_percent == pytest.approx(5.0)


def test_a_full_node_gives_to_all_below_the_average() -> None:
    outlook = survey([usage(1, 90), usage(2, 40), usage(3, 38), usage(4, 52)], 10.0)
    assert set(outlook.over) == {1}
    assert set(outlook.under) == {2, 3, 4}
    assert outlook.left_bytes == pytest.approx(25 * GIB, rel=0.01)


def test_an_empty_node_takes_from_all_above_the_average() -> None:
    outlook = survey([usage(1, 50), usage(2, 50), usage(3, 50), usage(4, 10)], 12.0)
    assert set(outlook.over) == {1, 2, 3}
    assert set(outlook.under) == {4}


def test_no_nodes_are_balanced() -> None:
    assert survey([], 10.0).balanced
    assert survey([usage(1, 0, capacity_bytes=0)], 10.0).balanced


def mover(usages: list[Usage], threshold: float = 5.0, per_node: int = 8) -> Mover:
    return Mover(usages, survey(usages, threshold), random.Random(1), per_node=per_node)


def test_a_move_goes_from_the_full_to_the_empty() -> None:
    core = mover([usage(1, 80), usage(2, 50), usage(3, 50), usage(4, 10)])
    assert core.sources() == [1, 2, 3]
    [move] = core.choose(NodeId(1), [state(1, 1, 2, 3)])
    assert (move.source, move.target) == (1, 4)


def test_what_repair_has_to_see_to_is_not_moved() -> None:
    core = mover([usage(1, 80), usage(2, 50), usage(3, 50), usage(4, 10)])
    assert not list(core.choose(NodeId(1), [state(1, 1, 2)]))  # a copy is missing
    assert not list(
        core.choose(NodeId(1), [state(2, 1, 2, 9)])
    )  # one is on a node that is not there


def test_the_last_copy_of_a_rack_stays_there() -> None:
    usages = [usage(1, 80, "/a"), usage(2, 50, "/b"), usage(3, 50, "/b"), usage(4, 10, "/b")]
    assert not list(mover(usages).choose(NodeId(1), [state(1, 1, 2, 3)]))
    usages[3] = usage(4, 10, "/a")
    [move] = mover(usages).choose(NodeId(1), [state(1, 1, 2, 3)])
    assert move.target == 4


def test_a_node_moves_only_so_much_at_once_and_in_all() -> None:
    usages = [usage(1, 80), usage(2, 50), usage(3, 50), usage(4, 10)]
    states = [state(n, 1, 2, 3) for n in range(100)]
    assert len(list(mover(usages, per_node=3).choose(NodeId(1), states))) == 3
    # From 80 % down to the average of 47.5 %: 32 blocks of one percent.
    assert len(list(mover(usages, per_node=1000).choose(NodeId(1), states))) in (32, 33)


@settings(deadline=None, max_examples=50)
@given(
    percents=st.lists(st.integers(0, 99), min_size=2, max_size=9),
    threshold=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_rounds_of_moves_come_to_an_end(percents: list[int], threshold: int, seed: int) -> None:
    """Method: carry moves out at once, survey again, until there are none; then all are within the threshold,
    as far as whole blocks allow."""
    rng = random.Random(seed)
    numbers = range(1, len(percents) + 1)
    held = {n: {n * 1000 + i for i in range(p)} for n, p in zip(numbers, percents, strict=True)}
    for _ in range(100):
        usages = [usage(n, len(held[n])) for n in numbers]
        outlook = survey(usages, float(threshold))
        if outlook.balanced:
            break
        core = Mover(usages, outlook, rng, per_node=5)
        moves = [
            move
            for source in core.sources()
            for move in core.choose(source, [state(b, source, wanted=1) for b in held[source]])
        ]
        if not moves:
            break
        for move in moves:
            held[move.source].remove(move.state.block.block_id)
            assert move.state.block.block_id not in held[move.target]
            held[move.target].add(move.state.block.block_id)
    average = sum(percents) / len(percents)
    # Blocks are whole: several nodes that are less than half a block above the average give nothing.
    assert all(abs(len(held[n]) - average) <= threshold + len(percents) / 2 for n in numbers)
