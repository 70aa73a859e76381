"""A simulated cluster around the real cores of repair: time, network, disks and crashes are data, and a seed replays them.

Real: who is alive (`DataNodes`), where copies go (`placement`), what is done next (`ReplicationMonitor`). Simulated: the
clock, heartbeats, the transfer of bytes, the loss and the return of nodes, and the table of replicas.
"""

from __future__ import annotations

import array
import heapq
import itertools
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from twinfs.common.messages import Heartbeat, VolumeReport
from twinfs.common.model import MIB, Block, BlockId, GenerationStamp, NodeAddress, NodeId
from twinfs.common.runtime import ManualClock
from twinfs.namenode.datanodes import DataNodes
from twinfs.namenode.placement import Pool, choose_targets
from twinfs.namenode.replication import (
    BlockState,
    CopyTo,
    Discard,
    Drop,
    Limits,
    ReplicationMonitor,
    View,
)

HEARTBEAT_S = 3.0
STEP_S = 0.25  # how often the repair loop comes round
LOOK_AT_ONCE = 500
LOOKS_A_STEP = 5
CAPACITY_BYTES = 1 << 44


@dataclass(frozen=True, slots=True)
class Policy:
    """What is set differently from one cluster software to the next."""

    name: str
    stale_after_s: float
    dead_after_s: float
    limits: Limits
    blocks_per_step: int = LOOK_AT_ONCE * LOOKS_A_STEP
    command_delay_s: float = 0.05  # until a target learns that it is to copy


TWINFS = Policy("TwinFS", stale_after_s=10.0, dead_after_s=30.0, limits=Limits())


def hdfs_defaults(nodes: int) -> Policy:
    """HDFS's documented defaults, under the same placement.

    Dead after 2 x dfs.namenode.heartbeat.recheck-interval + 10 x dfs.heartbeat.interval = 630 s; two streams a node
    (dfs.namenode.replication.max-streams); 2 x nodes blocks of work (work.multiplier.per.iteration) every 3 s
    (dfs.namenode.redundancy.interval.seconds), commands with the next heartbeat. Source: hdfs-default.xml.
    """
    return Policy(
        "HDFS defaults",
        stale_after_s=30.0,
        dead_after_s=630.0,
        limits=Limits(
            per_node=2, whole_bytes=0, copy_timeout_s=300.0
        ),  # streams, whatever their size
        blocks_per_step=max(1, int(2 * nodes * STEP_S / HEARTBEAT_S)),
        command_delay_s=HEARTBEAT_S / 2,
    )


@dataclass(slots=True)
class Outcome:
    """What one run showed. Times are seconds after the first failure; None: it did not come to that."""

    detected_s: float | None = None
    no_single_copy_s: float | None = None
    repaired_s: float | None = None
    lost_blocks: int = 0
    single_copy_blocks: int = 0  # most at one time
    copied_bytes: int = 0
    across_racks_bytes: int = 0
    dropped: int = 0
    planner_bytes: int = 0
    history: list[tuple[float, int, int]] = field(default_factory=list)  # (s, one copy, too few)


