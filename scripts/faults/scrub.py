"""Have everything read by the scrubbers of a cluster's DataNodes, and wait until they are through."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.admin import OrderNodes
from twinfs.common.errors import DfsError
from twinfs.common.messages import GetReport
from twinfs.common.runtime import SystemClock, elapsed_timer
from twinfs.datanode.scrubber import read_pass

from .targets import Cluster

RATE = 1 << 30
AGAIN_S = 20.0  # without any progress: a node that was away may not have heard, or have forgotten what it heard


class _Node:
    """A DataNode's volumes, and when its scrubber was last seen to get on."""

    def __init__(self, volumes: Sequence[Path], since_ms: int) -> None:
        self._volumes = volumes
        self._since_ms = since_ms
        self._name = json.loads((volumes[0] / "VERSION").read_text())["node_id"]
        self._seen: object = None
        self._moved_s = 0.0
        self.waiting = list(volumes)

    def look(self, namenode: HttpNameNode, now_s: float) -> None:
        """What is still to be waited for; the order is given again if nothing has moved for long."""
        passes = {volume: read_pass(volume) for volume in self._volumes}
        # Not by its number: one that was under way before ends soon, and has been at many places already.
        self.waiting = [
            volume
            for volume in self.waiting
            if passes[volume].running or passes[volume].began_ms < self._since_ms
        ]
        if passes != self._seen:
            first, self._seen, self._moved_s = self._seen is None, passes, now_s
            if not first:
                return
        elif now_s - self._moved_s < AGAIN_S:
            return
        self._moved_s = now_s
        order = OrderNodes(action="scrub", nodes=[str(self._name)], bytes_per_s=RATE)
        with contextlib.suppress(DfsError):  # it is dead just now
            namenode.call("order_nodes", order)


def _nodes(cluster: Cluster, since_ms: int) -> list[_Node]:
    found = []
    for name in cluster.names:
        if name != "namenode":
            volumes = [v for v in cluster.target(name).volumes if (v / "VERSION").exists()]
            if volumes:
                found.append(_Node(volumes, since_ms))
    return found


def everything(cluster: Cluster, url: str, *, limit_s: float) -> list[Path]:
    """A whole new pass over all volumes in service; those that had not come to its end after *limit_s*."""
    nodes = _nodes(cluster, SystemClock().wall_ms())
    waiting: list[Path] = []
    namenode = HttpNameNode(url, user="root")
    try:
        began_s = elapsed_timer()
        while elapsed_timer() - began_s < limit_s:
            for node in nodes:
                if node.waiting:
                    node.look(namenode, elapsed_timer())
            waiting = [volume for node in nodes for volume in node.waiting]
            if not waiting:
                break
            report = namenode.call("report", GetReport(counts=False))
            if len(waiting) <= sum(node.failed_volumes for node in report.nodes):
                return []
            time.sleep(0.2)
    finally:
        namenode.close()
    return sorted(waiting)
