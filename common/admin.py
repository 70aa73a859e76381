"""Messages of operators: checking the namespace, nodes' admin states, safe mode, the balancer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .messages import AdminState, NodeReport, PathText, VolumeReport
from .model import Block, NodeId, NonNegative, Struct

MAX_NAMED_NODES = 1_000
MAX_CHECK_PAGE = 1_000
NodeName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
NodeNames = Annotated[list[NodeName], msgspec.Meta(min_length=1, max_length=MAX_NAMED_NODES)]


# --- fsck ----------------------------------------------------------------------------------------


class Check(Struct, frozen=True, kw_only=True):
    """Look at the files of one directory (or at one file). The caller goes through the tree.

    *detail*: name every block with its replicas, not only those with something wrong.
    """

    path: PathText
    start_after: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHECK_PAGE)] = 200
    detail: bool = False


class CheckedReplica(Struct, frozen=True, kw_only=True):
    """*state*: of the replica; "corrupt" ones are kept aside until there are enough good ones."""

    node_id: NodeId
    address: str
    rack: str
    node_state: Literal["live", "stale", "dead", "unknown"]
    admin_state: AdminState
    state: Literal["good", "being-written", "to-be-deleted", "corrupt"]


class CheckedBlock(Struct, frozen=True, kw_only=True):
    """A block of a file. *live*: good copies on nodes that are not dead; *problems* say what is wrong with it."""

    block: Block
    wanted: int
    live: int
    corrupt: int
    racks: int
    problems: list[
        Literal["missing", "corrupt", "under-replicated", "over-replicated", "mis-replicated"]
    ] = []
    replicas: list[CheckedReplica] = []


class CheckedFile(Struct, frozen=True, kw_only=True):
    path: str
    length: NonNegative
    replication: int
    open_for_write: bool
    block_count: int
    live_replicas: int
    corrupt_replicas: int
    blocks: list[CheckedBlock] = []


class CheckPage(Struct, frozen=True, kw_only=True):
    """*directories*: names to go on with. *next_after*: where the next page begins, if *more*."""

    files: list[CheckedFile]
    directories: list[str]
    more: bool
    next_after: str = ""


class CheckCluster(Struct, frozen=True, kw_only=True):
    """Facts about the whole cluster that no file tells."""


class ClusterCheck(Struct, frozen=True, kw_only=True):
    """*orphans*: rows of replicas whose block is gone and that nobody has ordered to be deleted."""

    live_nodes: int
    stale_nodes: int
    dead_nodes: int
    racks: int
    default_replication: int
    pending_deletion: int
    orphans: int
    corrupt_replicas: int
    unreferenced_blocks: int
    waiting: int  # blocks in the repair queue
    copying: int  # copies under way
    safe_mode: str
    content_blocks: int = 0  # blocks of content without a path, wherever pins and folders hold it
    content_under_replicated: int = 0
    content_missing: int = 0  # no good copy on a living DataNode


# --- nodes ---------------------------------------------------------------------------------------


class AdministerNodes(Struct, frozen=True, kw_only=True):
    """Change what *nodes* are for. Each is named by its id, HOST:PORT, host (if one node is there) or uuid.

    *until_ms*: when maintenance ends by itself (0: it does not). *force*: even if the others can't take over
    everything. All or none: a name that means no node, or a refusal, changes nothing.
    """

    action: Literal["decommission", "maintenance", "recommission"]
    nodes: NodeNames
    until_ms: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    force: bool = False


class NodeList(Struct, frozen=True, kw_only=True):
    nodes: list[NodeReport]


class Refresh(Struct, frozen=True, kw_only=True):
    """Read the topology file (or ask the script) again."""


class Refreshed(Struct, frozen=True, kw_only=True):
    """*changed*: (node's address, former rack, new rack)."""

    changed: list[tuple[str, str, str]]


# --- safe mode -----------------------------------------------------------------------------------


class SetSafeMode(Struct, frozen=True, kw_only=True):
    action: Literal["get", "enter", "leave"]


class SafeModeState(Struct, frozen=True, kw_only=True):
    """*reason*: why it is on; "" when it is off."""

    reason: str


# --- work on DataNodes ------------------------------------------------------------------------------


class OrderNodes(Struct, frozen=True, kw_only=True):
    """Have DataNodes do something now: "scrub" reads everything, "balance-disks" evens their volumes out.

    No *nodes* means all that are alive.
    """

    action: Literal["scrub", "balance-disks", "report"]
    nodes: Annotated[list[NodeName], msgspec.Meta(max_length=MAX_NAMED_NODES)] = []
    bytes_per_s: NonNegative = 0  # 0: as the node is configured
    threshold_percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 10.0


class ListVolumes(Struct, frozen=True, kw_only=True):
    """The volumes of a DataNode, as its last heartbeat told."""

    node: NodeName


class OrderVolume(Struct, frozen=True, kw_only=True):
    """Take a volume (named by its path or id) out of a DataNode that goes on.

    "drain" moves what is there to the node's other volumes, "keep" ends that, "remove" lets an empty volume go, or one that has
    failed. What the node refuses is InvalidRequest, and changes nothing.
    """

    action: Literal["drain", "keep", "remove"]
    node: NodeName
    volume: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class NodeVolumes(Struct, frozen=True, kw_only=True):
    node_id: NodeId
    address: str
    volumes: list[VolumeReport]


# --- balancer ----------------------------------------------------------------------------------------


class StartBalancer(Struct, frozen=True, kw_only=True):
    """Even out how full nodes are, until each is within *threshold_percent* of the average.

    *keep_alive_s*: the run ends unless `renew_balancer` is called so often (0: it goes on by itself).
    *bytes_per_s*: in all of the cluster; 0: no limit but that of each node.
    """

    threshold_percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 10.0
    bytes_per_s: NonNegative = 0
    keep_alive_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0


class ControlBalancer(Struct, frozen=True, kw_only=True):
    action: Literal["status", "renew", "stop"]
    run_id: str = ""  # of the run that is meant; "": the last


class BalancerStatus(Struct, frozen=True, kw_only=True):
    """*left_bytes*: what would have to move for all nodes to be within the threshold, as far as is known."""

    state: Literal["never-run", "running", "balanced", "stuck", "stopped", "abandoned"]
    run_id: str = ""
    threshold_percent: float = 0.0
    bytes_per_s: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    moved_blocks: int = 0
    moved_bytes: int = 0
    moving: int = 0
    left_bytes: int = 0
    average_percent: float = 0.0
    spread_percent: float = 0.0  # how far the node farthest from the average is from it
    message: str = ""
