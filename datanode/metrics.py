"""What a DataNode counts: requests and bytes of block streams, volumes, blocks."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ..client.exchange import Exchange
from ..common.framing import FrameSocket
from ..common.metrics import (
    Counts,
    Exposition,
    Histograms,
    counter,
    gauge,
    gauges,
    group_sizes,
    lookups,
    pairs,
    total,
)
from ..common.runtime import elapsed_timer
from ..common.sqlite import GROUP_SIZES
from ..common.transfer import (
    OpenReplica,
    ReadBlock,
    ReadMany,
    ReplicaInfo,
    Request,
    WriteBlock,
    WriteMany,
)
from .blockstore import BlockStore
from .content import Content
from .scrubber import Pass

log = logging.getLogger(__name__)
NAMES: dict[type, str] = {
    WriteBlock: "write_block",
    WriteMany: "write_many",
    ReadBlock: "read_block",
    ReadMany: "read_many",
    OpenReplica: "open_replica",
    ReplicaInfo: "replica_info",
}


# Where most bytes of a request go, as this node sees it.
DIRECTIONS: dict[type, str] = {
    WriteBlock: "received",
    WriteMany: "received",
    ReadBlock: "sent",
    ReadMany: "sent",
    OpenReplica: "sent",
}


def name_of(request: Request) -> str:
    return NAMES.get(type(request), "recovery")


class Timing:
    """Where the time of one request went, by what was waited for: "sender", "disk", "next node". One thread's."""

    __slots__ = ("spent_s",)

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, what: str) -> Iterator[None]:
        began_s = elapsed_timer()
        try:
            yield
        finally:
            self.spent_s[what] = self.spent_s.get(what, 0.0) + elapsed_timer() - began_s

    def cause(self) -> str:
        """In words, the longest first."""
        found = sorted(self.spent_s.items(), key=lambda item: -item[1])
        return ", ".join(f"{what} {spent_s:.1f} s" for what, spent_s in found if spent_s >= 0.05)


class StreamMetrics:
    """Of block streams; their threads share it."""

    def __init__(self, slow_s: float) -> None:
        """A request that takes longer than *slow_s* is logged."""
        self._slow_s = slow_s
        self._lock = threading.Lock()
        self.latencies = Histograms()
        self.errors: dict[tuple[str, str], int] = {}  # by direction and code
        self.bytes = Counts()

    def traffic(self) -> dict[str, int]:
        """The counters of a heartbeat."""
        with self._lock:
            requests = sum(found.count for found in self.latencies.snapshot().values())
        return {
            "received_bytes": int(self.bytes.get("received")),
            "sent_bytes": int(self.bytes.get("sent")),
            "requests": requests,
            "errors": self.failures(),
        }

    def failed(self, direction: str, code: str) -> None:
        with self._lock:
            self.errors[direction, code] = self.errors.get((direction, code), 0) + 1

    def failures(self) -> int:
        with self._lock:
            return sum(self.errors.values())

    @contextlib.contextmanager
    def timed(self, connection: FrameSocket, request: Request) -> Iterator[Timing]:
        """Count one request of *connection*, whatever becomes of it."""
        name = name_of(request)
        timing = Timing()
        received, sent = connection.received_bytes, connection.sent_bytes
        connection.error_code = ""
        began_s = elapsed_timer()
        try:
            yield timing
        finally:
            took_s = elapsed_timer() - began_s
            with self._lock:
                self.latencies.observe(name, took_s)
            self.bytes.add("received", connection.received_bytes - received)
            self.bytes.add("sent", connection.sent_bytes - sent)
            if connection.error_code:
                self.failed(DIRECTIONS.get(type(request), "none"), connection.error_code)
            level = logging.WARNING if took_s > self._slow_s else logging.DEBUG
            if log.isEnabledFor(level):
                moved = connection.received_bytes - received + connection.sent_bytes - sent
                cause = timing.cause()
                fields = {"request": name, "duration_ms": round(took_s * 1e3, 1), "bytes": moved}
                if took_s > self._slow_s:
                    fields |= {"slow": "stream", "cause": cause}
                log.log(
                    level,
                    "%s%s took %.3f s for %d bytes%s",
                    "slow: " if took_s > self._slow_s else "",
                    name,
                    took_s,
                    moved,
                    f" ({cause})" if cause else "",
                    extra={"fields": fields},
                )

    def families(self) -> Iterator[Metric]:
        yield self.latencies.family(
            "twinfs_datanode_request_duration_seconds",
            "Requests of block streams, from the request to its last byte.",
            "request",
        )
        yield counter(
            "twinfs_datanode_stream_bytes",
            "Bytes of block streams, and of uploads to WebHDFS. What clients read through an open file of their own is not seen.",
            "direction",
            {"received": 0, "sent": 0} | self.bytes.snapshot(),
        )
        with self._lock:
            errors = dict(self.errors)
        yield pairs(
            "twinfs_datanode_request_errors",
            "Requests answered by an error, by where most of their bytes go and its code.",
            ("direction", "code"),
            errors,
        )


