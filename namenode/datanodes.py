"""DataNodes: who is registered, who is alive, what each still has to do."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from ..common.errors import NotEnoughDataNodes
from ..common.messages import (
    AdminState,
    BalanceDisks,
    Command,
    Heartbeat,
    ManageVolume,
    NodeReport,
    ScrubVolumes,
    VolumeReport,
)
from ..common.model import NodeAddress, NodeId
from ..common.runtime import Clock
from .placement import Candidate, Standing, choose_targets

State = Literal["live", "stale", "dead"]
MAX_QUEUED_COMMANDS = 10_000
MAY_BE_AWAY: Final[tuple[AdminState, ...]] = ("decommissioned", "in-maintenance")
# Operators' orders, which nobody gives again. What is to be copied or deleted is found anew when a node comes back.
LASTING = (BalanceDisks, ManageVolume, ScrubVolumes)


@dataclass(frozen=True, slots=True)
class Admin:
    """What operators have decided about a node; a row of the table."""

    state: AdminState = "in-service"
    until_ms: int = 0  # when maintenance ends by itself; 0: it does not
    left: int = 0  # blocks that still have too few copies elsewhere
    total: int = 0  # and had when it began


IN_SERVICE = Admin()


@dataclass(slots=True)
class DataNode:
    """One registered node. *last_s* is None until it has been heard of in this process's life."""

    node_id: NodeId
    uuid: str
    address: NodeAddress
    last_s: float | None = None
    known_since_s: float = 0.0
    version: str = ""
    volumes: list[VolumeReport] = field(default_factory=list)
    active_transfers: int = 0
    blocks: int = 0
    beat: Heartbeat | None = None  # the last one
    scheduled: float = 0.0  # blocks given out lately; halves with every heartbeat
    was_dead: bool = False
    returned: bool = (
        False  # heard of again after it was dead, and nobody has looked at its blocks yet
    )
    admin: Admin = IN_SERVICE
    commands: collections.deque[Command] = field(default_factory=collections.deque)
    # By the number of the answer: commands given out that the node has not said to have.
    given: dict[int, list[Command]] = field(default_factory=dict)
    answers: int = 0
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def remaining_bytes(self) -> int:
        return sum(volume.remaining_bytes for volume in self.volumes if not volume.failure)


