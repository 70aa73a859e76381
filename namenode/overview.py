"""The cluster at a glance: put together from what this process already knows, once for all who look.

Nothing here reads the database, so that looking costs the same whatever is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from ..common import disk
from ..common.ballast import BALLAST_BYTES, PLENTY
from ..common.config import NameNodeConfig
from ..common.runtime import Clock, to_next_tick_s
from ..common.watch import (
    GetHistory,
    GetOverview,
    History,
    HotPath,
    NodeView,
    Overview,
    Repair,
)
from .census import Counting
from .datanodes import MAY_BE_AWAY, DataNode, DataNodes
from .history import Counters, Diary, Finding, Hot, Kept, Level, Pace, Past
from .metrics import OperationMetrics
from .permissions import Caller
from .replication import ReplicationMonitor
from .safemode import SafeModeGate

log = logging.getLogger(__name__)
TICK_S = 2.0
HOT_SHOWN = 8
FULL_SHARE = 0.9


def _blocks(count: int) -> str:
    return "1 block has" if count == 1 else f"{count} blocks have"


class Watcher:
    """Steps the history every two seconds, and puts an `Overview` together when somebody wants one."""

    def __init__(
        self,
        config: NameNodeConfig,
        nodes: DataNodes,
        monitor: ReplicationMonitor,
        gate: SafeModeGate,
        counting: Counting,
        operations: OperationMetrics,
        clock: Clock,
        *,
        cluster_id: str,
        version: str,
        last_event: Callable[[], int] = lambda: 0,
    ) -> None:
        self._config = config
        self._nodes = nodes
        self._monitor = monitor
        self._gate = gate
        self._counting = counting
        self._operations = operations
        self._clock = clock
        self._facts = (cluster_id, version)
        self._last_event = last_event
        self._started_ms = clock.wall_ms()
        self._past = Past(TICK_S * 0.9)
        self._diary = Diary()
        self._pace = Pace()
        self._eta_s = -1.0
        self._rates: dict[int, tuple[float, tuple[int, int, int], tuple[float, float, float]]] = {}
        self._made: tuple[float, Overview] | None = None
        self.hot = Hot()
        self.pages = 0
        self._ticked = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        last_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(to_next_tick_s(self._clock.monotonic_s(), TICK_S))
            now_s = self._clock.monotonic_s()
            try:
                self._step(now_s, now_s - last_s)
            except Exception:
                log.exception("the overview could not be brought up to date; it is tried again")
            last_s = now_s
            self._ticked.set()
            self._ticked = asyncio.Event()

    async def ticked(self) -> None:
        """Return when there is something new to see."""
        await self._ticked.wait()

    def _step(self, now_s: float, passed_s: float) -> None:
        received = sent = 0
        for node in self._nodes.all():
            if node.beat is None:
                continue
            counts = (node.beat.received_bytes, node.beat.sent_bytes, node.beat.requests)
            received += counts[0]
            sent += counts[1]
            self._rate(node, now_s, counts)
        self._past.step(
            Counters(
                latencies=self._operations.latencies.snapshot(),
                errors=sum(self._operations.errors.snapshot().values()),
                received_bytes=received,
                sent_bytes=sent,
            ),
            self._level(),
            now_s,
            self._clock.wall_ms(),
        )
        self._eta_s = self._pace.step(self._monitor.waiting + self._monitor.copying, now_s)
        self.hot.fade(passed_s)
        self._made = None

    def _rate(self, node: DataNode, now_s: float, counts: tuple[int, int, int]) -> None:
        """Counters come with heartbeats: a rate is of the time between two that differ, or that are long apart."""
        known = self._rates.get(node.node_id)
        if known is None:
            self._rates[node.node_id] = (now_s, counts, (0.0, 0.0, 0.0))
            return
        began_s, before, _ = known
        passed_s = now_s - began_s
        if passed_s < self._config.heartbeat_interval_s:
            return
        rates = tuple(max(0, a - b) / passed_s for a, b in zip(counts, before, strict=True))
        self._rates[node.node_id] = (now_s, counts, (rates[0], rates[1], rates[2]))

    def _level(self) -> Level:
        used = capacity = live = 0
        for node in self._nodes.all():
            state = self._nodes.state(node)
            live += state == "live"
            if state != "dead":
                for volume in node.volumes:
                    if not volume.failure:
                        used += volume.used_bytes
                        capacity += volume.capacity_bytes
        return Level(
            used_bytes=used,
            capacity_bytes=capacity,
            live_nodes=live,
            repair=self._monitor.waiting + self._monitor.copying,
            files=self._counting.last.files,
        )

    # --- what outlives a restart (`keeping.py`) ---

    def to_keep(self, now_ms: int) -> Kept:
        self._diary.step(self._findings(), now_ms)
        fine, coarse = self._past.keep()
        return Kept(saved_ms=now_ms, fine=fine, coarse=coarse, since_ms=self._diary.keep())

    def take_back(self, kept: Kept) -> None:
        self._past.take_back(kept.fine, kept.coarse)
        self._diary.take_back(kept.since_ms, self._clock.wall_ms())

    # --- what is wrong ---

    def _findings(self) -> Iterator[Finding]:
        queue, eta_s = self._monitor.waiting + self._monitor.copying, self._eta_s
        under_way, waiting = self._monitor.copying, self._monitor.waiting
        copying = (
            f"{under_way} {'copy is' if under_way == 1 else 'copies are'} under way,"
            f" {waiting} {'block waits' if waiting == 1 else 'blocks wait'}"
        )
        reason = self._gate.reason()
        if reason:
            yield Finding(
                "safe-mode", "critical", f"Writes are refused: {reason}", "waiting for DataNodes"
            )
        elif not self._level().live_nodes:
            yield Finding(
                "no-datanodes",
                "critical" if self._counting.last.files else "warning",
                "No DataNode is alive: nothing can be stored",
                "start a DataNode that has this NameNode's address",
            )
        for node in self._nodes.all():
            where, state = node.address.data, self._nodes.state(node)
            if state != "live" and node.admin.state in MAY_BE_AWAY:
                continue
            if state == "dead":
                if queue:
                    doing = f"its blocks are being copied: {copying}"
                elif self._counting.last.missing:
                    doing = "what had copies elsewhere has been copied; bring it back for the rest"
                elif self._counting.last.under_replicated:
                    doing = "what other nodes have room for has been copied; bring it back, or add another"
                else:
                    doing = "what it held has been copied from other nodes; bring it back, or let it go: dfs admin decommission"
                yield Finding(
                    f"dead-{node.node_id}",
                    "warning",
                    f"DataNode {where} is dead",
                    doing,
                    eta_s if queue else -1.0,
                )
            elif state == "stale" and node.last_s is not None:
                yield Finding(
                    f"stale-{node.node_id}",
                    "warning",
                    f"DataNode {where} has not been heard of for a while",
                    f"taken for dead after {self._config.dead_after_s:.0f} s of silence",
                )
            for number, volume in enumerate(node.volumes):
                if volume.failure:
                    yield Finding(
                        f"volume-{node.node_id}-{number}",
                        "warning",
                        f"A volume of {where} is out of service: {volume.path}: {volume.failure}",
                        "its blocks are copied from other nodes; replace the disk",
                    )
        count = self._counting.last
        if count.missing:
            yield Finding(
                "missing",
                "critical",
                f"{_blocks(count.missing)} no good copy",
                "bring back a dead DataNode that holds them"
                if any(self._nodes.state(node) == "dead" for node in self._nodes.all())
                else "dfs fsck / names the files: restore them from elsewhere",
            )
        if count.under_replicated:
            yield Finding(
                "under-replicated",
                "warning",
                f"{_blocks(count.under_replicated)} too few copies",
                copying if queue else "no node can take another copy: add DataNodes",
                eta_s if queue else -1.0,
            )
        if count.damaged:
            yield Finding(
                "damaged",
                "warning",
                f"{count.damaged} damaged {'copy is' if count.damaged == 1 else 'copies are'} on the DataNodes' disks",
                copying if queue else "each is deleted when the block has its copies again",
                eta_s if queue else -1.0,
            )
        level = self._level()
        if level.capacity_bytes and level.used_bytes >= FULL_SHARE * level.capacity_bytes:
            share = 100 * level.used_bytes / level.capacity_bytes
            yield Finding(
                "space", "warning", f"{share:.0f} % of the space is used", "add DataNodes or delete"
            )
        if not disk.has_room(Path(self._config.dir), BALLAST_BYTES * PLENTY):
            yield Finding(
                "metadata-disk",
                "warning" if disk.has_room(Path(self._config.dir), BALLAST_BYTES) else "critical",
                "The disk of this NameNode is full, or nearly so",
                "make room there: without any, what changes something is refused; reading goes on",
            )

    # --- answers ---

    async def overview(self, caller: Caller, request: GetOverview) -> Overview:
        # Whoever asks for it has often just changed something, or compares clocks.
        self._made = None
        return self.look()

    async def history(self, caller: Caller, request: GetHistory) -> History:
        return self._past.history(request.span)

    def look(self) -> Overview:
        """The overview; put together anew once a second at most."""
        now_s = self._clock.monotonic_s()
        if self._made is not None and now_s - self._made[0] < 1.0:
            return self._made[1]
        nodes, level, count = (
            [self._view(node, now_s) for node in self._sorted()],
            self._level(),
            self._counting.last,
        )
        monitor = self._monitor
        found = Overview(
            time_ms=self._clock.wall_ms(),
            started_ms=self._started_ms,
            cluster_id=self._facts[0],
            version=self._facts[1],
            safe_mode=self._gate.reason(),
            problems=self._diary.step(self._findings(), self._clock.wall_ms()),
            nodes=nodes,
            repair=Repair(
                waiting=monitor.waiting,
                copying=monitor.copying,
                by_copies=monitor.by_level(),
                done_s=round(self._pace.per_s, 2),
                eta_s=round(self._eta_s, 1),
            ),
            now=self._past.now,
            hot=[HotPath(path=path, calls_s=calls) for path, calls in self.hot.top(HOT_SHOWN)],
            counted_ms=count.counted_ms,
            files=count.files,
            directories=count.directories,
            blocks=count.blocks,
            under_replicated=count.under_replicated,
            missing=count.missing,
            pending_deletion=count.pending_deletion,
            capacity_bytes=level.capacity_bytes,
            used_bytes=level.used_bytes,
            remaining_bytes=sum(node.remaining_bytes for node in nodes if node.state != "dead"),
            growth_bytes_day=self._past.growth_bytes_day(),
            last_event=self._last_event(),
            pages=self.pages,
            damaged=count.damaged,
        )
        self._made = (now_s, found)
        return found

    def _sorted(self) -> list[DataNode]:
        return sorted(self._nodes.all(), key=lambda node: node.node_id)

    def _view(self, node: DataNode, now_s: float) -> NodeView:
        good = [volume for volume in node.volumes if not volume.failure]
        silent_s = now_s - (node.known_since_s if node.last_s is None else node.last_s)
        rates = self._rates.get(node.node_id, (0.0, (0, 0, 0), (0.0, 0.0, 0.0)))[2]
        return NodeView(
            address=node.address,
            uuid=node.uuid,
            state=self._nodes.state(node),
            admin_state=node.admin.state,
            capacity_bytes=sum(volume.capacity_bytes for volume in good),
            used_bytes=sum(volume.used_bytes for volume in good),
            remaining_bytes=node.remaining_bytes,
            blocks=node.blocks,
            last_contact_s=round(silent_s, 1),
            active_transfers=node.active_transfers,
            version=node.version,
            volumes=node.volumes,
            received_bytes_s=round(rates[0], 1),
            sent_bytes_s=round(rates[1], 1),
            requests_s=round(rates[2], 2),
            errors=node.beat.errors if node.beat is not None else 0,
        )
