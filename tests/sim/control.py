"""A cluster in one process: the NameNode's real cores, rows and reports; made-up DataNodes, disks, links and time.

Nothing waits: time is moved on by the world. A seed decides everything, so a failing one replays exactly.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from twinfs.common.admin import AdministerNodes
from twinfs.common.checksum import digest_of
from twinfs.common.config import NameNodeConfig
from twinfs.common.messages import (
    WIRE_VERSION,
    BadReplica,
    BlockReportPage,
    Command,
    CopyReplica,
    DeleteReplicas,
    Heartbeat,
    IncrementalReport,
    Register,
    ReplicaReport,
    ReportBadReplicas,
    VerifyReplicas,
    VolumeReport,
)
from twinfs.common.model import Block, BlockId, BlockRef, GenerationStamp, NodeAddress, NodeId
from twinfs.common.runtime import ManualClock
from twinfs.namenode import blockmap
from twinfs.namenode.administration import Administration
from twinfs.namenode.blockmap import INSERT_BLOCK
from twinfs.namenode.datanodes import DataNodes
from twinfs.namenode.jobs import Jobs
from twinfs.namenode.permissions import Caller
from twinfs.namenode.replication import PARTS, Limits, ReplicationMonitor
from twinfs.namenode.reports import Reports
from twinfs.namenode.safemode import SafeModeGate
from twinfs.namenode.store.base import Operation, T
from twinfs.namenode.store.sqlite import WriteTransaction
from twinfs.namenode.topology import Topology

TICK_S = 0.5
MIB = 1 << 20
ROOT = Caller("root", superuser=True)


class SimStore:
    """A store whose transactions end at once; what an operation raises leaves nothing behind."""

    def __init__(self, tx: WriteTransaction) -> None:
        self._tx = tx

    async def run(self, operation: Operation[T]) -> T:
        self._tx.execute("SAVEPOINT operation")
        try:
            result = operation(self._tx)
        except BaseException:
            self._tx.execute("ROLLBACK TO operation")
            self._tx.execute("RELEASE operation")
            raise
        self._tx.execute("RELEASE operation")
        return result

    async def read(self, operation: Operation[T]) -> T:
        return operation(self._tx)


@dataclass
class Held:
    """A replica on a made-up disk."""

    generation: int
    good: bool = True
    noticed: bool = False  # its node knows that it is damaged


@dataclass
class SimNode:
    """A DataNode: what is on its disk, and whether it runs."""

    uuid: str
    rack: str
    host: str
    disk: dict[int, Held] = field(default_factory=dict)
    node_id: int = 0
    up: bool = True
    reached: bool = True  # by the NameNode
    registered: bool = False
    receiving: set[int] = field(default_factory=set)
    sending: int = 0
    most_transfers: int = 0

    @property
    def address(self) -> NodeAddress:
        return NodeAddress(
            node_id=NodeId(self.node_id),
            host=self.host,
            data=f"{self.host}:1",
            http=f"{self.host}:2",
            rack=self.rack,
        )


class World:
    """The whole cluster, and its history as far as tests ask."""

    def __init__(
        self,
        tx: WriteTransaction,
        seed: int,
        *,
        datanodes: int,
        racks: int = 2,
        copies: int = 3,
        bytes_per_s: int = 50 * MIB,
        capacity_bytes: int = 1 << 40,
        **config: Any,
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.copies = copies
        self.bytes_per_s = bytes_per_s
        self.capacity_bytes = capacity_bytes
        self.config = NameNodeConfig(replication=copies, **config)
        self.store: Any = SimStore(tx)
        self.tx = tx
        self.nodes = [
            SimNode(uuid=f"u{n}", rack=f"/r{n % racks}", host=f"h{n}") for n in range(datanodes)
        ]
        self.blocks: dict[int, Block] = {}
        self.deleted: set[int] = set()
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self._next_scan_s = 0.0
        self.copied_bytes = 0
        self.monitor_limits = Limits(
            per_node=self.config.max_transfers_per_node,
            in_all=self.config.max_transfers,
            bytes_per_s=self.config.repair_bytes_per_s,
        )
        self.boot()

    # --- the NameNode ---

    def boot(self) -> None:
        """Start the NameNode (again): everything it had in memory is gone."""
        config = self.config
        self.registry = DataNodes(
            self.clock,
            self.rng,
            stale_after_s=config.stale_after_s,
            dead_after_s=config.dead_after_s,
        )
        for row in self.tx.all("SELECT node_id, uuid, host, rack FROM datanodes"):
            address = NodeAddress(
                node_id=NodeId(row[0]), host=row[2], data=f"{row[2]}:1", http="", rack=row[3]
            )
            self.registry.expect(NodeId(row[0]), row[1], address)
        self.monitor = ReplicationMonitor(self.rng, self.monitor_limits)
        gate = SafeModeGate(self.registry.live_count, 1)
        topology = Topology(file="", script="")
        self.administration = Administration(
            config, self.store, self.registry, self.monitor, gate, topology, self.clock
        )
        self.jobs = Jobs(
            config,
            self.store,
            self.registry,
            self.monitor,
            self.clock,
            gate,
            self.rng,
            self.administration.load,
        )
        self.reports = Reports(
            config,
            self.store,
            self.registry,
            self.monitor,
            gate,
            topology,
            self.clock,
            cluster_id="sim",
            version="0",
        )

    # --- time ---

    def later(self, delay_s: float, what: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (self.clock.now_s + delay_s, next(self._order), what))

    async def tick(self) -> None:
        """Half a second of everybody's life."""
        end_s = self.clock.now_s + TICK_S
        while self._events and self._events[0][0] <= end_s:
            at_s, _, what = heapq.heappop(self._events)
            self.clock.now_s = max(self.clock.now_s, at_s)
            done = what()
            if done is not None:
                await done
        self.clock.now_s = end_s
        for node in self.nodes:
            if node.up and node.reached:
                await self._beat(node)
        await self.jobs._liveness()
        await self.jobs._repair()
        await self.jobs._drain()
        await self.jobs._balance()
        if self.clock.now_s >= self._next_scan_s:
            self._next_scan_s = self.clock.now_s + 30.0
            await self.jobs._scan()
        self.check()

    async def run(self, seconds: float) -> None:
        for _ in range(int(seconds / TICK_S)):
            await self.tick()

    async def run_until(self, condition: Callable[[], bool], limit_s: float, what: str) -> float:
        """Simulated seconds until *condition*; AssertionError when it does not come true in time."""
        began_s = self.clock.now_s
        while not condition():
            assert self.clock.now_s - began_s < limit_s, f"{what}: not within {limit_s} s"
            await self.tick()
        return self.clock.now_s - began_s

    # --- DataNodes ---

    async def _beat(self, node: SimNode) -> None:
        used = sum(self.blocks[b].length for b in node.disk if b in self.blocks)
        volume = VolumeReport(
            volume_id="v",
            path="/v",
            capacity_bytes=self.capacity_bytes,
            used_bytes=used,
            remaining_bytes=self.capacity_bytes - used,
        )
        if not node.registered:
            request = Register(
                wire_version=WIRE_VERSION,
                version="0",
                uuid=node.uuid,
                address=node.address,
                volumes=[volume],
            )
            node.node_id = (await self.reports.register(ROOT, request)).node_id
            node.registered = True
            await self.full_report(node)
        answer = await self.reports.heartbeat(
            ROOT, Heartbeat(node_id=NodeId(node.node_id), uuid=node.uuid, volumes=[volume])
        )
        if answer.register_again:
            node.registered = False
        for command in answer.commands:
            await self._obey(node, command)

    async def full_report(self, node: SimNode) -> None:
        replicas = [self._report(block_id, node.disk[block_id]) for block_id in sorted(node.disk)]
        page = BlockReportPage(
            node_id=NodeId(node.node_id), report_id="r", start_after=0, replicas=replicas, last=True
        )
        await self.reports.block_report(ROOT, page)

    def _report(self, block_id: int, held: Held) -> ReplicaReport:
        known = self.blocks.get(block_id)
        return ReplicaReport(
            block_id=BlockId(block_id),
            generation=GenerationStamp(held.generation),
            length=known.length if known else 1,
            damaged=held.noticed,
        )

    async def say(self, node: SimNode, **news: Any) -> None:
        if node.up and node.reached:
            report = IncrementalReport(node_id=NodeId(node.node_id), **news)
            await self.reports.incremental_report(ROOT, report)

    async def _obey(self, node: SimNode, command: Command) -> None:
        if isinstance(command, DeleteReplicas):
            for ref in command.blocks:
                held = node.disk.get(ref.block_id)
                if held is not None and held.generation <= ref.generation:
                    del node.disk[ref.block_id]
            await self.say(node, removed=command.blocks)
        elif isinstance(command, VerifyReplicas):
            for ref in command.blocks:
                await self.verify(node, ref)
        elif isinstance(command, CopyReplica):
            block_id = command.block.block_id
            node.receiving.add(block_id)
            sources = [self.by_address(address) for address in command.sources]
            for source in sources[:1]:
                source.sending += 1
            for party in (node, *sources[:1]):
                party.most_transfers = max(
                    party.most_transfers, party.sending + len(party.receiving)
                )
            delay_s = 0.05 + command.block.length / self.bytes_per_s

            async def arrive() -> None:
                node.receiving.discard(block_id)
                for source in sources[:1]:
                    source.sending -= 1
                await self._arrive(node, command.block, sources)

            self.later(delay_s, arrive)

    async def _arrive(self, node: SimNode, block: Block, sources: list[SimNode]) -> None:
        """The end of a copy: verified at the receiver, whatever the source sent."""
        if not node.up:
            return
        for source in sources:
            held = source.disk.get(block.block_id)
            if not source.up:
                continue
            if held is not None and held.good and held.generation == block.generation:
                node.disk[block.block_id] = Held(block.generation)
                self.copied_bytes += block.length
                await self.say(
                    node, received=[self._report(block.block_id, Held(block.generation))]
                )
                return
            reason: Literal["corrupt", "missing"] = "corrupt" if held is not None else "missing"
            bad = BadReplica(block=block.ref, node_id=NodeId(source.node_id), reason=reason)
            if node.reached:
                await self.reports.report_bad_replicas(ROOT, ReportBadReplicas(replicas=[bad]))
        await self.say(node, failed=[block.ref])

    async def verify(self, node: SimNode, ref: BlockRef) -> None:
        held = node.disk.get(ref.block_id)
        if held is None or held.generation != ref.generation:
            await self.say(node, removed=[ref])
        elif held.good:
            await self.say(node, received=[self._report(ref.block_id, held)])
        else:
            held.noticed = True
            await self.say(node, bad=[ref])

    def by_address(self, address: NodeAddress) -> SimNode:
        return next(node for node in self.nodes if node.host == address.host)

    # --- what users do ---

    async def write(self, length: int = MIB) -> int:
        """A block on as many nodes as are wanted (fewer where fewer are there); its id."""
        chosen = self.registry.choose(self.copies, client_host="", length=length, minimum=2)
        block_id, generation = self.tx.new_ids("block"), self.tx.new_ids("generation")
        block = Block(
            block_id=BlockId(block_id),
            generation=GenerationStamp(generation),
            length=length,
            digest=digest_of(b"%d" % block_id),
        )
        holders = [self.by_address(address) for address in chosen]
        holders = [node for node in holders if node.up and node.reached]
        if len(holders) < 2:
            return 0
        for node in holders:
            node.disk[block_id] = Held(generation)
        self.blocks[block_id] = block
        self.tx.execute(INSERT_BLOCK, (block_id, generation, length, 1, self.copies, block.digest))
        blockmap.record_replicas(
            self.tx, [(block_id, node.node_id, generation) for node in holders]
        )
        self.monitor.consider([block_id])
        return block_id

    def delete(self, block_id: int) -> None:
        blockmap.release(self.tx, {block_id: 1})
        del self.blocks[block_id]
        self.deleted.add(block_id)

    async def administer(self, action: Any, node: SimNode, **more: Any) -> None:
        request = AdministerNodes(action=action, nodes=[str(node.node_id)], **more)
        await self.administration.administer_nodes(ROOT, request)

    # --- facts ---

    def good_holders(self, block_id: int, *, up: bool = True) -> list[SimNode]:
        generation = self.blocks[block_id].generation
        return [
            node
            for node in self.nodes
            if (held := node.disk.get(block_id)) is not None
            and held.good
            and held.generation == generation
            and (node.up or not up)
        ]

    def admin_state(self, node: SimNode) -> str:
        found = self.registry.get(NodeId(node.node_id))
        return "in-service" if found is None else found.admin.state

    def is_well(self) -> bool:
        """Every block has exactly its copies, on two racks, and nothing else is on any disk that runs."""
        for block_id in self.blocks:
            holders = [
                node
                for node in self.good_holders(block_id)
                if self.admin_state(node) == "in-service"
            ]
            if len(holders) != self.copies or len({node.rack for node in holders}) < 2:
                return False
        return all(
            held.good and block_id in self.blocks
            for node in self.nodes
            if node.up and node.reached
            for block_id, held in node.disk.items()
        )

    def check(self) -> None:
        """What must hold at every moment."""
        for block_id in self.blocks:
            assert self.good_holders(block_id, up=False), f"block {block_id} is lost"
        for node in self.nodes:
            limit = self.monitor_limits.per_node * PARTS // self.monitor_limits.parts_of(MIB)
            assert node.most_transfers <= 2 * limit, f"{node.uuid}: {node.most_transfers} transfers"