def register(
    exposition: Exposition,
    streams: StreamMetrics,
    store: BlockStore,
    *,
    connections: Callable[[], dict[str, int]],
    free_buffer_bytes: Callable[[], int],
    contact_age_s: Callable[[], float] | None,
) -> None:
    """Show at `/metrics` what these know. *contact_age_s*: since a NameNode last answered; None where there is none."""

    def node() -> Iterator[Metric]:
        space = GaugeMetricFamily(
            "twinfs_datanode_volume_bytes",
            "Space of the volumes in service, numbered as configured.",
            labels=["volume", "kind"],
        )
        failed = 0
        for number, volume in enumerate(store.volumes):
            report = volume.report()
            if report.failure:
                failed += 1
                continue
            for kind in ("capacity", "used", "remaining"):
                space.add_metric([str(number), kind], getattr(report, f"{kind}_bytes"))
        yield space
        yield gauge("twinfs_datanode_failed_volumes", "Volumes out of service.", failed)
        yield gauge("twinfs_datanode_blocks", "Replicas, finalized or not.", store.totals())
        yield gauges("twinfs_datanode_replicas", "Replicas by state.", "state", store.states())
        yield gauges("twinfs_datanode_stream_connections", "Block streams.", "state", connections())
        yield gauge(
            "twinfs_datanode_free_buffer_bytes",
            "What transfers may still take of the memory for their buffers.",
            free_buffer_bytes(),
        )
        if contact_age_s is not None:
            yield gauge(
                "twinfs_datanode_namenode_contact_age_seconds",
                "Since a NameNode last answered.",
                contact_age_s(),
            )

    def commits() -> Iterator[Metric]:
        found = [volume.index.commits for volume in store.volumes if not volume.failure]
        sizes = [sum(group) for group in zip(*(c.sizes for c in found), strict=True)]
        operations = sum(c.operations for c in found)
        if sizes:
            yield group_sizes("twinfs_datanode_commit_group_size", GROUP_SIZES, sizes, operations)
        yield total(
            "twinfs_datanode_commit_sync_seconds",
            "Time spent in making groups of the volumes' indexes durable.",
            sum(c.sync_s for c in found),
        )
        yield gauge(
            "twinfs_datanode_commit_queue_length",
            "Operations that wait for a group of an index.",
            sum(c.queued for c in found),
        )

    exposition.add(streams.families)
    exposition.add(node)
    exposition.add(commits)


def scrubbing(store: BlockStore, passes: Mapping[str, Pass]) -> Iterator[Metric]:
    """How far the scrubber has come on each volume. *passes*: by volume id, of those it has looked at."""
    families = {
        "running": GaugeMetricFamily(
            "twinfs_datanode_scrub_running", "1 in the middle of a pass.", labels=["volume"]
        ),
        "number": GaugeMetricFamily(
            "twinfs_datanode_scrub_pass", "Number of the present or last pass.", labels=["volume"]
        ),
        "checked_bytes": GaugeMetricFamily(
            "twinfs_datanode_scrub_checked_bytes", "Verified in that pass.", labels=["volume"]
        ),
        "damaged": GaugeMetricFamily(
            "twinfs_datanode_scrub_damaged_blocks",
            "Replicas found damaged in that pass.",
            labels=["volume"],
        ),
    }
    ended = GaugeMetricFamily(
        "twinfs_datanode_scrub_end_timestamp_seconds",
        "When the last pass ended; none while one is running.",
        labels=["volume"],
    )
    for number, volume in enumerate(store.volumes):
        found = passes.get(volume.volume_id)
        if found is None:
            continue
        for name, family in families.items():
            family.add_metric([str(number)], float(getattr(found, name)))
        if found.ended_ms:
            ended.add_metric([str(number)], found.ended_ms / 1000)
    yield from families.values()
    yield ended


def content(found: Content, exchange: Exchange | None, queued: int) -> Iterator[Metric]:
    """CID blocks: what was here, what others were asked for. *queued*: calls that wait for a thread."""
    yield lookups({"content": (found.hits, found.misses)})
    yield gauge("twinfs_datanode_work_queue_length", "Work that waits for a thread.", queued)
    if exchange is not None:
        yield total("twinfs_peer_fetched_bytes", "CID blocks from others.", exchange.received_bytes)
        yield total("twinfs_peer_fetched_blocks", "The same, counted.", exchange.received_blocks)
        yield total(
            "twinfs_peer_fetch_failures", "Requests to others that brought none.", exchange.failures
        )


def network(peers: int, own_pins: int, held_pins: int) -> Iterator[Metric]:
    """What a peer knows of the others."""
    yield gauge("twinfs_peer_known_peers", "Peers in the routing table.", peers)
    pins = {"own": own_pins, "held": held_pins}
    yield gauges("twinfs_peer_pins", "Pins, one's own and those held for others.", "kind", pins)
