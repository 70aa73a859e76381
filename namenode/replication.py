"""Bringing every block to the number of copies its files ask for: the core that decides. Pure.

It is told which blocks to look at and what they are like, and says what to copy and what to drop. `repairer.py`
asks the store and sends the commands.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..common.model import Block, NodeId
from .placement import Candidate, Pool, Standing, choose_excess, choose_targets, rack_spread

COPY_TIMEOUT_S = 120.0
RETRY_S = 3.0  # a block whose copy came to nothing is looked at again after this
REFILL = 16  # nodes that got enough to do before those that may get copies are looked through again
WHOLE_BYTES = 4 * 1024 * 1024
PARTS = 32  # the least a copy counts for is this part of a whole one
LEVELS = 4  # blocks wait by the number of their good copies: none (salvage), one, two, more


@dataclass(frozen=True, slots=True)
class BlockState:
    """A finalized block, its good replicas, and nodes that have a damaged one."""

    block: Block
    wanted: int
    holders: tuple[NodeId, ...]
    damaged: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class CopyTo:
    block: Block
    target: NodeId
    sources: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Give up a good replica; *keep* are the good ones this relies on."""

    block: Block
    node_id: NodeId
    keep: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class Discard:
    """Damaged replicas of a block that has all its copies again: nothing is to be learnt from them any more."""

    block: Block
    nodes: tuple[NodeId, ...]


Action = CopyTo | Drop | Discard