class DataNodes:
    """The registry: liveness by heartbeats, addresses, placement, command queues.

    After a restart, nodes from the table are *expected*: their addresses are handed out at once, new
    blocks only once they have been heard of, and they are dead when they stay silent.
    """

    def __init__(
        self, clock: Clock, rng: random.Random, *, stale_after_s: float, dead_after_s: float
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._stale_after_s = stale_after_s
        self._dead_after_s = dead_after_s
        self._nodes: dict[NodeId, DataNode] = {}
        self._addresses: dict[NodeId, NodeAddress] = {}
        self._orders: dict[tuple[tuple[NodeId, ...], str], list[NodeAddress]] = {}

    def expect(
        self, node_id: NodeId, uuid: str, address: NodeAddress, admin: Admin | None = None
    ) -> None:
        """A node known from the table, not heard of yet. Without *admin*, what was decided about it stands."""
        known = self._nodes.get(node_id)
        if admin is None:
            admin = IN_SERVICE if known is None else known.admin
        self._nodes[node_id] = DataNode(
            node_id, uuid, address, known_since_s=self._clock.monotonic_s(), admin=admin
        )
        # A death is told once, and so is the return from it.
        self._nodes[node_id].returned = known is not None and (known.was_dead or known.returned)
        self._addresses[node_id] = address
        self._orders.clear()

    def set_admin(self, node_id: NodeId, admin: Admin) -> None:
        node = self._nodes.get(node_id)
        if node is not None and node.admin != admin:
            node.admin = admin
            self._orders.clear()

    def set_rack(self, node_id: NodeId, rack: str) -> None:
        node = self._nodes.get(node_id)
        if node is not None and node.address.rack != rack:
            node.address = msgspec.structs.replace(node.address, rack=rack)
            self._addresses[node_id] = node.address
            self._orders.clear()

    def register(
        self,
        node_id: NodeId,
        uuid: str,
        address: NodeAddress,
        version: str,
        volumes: list[VolumeReport],
    ) -> DataNode:
        former = self._nodes.get(node_id)
        self.expect(node_id, uuid, address)
        node = self._nodes[node_id]
        if former is not None:
            given = [
                command for _, commands in sorted(former.given.items()) for command in commands
            ]
            node.commands.extend(c for c in (*given, *former.commands) if isinstance(c, LASTING))
        node.version, node.volumes = version, volumes
        node.last_s = self._clock.monotonic_s()
        return node

    def heartbeat(self, message: Heartbeat) -> DataNode | None:
        """Note a sign of life; None if the node has to register (again)."""
        node = self._nodes.get(message.node_id)
        if node is None or node.uuid != message.uuid or node.last_s is None:
            return None
        node.last_s = self._clock.monotonic_s()
        node.beat = message
        node.volumes = message.volumes
        node.active_transfers = message.active_transfers
        node.blocks = message.blocks
        node.scheduled /= 2
        if message.answer_seen is not None:
            for number in sorted(node.given, reverse=True):
                if number != message.answer_seen:
                    # The answer did not arrive: what it carried comes first now.
                    node.commands.extendleft(reversed(node.given[number]))
            node.given.clear()
        if node.was_dead:
            node.was_dead = False
            node.returned = True
            self._orders.clear()
        return node

    def returned(self) -> list[NodeId]:
        """Nodes that have come back from the dead since the last call."""
        back = [node for node in self._nodes.values() if node.returned and node.last_s is not None]
        for node in back:
            node.returned = False
        return [node.node_id for node in back]

    def state(self, node: DataNode) -> State:
        silent_s = self._clock.monotonic_s() - (
            node.known_since_s if node.last_s is None else node.last_s
        )
        if silent_s >= self._dead_after_s:
            return "dead"
        return "stale" if silent_s >= self._stale_after_s or node.last_s is None else "live"

    def tick(self) -> list[NodeId]:
        """Nodes that have died since the last call."""
        died = []
        for node in self._nodes.values():
            if not node.was_dead and self.state(node) == "dead":
                node.was_dead = True
                died.append(node.node_id)
        self._orders.clear()  # stale nodes move to the end
        return died

    def next_death_s(self) -> float:
        """Seconds until the next node will be dead if nothing is heard of it; infinite if there is none."""
        heard = [
            node.known_since_s if node.last_s is None else node.last_s
            for node in self._nodes.values()
            if not node.was_dead
        ]
        if not heard:
            return float("inf")
        return max(0.0, min(heard) + self._dead_after_s - self._clock.monotonic_s())

    def get(self, node_id: NodeId) -> DataNode | None:
        return self._nodes.get(node_id)

    def all(self) -> Iterable[DataNode]:
        return self._nodes.values()

    def live_count(self) -> int:
        return sum(1 for node in self._nodes.values() if self.state(node) == "live")

    def not_dead(self) -> set[NodeId]:
        return {node.node_id for node in self._nodes.values() if self.state(node) != "dead"}

    # --- addresses, for readers; called from the store's threads ---

    def address(self, node_id: NodeId) -> NodeAddress | None:
        return self._addresses.get(node_id)

    def order(self, node_ids: Sequence[NodeId], client_host: str) -> list[NodeAddress]:
        """Same host first, then the same rack, then others; stale and leaving ones last, dead ones not at all."""
        key = (tuple(node_ids), client_host)
        known = self._orders.get(key)
        if known is not None:
            return known
        racks = {
            n.address.rack for n in list(self._nodes.values()) if n.address.host == client_host
        }
        ranked = []
        for node_id in node_ids:
            node = self._nodes.get(node_id)
            if node is None:
                continue
            state = self.state(node)
            if state == "dead":
                continue
            distance = 0 if node.address.host == client_host else 1
            if distance and node.address.rack not in racks:
                distance = 2
            last = state != "live" or node.admin.state != "in-service"
            ranked.append((last, distance, self._rng.random(), node.address))
        ordered = [entry[3] for entry in sorted(ranked, key=lambda entry: entry[:3])]
        if len(self._orders) < 4096:
            self._orders[key] = ordered
        return ordered

    # --- placement ---

    def standing(self, node: DataNode) -> Standing | None:
        """None: dead, its replicas count for nothing."""
        state, admin = self.state(node), node.admin.state
        if admin == "in-maintenance":
            return Standing.AWAY if state == "dead" else Standing.RESTING
        if state == "dead":
            return None
        if admin in ("decommissioning", "decommissioned"):
            return Standing.LEAVING
        if admin == "entering-maintenance":
            return Standing.RESTING
        return Standing.SERVING if state == "live" else Standing.STALE

    def candidates(self) -> list[Candidate]:
        """All nodes whose replicas are worth something."""
        return [
            Candidate(
                node_id=node.node_id,
                host=node.address.host,
                rack=node.address.rack,
                remaining_bytes=node.remaining_bytes,
                load=node.active_transfers + int(node.scheduled),
                standing=standing,
            )
            for node in list(self._nodes.values())
            if (standing := self.standing(node)) is not None
        ]

    def choose(
        self,
        count: int,
        *,
        client_host: str,
        length: int,
        client_node: NodeId | None = None,
        exclude: Sequence[NodeId] = (),
        having: Sequence[NodeId] = (),
        minimum: int = 1,
    ) -> list[NodeAddress]:
        """See `blockmap.Placer`."""
        candidates = self.candidates()
        serving = sum(1 for c in candidates if c.standing is Standing.SERVING)
        chosen = choose_targets(
            candidates,
            count,
            self._rng,
            client_host=client_host,
            client_node=client_node,
            length=length,
            exclude=exclude,
            having=[c for c in candidates if c.node_id in having],
        )
        if len(chosen) < minimum:
            raise NotEnoughDataNodes(
                f"{minimum} DataNodes with {length} bytes free are needed and {len(chosen)} "
                f"could be found: {serving} of {len(self._nodes)} are alive and in service, "
                f"{len(exclude)} were excluded"
            )
        for node_id in chosen:
            self._nodes[node_id].scheduled += 1
        return [self._addresses[node_id] for node_id in chosen]

    # --- commands ---

    def command(self, node_id: NodeId, command: Command) -> bool:
        """Queue *command* for a node; False if it is gone or has too much to do."""
        node = self._nodes.get(node_id)
        if node is None or self.state(node) == "dead" or len(node.commands) >= MAX_QUEUED_COMMANDS:
            return False
        node.commands.append(command)
        node.waiting.set()
        return True

    def give_out(self, node: DataNode, limit: int) -> tuple[int, list[Command]]:
        """The next commands of *node* and the number of the answer that carries them; 0: none.

        They are kept until a heartbeat says whether that answer has arrived.
        """
        commands = [node.commands.popleft() for _ in range(min(len(node.commands), limit))]
        if not commands:
            return 0, commands
        node.answers += 1
        if node.beat is not None and node.beat.answer_seen is not None:
            node.given[node.answers] = commands
        return node.answers, commands

    def wake(self, node_ids: Iterable[NodeId]) -> None:
        """There is something for these nodes in the table: let their waiting heartbeats be answered."""
        for node_id in node_ids:
            if (node := self._nodes.get(node_id)) is not None:
                node.waiting.set()

    def report(self) -> list[NodeReport]:
        now_s = self._clock.monotonic_s()
        return [
            NodeReport(
                address=node.address,
                uuid=node.uuid,
                state=self.state(node),
                capacity_bytes=sum(v.capacity_bytes for v in node.volumes if not v.failure),
                used_bytes=sum(v.used_bytes for v in node.volumes if not v.failure),
                remaining_bytes=node.remaining_bytes,
                blocks=node.blocks,
                last_contact_s=round(
                    now_s - (node.known_since_s if node.last_s is None else node.last_s), 1
                ),
                active_transfers=node.active_transfers,
                volumes=len(node.volumes),
                failed_volumes=sum(1 for volume in node.volumes if volume.failure),
                version=node.version,
                admin_state=node.admin.state,
                admin_until_ms=node.admin.until_ms,
                admin_left=node.admin.left,
                admin_total=node.admin.total,
            )
            for node in sorted(self._nodes.values(), key=lambda n: n.node_id)
        ]
