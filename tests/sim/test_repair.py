"""Repair in a simulated world: whatever the seed breaks, the cluster heals, and gives nothing up that it needs."""

from __future__ import annotations

import random

import pytest

from twinfs.common.model import MIB

from .world import TWINFS, World, hdfs_defaults

REPAIR_LIMIT_S = 3_600.0


def assert_healed(world: World) -> None:
    for block_id, holders in enumerate(world.holders):
        live = [node for node in holders if world.up[node]]
        assert len(set(live)) == len(live) >= world.replication, f"block {block_id}: {holders}"
        racks = {world.rack[node] for node in live}
        assert len(racks) >= 2, f"block {block_id} is on {racks} only"


@pytest.mark.parametrize("seed", range(10))
def test_replication_heals_after_node_loss(seed: int) -> None:
    """Any one DataNode may die: once declared dead, its blocks regain full replication."""
    world = World(seed, datanodes=30, racks=5, blocks=600)
    world.crash(world.rng.randint(1, 30))
    assert world.run_until(world.settled, limit_s=REPAIR_LIMIT_S)
    assert_healed(world)
    assert world.outcome.detected_s is not None
    # From the last heartbeat on.
    assert -3.0 <= world.outcome.detected_s - TWINFS.dead_after_s <= 4.0


@pytest.mark.parametrize("seed", range(5))
def test_replication_heals_after_the_loss_of_a_rack(seed: int) -> None:
    """No block is lost with a rack, because the copies of each are on two at least."""
    world = World(seed, datanodes=30, racks=5, blocks=600)
    for node in range(1, 31):
        if world.rack[node] == "/rack3":
            world.crash(node)
    assert min(world.copies) >= 1
    assert world.run_until(world.settled, limit_s=REPAIR_LIMIT_S)
    assert_healed(world)


@pytest.mark.parametrize("seed", range(5))
def test_what_comes_back_is_thinned_out_again(seed: int) -> None:
    """A node that returns after its blocks were copied leaves exactly as many copies as are wanted."""
    world = World(seed, datanodes=20, racks=4, blocks=400)
    world.crash(7)
    assert world.run_until(world.settled, limit_s=REPAIR_LIMIT_S)
    world.restart(7)
    world.run_until(lambda: world.monitor.waiting > 0, limit_s=60.0)
    assert world.run_until(world.settled, limit_s=REPAIR_LIMIT_S)
    assert_healed(world)
    assert {len(holders) for holders in world.holders} == {world.replication}


@pytest.mark.parametrize("seed", range(20))
def test_random_crashes_and_returns_lose_nothing(seed: int) -> None:
    """Nodes go and come at random, never more than two away at a time: no block ever loses its last copy."""
    world = World(seed, datanodes=15, racks=3, blocks=150, block_bytes=16 * MIB)
    chance = random.Random(seed)
    away: list[int] = []
    for _ in range(12):
        if len(away) < 2 and chance.random() < 0.6:
            away.append(chance.choice([node for node in world.up if world.up[node]]))
            world.crash(away[-1])
        elif away:
            world.restart(away.pop(0))
        lost = [b for b, copies in enumerate(world.copies) if copies == 0]
        assert not lost, f"no copy of {lost} is left"
        world.run_until(lambda: False, limit_s=chance.uniform(5.0, 90.0))
    for node in away:
        world.restart(node)
    assert world.run_until(world.settled, limit_s=REPAIR_LIMIT_S)
    assert_healed(world)


def test_the_worst_off_come_first() -> None:
    """Blocks with one copy have a second before those with two have a third."""
    world = World(1, datanodes=40, racks=4, blocks=4_000)
    for node in (1, 2):
        world.crash(node)
    assert world.outcome.single_copy_blocks == 0
    assert world.run_until(world.settled, limit_s=REPAIR_LIMIT_S)
    outcome = world.outcome
    assert outcome.single_copy_blocks > 0
    assert outcome.no_single_copy_s is not None and outcome.repaired_s is not None
    assert outcome.detected_s is not None
    waited_s = outcome.no_single_copy_s - outcome.detected_s
    assert waited_s < (outcome.repaired_s - outcome.detected_s) / 2


def test_a_seed_replays_a_run() -> None:
    outcomes = []
    for _ in range(2):
        world = World(5, datanodes=20, racks=4, blocks=300, policy=hdfs_defaults(20))
        world.crash(3)
        assert world.run_until(world.settled, limit_s=REPAIR_LIMIT_S)
        outcomes.append(world.outcome)
    assert outcomes[0] == outcomes[1]
