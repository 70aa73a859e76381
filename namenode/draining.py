"""Taking nodes out of service: counting what still depends on them, and the end of maintenance."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from ..common.messages import AdminState
from ..common.model import NodeId
from ..common.runtime import Clock
from . import orders
from .blockmap import BEING_WRITTEN, GOOD, IN_LIMIT
from .datanodes import Admin, DataNodes
from .placement import Standing
from .repairer import block_states
from .replication import BlockState, ReplicationMonitor, View
from .store.base import MetadataStore, Transaction

log = logging.getLogger(__name__)
NEXT: Final[dict[AdminState, AdminState]] = {
    "decommissioning": "decommissioned",
    "entering-maintenance": "in-maintenance",
}


def depends_on(state: BlockState, node_id: NodeId, view: View, maintenance_copies: int) -> bool:
    """Whether a block would have too few copies without the node that is leaving.

    Where fewer nodes are in service than copies are wanted, as many copies as nodes are enough.
    """
    others = [
        view.by_id[holder] for holder in state.holders if holder != node_id and holder in view.by_id
    ]
    there = sum(1 for c in others if c.standing in (Standing.SERVING, Standing.STALE))
    leaving = view.by_id.get(node_id)
    resting = leaving is None or leaving.standing in (Standing.RESTING, Standing.AWAY)
    wanted = min(state.wanted, maintenance_copies) if resting else state.wanted
    return there < min(wanted, max(1, len(view.pool.nodes)))


class Draining:
    """The shell that counts, a page at a time, and lets nodes go."""

    def __init__(
        self,
        store: MetadataStore,
        nodes: DataNodes,
        monitor: ReplicationMonitor,
        clock: Clock,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._monitor = monitor
        self._clock = clock

    async def step(self) -> bool:
        """Look at every node that is leaving; whether a decision was changed."""
        now_ms = self._clock.wall_ms()
        admins = await self._store.read(orders.admin_rows)
        changed = False
        if any(0 < admin.until_ms <= now_ms for admin in admins.values()):
            ended = await self._store.run(partial(orders.expired_maintenance, now_ms=now_ms))
            log.info("maintenance of %d DataNodes has ended", ended)
            changed = ended > 0
        for node_id, admin in admins.items():
            if admin.state in NEXT and not 0 < admin.until_ms <= now_ms:
                changed = await self._advance(node_id, admin) or changed
        return changed

    async def _advance(self, node_id: NodeId, admin: Admin) -> bool:
        left = await self._count(node_id, admin)
        if left:
            if left == admin.left:
                return False
            return await self._store.run(
                partial(orders.progress, node_id=node_id, admin=admin, left=left)
            )
        state = NEXT[admin.state]
        if await self._store.run(
            partial(orders.advance, node_id=node_id, admin=admin, state=state)
        ):
            log.info("DataNode %d is %s", node_id, state)
        return True

    async def _count(self, node_id: NodeId, admin: Admin) -> int:
        """Blocks that depend on the node; they go into the repair queue."""
        left, after = 0, 0
        leaving = admin.state == "decommissioning"
        while True:
            states, last, writing = await self._store.read(
                partial(_page, node_id=node_id, after=after)
            )
            view = View(self._nodes.candidates())
            copies = self._monitor.limits.maintenance_copies
            if leaving and node_id not in view.by_id:
                # A dead node is being decommissioned: its blocks need all their copies elsewhere.
                depending = [
                    s for s in states if depends_on(s, node_id, view, max(s.wanted, copies))
                ]
            else:
                depending = [s for s in states if depends_on(s, node_id, view, copies)]
            self._monitor.consider([state.block.block_id for state in depending])
            left += len(depending) + (writing if leaving else 0)
            if last is None:
                return left
            after = last
            await asyncio.sleep(0)


def _page(
    tx: Transaction, *, node_id: NodeId, after: int
) -> tuple[list[BlockState], int | None, int]:
    """(blocks the node has good copies of, where to go on or None, blocks being written there)."""
    rows = tx.all(
        "SELECT block_id, state FROM replicas WHERE node_id = ? AND block_id > ?"
        " ORDER BY block_id LIMIT ?",
        (node_id, after, IN_LIMIT),
    )
    states = block_states(tx, [row[0] for row in rows if row[1] == GOOD])
    writing = sum(1 for row in rows if row[1] == BEING_WRITTEN)
    return states, rows[-1][0] if len(rows) == IN_LIMIT else None, writing
