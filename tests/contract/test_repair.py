"""Rows of repair, administration and fsck, on every store."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import Any

import pytest

from twinfs.common.admin import (
    AdministerNodes,
    Check,
    CheckedFile,
    ControlBalancer,
    SetSafeMode,
    StartBalancer,
)
from twinfs.common.checksum import digest_of
from twinfs.common.config import NameNodeConfig
from twinfs.common.errors import InvalidRequest, PathNotFound, PermissionDenied
from twinfs.common.messages import (
    Allocate,
    BlockReportPage,
    GetReport,
    IncrementalReport,
    PutFile,
    PutFiles,
    ReplicaReport,
    VerifyReplicas,
    VolumeReport,
)
from twinfs.common.model import BlockRef, NodeId
from twinfs.common.runtime import ManualClock
from twinfs.namenode import health, orders, repair_news, repairer, reports
from twinfs.namenode.administration import Administration
from twinfs.namenode.balancing import Balancing
from twinfs.namenode.blockmap import CORRUPT, GOOD, TO_DELETE
from twinfs.namenode.datanodes import DataNodes
from twinfs.namenode.draining import Draining
from twinfs.namenode.namespace import whole
from twinfs.namenode.permissions import Caller
from twinfs.namenode.repairer import Repairer
from twinfs.namenode.replication import Discard, Drop, ReplicationMonitor
from twinfs.namenode.reports import Reports
from twinfs.namenode.safemode import SafeModeGate
from twinfs.namenode.store.base import MetadataStore
from twinfs.namenode.topology import Topology

from .namespace_help import NODE_SET, NODES, ROOT, RULES, commit, do, register_nodes

NOBODY = Caller("nobody")


class NameNode:
    """The parts of a NameNode that repair and administer, with three DataNodes alive."""

    def __init__(self, store: MetadataStore) -> None:
        self.store = store
        self.clock = ManualClock()
        rng = random.Random(1)
        self.nodes = DataNodes(self.clock, rng, stale_after_s=10.0, dead_after_s=30.0)
        volume = VolumeReport(
            volume_id="v", path="/v", capacity_bytes=1 << 40, used_bytes=0, remaining_bytes=1 << 40
        )
        for address in NODES:
            self.nodes.register(address.node_id, f"uuid{address.node_id}", address, "", [volume])
        self.monitor = ReplicationMonitor(rng)
        self.gate = SafeModeGate(self.nodes.live_count, 1)
        config = NameNodeConfig()
        topology = Topology(file="", script="")
        self.administration = Administration(
            config, store, self.nodes, self.monitor, self.gate, topology, self.clock
        )
        self.reports = Reports(
            config,
            store,
            self.nodes,
            self.monitor,
            self.gate,
            topology,
            self.clock,
            cluster_id="c",
            version="0",
        )
        self.draining = Draining(store, self.nodes, self.monitor, self.clock)
        steps = Repairer(store, self.nodes, self.monitor, self.clock.monotonic_s)
        self.balancing = Balancing(store, self.nodes, self.monitor, steps, self.clock, rng)

    async def put(self, path: str, *holders: int) -> BlockRef:
        """A file of one block, on *holders*."""
        rules = {"rules": dataclasses.replace(RULES, min_replicas=1), "now_ms": 0}
        allocate = Allocate(holder="me", count=1, length=100)
        given = await do(self.store, whole.allocate, allocate, placer=NODE_SET, **rules)
        block = BlockRef(block_id=given.first_block_id, generation=given.generation)
        file = PutFile(path=path, blocks=[commit(block, 100, holders)], replication=3)
        await do(self.store, whole.put_files, PutFiles(holder="me", files=[file]), **rules)
        return block

    async def check(self, path: str) -> CheckedFile:
        request = Check(path=path, detail=True)
        page = await self.store.read(lambda tx: health.check(tx, ROOT, request, nodes=self.nodes))
        (found,) = page.files
        return found

    async def states(self, block: BlockRef) -> dict[int, int]:
        rows = await self.store.read(
            lambda tx: tx.all(
                "SELECT node_id, state FROM replicas WHERE block_id = ?", (block.block_id,)
            )
        )
        return {row[0]: row[1] for row in rows}


@pytest.fixture
async def namenode(store: MetadataStore) -> NameNode:
    await register_nodes(store)
    return NameNode(store)


def report(block: BlockRef, *, damaged: bool = False, length: int = 100) -> ReplicaReport:
    return ReplicaReport(
        block_id=block.block_id,
        generation=block.generation,
        length=length,
        digest=digest_of(b"100"),
        damaged=damaged,
    )


# --- fsck ---


async def test_fsck_tells_good_short_and_lost_blocks_apart(namenode: NameNode) -> None:
    block = await namenode.put("/d/f", 1, 2, 3)
    found = await namenode.check("/d/f")
    assert (found.blocks[0].live, found.blocks[0].problems) == (3, [])
    for node, problems in (
        (1, ["under-replicated"]),
        (2, ["under-replicated"]),
        (3, ["corrupt", "under-replicated"]),
    ):
        await namenode.reports.incremental_report(
            ROOT, IncrementalReport(node_id=NodeId(node), bad=[block])
        )
        assert (await namenode.check("/d/f")).blocks[0].problems == problems
    namenode.clock.advance(31.0)
    assert (await namenode.check("/d/f")).blocks[0].problems == ["missing", "under-replicated"]


async def test_fsck_goes_through_directories_in_pages(namenode: NameNode) -> None:
    for name in "abc":
        await namenode.put(f"/d/{name}", 1, 2, 3)
    await namenode.put("/d/sub/x", 1, 2, 3)
    seen: list[str] = []
    after = ""
    while True:
        request = Check(path="/d", start_after=after, limit=2)
        page = await namenode.store.read(
            lambda tx, r=request: health.check(tx, ROOT, r, nodes=namenode.nodes)  # type: ignore[misc]
        )
        seen += [file.path for file in page.files] + page.directories
        if not page.more:
            break
        after = page.next_after
    assert seen == ["/d/a", "/d/b", "/d/c", "sub"]
    with pytest.raises(PathNotFound):
        await namenode.store.read(
            lambda tx: health.check(tx, ROOT, Check(path="/none"), nodes=namenode.nodes)
        )
    assert await namenode.store.read(health.loose) == (0, 0, 0, 0)


# --- reports ---


async def test_who_asks_for_nodes_alone_has_no_blocks_counted(
    namenode: NameNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adds ask now and then which DataNodes live: going through a million blocks, each held them up for a second and more."""
    await namenode.put("/f", 1, 2, 3)
    counted = 0
    count = reports._counts

    def counting(*args: Any) -> tuple[int, ...]:
        nonlocal counted
        counted += 1
        return count(*args)

    monkeypatch.setattr(reports, "_counts", counting)
    short = await namenode.reports.report(ROOT, GetReport(counts=False))
    assert (counted, short.blocks, len(short.nodes)) == (0, 0, 3)
    assert short.capacity_bytes == 3 << 40
    # ... and those who ask at one time share one count.
    whole_ones = await asyncio.gather(
        *(namenode.reports.report(ROOT, GetReport()) for _ in range(10))
    )
    assert (counted, {one.blocks for one in whole_ones}) == (1, {1})


