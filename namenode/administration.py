"""What operators may ask: nodes out of service and back, safe mode, racks, the state of the cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from ..common.admin import (
    AdministerNodes,
    CheckCluster,
    ClusterCheck,
    NodeList,
    OrderNodes,
    Refresh,
    Refreshed,
    SafeModeState,
    SetSafeMode,
)
from ..common.config import NameNodeConfig
from ..common.errors import InvalidRequest
from ..common.messages import AdminState, BalanceDisks, Command, Done, ReportBlocks, ScrubVolumes
from ..common.model import NodeId
from ..common.paths import shown
from ..common.runtime import Clock
from . import orders, providers
from .datanodes import DataNode, DataNodes
from .health import loose
from .permissions import Caller, require_superuser
from .replication import ReplicationMonitor
from .safemode import SafeModeGate
from .store.base import MetadataStore, Transaction
from .topology import Topology, names_of

log = logging.getLogger(__name__)
ACTIONS: Final[dict[str, AdminState]] = {
    "decommission": "decommissioning",
    "maintenance": "entering-maintenance",
    "recommission": "in-service",
}


class Administration:
    """Handlers of operators' operations."""

    def __init__(
        self,
        config: NameNodeConfig,
        store: MetadataStore,
        nodes: DataNodes,
        monitor: ReplicationMonitor,
        gate: SafeModeGate,
        topology: Topology,
        clock: Clock,
    ) -> None:
        self._config = config
        self._store = store
        self._nodes = nodes
        self._monitor = monitor
        self._gate = gate
        self._topology = topology
        self._clock = clock

    def handlers(self) -> dict[str, Callable[[Caller, Any], Any]]:
        return {
            "check_cluster": self.check_cluster,
            "administer_nodes": self.administer_nodes,
            "safe_mode": self.safe_mode,
            "refresh_topology": self.refresh,
            "order_nodes": self.order_nodes,
        }

    async def check_cluster(self, caller: Caller, request: CheckCluster) -> ClusterCheck:
        found = await self._store.read(loose)
        alive = sorted(self._nodes.not_dead())
        content = await self._store.read(lambda tx: providers.health(tx, alive))
        states = [self._nodes.state(node) for node in self._nodes.all()]
        racks = {node.address.rack for node in self._nodes.all() if self._alive(node)}
        return ClusterCheck(
            live_nodes=states.count("live"),
            stale_nodes=states.count("stale"),
            dead_nodes=states.count("dead"),
            racks=len(racks),
            default_replication=self._config.replication,
            pending_deletion=found.pending_deletion,
            orphans=found.orphans,
            corrupt_replicas=found.corrupt_replicas,
            unreferenced_blocks=found.unreferenced_blocks,
            waiting=self._monitor.waiting,
            copying=self._monitor.copying,
            safe_mode=self._gate.reason(),
            content_blocks=content.blocks,
            content_under_replicated=content.under_replicated,
            content_missing=content.missing,
        )

    # --- nodes ---

    def _alive(self, node: DataNode) -> bool:
        return self._nodes.state(node) != "dead"

    def resolve(self, names: Sequence[str]) -> list[DataNode]:
        """The nodes that *names* mean, each once. InvalidRequest names one that means none, or several."""
        found: dict[NodeId, DataNode] = {}
        for name in names:
            matching = [
                node
                for node in self._nodes.all()
                if name == str(node.node_id) or name in names_of(node.address, node.uuid)
            ]
            if not matching:
                raise InvalidRequest(
                    f"there is no DataNode {shown(name)}; `dfs admin report` lists them"
                )
            if len(matching) > 1:
                listed = ", ".join(node.address.data for node in matching[:5])
                raise InvalidRequest(f"{shown(name)} means several DataNodes: {listed}, ...")
            found[matching[0].node_id] = matching[0]
        return list(found.values())

    async def administer_nodes(self, caller: Caller, request: AdministerNodes) -> NodeList:
        require_superuser(caller, f"use {request.action}")
        if request.until_ms and request.action != "maintenance":
            raise InvalidRequest("only maintenance has an end")
        now_ms = self._clock.wall_ms()
        if request.until_ms and request.until_ms <= now_ms:
            raise InvalidRequest("the end of maintenance must lie in the future")
        named = self.resolve(request.nodes)
        state = ACTIONS[request.action]
        if request.action == "decommission":
            # One that has gone already stays gone.
            named_now = [n for n in named if n.admin.state != "decommissioned"]
            await self._require_others(named_now, force=request.force)
        else:
            named_now = named
        ids = [node.node_id for node in named_now]
        if ids:
            await self._store.run(
                partial(
                    orders.set_admin_state,
                    node_ids=ids,
                    state=state,
                    until_ms=request.until_ms,
                    now_ms=now_ms,
                )
            )
        await self.load()
        log.info("%s of DataNodes %s by %s", request.action, ids, caller.user)
        wanted = {node.node_id for node in named}
        return NodeList(
            nodes=[entry for entry in self._nodes.report() if entry.address.node_id in wanted]
        )

    async def _require_others(self, leaving: Sequence[DataNode], *, force: bool) -> None:
        """InvalidRequest if those that stay can't hold as many copies as files ask for."""
        ids = [node.node_id for node in leaving]
        if not ids:
            return
        staying = [
            node
            for node in self._nodes.all()
            if node.node_id not in ids
            and node.admin.state == "in-service"
            and self._nodes.state(node) == "live"
        ]
        wanted = await self._store.read(partial(orders.most_copies_wanted, node_ids=ids))
        if wanted and not staying:
            raise InvalidRequest(
                "these are the last DataNodes in service, and they hold data: nothing could take it over"
            )
        if wanted > len(staying) and not force:
            raise InvalidRequest(
                f"files on these DataNodes ask for {wanted} copies and {len(staying)} DataNodes would stay"
                " in service: add DataNodes, or lower the replication (`dfs setrep`), or use --force to"
                " go as far as can be gone"
            )
        used = sum(v.used_bytes for node in leaving for v in node.volumes if not v.failure)
        free = sum(node.remaining_bytes for node in staying)
        if used > free and not force:
            raise InvalidRequest(
                f"{used} bytes would have to move and the DataNodes that stay have {free} bytes free"
            )

    async def load(self) -> None:
        """Learn what was decided about nodes and safe mode, here or at another NameNode."""
        admins, order = await self._store.read(_decided)
        for node_id, admin in admins.items():
            self._nodes.set_admin(node_id, admin)
        self._gate.keep_on("" if order is None else str(order.get("reason", "an operator's order")))

    async def order_nodes(self, caller: Caller, request: OrderNodes) -> Done:
        require_superuser(caller, f"order {request.action}")
        named = self.resolve(request.nodes) if request.nodes else list(self._nodes.all())
        silent = [node for node in named if not self._alive(node)]
        if request.nodes and silent:
            raise InvalidRequest(f"the DataNode {silent[0].address.data} is dead")
        command: Command
        if request.action == "scrub":
            command = ScrubVolumes(bytes_per_s=request.bytes_per_s)
        elif request.action == "balance-disks":
            command = BalanceDisks(
                bytes_per_s=request.bytes_per_s, threshold_percent=request.threshold_percent
            )
        else:
            command = ReportBlocks()
        for node in named:
            self._nodes.command(node.node_id, command)
        return Done()

    # --- safe mode ---

    async def safe_mode(self, caller: Caller, request: SetSafeMode) -> SafeModeState:
        if request.action != "get":
            require_superuser(caller, "change safe mode")
        now_ms = self._clock.wall_ms()
        if request.action == "enter":
            reason = f"{caller.user} ordered it; `dfs admin safemode leave` ends it"

            def enter(tx: Transaction) -> None:
                orders.give_order(tx, orders.SAFE_MODE, {"reason": reason}, now_ms)

            await self._store.run(enter)
        elif request.action == "leave":
            await self._store.run(lambda tx: orders.withdraw_order(tx, orders.SAFE_MODE))
            self._gate.leave()
        await self.load()
        return SafeModeState(reason=self._gate.reason())

    # --- racks ---

    async def refresh(self, caller: Caller, request: Refresh) -> Refreshed:
        """Ask for all racks again, and take over what is new. A source that fails changes nothing."""
        require_superuser(caller, "refresh")
        nodes = list(self._nodes.all())
        asked = [(node.address, node.uuid) for node in nodes]
        racks = await self._topology.racks(asked, again=True)
        changed = [
            (node, rack)
            for node, rack in zip(nodes, racks, strict=True)
            if rack is not None and rack != node.address.rack
        ]
        rows = [(rack, node.node_id) for node, rack in changed]
        if rows:
            await self._store.run(
                lambda tx: tx.many("UPDATE datanodes SET rack = ? WHERE node_id = ?", rows)
            )
        told = []
        for node, rack in changed:
            told.append((node.address.data, node.address.rack, rack))
            self._nodes.set_rack(node.node_id, rack)
        await self.load()
        return Refreshed(changed=told)


def _decided(tx: Transaction) -> tuple[dict[NodeId, Any], dict[str, Any] | None]:
    return orders.admin_rows(tx), orders.order(tx, orders.SAFE_MODE)
