"""Repair at work: looks up what the core wants to know, and carries out what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from ..common.messages import CopyReplica
from ..common.model import Block, BlockId, GenerationStamp, NodeId
from .blockmap import CORRUPT, GOOD, IN_LIMIT, TO_DELETE
from .datanodes import DataNodes
from .replication import BlockState, CopyTo, Discard, Drop, ReplicationMonitor, View
from .store.base import MetadataStore, Transaction
from .store.sql import marks

LOOK_AT_ONCE: Final = IN_LIMIT


class Repairer:
    """The shell of `ReplicationMonitor`."""

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
        """Look at one portion of the waiting blocks; False if that led to nothing, and there is no use in going on now."""
        view = View(self._nodes.candidates())
        unseen = self._monitor.unseen
        taken = self._monitor.take(LOOK_AT_ONCE, len(view.pool.nodes))
        states = await self._store.read(partial(block_states, block_ids=taken)) if taken else []
        actions = self._monitor.decide(states, view, self._now_s())
        drops = [action for action in actions if isinstance(action, Drop)]
        discards = [action for action in actions if isinstance(action, Discard)]
        if drops or discards:
            await self._store.run(partial(_give_up, drops=drops, discards=discards))
            self._nodes.wake(
                {drop.node_id for drop in drops} | {n for d in discards for n in d.nodes}
            )
        for action in actions:
            if isinstance(action, CopyTo):
                self.send(action)
        return bool(actions or (unseen and taken))

    def send(self, copy: CopyTo, *, bytes_per_s: int = 0) -> bool:
        """Command a copy; if its target can't be told, the block waits again."""
        sources = [
            address
            for node_id in copy.sources
            if (address := self._nodes.address(node_id)) is not None
        ]
        command = CopyReplica(block=copy.block, sources=sources, bytes_per_s=bytes_per_s)
        if self._nodes.command(copy.target, command):
            return True
        self._monitor.received(copy.block.block_id, copy.target)
        self._monitor.consider([copy.block.block_id])
        return False


def block_states(tx: Transaction, block_ids: Sequence[int]) -> list[BlockState]:
    """The finalized ones of *block_ids*."""
    states: dict[int, tuple[Block, int, list[NodeId], list[NodeId]]] = {}
    if not block_ids:
        return []
    for row in tx.all(
        "SELECT b.block_id, b.generation, b.length, b.digest, b.replication, r.node_id, r.state"
        " FROM blocks b LEFT JOIN replicas r ON r.block_id = b.block_id"
        f" AND r.state IN ({GOOD}, {CORRUPT})"
        f" WHERE b.digest IS NOT NULL AND b.block_id IN ({marks(len(block_ids))})",
        list(block_ids),
    ):
        block = Block(
            block_id=BlockId(row[0]),
            generation=GenerationStamp(row[1]),
            length=row[2],
            digest=bytes(row[3]),
        )
        _, _, held, damaged = states.setdefault(row[0], (block, row[4], [], []))
        if row[5] is not None:
            (held if row[6] == GOOD else damaged).append(NodeId(row[5]))
    return [
        BlockState(block, wanted, tuple(held), tuple(damaged))
        for block, wanted, held, damaged in states.values()
    ]


def _give_up(tx: Transaction, *, drops: Sequence[Drop], discards: Sequence[Discard]) -> None:
    """Mark replicas for deletion, if the copies that make them superfluous are still known to be good."""
    ids = sorted({d.block.block_id for d in drops} | {d.block.block_id for d in discards})
    good: dict[int, set[int]] = {}
    wanted: dict[int, int] = {}
    for start in range(0, len(ids), IN_LIMIT):
        part = ids[start : start + IN_LIMIT]
        for block_id, replication, node_id in tx.all(
            "SELECT b.block_id, b.replication, r.node_id FROM blocks b JOIN replicas r"
            f" ON r.block_id = b.block_id AND r.state = {GOOD} WHERE b.block_id IN ({marks(len(part))})",
            part,
        ):
            good.setdefault(block_id, set()).add(node_id)
            wanted[block_id] = replication
    surplus: list[tuple[int, ...]] = []
    for drop in drops:
        block_id = drop.block.block_id
        kept = good.get(block_id, set()) & set(drop.keep)
        if len(kept) >= wanted.get(block_id, 1):
            good[block_id].discard(drop.node_id)
            surplus.append((TO_DELETE, block_id, drop.node_id, GOOD))
    damaged: list[tuple[int, ...]] = [
        (TO_DELETE, discard.block.block_id, node_id, CORRUPT)
        for discard in discards
        if len(good.get(discard.block.block_id, ())) >= 1
        for node_id in discard.nodes
    ]
    tx.many(
        "UPDATE replicas SET state = ? WHERE block_id = ? AND node_id = ? AND state = ?",
        surplus + damaged,
    )