async def test_a_damaged_replica_is_kept_aside_until_the_block_is_whole(namenode: NameNode) -> None:
    block = await namenode.put("/f", 1, 2, 3)
    news = IncrementalReport(node_id=NodeId(1), received=[report(block, damaged=True)])
    await namenode.reports.incremental_report(ROOT, news)
    assert await namenode.states(block) == {1: CORRUPT, 2: GOOD, 3: GOOD}
    (state,) = await namenode.store.read(lambda tx: repairer.block_states(tx, [block.block_id]))
    assert (state.holders, state.damaged) == ((2, 3), (1,))
    await namenode.store.run(
        lambda tx: repairer._give_up(tx, drops=[], discards=[Discard(state.block, state.damaged)])
    )
    assert await namenode.states(block) == {1: TO_DELETE, 2: GOOD, 3: GOOD}


@pytest.mark.parametrize("length", [99, 101])
async def test_a_replica_of_another_length_is_damaged(namenode: NameNode, length: int) -> None:
    block = await namenode.put("/f", 1, 2, 3)
    page = BlockReportPage(
        node_id=NodeId(2),
        report_id="r",
        start_after=0,
        replicas=[report(block, length=length)],
        last=True,
    )
    await namenode.reports.block_report(ROOT, page)
    assert await namenode.states(block) == {1: GOOD, 2: CORRUPT, 3: GOOD}