class World:
    """Nodes in racks, blocks on nodes, and time."""

    def __init__(
        self,
        seed: int,
        *,
        datanodes: int,
        racks: int = 1,
        blocks: int = 0,
        block_bytes: int = 128 * MIB,
        replication: int = 3,
        policy: Policy = TWINFS,
        node_bytes_per_s: float = 200e6,
    ) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.policy = policy
        self.replication = replication
        self.node_bytes_per_s = node_bytes_per_s
        self.nodes = DataNodes(
            self.clock,
            random.Random(self.rng.random()),
            stale_after_s=policy.stale_after_s,
            dead_after_s=policy.dead_after_s,
        )
        self.monitor = ReplicationMonitor(random.Random(self.rng.random()), policy.limits)
        self.up: dict[int, bool] = {}
        self.rack: dict[int, str] = {}
        self._beats: dict[int, Heartbeat] = {}
        for number in range(1, datanodes + 1):
            self._add_node(number, f"/rack{(number - 1) % racks}")
        self.lengths = array.array("q")
        self.holders: list[tuple[int, ...]] = []
        self.on_node: dict[int, array.array[int]] = {n: array.array("q") for n in self.up}
        self.copies = bytearray()  # of each block, on nodes that are up
        self._single = 0
        self._short = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._deletions: list[tuple[int, int]] = []
        self._failed_s: float | None = None
        self.outcome = Outcome()
        self._place(blocks, block_bytes)

    def _add_node(self, number: int, rack: str) -> None:
        volume = VolumeReport(
            volume_id=f"v{number}",
            path="/",
            capacity_bytes=CAPACITY_BYTES,
            used_bytes=0,
            remaining_bytes=CAPACITY_BYTES // 2,
        )
        address = NodeAddress(
            node_id=NodeId(number), host=f"h{number}", data=f"h{number}:1", http="", rack=rack
        )
        self.nodes.register(NodeId(number), f"u{number}", address, "", [volume])
        self._beats[number] = Heartbeat(node_id=NodeId(number), uuid=f"u{number}", volumes=[volume])
        self.up[number] = True
        self.rack[number] = rack

    def _place(self, blocks: int, block_bytes: int) -> None:
        pool = Pool(self.nodes.candidates())
        for _ in range(blocks):
            # Half of them are full, as of large files; the others anything below.
            length = block_bytes if self.rng.random() < 0.5 else self.rng.randint(1, block_bytes)
            chosen = choose_targets(pool, self.replication, self.rng)
            self.add_block(length, [int(node) for node in chosen])

    def add_block(self, length: int, nodes: Sequence[int]) -> int:
        block_id = len(self.holders)
        self.lengths.append(length)
        self.holders.append(tuple(nodes))
        self.copies.append(0)
        self._short += 1
        for node in nodes:
            self.on_node[node].append(block_id)
            self._count(block_id, 1)
        return block_id

    # --- what can happen ---

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), action))

    def crash(self, node: int) -> None:
        """It says nothing any more, and gives nothing."""
        if not self.up[node]:
            return
        if self._failed_s is None:
            self._failed_s = self.now_s
        self.up[node] = False
        for block_id in self.blocks_of(node):
            self._count(block_id, -1)

    def restart(self, node: int) -> None:
        """It is back, with what it had."""
        if self.up[node]:
            return
        self.up[node] = True
        for block_id in self.blocks_of(node):
            self._count(block_id, 1)

    def blocks_of(self, node: int) -> Iterator[int]:
        """The blocks that have a replica on *node*."""
        return (b for b in dict.fromkeys(self.on_node[node]) if node in self.holders[b])

    @property
    def now_s(self) -> float:
        return self.clock.monotonic_s()

    @property
    def short(self) -> int:
        """Blocks with fewer live copies than wanted."""
        return self._short

    def _count(self, block_id: int, change: int) -> None:
        before = self.copies[block_id]
        after = self.copies[block_id] = before + change
        self._single += (after == 1) - (before == 1)
        self._short += (after < self.replication) - (before < self.replication)

    # --- time ---

    def run_until(self, condition: Callable[[], bool], *, limit_s: float) -> bool:
        """Let time pass until *condition* holds (looked at every step) or *limit_s* have gone; whether it holds."""
        end_s = self.now_s + limit_s
        while not condition():
            if self.now_s >= end_s:
                return False
            self.step()
        return True

    def step(self) -> None:
        """One step of the repair loop, and everything that happens before it."""
        self.clock.advance(STEP_S)
        now_s = self.now_s
        while self._events and self._events[0][0] <= now_s:
            heapq.heappop(self._events)[2]()
        ticks = round(now_s / STEP_S)
        slots = round(HEARTBEAT_S / STEP_S)
        for node in range(1 + ticks % slots, len(self.up) + 1, slots):
            if self.up[node]:
                self.nodes.heartbeat(self._beats[node])
        if ticks % round(1.0 / STEP_S) == 0:
            self._look_after_nodes()
        self._repair()
        self._note()

    def _look_after_nodes(self) -> None:
        for node in self.nodes.tick():
            if self.outcome.detected_s is None and self._failed_s is not None:
                self.outcome.detected_s = self.now_s - self._failed_s
            self.monitor.consider(list(self.blocks_of(node)))
            self.outcome.planner_bytes = max(self.outcome.planner_bytes, memory_of(self.monitor))
        for node in self.nodes.returned():
            self.monitor.consider(list(self.blocks_of(node)))
        for block_id, node in self._deletions:
            self._remove(block_id, node)
        self._deletions.clear()

    def _repair(self) -> None:
        if not self.monitor.waiting and not self.monitor.copying:
            return
        view: View | None = None
        left = self.policy.blocks_per_step
        while left > 0:
            view = view or View(self.nodes.candidates())
            taken = self.monitor.take(min(left, LOOK_AT_ONCE), len(view.pool.nodes))
            actions = self.monitor.decide([self._state(b) for b in taken], view, self.now_s)
            for action in actions:
                self._do(action)
            if not taken or not actions:
                return  # the rest waits until copies that are under way have arrived
            left -= len(taken)

    def _state(self, block_id: int) -> BlockState:
        block = Block(
            block_id=BlockId(block_id),
            generation=GenerationStamp(1),
            length=self.lengths[block_id],
            digest=b"",
        )
        holders = tuple(NodeId(node) for node in self.holders[block_id])
        return BlockState(block, self.replication, holders)

    def _do(self, action: CopyTo | Drop | Discard) -> None:
        if isinstance(action, CopyTo):
            source, target = int(action.sources[0]), int(action.target)
            length = action.block.length
            sharing = max(self.monitor.busy(action.sources[0]), self.monitor.busy(action.target), 1)
            takes_s = self.policy.command_delay_s + length * sharing / self.node_bytes_per_s
            block_id = int(action.block.block_id)
            self.at(self.now_s + takes_s, lambda: self._copied(block_id, source, target))
        elif isinstance(action, Drop):
            self._deletions.append((int(action.block.block_id), int(action.node_id)))

    def _copied(self, block_id: int, source: int, target: int) -> None:
        if not self.up[target]:
            return  # nobody is there to say so: the planner has to notice
        if not self.up[source]:
            self.monitor.failed(block_id, NodeId(target), self.now_s)
            return
        self.outcome.copied_bytes += self.lengths[block_id]
        if self.rack[source] != self.rack[target]:
            self.outcome.across_racks_bytes += self.lengths[block_id]
        if target not in self.holders[block_id]:
            self.holders[block_id] += (target,)
            self.on_node[target].append(block_id)
            self._count(block_id, 1)
        self.monitor.received(block_id, NodeId(target))
        self.monitor.consider([block_id])

    def _remove(self, block_id: int, node: int) -> None:
        if node in self.holders[block_id]:
            self.holders[block_id] = tuple(n for n in self.holders[block_id] if n != node)
            self.outcome.dropped += 1
            if self.up[node]:
                self._count(block_id, -1)

    def _note(self) -> None:
        """Keep the figures up to date."""
        if self._failed_s is None:
            return
        outcome, since_s = self.outcome, self.now_s - self._failed_s
        if self._single > outcome.single_copy_blocks:
            outcome.single_copy_blocks = self._single
        if self._single:
            outcome.no_single_copy_s = None
        elif outcome.no_single_copy_s is None:
            outcome.no_single_copy_s = since_s
        if self._short:
            outcome.repaired_s = None
        elif outcome.repaired_s is None:
            outcome.repaired_s = since_s
        if not outcome.history or outcome.history[-1][1:] != (self._single, self._short):
            outcome.history.append((since_s, self._single, self._short))

    def settled(self) -> bool:
        """Every block has all its copies, none too many, and nothing is going on."""
        return not (
            self._short
            or self.monitor.waiting
            or self.monitor.copying
            or self._deletions
            or self._events
        )


def memory_of(monitor: ReplicationMonitor) -> int:
    """Bytes of the planner's containers and of the numbers in them (those that several share counted once each)."""
    total = 0

    def add(value: Any) -> None:
        nonlocal total
        total += sys.getsizeof(value)
        if isinstance(value, dict):
            for key, inner in value.items():
                add(key)
                if inner is not None:
                    add(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                add(inner)

    for name, value in vars(monitor).items():
        if name.startswith("_") and isinstance(value, dict | list):
            add(value)
    return total