@dataclass(frozen=True, slots=True)
class Limits:
    """How much repair may go on at once.

    Copies are counted by what they cost: one of *whole_bytes* or more is a whole one, a smaller one its part. So what a node
    has in flight is bounded in bytes, and many small blocks can be fetched together.
    """

    per_node: int = 8  # whole copies a node sends and receives
    in_all: int = 0  # whole copies in the cluster; 0: as many as the nodes' limits allow
    whole_bytes: int = WHOLE_BYTES  # 0: every copy counts as a whole one
    bytes_per_s: int = 0  # begun in the whole cluster; 0: no limit
    maintenance_copies: int = 1  # copies that must be outside maintenance
    copy_timeout_s: float = COPY_TIMEOUT_S  # a copy that has not arrived by then is tried again

    def parts_of(self, length: int) -> int:
        """What a copy of *length* bytes costs, in parts of a whole one."""
        if length >= self.whole_bytes:
            return PARTS
        return max(1, -(-length * PARTS // self.whole_bytes))


@dataclass(slots=True)
class View:
    """The nodes, prepared once for many decisions."""

    nodes: Sequence[Candidate]
    by_id: dict[NodeId, Candidate] = field(init=False)
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.by_id = {candidate.node_id: candidate for candidate in self.nodes}
        self.pool = Pool(self.nodes)


@dataclass(frozen=True, slots=True)
class Need:
    """What a block has and lacks."""

    serving: list[Candidate]  # alive and in service
    readable: list[Candidate]
    missing: int
    surplus: int
    misplaced: bool  # enough copies, but on too few racks


def need_of(state: BlockState, view: View, maintenance_copies: int = 1) -> Need:
    """Compare the copies of a block with what is wanted.

    Copies on nodes in maintenance stand in for all but *maintenance_copies*; those on nodes being decommissioned
    do not count; a surplus is counted only among nodes that are certainly there.
    """
    there = [view.by_id[holder] for holder in state.holders if holder in view.by_id]
    serving = [c for c in there if c.standing is Standing.SERVING]
    stale = sum(1 for c in there if c.standing is Standing.STALE)
    resting = sum(1 for c in there if c.standing in (Standing.RESTING, Standing.AWAY))
    counted = len(serving) + stale
    missing = max(
        state.wanted - counted - resting,
        min(state.wanted, maintenance_copies) - counted if resting else 0,
    )
    racks = [c.rack for c in there if c.standing is not Standing.LEAVING]
    spread = rack_spread(racks, state.wanted, len(view.pool.by_rack))
    return Need(
        serving=serving,
        readable=[c for c in there if c.readable],
        missing=max(0, missing),
        surplus=max(0, len(serving) - state.wanted),
        misplaced=missing <= 0 and not spread,
    )


class ReplicationMonitor:
    """Which blocks wait, which copies are under way, how many each node may do at once.

    Blocks nobody has looked at come first, for one copy may be all they have; then those with the fewest good copies. Within a
    level, the oldest first, whatever their size.
    """

    def __init__(self, rng: random.Random, limits: Limits | None = None) -> None:
        self._rng = rng
        self.limits = limits or Limits()
        self.clear()

    def clear(self) -> None:
        """Forget everything: another NameNode does the repairing."""
        self._unseen: dict[int, None] = {}
        self._levels: list[dict[int, None]] = [{} for _ in range(LEVELS)]
        self._level_of: dict[int, int] = {}
        self._copying: dict[int, dict[NodeId, NodeId]] = {}  # block -> target -> source
        self._deadlines: list[tuple[float, int, NodeId]] = []
        self._due: dict[tuple[int, NodeId], float] = {}
        self._put_off: list[tuple[float, int]] = []
        self._parts: dict[int, int] = {}  # what each copy of a block under way costs
        self._busy: dict[NodeId, int] = {}  # parts
        self._under_way = 0  # parts of all copies
        self._typical = PARTS  # of the blocks that were looked at last
        self._open = Pool(())
        self._filled = 0  # nodes that got enough to do since then
        self._moves: dict[int, NodeId] = {}  # block -> the node that a balancer's move relieves
        self._budget_bytes = float(self.limits.bytes_per_s)
        self._budget_s: float | None = None

    @property
    def waiting(self) -> int:
        return len(self._unseen) + len(self._level_of)

    @property
    def unseen(self) -> int:
        """Blocks that nobody has looked at yet."""
        return len(self._unseen)

    @property
    def copying(self) -> int:
        return len(self._due)

    def by_level(self) -> list[int]:
        """How many blocks wait that have no, one, two, more good copies; those not looked at yet left out."""
        return [len(level) for level in self._levels]

    def busy(self, node_id: NodeId) -> int:
        """Whole copies that *node_id* sends or receives, rounded up."""
        return -(-self._busy.get(node_id, 0) // PARTS)

    def consider(self, block_ids: Sequence[int]) -> None:
        """These blocks may have too few or too many copies."""
        for block_id in block_ids:
            level = self._level_of.pop(block_id, None)
            if level is not None:
                del self._levels[level][block_id]
            self._unseen.setdefault(block_id)

    def take(self, limit: int, nodes: int | None = None) -> list[int]:
        """Blocks to be looked at now; those that can't be served yet come back by themselves.

        With *nodes*, how many are alive: no more of the known ones than can be served.
        """
        taken = [block_id for block_id, _ in zip(self._unseen, range(limit), strict=False)]
        for block_id in taken:
            del self._unseen[block_id]
        if taken and nodes is not None:
            return taken
        room = limit - len(taken)
        if nodes is not None:
            room = min(room, self._room(nodes))
        for level in self._levels:
            for block_id in [block_id for block_id, _ in zip(level, range(room), strict=False)]:
                del level[block_id]
                del self._level_of[block_id]
                taken.append(block_id)
                room -= 1
        return taken

    def _room(self, nodes: int) -> int:
        in_all = self.limits.in_all or max(1, self.limits.per_node * nodes // 2)
        # Twice as many, since some sources and targets will be busy.
        return max(0, -(-2 * (in_all * PARTS - self._under_way) // self._typical))

    def received(self, block_id: int, node_id: NodeId) -> bool:
        """A replica arrived, or will not; whether it was awaited."""
        if self._due.pop((block_id, node_id), None) is None:
            return False
        targets = self._copying[block_id]
        source, parts = targets.pop(node_id), self._parts[block_id]
        if not targets:
            del self._copying[block_id]
            del self._parts[block_id]
        self._under_way -= parts
        for node in (source, node_id):
            self._busy[node] -= parts
            if not self._busy[node]:
                del self._busy[node]
        return True

    def failed(self, block_id: int, node_id: NodeId, now_s: float) -> None:
        """A copy came to nothing: the block is looked at again, but not at once."""
        self.received(block_id, node_id)
        self._moves.pop(block_id, None)
        heapq.heappush(self._put_off, (now_s + RETRY_S, block_id))

    def forget(self, node_id: NodeId) -> None:
        """*node_id* has died or begun a new life: what it was to copy from or to is looked at again."""
        lost = [
            (block_id, target)
            for block_id, targets in self._copying.items()
            for target, source in targets.items()
            if node_id in (source, target)
        ]
        for block_id, target in lost:
            self.received(block_id, target)
            self._moves.pop(block_id, None)
        self.consider([block_id for block_id, _ in lost])

    def move(self, block: Block, source: NodeId, target: NodeId, now_s: float) -> CopyTo:
        """Have *target* take the place of *source*, which gives its replica up once the copy has arrived."""
        self._moves[block.block_id] = source
        self._begin(block, target, source, now_s)
        return CopyTo(block, target, (source,))

    def is_copying(self, block_id: int, target: NodeId) -> bool:
        return (block_id, target) in self._due

    def is_busy_with(self, block_id: int) -> bool:
        return block_id in self._copying or block_id in self._moves or block_id in self._level_of

    def _begin(self, block: Block, target: NodeId, source: NodeId, now_s: float) -> None:
        block_id, due_s = block.block_id, now_s + self.limits.copy_timeout_s
        self._copying.setdefault(block_id, {})[target] = source
        # An append may make it longer meanwhile: what was counted is what is taken off again.
        parts = self._parts.setdefault(block_id, self.limits.parts_of(block.length))
        self._under_way += parts
        self._due[(block_id, target)] = due_s
        heapq.heappush(self._deadlines, (due_s, block_id, target))
        for node in (source, target):
            self._busy[node] = self._busy.get(node, 0) + parts
            self._filled += not self._free(node)

    def _expire(self, now_s: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now_s:
            due_s, block_id, target = heapq.heappop(self._deadlines)
            if self._due.get((block_id, target)) == due_s:
                self.received(block_id, target)
                self._moves.pop(block_id, None)
                self.consider([block_id])

        while self._put_off and self._put_off[0][0] <= now_s:
            self.consider([heapq.heappop(self._put_off)[1]])

    def _earn(self, now_s: float) -> None:
        """Refill the budget of bytes: at most a second's worth is saved up."""
        rate = self.limits.bytes_per_s
        if rate and self._budget_s is not None:
            earned = (now_s - self._budget_s) * rate
            self._budget_bytes = min(float(rate), self._budget_bytes + earned)
        self._budget_s = now_s

    def _may_begin(self) -> bool:
        limits = self.limits
        return (not limits.in_all or self._under_way < limits.in_all * PARTS) and (
            not limits.bytes_per_s or self._budget_bytes > 0
        )

    def _open_pool(self, view: View) -> None:
        """Prepare the nodes that may get copies now, so that no choice looks through those that have enough to do."""
        nodes = [candidate for candidate in view.pool.nodes if self._free(candidate.node_id)]
        self._open = Pool(nodes, view.pool.by_rack)
        self._filled = 0

    def _free(self, node_id: NodeId) -> bool:
        return self._busy.get(node_id, 0) < self.limits.per_node * PARTS

    def decide(
        self, states: Sequence[BlockState], live: Sequence[Candidate] | View, now_s: float
    ) -> list[Action]:
        """What to do about *states*, those with the fewest copies first.

        While there are blocks that nobody has looked at, only what has one copy or none is copied: there may be more of them.
        """
        self._expire(now_s)
        self._earn(now_s)
        view = live if isinstance(live, View) else View(live)
        actions: list[Action] = []
        needs = [(state, need_of(state, view, self.limits.maintenance_copies)) for state in states]
        needs.sort(key=lambda entry: (len(entry[1].readable), entry[0].block.block_id))
        if states:
            parts = sum(self.limits.parts_of(state.block.length) for state in states)
            self._typical = -(-parts // len(states))
        self._open_pool(view)
        for state, need in needs:
            actions += self._decide_one(state, need, view, now_s)
        return actions

    def _decide_one(
        self, state: BlockState, need: Need, view: View, now_s: float
    ) -> Iterator[Action]:
        block_id = state.block.block_id
        coming = self._copying.get(block_id, {})
        missing = (1 if need.misplaced and not need.surplus else need.missing) - len(coming)
        sources = need.readable
        if not sources and need.missing:
            # Every copy is damaged, but perhaps not in the same place.
            sources = [view.by_id[node] for node in state.damaged if node in view.by_id]
            sources = [candidate for candidate in sources if candidate.readable]
        if missing > 0 and sources:
            if self._unseen and len(need.readable) > 1:
                self._wait(block_id, len(need.readable))
                return
            yield from self._copy(state, need, sources, missing, view, now_s)
        elif need.surplus and not coming:
            relieved = self._moves.pop(block_id, None)
            prefer = () if relieved is None else (relieved,)
            for node_id in choose_excess(need.serving, need.surplus, prefer):
                keep = tuple(c.node_id for c in need.serving if c.node_id != node_id)
                yield Drop(state.block, node_id, keep)
        elif not need.missing and not coming:
            self._moves.pop(block_id, None)
            if state.damaged:
                yield Discard(state.block, state.damaged)

    def _copy(
        self,
        state: BlockState,
        need: Need,
        sources: list[Candidate],
        missing: int,
        view: View,
        now_s: float,
    ) -> Iterator[CopyTo]:
        """Begin as many of *missing* copies as the limits allow; the block waits again if they don't allow all."""
        block_id = state.block.block_id
        if not self._open.nodes or not any(self._free(c.node_id) for c in sources):
            self._wait(block_id, len(need.readable))
            return
        if self._filled > max(REFILL, len(self._open.nodes) // 8):
            self._open_pool(view)
        coming = list(self._copying.get(block_id, {}))
        racks = {c.rack for c in need.serving}

        put_off = len(self._open.nodes) < len(view.pool.nodes)

        def allowed(candidate: Candidate) -> bool:
            nonlocal put_off
            if need.misplaced and candidate.rack in racks:
                return False
            free = self._free(candidate.node_id)
            put_off = put_off or not free
            return free

        targets = choose_targets(
            self._open,
            missing,
            self._rng,
            length=state.block.length,
            exclude=[*coming, *state.holders],
            having=[c for c in need.readable if c.standing is not Standing.LEAVING],
            allowed=allowed,
        )
        begun = 0
        for target in targets:
            ranked = sorted(
                (c for c in sources if c.node_id != target),
                key=lambda c: (
                    c.standing is Standing.STALE,
                    self._busy.get(c.node_id, 0),
                    c.node_id,
                ),
            )
            if not ranked or not self._free(ranked[0].node_id) or not self._may_begin():
                break
            begun += 1
            self._begin(state.block, target, ranked[0].node_id, now_s)
            self._budget_bytes -= state.block.length
            yield CopyTo(state.block, target, tuple(c.node_id for c in ranked))
        if begun < len(targets) or (len(targets) < missing and put_off):
            self._wait(block_id, len(need.readable))  # throttled: soon again

    def _wait(self, block_id: int, copies: int) -> None:
        if block_id in self._unseen:
            return
        level = min(copies, LEVELS - 1)
        known = self._level_of.get(block_id)
        if known is not None:
            del self._levels[known][block_id]
        self._level_of[block_id] = level
        self._levels[level][block_id] = None