async def test_old_bytes_go_only_when_there_are_good_ones(namenode: NameNode) -> None:
    block = await namenode.put("/f", 1, 2)
    old = ReplicaReport(block_id=block.block_id, generation=block.generation - 1, length=100)
    page = BlockReportPage(
        node_id=NodeId(3), report_id="r", start_after=0, replicas=[old], last=True
    )
    await namenode.reports.block_report(ROOT, page)
    node = namenode.nodes.get(NodeId(3))
    assert node is not None
    assert len(node.commands) == 1  # delete it
    node.commands.clear()
    for holder in (1, 2):
        await namenode.reports.incremental_report(
            ROOT, IncrementalReport(node_id=NodeId(holder), bad=[block])
        )
    await namenode.reports.block_report(ROOT, page)
    assert not node.commands


async def test_a_row_of_what_is_not_there_is_asked_about(namenode: NameNode) -> None:
    """A node lost its replica and has one of an older generation: the row that calls it good must go."""
    block = await namenode.put("/f", 1, 2, 3)
    old = ReplicaReport(block_id=block.block_id, generation=block.generation - 1, length=100)
    page = BlockReportPage(
        node_id=NodeId(3), report_id="r", start_after=0, replicas=[old], last=True
    )
    await namenode.reports.block_report(ROOT, page)
    node = namenode.nodes.get(NodeId(3))
    assert node is not None
    assert VerifyReplicas(blocks=[block]) in node.commands
    news = IncrementalReport(node_id=NodeId(3), removed=[block])
    await namenode.reports.incremental_report(ROOT, news)
    assert await namenode.states(block) == {1: GOOD, 2: GOOD}


async def test_nothing_is_given_up_that_has_become_needed(namenode: NameNode) -> None:
    block = await namenode.put("/f", 1, 2, 3)
    (state,) = await namenode.store.read(lambda tx: repairer.block_states(tx, [block.block_id]))
    drop = Drop(state.block, NodeId(1), (NodeId(2), NodeId(3)))
    await namenode.store.run(lambda tx: repairer._give_up(tx, drops=[drop], discards=[]))
    assert await namenode.states(block) == {1: GOOD, 2: GOOD, 3: GOOD}  # two would be left of three
    await namenode.store.run(
        lambda tx: tx.execute(
            "UPDATE blocks SET replication = 2 WHERE block_id = ?", (block.block_id,)
        )
    )
    await namenode.store.run(lambda tx: repairer._give_up(tx, drops=[drop], discards=[]))
    assert await namenode.states(block) == {1: TO_DELETE, 2: GOOD, 3: GOOD}


# --- operators ---


async def test_decisions_about_nodes_are_kept(namenode: NameNode) -> None:
    await namenode.put("/f", 1, 2, 3)
    do_it = namenode.administration.administer_nodes
    with pytest.raises(InvalidRequest, match="ask for 3 copies and 2"):
        await do_it(ROOT, AdministerNodes(action="decommission", nodes=["1"]))
    with pytest.raises(InvalidRequest, match="last DataNodes"):
        await do_it(ROOT, AdministerNodes(action="decommission", nodes=["1", "2", "3"], force=True))
    with pytest.raises(PermissionDenied):
        await do_it(NOBODY, AdministerNodes(action="decommission", nodes=["1"]))
    with pytest.raises(InvalidRequest, match="no DataNode"):
        await do_it(ROOT, AdministerNodes(action="maintenance", nodes=["1", "9"]))
    assert {a.state for a in (await namenode.store.read(orders.admin_rows)).values()} == {
        "in-service"
    }
    await do_it(ROOT, AdministerNodes(action="decommission", nodes=["1"], force=True))
    assert await namenode.draining.step()
    await namenode.administration.load()
    node = namenode.nodes.get(NodeId(1))
    assert node is not None
    assert node.admin.state == "decommissioned"  # the other two have it, and more there are not
    again = NameNode(namenode.store)
    await again.administration.load()
    known = again.nodes.get(NodeId(1))
    assert known is not None
    assert known.admin.state == "decommissioned"


