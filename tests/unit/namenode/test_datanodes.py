"""Nodes live by their heartbeats; readers are sent to the near and living, writers to the living with room."""

from __future__ import annotations

import random

import pytest

from twinfs.common.errors import NotEnoughDataNodes
from twinfs.common.messages import (
    BalanceDisks,
    DeleteReplicas,
    Heartbeat,
    ScrubVolumes,
    VolumeReport,
)
from twinfs.common.model import BlockId, BlockRef, GenerationStamp, NodeAddress, NodeId
from twinfs.common.runtime import ManualClock
from twinfs.namenode.datanodes import MAX_QUEUED_COMMANDS, Admin, DataNode, DataNodes
from twinfs.namenode.metrics import node_states

STALE_S, DEAD_S = 10.0, 30.0
MIB = 1024 * 1024


class Cluster:
    """A registry with a clock that is moved by hand."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = ManualClock()
        self.nodes = DataNodes(
            self.clock, random.Random(seed), stale_after_s=STALE_S, dead_after_s=DEAD_S
        )

    def address(self, number: int, rack: str = "/r", host: str = "") -> NodeAddress:
        host = host or f"host{number}"
        return NodeAddress(
            node_id=NodeId(number), host=host, data=f"{host}:1", http=f"{host}:2", rack=rack
        )

    def register(
        self, number: int, rack: str = "/r", host: str = "", remaining_bytes: int = 100 * MIB
    ) -> DataNode:
        address = self.address(number, rack, host)
        return self.nodes.register(
            NodeId(number), f"uuid{number}", address, "1", [volume(remaining_bytes)]
        )

    def beat(self, number: int, uuid: str = "", **more: int) -> DataNode | None:
        node = self.nodes.get(NodeId(number))
        return self.nodes.heartbeat(
            Heartbeat(
                node_id=NodeId(number),
                uuid=uuid or f"uuid{number}",
                volumes=node.volumes if node else [],
                **more,
            )
        )

    def state(self, number: int) -> str:
        node = self.nodes.get(NodeId(number))
        assert node is not None
        return self.nodes.state(node)

    def chosen(self, count: int, **more: object) -> list[int]:
        arguments: dict[str, object] = {"client_host": "", "length": 0, **more}
        return [a.node_id for a in self.nodes.choose(count, **arguments)]  # type: ignore[arg-type]


def volume(remaining_bytes: int, failure: str = "") -> VolumeReport:
    return VolumeReport(
        volume_id="v",
        path="/v",
        capacity_bytes=1_000 * MIB,
        used_bytes=7,
        remaining_bytes=remaining_bytes,
        failure=failure,
    )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


# --- liveness ---


def test_a_silent_node_becomes_stale_then_dead(cluster: Cluster) -> None:
    cluster.register(1)
    seen = []
    for silent_s in (0.0, 9.9, 10.0, 29.9, 30.0, 1_000.0):
        cluster.clock.now_s = silent_s
        seen.append(cluster.state(1))
    assert seen == ["live", "live", "stale", "stale", "dead", "dead"]


def test_a_heartbeat_brings_a_node_back(cluster: Cluster) -> None:
    cluster.register(1)
    for silent_s in (DEAD_S, STALE_S):
        cluster.clock.advance(silent_s)
        assert cluster.state(1) != "live"
        assert cluster.beat(1) is not None
        assert cluster.state(1) == "live"


def test_a_death_is_told_once_and_again_after_a_return(cluster: Cluster) -> None:
    cluster.register(1)
    cluster.register(2)
    assert cluster.nodes.tick() == []
    cluster.clock.advance(STALE_S)
    cluster.beat(2)
    cluster.clock.advance(DEAD_S - STALE_S)
    assert cluster.nodes.tick() == [1]
    assert cluster.nodes.tick() == []
    cluster.beat(1)
    assert cluster.nodes.tick() == []
    cluster.clock.advance(DEAD_S)
    assert sorted(cluster.nodes.tick()) == [1, 2]


def test_the_dead_are_not_counted(cluster: Cluster) -> None:
    cluster.register(1)
    cluster.clock.advance(STALE_S)
    cluster.register(2)
    assert cluster.nodes.live_count() == 1
    assert cluster.nodes.not_dead() == {1, 2}
    cluster.clock.advance(DEAD_S - STALE_S)
    assert cluster.nodes.live_count() == 0
    assert cluster.nodes.not_dead() == {2}


def test_a_heartbeat_of_a_stranger_asks_for_registration(cluster: Cluster) -> None:
    assert cluster.beat(1) is None
    cluster.register(1)
    assert cluster.beat(1, uuid="another") is None
    assert cluster.beat(1) is not None


def test_after_a_restart_a_node_is_known_but_not_alive(cluster: Cluster) -> None:
    """Readers get its address at once; it has to register before it gets new blocks."""
    address = cluster.address(1)
    cluster.clock.advance(500.0)  # the age of the process does not count
    cluster.nodes.expect(NodeId(1), "uuid1", address)
    assert cluster.state(1) == "stale"
    assert cluster.nodes.order([NodeId(1)], "") == [address]
    assert cluster.beat(1) is None
    assert cluster.nodes.live_count() == 0
    with pytest.raises(NotEnoughDataNodes):
        cluster.chosen(1)
    cluster.register(1)
    assert cluster.state(1) == "live"
    assert cluster.chosen(1) == [1]


def test_an_expected_node_that_stays_away_is_dead(cluster: Cluster) -> None:
    cluster.nodes.expect(NodeId(1), "uuid1", cluster.address(1))
    cluster.clock.advance(DEAD_S)
    assert cluster.nodes.tick() == [1]
    assert cluster.nodes.order([NodeId(1)], "") == []


def test_who_was_sent_away_does_not_count_as_dead(cluster: Cluster) -> None:
    """An alert is fired for dead nodes, and nothing is to be done about these."""
    states = ("in-service", "decommissioning", "decommissioned", "in-maintenance")
    for number, state in enumerate(states, 1):
        cluster.register(number)
        cluster.nodes.set_admin(NodeId(number), Admin(state))  # type: ignore[arg-type]
    assert node_states(cluster.nodes) == {"live": 4, "stale": 0, "dead": 0, "away": 0}
    cluster.clock.advance(STALE_S)
    assert node_states(cluster.nodes)["stale"] == 4
    cluster.clock.advance(DEAD_S)
    assert node_states(cluster.nodes) == {"live": 0, "stale": 0, "dead": 2, "away": 2}


# --- where to read ---


def order(cluster: Cluster, client_host: str, count: int = 4) -> list[int]:
    numbers = [NodeId(number) for number in range(1, count + 1)]
    return [address.node_id for address in cluster.nodes.order(numbers, client_host)]


@pytest.mark.parametrize("seed", range(10))
def test_readers_go_to_their_host_then_to_their_rack(seed: int) -> None:
    cluster = Cluster(seed)
    for number, rack in ((1, "/far"), (2, "/near"), (3, "/near"), (4, "/far")):
        cluster.register(number, rack)
    found = order(cluster, "host3")
    assert found[:2] == [3, 2]
    assert set(found[2:]) == {1, 4}


def test_the_stale_come_last_and_the_dead_not_at_all(cluster: Cluster) -> None:
    cluster.register(1)
    cluster.clock.advance(DEAD_S - STALE_S)
    cluster.register(2)
    cluster.clock.advance(STALE_S)
    cluster.register(3)
    cluster.nodes.tick()
    assert order(cluster, "host2") == [3, 2]


def test_readers_from_outside_spread_over_the_replicas(cluster: Cluster) -> None:
    for number in (1, 2, 3):
        cluster.register(number)
    firsts = set()
    for _ in range(50):
        firsts.add(order(cluster, "outside")[0])
        cluster.nodes.tick()
    assert firsts == {1, 2, 3}


def test_an_order_is_kept_until_the_next_look_at_the_nodes(cluster: Cluster) -> None:
    cluster.register(1)
    cluster.register(2)
    cluster.clock.advance(STALE_S - 1)
    cluster.beat(2)
    assert order(cluster, "host1") == [1, 2]
    cluster.clock.advance(1.0)
    cluster.nodes.tick()
    assert order(cluster, "host1") == [2, 1]


def test_a_node_that_registers_elsewhere_is_read_there(cluster: Cluster) -> None:
    cluster.register(1, host="old")
    order(cluster, "")
    cluster.register(1, host="new")
    assert [a.host for a in cluster.nodes.order([NodeId(1)], "")] == ["new"]
    address = cluster.nodes.address(NodeId(1))
    assert address is not None
    assert address.host == "new"


def test_a_node_nobody_knows_is_left_out(cluster: Cluster) -> None:
    assert order(cluster, "") == []
    assert cluster.nodes.address(NodeId(1)) is None


# --- where to write ---


def test_only_the_living_get_new_blocks(cluster: Cluster) -> None:
    cluster.register(1)
    cluster.clock.advance(DEAD_S - STALE_S)
    cluster.register(2)
    cluster.clock.advance(STALE_S)
    cluster.register(3)
    assert [cluster.state(number) for number in (1, 2, 3)] == ["dead", "stale", "live"]
    assert cluster.chosen(3) == [3]


def test_failed_volumes_have_no_room(cluster: Cluster) -> None:
    failed = cluster.register(1)
    failed.volumes = [volume(100 * MIB, failure="no longer writable")]
    half = cluster.register(2)
    half.volumes = [volume(100 * MIB, failure="no longer writable"), volume(10 * MIB)]
    assert cluster.chosen(2, length=MIB) == [2]
    with pytest.raises(NotEnoughDataNodes):
        cluster.chosen(1, length=50 * MIB)


def test_full_excluded_and_holding_nodes_get_none(cluster: Cluster) -> None:
    cluster.register(1, remaining_bytes=MIB)
    for number in (2, 3, 4):
        cluster.register(number)
    found = cluster.chosen(9, length=MIB, exclude=[NodeId(2)], having=[NodeId(3)])
    assert found == [4]


def test_fewer_than_the_minimum_is_an_error_that_says_why(cluster: Cluster) -> None:
    cluster.register(1)
    cluster.register(2)
    cluster.register(3)
    cluster.clock.advance(STALE_S)
    cluster.beat(1)
    cluster.beat(2)
    assert cluster.chosen(3, minimum=2) in ([1, 2], [2, 1])
    with pytest.raises(
        NotEnoughDataNodes, match=r"2 DataNodes .* 2 of 3 are alive and in service, 1 were excl"
    ):
        cluster.chosen(3, minimum=2, exclude=[NodeId(1)])


def test_a_refused_choice_leaves_no_load_behind(cluster: Cluster) -> None:
    node = cluster.register(1)
    with pytest.raises(NotEnoughDataNodes):
        cluster.chosen(2, minimum=2)
    assert node.scheduled == 0


def test_blocks_given_out_count_as_load_until_heartbeats_tell_the_truth(cluster: Cluster) -> None:
    first, second = cluster.register(1), cluster.register(2)
    for _ in range(10):
        cluster.chosen(1)
    assert (first.scheduled, second.scheduled) == (5, 5)
    cluster.beat(1, active_transfers=1)
    assert [c.load for c in cluster.nodes.candidates()] == [3, 5]
    for _ in range(5):
        cluster.beat(1)
        cluster.beat(2)
    assert [c.load for c in cluster.nodes.candidates()] == [0, 0]


# --- commands ---

DELETE = DeleteReplicas(blocks=[])


def test_commands_wake_the_waiting_heartbeat(cluster: Cluster) -> None:
    node = cluster.register(1)
    assert not node.waiting.is_set()
    assert cluster.nodes.command(NodeId(1), DELETE)
    assert node.waiting.is_set()
    assert list(node.commands) == [DELETE]


def test_the_dead_and_the_unknown_get_no_commands(cluster: Cluster) -> None:
    cluster.register(1)
    cluster.clock.advance(DEAD_S)
    assert not cluster.nodes.command(NodeId(1), DELETE)
    assert not cluster.nodes.command(NodeId(2), DELETE)


def test_the_queue_of_commands_is_bounded(cluster: Cluster) -> None:
    node = cluster.register(1)
    node.commands.extend([DELETE] * (MAX_QUEUED_COMMANDS - 1))
    assert cluster.nodes.command(NodeId(1), DELETE)
    assert not cluster.nodes.command(NodeId(1), DELETE)


# --- the report ---


def test_the_report_tells_every_node_as_it_is(cluster: Cluster) -> None:
    cluster.register(2, remaining_bytes=5)
    node = cluster.register(1)
    node.volumes = [volume(3), volume(4), volume(100, failure="gone")]
    cluster.clock.advance(12.34)
    cluster.beat(2, blocks=9, active_transfers=2)
    first, second = cluster.nodes.report()
    assert (first.address.node_id, first.state, first.last_contact_s) == (1, "stale", 12.3)
    assert (first.remaining_bytes, first.used_bytes, first.capacity_bytes) == (7, 14, 2_000 * MIB)
    assert (first.volumes, first.failed_volumes) == (3, 1)
    assert (second.state, second.blocks, second.active_transfers) == ("live", 9, 2)


# --- commands that get lost ---


def deletion(number: int) -> DeleteReplicas:
    return DeleteReplicas(
        blocks=[BlockRef(block_id=BlockId(number), generation=GenerationStamp(1))]
    )


def test_commands_whose_answer_was_lost_are_given_out_again() -> None:
    """They were taken off the queue with the answer, and what repair had ordered waited for its timeout."""
    cluster = Cluster()
    node = cluster.register(1)
    for number in (1, 2, 3):
        cluster.nodes.command(NodeId(1), deletion(number))
    cluster.beat(1, answer_seen=0)
    first, given = cluster.nodes.give_out(node, 2)
    assert given == [deletion(1), deletion(2)]
    cluster.beat(1, answer_seen=0)  # that answer never came
    second, given = cluster.nodes.give_out(node, 10)
    assert given == [deletion(1), deletion(2), deletion(3)] and second > first
    cluster.beat(1, answer_seen=second)
    assert cluster.nodes.give_out(node, 10) == (0, [])


def test_an_answer_that_nobody_waited_for_any_more_is_made_up_for() -> None:
    """A broken connection leaves a held heartbeat behind, which may take the commands along."""
    cluster = Cluster()
    node = cluster.register(1)
    cluster.beat(1, answer_seen=0)
    cluster.beat(1, answer_seen=0)  # over a new connection, while the other is still held
    cluster.nodes.command(NodeId(1), deletion(1))
    into_the_void, _ = cluster.nodes.give_out(node, 10)
    cluster.nodes.command(NodeId(1), deletion(2))
    heard, given = cluster.nodes.give_out(node, 10)
    assert given == [deletion(2)] and into_the_void
    cluster.beat(1, answer_seen=heard)
    assert cluster.nodes.give_out(node, 10)[1] == [deletion(1)]


def test_a_node_that_does_not_say_what_it_saw_gets_everything_once() -> None:
    """One of an earlier version."""
    cluster = Cluster()
    node = cluster.register(1)
    cluster.nodes.command(NodeId(1), deletion(1))
    cluster.beat(1)
    assert cluster.nodes.give_out(node, 10)[1] == [deletion(1)]
    cluster.beat(1)
    assert cluster.nodes.give_out(node, 10) == (0, [])


def test_orders_outlive_the_restart_of_the_node_that_they_are_for() -> None:
    """An operator was told that the disk balancer had been ordered; the node, which was just restarting, never heard of it."""
    cluster = Cluster()
    node = cluster.register(1)
    cluster.beat(1, answer_seen=0)
    cluster.nodes.command(NodeId(1), ScrubVolumes())
    cluster.nodes.command(NodeId(1), deletion(1))
    assert len(cluster.nodes.give_out(node, 2)[1]) == 2  # to a process that ends before it obeys
    cluster.nodes.command(NodeId(1), BalanceDisks())
    cluster.nodes.command(NodeId(1), deletion(2))
    again = cluster.register(1)
    assert cluster.nodes.give_out(again, 10)[1] == [ScrubVolumes(), BalanceDisks()]


def test_the_next_death_is_foreseen() -> None:
    cluster = Cluster()
    assert cluster.nodes.next_death_s() == float("inf")
    cluster.register(1)
    cluster.clock.advance(4.0)
    cluster.register(2)
    assert cluster.nodes.next_death_s() == pytest.approx(DEAD_S - 4.0)
    cluster.clock.advance(DEAD_S - 4.0)
    assert cluster.nodes.next_death_s() == 0.0
    assert cluster.nodes.tick() == [1]
    assert cluster.nodes.next_death_s() == pytest.approx(4.0)
