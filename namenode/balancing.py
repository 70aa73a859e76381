"""A run of the balancer: ordered by an operator, carried out by the NameNode that repairs, followed by whoever asks."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from ..common.admin import BalancerStatus, ControlBalancer, StartBalancer
from ..common.errors import InvalidRequest
from ..common.model import NodeId
from ..common.runtime import Clock, new_uuid
from . import orders
from .balancer import Mover, Outlook, Usage, survey
from .blockmap import GOOD, IN_LIMIT
from .datanodes import DataNodes
from .permissions import Caller, require_superuser
from .placement import Standing
from .repairer import Repairer, block_states
from .replication import BlockState, ReplicationMonitor
from .store.base import MetadataStore, Transaction

log = logging.getLogger(__name__)
PAGES_PER_SOURCE: Final = 8  # of IN_LIMIT blocks, looked through for something to move in one step
STUCK_AFTER: Final = 20  # steps without a move or a move under way


class _Run(msgspec.Struct, kw_only=True, forbid_unknown_fields=False):
    """The row of a run. *renewed_ms*: when its operator was last heard of; *keep_alive_s* 0: that does not matter."""

    status: BalancerStatus
    keep_alive_s: float = 0.0
    renewed_ms: int = 0


class Balancing:
    """Handlers for operators, and the step of the NameNode that repairs."""

    def __init__(
        self,
        store: MetadataStore,
        nodes: DataNodes,
        monitor: ReplicationMonitor,
        repairer: Repairer,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._monitor = monitor
        self._repairer = repairer
        self._clock = clock
        self._rng = rng
        self._run_id = ""  # whose moves these are:
        self._moving: dict[tuple[int, NodeId], int] = {}  # (block, target) -> bytes
        self._idle_steps = 0
        self._places: dict[NodeId, int] = {}  # where to look on among a node's blocks
        self._budget_bytes = 0.0
        self._budget_s = 0.0

    def handlers(self) -> dict[str, Callable[[Caller, Any], Any]]:
        return {"start_balancer": self.start, "balancer": self.control}

    async def start(self, caller: Caller, request: StartBalancer) -> BalancerStatus:
        require_superuser(caller, "balance")
        now_ms = self._clock.wall_ms()
        status = BalancerStatus(
            state="running",
            run_id=new_uuid(),
            threshold_percent=request.threshold_percent,
            bytes_per_s=request.bytes_per_s,
            started_ms=now_ms,
        )

        def begin(tx: Transaction) -> BalancerStatus:
            run = _load(tx)
            if run is not None and run.status.state == "running" and not _lapsed(run, now_ms):
                raise InvalidRequest(
                    "a balancer is running; `dfs admin balancer --status` shows it, --stop ends it"
                )
            _save(tx, _Run(status=status, keep_alive_s=request.keep_alive_s, renewed_ms=now_ms))
            return status

        return await self._store.run(begin)

    async def control(self, caller: Caller, request: ControlBalancer) -> BalancerStatus:
        if request.action != "status":
            require_superuser(caller, "balance")
        now_ms = self._clock.wall_ms()

        def change(tx: Transaction) -> BalancerStatus:
            run = _load(tx)
            if run is None:
                return BalancerStatus(state="never-run")
            if request.run_id not in ("", run.status.run_id):
                raise InvalidRequest("that run of the balancer has been followed by another")
            if run.status.state == "running" and request.action != "status":
                run.renewed_ms = now_ms
                if request.action == "stop":
                    run.status = _ended(run.status, "stopped", now_ms)
                _save(tx, run)
            return run.status

        if request.action == "status":
            return await self._store.read(change)
        return await self._store.run(change)

    # --- the step of the NameNode that repairs ---

    async def step(self) -> None:
        """Begin what moves the limits allow, and note how far the run is."""
        run = await self._store.read(_load)
        if run is None or run.status.state != "running":
            self._moving.clear()
            return
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic_s()
        if run.status.run_id != self._run_id:
            self._run_id, self._idle_steps = run.status.run_id, 0
            self._moving.clear()
            self._places.clear()
            self._budget_bytes, self._budget_s = 0.0, now_s
        blocks, size_bytes = self._arrived()
        usages = self._usages()
        outlook = survey(usages, run.status.threshold_percent)
        if _lapsed(run, now_ms):
            state = "abandoned"
        elif outlook.balanced and not self._moving:
            state = "balanced"
        else:
            state = "running"
            begun = await self._begin(run.status, usages, outlook, now_s)
            self._idle_steps = 0 if begun or self._moving else self._idle_steps + 1
            if self._idle_steps >= STUCK_AFTER:
                state = "stuck"
        await self._note(state, blocks, size_bytes, outlook, now_ms)

    def _arrived(self) -> tuple[int, int]:
        """Moves that have ended since the last step: (blocks, bytes)."""
        done = [key for key in self._moving if not self._monitor.is_copying(*key)]
        sizes = [self._moving.pop(key) for key in done]
        return len(sizes), sum(sizes)

    def _usages(self) -> list[Usage]:
        found = []
        moving: dict[NodeId, int] = {}
        for (_, target), size_bytes in self._moving.items():
            moving[target] = moving.get(target, 0) + size_bytes
        for candidate in self._nodes.candidates():
            node = self._nodes.get(candidate.node_id)
            if node is None or candidate.standing is not Standing.SERVING:
                continue
            volumes = [volume for volume in node.volumes if not volume.failure]
            found.append(
                Usage(
                    candidate,
                    sum(v.used_bytes for v in volumes) + moving.get(candidate.node_id, 0),
                    sum(v.capacity_bytes for v in volumes),
                )
            )
        return found

    async def _begin(
        self, status: BalancerStatus, usages: Sequence[Usage], outlook: Outlook, now_s: float
    ) -> int:
        if status.bytes_per_s:
            earned = (now_s - self._budget_s) * status.bytes_per_s
            self._budget_bytes = min(self._budget_bytes + earned, float(status.bytes_per_s))
        self._budget_s = now_s
        limits = self._monitor.limits
        mover = Mover(usages, outlook, self._rng, per_node=limits.per_node)
        mover.busy_with({u.node.node_id: self._monitor.busy(u.node.node_id) for u in usages})
        begun = 0
        for source in mover.sources():
            for _ in range(PAGES_PER_SOURCE):
                after = self._places.get(source, 0)
                states, last = await self._store.read(
                    partial(_blocks_of, node_id=source, after=after)
                )
                quiet = [s for s in states if not self._monitor.is_busy_with(s.block.block_id)]
                for move in mover.choose(source, quiet):
                    if status.bytes_per_s and self._budget_bytes <= 0:
                        return begun
                    self._budget_bytes -= move.state.block.length
                    copy = self._monitor.move(move.state.block, source, move.target, now_s)
                    if self._repairer.send(copy, bytes_per_s=status.bytes_per_s):
                        key = (move.state.block.block_id, move.target)
                        self._moving[key] = move.state.block.length
                        begun += 1
                self._places[source] = last
                if not last or source not in mover.sources():
                    break
        return begun

    async def _note(
        self, state: Any, blocks: int, size_bytes: int, outlook: Outlook, now_ms: int
    ) -> None:
        run_id, moving = self._run_id, len(self._moving)

        def write(tx: Transaction) -> None:
            run = _load(tx)
            if run is None or run.status.run_id != run_id:
                return
            status = msgspec.structs.replace(
                run.status,
                moved_blocks=run.status.moved_blocks + blocks,
                moved_bytes=run.status.moved_bytes + size_bytes,
                moving=moving,
                left_bytes=outlook.left_bytes,
                average_percent=round(outlook.average_percent, 3),
                spread_percent=round(outlook.spread_percent, 3),
            )
            if run.status.state == "running" and state != "running":
                status = _ended(status, state, now_ms)
                log.info(
                    "the balancer's run is over: %s, %d bytes moved", state, status.moved_bytes
                )
            if status != run.status:
                run.status = status
                _save(tx, run)

        await self._store.run(write)


def _ended(status: BalancerStatus, state: Any, now_ms: int) -> BalancerStatus:
    return msgspec.structs.replace(status, state=state, ended_ms=now_ms)


def _lapsed(run: _Run, now_ms: int) -> bool:
    return bool(run.keep_alive_s) and now_ms - run.renewed_ms > run.keep_alive_s * 1000


def _load(tx: Transaction) -> _Run | None:
    found = orders.order(tx, orders.BALANCER)
    return None if found is None else msgspec.convert(found, _Run)


def _save(tx: Transaction, run: _Run) -> None:
    orders.give_order(tx, orders.BALANCER, run, run.renewed_ms)


def _blocks_of(tx: Transaction, *, node_id: NodeId, after: int) -> tuple[list[BlockState], int]:
    """The next blocks a node has good copies of, and where to go on (0: from the beginning)."""
    rows = tx.all(
        "SELECT block_id, state FROM replicas WHERE node_id = ? AND block_id > ?"
        " ORDER BY block_id LIMIT ?",
        (node_id, after, IN_LIMIT),
    )
    states = block_states(tx, [row[0] for row in rows if row[1] == GOOD])
    # The largest first: fewer moves, and less to keep account of.
    states.sort(key=lambda s: (-s.block.length, s.block.block_id))
    return states, rows[-1][0] if len(rows) == IN_LIMIT else 0
