"""Bringing every block to the number of copies its files ask for.

The core decides: it is told which blocks to look at and what they are like, and says what to copy and what to drop.
`Repairer` asks the store and sends the commands.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..common.messages import CopyReplica
from ..common.model import Block, BlockId, GenerationStamp, NodeId
from .blockmap import GOOD, TO_DELETE
from .datanodes import DataNodes
from .placement import Candidate, choose_excess, choose_targets
from .store.base import MetadataStore, Transaction
from .store.sql import marks

COPY_TIMEOUT_S = 120.0
LOOK_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class BlockState:
    """A finalized block and its good replicas."""

    block: Block
    wanted: int
    holders: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class CopyTo:
    block: Block
    target: NodeId
    sources: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    block: Block
    node_id: NodeId


class ReplicationMonitor:
    """The core: which blocks wait, which copies are under way, how many each node may do at once."""

    def __init__(self, rng: random.Random, *, per_node: int) -> None:
        self._rng = rng
        self._per_node = per_node
        self._waiting: dict[int, None] = {}  # block ids, oldest first
        self._copying: dict[tuple[int, NodeId], tuple[float, NodeId]] = {}  # -> deadline, source

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def copying(self) -> int:
        return len(self._copying)

    def consider(self, block_ids: Sequence[int]) -> None:
        """These blocks may have too few or too many copies."""
        for block_id in block_ids:
            self._waiting.setdefault(block_id)

    def take(self, limit: int) -> list[int]:
        """Blocks to be looked at now; those that can't be served yet come back by themselves."""
        taken = list(self._waiting)[:limit]
        for block_id in taken:
            del self._waiting[block_id]
        return taken

    def received(self, block_id: int, node_id: NodeId) -> None:
        self._copying.pop((block_id, node_id), None)

    def decide(
        self, states: Sequence[BlockState], live: Sequence[Candidate], now_s: float
    ) -> list[CopyTo | Drop]:
        """What to do about *states*, those with the fewest copies first."""
        for key in [key for key, value in self._copying.items() if value[0] <= now_s]:
            del self._copying[key]
            self.consider([key[0]])
        by_id = {candidate.node_id: candidate for candidate in live}
        busy: dict[NodeId, int] = {}
        for (_, target), (_, source) in self._copying.items():
            busy[target] = busy.get(target, 0) + 1
            busy[source] = busy.get(source, 0) + 1
        actions: list[CopyTo | Drop] = []

        def copies(state: BlockState) -> int:
            return sum(1 for holder in state.holders if holder in by_id)

        for state in sorted(states, key=lambda s: (copies(s), s.block.block_id)):
            there = [by_id[holder] for holder in state.holders if holder in by_id]
            coming = [key[1] for key in self._copying if key[0] == state.block.block_id]
            missing = state.wanted - len(there) - len(coming)
            if missing > 0 and there:
                free = [c for c in live if busy.get(c.node_id, 0) < self._per_node]
                targets = choose_targets(
                    free,
                    missing,
                    self._rng,
                    length=state.block.length,
                    exclude=[*coming, *state.holders],
                    having=there,
                )
                begun = 0
                for target in targets:
                    sources = sorted(there, key=lambda c: (busy.get(c.node_id, 0), c.node_id))
                    source = sources[0].node_id
                    if busy.get(source, 0) >= self._per_node:
                        break
                    begun += 1
                    busy[target] = busy.get(target, 0) + 1
                    busy[source] = busy.get(source, 0) + 1
                    self._copying[(state.block.block_id, target)] = (
                        now_s + COPY_TIMEOUT_S,
                        source,
                    )
                    actions.append(CopyTo(state.block, target, tuple(c.node_id for c in sources)))
                if begun < len(targets) or (len(targets) < missing and len(free) < len(live)):
                    self.consider([state.block.block_id])  # throttled: soon again
            elif len(there) > state.wanted and not coming:
                for node_id in choose_excess(there, len(there) - state.wanted):
                    actions.append(Drop(state.block, node_id))
        return actions


def block_states(tx: Transaction, block_ids: Sequence[int]) -> list[BlockState]:
    """The finalized ones of *block_ids*."""
    states: dict[int, tuple[Block, int, list[NodeId]]] = {}
    if not block_ids:
        return []
    for row in tx.all(
        "SELECT b.block_id, b.generation, b.length, b.digest, b.replication, r.node_id FROM blocks b"
        f" LEFT JOIN replicas r ON r.block_id = b.block_id AND r.state = {GOOD}"
        f" WHERE b.digest IS NOT NULL AND b.block_id IN ({marks(len(block_ids))})",
        list(block_ids),
    ):
        block = Block(
            block_id=BlockId(row[0]),
            generation=GenerationStamp(row[1]),
            length=row[2],
            digest=bytes(row[3]),
        )
        entry = states.setdefault(row[0], (block, row[4], []))
        if row[5] is not None:
            entry[2].append(NodeId(row[5]))
    return [BlockState(block, wanted, tuple(held)) for block, wanted, held in states.values()]


class Repairer:
    """The shell: looks up what the core wants to know and carries out what it says."""

    def __init__(
        self,
        store: MetadataStore,
        nodes: DataNodes,
        monitor: ReplicationMonitor,
        now_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._monitor = monitor
        self._now_s = now_s

    async def step(self) -> bool:
        """Look at one portion of the waiting blocks; False if none waited."""
        taken = self._monitor.take(LOOK_AT_ONCE)
        states = await self._store.read(lambda tx: block_states(tx, taken)) if taken else []
        actions = self._monitor.decide(states, self._nodes.candidates(), self._now_s())
        drops = [action for action in actions if isinstance(action, Drop)]
        if drops:
            await self._store.run(lambda tx: _drop(tx, drops))
        for action in actions:
            if isinstance(action, CopyTo):
                sources = [
                    address
                    for node_id in action.sources
                    if (address := self._nodes.address(node_id)) is not None
                ]
                command = CopyReplica(block=action.block, sources=sources)
                if not self._nodes.command(action.target, command):
                    self._monitor.received(action.block.block_id, action.target)
                    self._monitor.consider([action.block.block_id])
        return bool(taken)


def _drop(tx: Transaction, drops: Sequence[Drop]) -> None:
    tx.many(
        "UPDATE replicas SET state = ? WHERE block_id = ? AND node_id = ? AND state = ?",
        [(TO_DELETE, drop.block.block_id, drop.node_id, GOOD) for drop in drops],
    )