async def test_maintenance_ends_by_itself(namenode: NameNode) -> None:
    block = await namenode.put("/f", 1)
    until_ms = namenode.clock.wall_ms() + 60_000
    request = AdministerNodes(action="maintenance", nodes=["uuid1"], until_ms=until_ms)
    await namenode.administration.administer_nodes(ROOT, request)
    assert await namenode.draining.step()  # counted: one block depends on the node
    await namenode.administration.load()
    node = namenode.nodes.get(NodeId(1))
    assert node is not None
    assert (node.admin.state, node.admin.left, node.admin.total) == ("entering-maintenance", 1, 1)
    assert namenode.monitor.waiting == 1
    received = IncrementalReport(node_id=NodeId(2), received=[report(block)])
    await namenode.reports.incremental_report(ROOT, received)
    assert await namenode.draining.step()
    await namenode.administration.load()
    assert node.admin.state == "in-maintenance"
    namenode.clock.advance(61.0)
    assert await namenode.draining.step()
    await namenode.administration.load()
    assert node.admin.state == "in-service"


async def test_safe_mode_by_order_holds_for_every_namenode(namenode: NameNode) -> None:
    other = NameNode(namenode.store)
    await namenode.administration.safe_mode(ROOT, SetSafeMode(action="enter"))
    assert namenode.gate.refusal("create") is not None
    await other.administration.load()
    assert "root ordered it" in other.gate.reason()
    await other.administration.safe_mode(ROOT, SetSafeMode(action="leave"))
    await namenode.administration.load()
    assert namenode.gate.refusal("create") is None


async def test_a_run_of_the_balancer_is_followed_renewed_and_ended(namenode: NameNode) -> None:
    balancing = namenode.balancing
    status = ControlBalancer(action="status")
    assert (await balancing.control(ROOT, status)).state == "never-run"
    begun = await balancing.start(ROOT, StartBalancer(keep_alive_s=10.0))
    with pytest.raises(InvalidRequest, match="running"):
        await balancing.start(ROOT, StartBalancer())
    stopped = await balancing.control(ROOT, ControlBalancer(action="stop", run_id=begun.run_id))
    assert stopped.state == "stopped"
    begun = await balancing.start(ROOT, StartBalancer(keep_alive_s=10.0))
    with pytest.raises(InvalidRequest, match="followed by another"):
        await balancing.control(ROOT, ControlBalancer(action="renew", run_id=stopped.run_id))
    namenode.clock.advance(11.0)
    for address in NODES:
        node = namenode.nodes.get(address.node_id)
        assert node is not None
        node.last_s = namenode.clock.monotonic_s()
    await balancing.step()
    assert (await balancing.control(ROOT, status)).state == "abandoned"
    await balancing.start(ROOT, StartBalancer())
    await balancing.step()
    found = await balancing.control(ROOT, status)
    assert (found.state, found.left_bytes) == ("balanced", 0)


async def test_what_others_were_told_is_taken_once(store: MetadataStore) -> None:
    assert not await store.read(repair_news.waiting)
    await store.run(lambda tx: repair_news.tell(tx, [5, 3, 5]))
    await store.run(lambda tx: repair_news.tell(tx, [3, 9]))
    assert await store.read(repair_news.waiting)
    assert await store.run(repair_news.take) == [3, 5, 9]
    assert await store.run(repair_news.take) == []
    assert not await store.read(repair_news.waiting)
    many = list(range(100, 100 + 3 * repair_news.TAKEN_AT_ONCE))
    await store.run(lambda tx: repair_news.tell(tx, many))
    taken = []
    while await store.read(repair_news.waiting):
        taken += await store.run(repair_news.take)
    assert taken == many


async def test_damage_is_told_to_whoever_repairs(namenode: NameNode) -> None:
    told: list[int] = []
    namenode.reports._consider = told.extend
    block = await namenode.put("/f", 1, 2, 3)
    caller = Caller("datanode")
    good = IncrementalReport(node_id=NodeId(1), received=[report(block)])
    await namenode.reports.incremental_report(caller, good)
    assert told == []  # every NameNode gets these
    bad = IncrementalReport(node_id=NodeId(1), bad=[block])
    await namenode.reports.incremental_report(caller, bad)
    assert told == [block.block_id]
