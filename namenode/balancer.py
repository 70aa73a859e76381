"""Evening out how full DataNodes are: which replicas should move where. Pure; `balancing.py` carries it out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..common.model import NodeId
from .placement import Candidate, Standing, rack_spread
from .replication import BlockState


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a node is that takes part: alive and in service."""

    node: Candidate
    used_bytes: int
    capacity_bytes: int

    @property
    def percent(self) -> float:
        return 100.0 * self.used_bytes / self.capacity_bytes if self.capacity_bytes else 0.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the balancer sees: nodes with too much, nodes with room, each with how many bytes."""

    average_percent: float
    spread_percent: float
    over: dict[NodeId, int]
    under: dict[NodeId, int]
    left_bytes: int

    @property
    def balanced(self) -> bool:
        return not self.left_bytes


def survey(usages: Sequence[Usage], threshold_percent: float) -> Outlook:
    """Compare every node with the average, as HDFS's balancer does.

    A node more than the threshold above it gives down to the average; while there is one, or one more than the
    threshold below, those on the other side of the average take part up to it.
    """
    capacity = sum(usage.capacity_bytes for usage in usages)
    average = 100.0 * sum(usage.used_bytes for usage in usages) / capacity if capacity else 0.0
    off = [(usage, usage.percent - average) for usage in usages if usage.capacity_bytes]
    far_over = any(value > threshold_percent for _, value in off)
    far_under = any(value < -threshold_percent for _, value in off)
    over: dict[NodeId, int] = {}
    under: dict[NodeId, int] = {}
    needed = given = 0
    for usage, value in off:
        size_bytes = int(abs(value) / 100.0 * usage.capacity_bytes)
        beyond = int(max(0.0, abs(value) - threshold_percent) / 100.0 * usage.capacity_bytes)
        if value > 0 and (value > threshold_percent or far_under):
            over[usage.node.node_id] = size_bytes
            needed += beyond
        elif value < 0 and (value < -threshold_percent or far_over):
            under[usage.node.node_id] = min(size_bytes, usage.node.remaining_bytes)
            given += beyond
    return Outlook(
        average_percent=average,
        spread_percent=max((abs(value) for _, value in off), default=0.0),
        over=over,
        under=under,
        left_bytes=max(needed, given),
    )


@dataclass(frozen=True, slots=True)
class Move:
    state: BlockState
    source: NodeId
    target: NodeId


class Mover:
    """Finds moves for one look at the nodes; keeps account of what it has given away already."""

    def __init__(
        self, usages: Sequence[Usage], outlook: Outlook, rng: random.Random, *, per_node: int
    ) -> None:
        self._by_id = {usage.node.node_id: usage.node for usage in usages}
        self._racks = {usage.node.rack for usage in usages}
        self._over = dict(outlook.over)
        self._under = dict(outlook.under)
        self._rng = rng
        self._per_node = per_node
        self._moves: dict[NodeId, int] = {}

    def sources(self) -> list[NodeId]:
        """Nodes that still have to give, the fullest first."""
        return sorted(
            (node for node, left in self._over.items() if left > 0 and self._free(node)),
            key=lambda node: (-self._over[node], node),
        )

    def busy_with(self, nodes: dict[NodeId, int]) -> None:
        """Moves and copies that go on already."""
        self._moves = dict(nodes)

    def _free(self, node: NodeId) -> bool:
        return self._moves.get(node, 0) < self._per_node

    def choose(self, source: NodeId, states: Sequence[BlockState]) -> Iterator[Move]:
        """Moves of *states* (blocks that *source* holds) to nodes with room; never below the rack spread."""
        for state in states:
            left = self._over.get(source, 0)
            if left <= 0 or not self._free(source):
                return
            length = state.block.length
            if not length or length > 2 * left:
                continue
            target = self._target(source, state)
            if target is None:
                continue
            self._over[source] = left - length
            self._under[target] -= length
            for node in (source, target):
                self._moves[node] = self._moves.get(node, 0) + 1
            yield Move(state, source, target)

    def _target(self, source: NodeId, state: BlockState) -> NodeId | None:
        holders = [self._by_id[h] for h in state.holders if h in self._by_id]
        if len(holders) != len(state.holders) or len(holders) < state.wanted:
            return None  # a matter for repair first
        rest = [h for h in holders if h.node_id != source]
        hosts = {h.host for h in rest}
        racks = [h.rack for h in holders]
        before = rack_spread(racks, state.wanted, len(self._racks))
        length = state.block.length
        fitting = [
            node
            for node, room in self._under.items()
            if room >= length / 2
            and node not in state.holders
            and self._free(node)
            and self._by_id[node].standing is Standing.SERVING
            and self._by_id[node].remaining_bytes > 2 * length
            and not (before and self._worse(rest, self._by_id[node], racks))
        ]
        if not fitting:
            return None
        # Within the rack costs the least; two copies on one host only if nothing else is left.
        rack = self._by_id[source].rack
        return min(
            fitting,
            key=lambda n: (
                self._by_id[n].host in hosts,
                self._by_id[n].rack != rack,
                self._moves.get(n, 0),
                -self._under[n],
                self._rng.random(),
            ),
        )

    @staticmethod
    def _worse(rest: Sequence[Candidate], target: Candidate, racks: Sequence[str]) -> bool:
        """Whether the copies would be on fewer racks than they are."""
        return len({*(h.rack for h in rest), target.rack}) < min(2, len(set(racks)))
