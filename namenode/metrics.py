"""What a NameNode counts: operations, commits, nodes, blocks, the event stream."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric

from ..common.errors import DfsError
from ..common.metrics import (
    Counts,
    Exposition,
    Histograms,
    counter,
    gauge,
    gauges,
    group_sizes,
    lookups,
    total,
)
from ..common.sqlite import GROUP_SIZES
from .datanodes import MAY_BE_AWAY, DataNodes
from .replication import ReplicationMonitor
from .safemode import SafeModeGate
from .store.base import MetadataStore
from .tail import Tail

log = logging.getLogger(__name__)


class OperationMetrics:
    """How long operations took, and how they failed. All methods are called on the event loop."""

    def __init__(self, slow_s: float) -> None:
        """What takes longer than *slow_s* is logged."""
        self._slow_s = slow_s
        self.latencies = Histograms()
        self.errors = Counts()
        self.bytes = {"received": 0, "sent": 0}  # in frames of WebSockets
        self.in_flight = 0
        self.connections = 0

    def done(self, operation: str, seconds: float, count: int = 1) -> None:
        """*count* calls of *operation*, all answered after *seconds*."""
        self.latencies.observe(operation, seconds, count)

    def slow(self, operation: str, seconds: float, user: str, request_id: str, cause: str) -> None:
        """Say that a call was slow, if it was. No path and no argument: they may be secrets."""
        if seconds >= self._slow_s:
            log.warning(
                "slow: %s of %s took %.2f s (%s)",
                operation,
                user,
                seconds,
                cause,
                extra={
                    "fields": {
                        "slow": "operation",
                        "operation": operation,
                        "user": user,
                        "request_id": request_id,
                        "duration_ms": round(seconds * 1e3),
                        "cause": cause,
                    }
                },
            )

    @property
    def slow_s(self) -> float:
        return self._slow_s

    def failed(self, error: DfsError) -> None:
        self.errors.add(error.code)

    def families(self) -> Iterator[Metric]:
        yield self.latencies.family(
            "twinfs_namenode_operation_duration_seconds",
            "From a call's arrival to its durable answer.",
            "operation",
        )
        yield counter(
            "twinfs_namenode_operation_errors",
            "Calls answered by an error, by its code.",
            "code",
            self.errors.snapshot(),
        )
        yield counter(
            "twinfs_namenode_rpc_bytes",
            "Calls and answers on WebSockets.",
            "direction",
            self.bytes,
        )
        yield gauge("twinfs_namenode_rpc_connections", "Open WebSockets.", self.connections)
        yield gauge("twinfs_namenode_calls_in_flight", "Calls without an answer.", self.in_flight)


def node_states(nodes: DataNodes) -> dict[str, int]:
    """How many are in which state. Who was sent away is not missed: such a node is away when it is silent, not dead."""
    states = {"live": 0, "stale": 0, "dead": 0, "away": 0}
    for node in nodes.all():
        state = nodes.state(node)
        away = state == "dead" and node.admin.state in MAY_BE_AWAY
        states["away" if away else state] += 1
    return states


def register(
    exposition: Exposition,
    operations: OperationMetrics,
    store: MetadataStore,
    nodes: DataNodes,
    monitor: ReplicationMonitor,
    gate: SafeModeGate,
) -> None:
    """Show at `/metrics` what these know."""

    def cluster() -> Iterator[Metric]:
        capacity = used = remaining = failed = 0
        for node in nodes.all():
            failed += sum(1 for volume in node.volumes if volume.failure)
            if nodes.state(node) != "dead":
                capacity += sum(v.capacity_bytes for v in node.volumes if not v.failure)
                used += sum(v.used_bytes for v in node.volumes if not v.failure)
                remaining += node.remaining_bytes
        yield gauges(
            "twinfs_datanodes",
            "Known DataNodes, by state; away: dead, but decommissioned or in maintenance.",
            "state",
            node_states(nodes),
        )
        yield gauge("twinfs_failed_volumes", "Volumes out of service.", failed)
        space = {"capacity": capacity, "used": used, "remaining": remaining}
        yield gauges("twinfs_space_bytes", "Space of the DataNodes not dead.", "kind", space)
        yield gauge("twinfs_safe_mode", "1 while writes are refused.", float(bool(gate.reason())))
        waiting = {"waiting": monitor.waiting, "copying": monitor.copying}
        yield gauges("twinfs_repair_blocks", "Blocks in the repair queue.", "state", waiting)

    def commits() -> Iterator[Metric]:
        groups, done = store.statistics
        yield total("twinfs_namenode_commit_groups", "Transactions committed together.", groups)
        yield total("twinfs_namenode_commit_operations", "Operations in those groups.", done)
        facts = store.pressure()
        yield gauge(
            "twinfs_namenode_commit_queue_length", "Operations waiting for a group.", facts.queued
        )
        if facts.sizes:
            sizes = [facts.sizes.get(bound, 0) for bound in (*GROUP_SIZES, 0)]
            yield group_sizes("twinfs_namenode_commit_group_size", GROUP_SIZES, sizes, done)
        yield gauge(
            "twinfs_namenode_read_queue_length",
            "Frames and requests of reads that wait for a thread.",
            facts.reads_queued,
        )
        yield lookups({"directories": (facts.cache_hits, facts.cache_misses)})
        yield total(
            "twinfs_namenode_commit_sync_seconds",
            "Time spent in making groups durable.",
            facts.sync_s,
        )

    exposition.add(operations.families)
    exposition.add(cluster)
    exposition.add(commits)


def followers(tail: Tail, lags: Mapping[str, int], outcomes: Counts) -> Iterator[Metric]:
    """The change stream and who follows it. *lags*: of webhooks and sinks, of which there are few."""
    yield total("twinfs_events", "Events ever sealed.", tail.last)
    yield gauge("twinfs_event_followers", "Consumers that wait for events.", tail.followers)
    yield total("twinfs_event_reads", "Pages that consumers read.", tail.reads)
    yield total("twinfs_event_loads", "Chunks that had to be read from the database.", tail.loads)
    yield gauges(
        "twinfs_event_consumer_lag",
        "Events that a webhook or sink has not taken yet.",
        "name",
        lags,
    )
    yield counter(
        "twinfs_event_deliveries",
        "Events that webhooks and sinks took, and that went to dead letters; attempts that were refused.",
        "result",
        {"taken": 0, "refused": 0, "buried": 0} | outcomes.snapshot(),
    )
