"""Have everything read by the scrubbers of a cluster's DataNodes, and wait until they are through."""

from __future__ import annotations

import time
from pathlib import Path

from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.admin import OrderNodes
from twinfs.common.messages import GetReport
from twinfs.common.runtime import SystemClock, elapsed_timer
from twinfs.datanode.scrubber import read_pass

from .targets import Cluster

RATE = 1 << 30
AGAIN_S = 20.0


def _volumes(cluster: Cluster) -> list[Path]:
    return [
        volume
        for name in cluster.names
        if name != "namenode"
        for volume in cluster.target(name).volumes
        if (volume / "VERSION").exists()
    ]


def everything(cluster: Cluster, url: str, *, limit_s: float) -> list[Path]:
    """A whole new pass over all volumes in service; those that had not come to its end after *limit_s*."""
    # Not by its number: one that is under way ends soon, and has been at many places before.
    since_ms = SystemClock().wall_ms()
    waiting = _volumes(cluster)
    namenode = HttpNameNode(url, user="root")
    try:
        began_s = elapsed_timer()
        while waiting and elapsed_timer() - began_s < limit_s:
            # Again now and then: a node may have been away, and an order that it has carried out costs little.
            namenode.call("order_nodes", OrderNodes(action="scrub", nodes=[], bytes_per_s=RATE))
            ordered_s = elapsed_timer()
            while waiting and elapsed_timer() - ordered_s < AGAIN_S:
                time.sleep(0.2)
                now = {volume: read_pass(volume) for volume in waiting}
                waiting = [v for v in waiting if now[v].running or now[v].began_ms < since_ms]
            report = namenode.call("report", GetReport())
            if len(waiting) <= sum(node.failed_volumes for node in report.nodes):
                return []
    finally:
        namenode.close()
    return sorted(waiting)
