"""Messages of whoever looks at a cluster: the dashboard, `dfs top`, `dfs doctor`."""

from __future__ import annotations

from typing import Literal

from .messages import VolumeReport
from .model import NodeAddress, Struct


class GetOverview(Struct, frozen=True, kw_only=True):
    """How the cluster is, just now. Answered from memory."""


class Problem(Struct, frozen=True, kw_only=True):
    """Something wrong. *since_ms*: when it was first seen by this NameNode. *doing*: what happens about it, or what somebody
    should do. *eta_s*: when that will be done at the present pace; -1: nobody can say."""

    code: str
    severity: Literal["critical", "warning"]
    text: str
    since_ms: int
    doing: str = ""
    eta_s: float = -1.0


class NodeView(Struct, frozen=True, kw_only=True):
    """A DataNode. Rates are of the last interval, bytes per second."""

    address: NodeAddress
    uuid: str
    state: Literal["live", "stale", "dead"]
    admin_state: str
    capacity_bytes: int
    used_bytes: int
    remaining_bytes: int
    blocks: int
    last_contact_s: float
    active_transfers: int
    version: str
    volumes: list[VolumeReport]
    received_bytes_s: float = 0.0
    sent_bytes_s: float = 0.0
    requests_s: float = 0.0
    errors: int = 0  # since the process began


class HotPath(Struct, frozen=True, kw_only=True):
    """A directory under which much is asked for: calls per second that name something in it, sampled."""

    path: str
    calls_s: float


class Repair(Struct, frozen=True, kw_only=True):
    """The repair queue. *by_copies*: blocks that wait and have no, one, two, more good copies, as far as looked at."""

    waiting: int
    copying: int
    by_copies: list[int] = []
    done_s: float = 0.0  # blocks per second, lately
    eta_s: float = -1.0


class HistoryPoint(Struct, frozen=True, kw_only=True):
    """What happened in the interval that ends at *time_ms*. Latencies are those of clients' calls, at the NameNode."""

    time_ms: int
    calls_s: float = 0.0
    errors_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    received_bytes_s: float = 0.0
    sent_bytes_s: float = 0.0
    used_bytes: int = 0
    capacity_bytes: int = 0
    live_nodes: int = 0
    repair: int = 0
    files: int = 0


class GetHistory(Struct, frozen=True, kw_only=True):
    """The charts' points: every ten seconds of the last hour, or every five minutes of the last day.

    They outlive a restart of the NameNode, but for the last minute before a kill; the time it was away is a gap.
    """

    span: Literal["hour", "day"] = "hour"


class History(Struct, frozen=True, kw_only=True):
    span: Literal["hour", "day"]
    interval_s: float
    points: list[HistoryPoint]


class Overview(Struct, frozen=True, kw_only=True):
    """*counted_ms*: when files and blocks were counted; 0: they are being counted for the first time."""

    time_ms: int
    started_ms: int
    cluster_id: str
    version: str
    safe_mode: str
    problems: list[Problem]
    nodes: list[NodeView]
    repair: Repair
    now: HistoryPoint
    hot: list[HotPath]
    counted_ms: int
    files: int
    directories: int
    blocks: int
    under_replicated: int
    missing: int
    pending_deletion: int
    capacity_bytes: int
    used_bytes: int
    remaining_bytes: int
    growth_bytes_day: (
        float | None
    )  # of the space used, as seen lately; None: not seen for long enough
    last_event: int
    pages: int = 0  # open dashboards
    damaged: int = 0  # copies that are kept aside until the block is whole


class GetPageToken(Struct, frozen=True, kw_only=True):
    """What a page of the dashboard needs to send files to and from DataNodes.

    Only pages of the NameNode itself can read the answer; so a page of some other site, open in the same browser,
    can't use a DataNode in its user's name.
    """


class PageToken(Struct, frozen=True, kw_only=True):
    token: str
    expires_ms: int
    user: str
