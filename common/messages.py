"""What clients and DataNodes say to a NameNode: requests, answers, and the frames they travel in.

`common/operations.py` has the registry of what belongs together. A request decodes into its struct at the edge, or the
caller gets `invalid-request`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .model import (
    MAX_BLOCK_BYTES,
    NO_NUL,
    Block,
    BlockId,
    BlockRef,
    Digest,
    Event,
    FileBlocks,
    FileStatus,
    GenerationStamp,
    INodeId,
    LocatedBlock,
    Mode,
    NodeAddress,
    NodeId,
    NonNegative,
    Replication,
    Struct,
    TargetBlock,
    TimeMs,
)
from .tracing import REQUEST_ID, TRACEPARENT

WIRE_VERSION = 1
MAX_BATCH = 1024  # entries in any list of a request
MAX_PAGE = 5_000  # entries in any page of an answer

# The exact limits: common/paths.py. The pattern is for readers of the schema alone.
PathText = Annotated[
    str,
    msgspec.Meta(
        max_length=16_384, extra_json_schema={"pattern": r"^(/[^\x00]*)?$", "examples": ["/a"]}
    ),
]
# Where a listing goes on, or what paths of events begin with: not parsed as a path.
AnyText = Annotated[str, msgspec.Meta(max_length=16_384, pattern=NO_NUL)]
KindText = Annotated[str, msgspec.Meta(max_length=128, pattern=NO_NUL)]
# A client's lease name.
Holder = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=NO_NUL)]
Account = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=NO_NUL)]
XattrName = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=NO_NUL)]
MAX_TEXT_CHARS = 4_096
ShortText = Annotated[
    str, msgspec.Meta(max_length=MAX_TEXT_CHARS)
]  # what DataNodes tell of themselves
XattrValue = Annotated[bytes, msgspec.Meta(max_length=65_536)]
BlockSize = Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOCK_BYTES)]


class Failure(Struct, frozen=True, kw_only=True):
    """An error as it travels."""

    code: str
    message: str
    reference: str = ""  # what to look for in the server's log


class Done(Struct, frozen=True, kw_only=True):
    """The answer of an operation that has nothing to say."""


# --- reading -----------------------------------------------------------------------------------


class Stat(Struct, frozen=True, kw_only=True):
    path: PathText


class ListDirectory(Struct, frozen=True, kw_only=True):
    """A page of a directory in order of name bytes; of a file: the file itself.

    *locations*: give each file's blocks too (what a recursive get wants).
    """

    path: PathText
    start_after: AnyText = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 1_000
    locations: bool = False


class DirectoryPage(Struct, frozen=True, kw_only=True):
    entries: list[FileStatus]
    more: bool
    blocks: list[list[LocatedBlock]] = []  # beside *entries*, when asked for
    is_file: bool = False  # the path names a file, and *entries* is that file


class Summarize(Struct, frozen=True, kw_only=True):
    path: PathText


class Locate(Struct, frozen=True, kw_only=True):
    """The blocks that cover *length* bytes at *offset* (length -1: to the end)."""

    path: PathText
    offset: NonNegative = 0
    length: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] = -1


class LocateMany(Struct, frozen=True, kw_only=True):
    paths: Annotated[list[PathText], msgspec.Meta(max_length=MAX_BATCH)]


class LocatedResult(Struct, frozen=True, kw_only=True):
    """One entry of a batch: exactly one of the two is there."""

    file: FileBlocks | None = None
    failure: Failure | None = None


class LocatedMany(Struct, frozen=True, kw_only=True):
    results: list[LocatedResult]


class GetXattrs(Struct, frozen=True, kw_only=True):
    path: PathText


class Xattrs(Struct, frozen=True, kw_only=True):
    xattrs: dict[str, bytes]


class ReadEvents(Struct, frozen=True, kw_only=True):
    """Sealed events after offset *after*, oldest first: of *kinds* (none: of any), about *path_prefix* or below it.

    With a *group* and *after* 0, those after the offset which that group has committed. *wait_s*: how long to wait for one when
    there is none yet. EventsGone if what comes after *after* is no longer kept.
    """

    after: NonNegative = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 1_000
    path_prefix: AnyText = ""
    kinds: Annotated[list[KindText], msgspec.Meta(max_length=32)] = []
    group: Annotated[str, msgspec.Meta(max_length=128, pattern=NO_NUL)] = ""
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0


class EventPage(Struct, frozen=True, kw_only=True):
    events: list[Event]
    last_offset: int  # of the newest sealed event, whether or not it is in this page
    next_after: int  # pass it as *after* to go on: filtered-out events are skipped


class GetReport(Struct, frozen=True, kw_only=True):
    counts: bool = True  # of files, directories and blocks; without, they are 0, and nobody has to go through all blocks


AdminState = Literal[
    "in-service", "decommissioning", "decommissioned", "entering-maintenance", "in-maintenance"
]


class NodeReport(Struct, frozen=True, kw_only=True):
    """*admin_left* of *admin_total* blocks of a node that is leaving still have too few copies elsewhere."""

    address: NodeAddress
    uuid: str
    state: Literal["live", "stale", "dead"]
    capacity_bytes: int
    used_bytes: int
    remaining_bytes: int
    blocks: int
    last_contact_s: float
    active_transfers: int
    volumes: int
    failed_volumes: int
    version: str
    admin_state: AdminState = "in-service"
    admin_until_ms: int = 0  # when maintenance ends by itself; 0: it does not
    admin_left: int = 0
    admin_total: int = 0


class ClusterReport(Struct, frozen=True, kw_only=True):
    cluster_id: str
    version: str
    safe_mode: str  # the reason, or "" when it is off
    files: int
    directories: int
    blocks: int
    under_replicated: int
    missing: int
    pending_deletion: int
    capacity_bytes: int
    used_bytes: int
    remaining_bytes: int
    nodes: list[NodeReport]


class GetServerInfo(Struct, frozen=True, kw_only=True):
    pass


class ServerInfo(Struct, frozen=True, kw_only=True):
    """What a client needs before its first write, and defaults it should show."""

    cluster_id: str
    version: str
    wire_version: int
    default_replication: int
    default_block_size: int
    min_replicas: int
    small_block_bytes: int  # blocks up to this size go through the batched stream
    trash_interval_s: int  # 0: no trash
    lease_timeout_s: float


# --- writing -----------------------------------------------------------------------------------


class Mkdirs(Struct, frozen=True, kw_only=True):
    """*parents*: create missing parents and don't mind if the directory is there (mkdir -p).

    *unmasked*: what *mode* was before the client's umask; it counts below a directory with a default ACL.
    """

    path: PathText
    mode: Mode = 0o755
    parents: bool = True
    unmasked: Mode | None = None


class Create(Struct, frozen=True, kw_only=True):
    """Open a new file for writing by *holder*. Answers its status.

    *overwrite* replaces an existing file. block_size is rounded up to a multiple of 1 MiB. *unmasked*: as in `Mkdirs`.
    """

    path: PathText
    holder: Holder
    mode: Mode = 0o644
    overwrite: bool = False
    create_parents: bool = True
    replication: Replication | None = None
    block_size: BlockSize | None = None
    unmasked: Mode | None = None


class BlockCommit(Struct, frozen=True, kw_only=True):
    """A block that is finalized on *nodes*: what the pipeline's last answer said."""

    block_id: BlockId
    generation: GenerationStamp
    length: NonNegative
    digest: Digest
    nodes: Annotated[list[NodeId], msgspec.Meta(min_length=1, max_length=512)]


MAX_DIGESTS_BYTES = 8 * 1024 * 1024  # of one file's chunks: 256 GiB of it


class FileDag(Struct, frozen=True, kw_only=True):
    """Proof of a file's CID, sent with its blocks: the digests of all its chunks, joined, and its dag-pb nodes.

    *nodes* are written as ordinary blocks (allocated to the same holder), children first, as `ipld.layout.build` makes them of the
    digests. Files of at most one chunk have none.
    """

    digests: Annotated[bytes, msgspec.Meta(max_length=MAX_DIGESTS_BYTES)]
    nodes: Annotated[list[BlockCommit], msgspec.Meta(max_length=MAX_BATCH)]


class AddBlock(Struct, frozen=True, kw_only=True):
    """Append a block to a file open for write; *commits* records earlier ones of it as finalized."""

    path: PathText
    inode_id: INodeId
    holder: Holder
    commits: Annotated[list[BlockCommit], msgspec.Meta(max_length=MAX_BATCH)] = []
    exclude: Annotated[list[NodeId], msgspec.Meta(max_length=MAX_BATCH)] = []
    near: NodeId = NodeId(0)  # as of Allocate


class AbandonBlock(Struct, frozen=True, kw_only=True):
    """Take back a block that AddBlock gave and no pipeline accepted; without an inode, *count* blocks of an allocation."""

    inode_id: INodeId
    holder: Holder
    block_id: BlockId
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)] = 1


class UpdatePipeline(Struct, frozen=True, kw_only=True):
    """A write goes on without some of its nodes, or with new ones: give the block a new generation.

    *keep* are the nodes that hold the acknowledged bytes. With *extend* the NameNode adds new nodes so
    that the block's replication is met, as far as nodes can be had, never one of *exclude*; the answer's `base.sources` are *keep*.
    """

    inode_id: INodeId  # 0: a block from Allocate, that belongs to no file yet
    holder: Holder
    block: BlockRef
    length: NonNegative  # acknowledged so far
    keep: Annotated[list[NodeId], msgspec.Meta(min_length=1, max_length=512)]
    exclude: Annotated[list[NodeId], msgspec.Meta(max_length=MAX_BATCH)] = []
    extend: bool = False


class Sync(Struct, frozen=True, kw_only=True):
    """Record the visible length of the last block of a file open for write (hflush, hsync)."""

    inode_id: INodeId
    holder: Holder
    block: BlockRef
    length: NonNegative
    commits: Annotated[list[BlockCommit], msgspec.Meta(max_length=MAX_BATCH)] = []


class Complete(Struct, frozen=True, kw_only=True):
    """Close a file: *commits* are its blocks not yet recorded as finalized. Answers its status."""

    path: PathText
    inode_id: INodeId
    holder: Holder
    commits: Annotated[list[BlockCommit], msgspec.Meta(max_length=MAX_BATCH)] = []
    mtime_ms: TimeMs | None = None
    dag: FileDag | None = None


class Append(Struct, frozen=True, kw_only=True):
    """Reopen a closed file for writing at its end."""

    path: PathText
    holder: Holder


class CancelAppend(Struct, frozen=True, kw_only=True):
    """Close a file that was opened by Append as it was before, if nothing of it was committed or synced since."""

    inode_id: INodeId
    holder: Holder


class Truncate(Struct, frozen=True, kw_only=True):
    """Cut a closed file to *length*.

    Where the cut falls inside a block, the answer is open for write with a block to finish (`OpenedFile.block`,
    whose base says what to keep): the client runs its pipeline with no bytes and completes the file.
    """

    path: PathText
    holder: Holder
    length: NonNegative


class OpenedFile(Struct, frozen=True, kw_only=True):
    """A file open for write. *block* is the last one, if it is to be filled further.

    *block_offset*: where that block (or the next one) begins in the file.
    """

    status: FileStatus
    block: TargetBlock | None = None
    block_offset: int = 0
    closed: bool = False  # truncate was done at once, nothing is open


class Allocate(Struct, frozen=True, kw_only=True):
    """Names and targets for blocks that belong to no file yet: they get one by PutFiles.

    All blocks of one answer share *nodes*, so that many small ones can travel as one stream. The allocation lives as long
    as *holder* renews its lease; blocks never put are deleted after that.
    """

    holder: Holder
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH)]
    length: NonNegative  # of the largest of them, to place them
    replication: Replication | None = None
    exclude: Annotated[list[NodeId], msgspec.Meta(max_length=MAX_BATCH)] = []
    near: NodeId = NodeId(
        0
    )  # a DataNode that writes for somebody: it gets the first copy, if it has room


class Allocation(Struct, frozen=True, kw_only=True):
    first_block_id: BlockId  # the blocks are first_block_id .. first_block_id + count - 1
    count: int
    generation: GenerationStamp
    nodes: list[NodeAddress]


class PutFile(Struct, frozen=True, kw_only=True):
    """A whole file, its blocks already on DataNodes: it appears in one step."""

    path: PathText
    mode: Mode = 0o644
    overwrite: bool = False
    create_parents: bool = True
    replication: Replication | None = None
    block_size: BlockSize | None = None
    mtime_ms: TimeMs | None = None
    blocks: Annotated[list[BlockCommit], msgspec.Meta(max_length=65_536)] = []
    unmasked: Mode | None = None  # as in `Mkdirs`
    dag: FileDag | None = None  # of a file of more than one chunk, where its CID is to be known


class PutFiles(Struct, frozen=True, kw_only=True):
    holder: Holder
    files: Annotated[list[PutFile], msgspec.Meta(max_length=MAX_BATCH)]


class StatusResult(Struct, frozen=True, kw_only=True):
    """One entry of a batch: exactly one of the two is there."""

    status: FileStatus | None = None
    failure: Failure | None = None


class StatusList(Struct, frozen=True, kw_only=True):
    """One result for each entry of the request, in its order."""

    results: list[StatusResult]


class MkdirsMany(Struct, frozen=True, kw_only=True):
    directories: Annotated[list[Mkdirs], msgspec.Meta(max_length=MAX_BATCH)]


class StatMany(Struct, frozen=True, kw_only=True):
    paths: Annotated[list[PathText], msgspec.Meta(max_length=MAX_BATCH)]


class Rename(Struct, frozen=True, kw_only=True):
    """*into*: if the destination is a directory, move below it (as mv and HDFS's rename do)."""

    source: PathText
    destination: PathText
    overwrite: bool = False
    into: bool = False


class Renamed(Struct, frozen=True, kw_only=True):
    path: str  # where it is now


class RenameAll(Struct, frozen=True, kw_only=True):
    """All of *renames*, one after the other and seen by others at once; none of them if one can't be done."""

    renames: Annotated[list[Rename], msgspec.Meta(max_length=MAX_BATCH)]


class RenamedAll(Struct, frozen=True, kw_only=True):
    paths: list[str]  # where each is now


class Delete(Struct, frozen=True, kw_only=True):
    path: PathText
    recursive: bool = False


class Deleted(Struct, frozen=True, kw_only=True):
    existed: bool


class DeleteMany(Struct, frozen=True, kw_only=True):
    paths: Annotated[list[PathText], msgspec.Meta(max_length=MAX_BATCH)]
    recursive: bool = False


class DeletedResult(Struct, frozen=True, kw_only=True):
    """One entry of a batch; *existed* means nothing beside a failure."""

    existed: bool = False
    failure: Failure | None = None


class DeletedMany(Struct, frozen=True, kw_only=True):
    results: list[DeletedResult]


class MoveToTrash(Struct, frozen=True, kw_only=True):
    """Rename below /user/USER/.Trash/Current, keeping the whole path (a time is added on a clash)."""

    path: PathText


class Concat(Struct, frozen=True, kw_only=True):
    """Append the blocks of *sources* to *target*; the sources disappear."""

    target: PathText
    sources: Annotated[list[PathText], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class Copy(Struct, frozen=True, kw_only=True):
    """A second file on the same blocks: no byte is moved."""

    source: PathText
    destination: PathText
    overwrite: bool = False
    create_parents: bool = False


class SetReplication(Struct, frozen=True, kw_only=True):
    path: PathText
    replication: Replication


class ReplicationSet(Struct, frozen=True, kw_only=True):
    """*shared*: blocks that keep more copies, and how many, because other files that share them ask for so many."""

    shared: dict[BlockId, int] = {}


class SetMode(Struct, frozen=True, kw_only=True):
    path: PathText
    mode: Mode


class SetOwner(Struct, frozen=True, kw_only=True):
    """None leaves as it is."""

    path: PathText
    owner: Account | None = None
    group: Account | None = None


class SetTimes(Struct, frozen=True, kw_only=True):
    """None leaves as it is."""

    path: PathText
    mtime_ms: TimeMs | None = None
    atime_ms: TimeMs | None = None


class SetXattr(Struct, frozen=True, kw_only=True):
    """*flag*: "set" creates or replaces, "create" and "replace" insist."""

    path: PathText
    name: XattrName
    value: XattrValue
    flag: Literal["set", "create", "replace"] = "set"


class RemoveXattr(Struct, frozen=True, kw_only=True):
    path: PathText
    name: XattrName


class SetQuota(Struct, frozen=True, kw_only=True):
    """-1 clears, None leaves as it is."""

    path: PathText
    names: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] | None = None
    space_bytes: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] | None = None


class RenewLease(Struct, frozen=True, kw_only=True):
    """Keeps every file and allocation of *holder* open; to be sent a few times in each lease timeout."""

    holder: Holder


class RecoverLease(Struct, frozen=True, kw_only=True):
    """Ask that a file another client left open be closed. Answers whether it is closed now."""

    path: PathText


class Recovered(Struct, frozen=True, kw_only=True):
    closed: bool


class BadReplica(Struct, frozen=True, kw_only=True):
    block: BlockRef
    node_id: NodeId
    reason: Literal["corrupt", "missing"]


class ReportBadReplicas(Struct, frozen=True, kw_only=True):
    """A reader's (or a DataNode's) word that replicas are corrupt or gone."""

    replicas: Annotated[list[BadReplica], msgspec.Meta(max_length=MAX_BATCH)]


# --- DataNodes ---------------------------------------------------------------------------------


class VolumeReport(Struct, frozen=True, kw_only=True):
    volume_id: ShortText
    path: ShortText
    capacity_bytes: NonNegative
    used_bytes: NonNegative
    remaining_bytes: NonNegative
    failure: ShortText = ""  # why it is out of service, or ""
    draining: bool = False  # it gets nothing new, and what is there moves to the node's others
    replicas: NonNegative = 0


class Register(Struct, frozen=True, kw_only=True):
    """*address.node_id* is 0; the NameNode answers with the one that belongs to *uuid*."""

    wire_version: int
    version: ShortText
    uuid: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=NO_NUL)]
    address: NodeAddress
    cluster_id: str = ""  # "" before the first registration; a foreign cluster is refused
    volumes: Annotated[list[VolumeReport], msgspec.Meta(max_length=256)] = []

    def __post_init__(self) -> None:
        # Here and not in NodeAddress: clients decode very many of those.
        for part in msgspec.structs.astuple(self.address)[1:]:
            if len(part) > MAX_TEXT_CHARS or "\x00" in part:
                raise ValueError("a part of the address is too long, or has a NUL in it")


class Registered(Struct, frozen=True, kw_only=True):
    node_id: NodeId
    cluster_id: str
    heartbeat_interval_s: float
    block_report_interval_s: float
    page_key: bytes = b""  # checks tokens of the dashboard's pages (common/page_tokens.py)


class Heartbeat(Struct, frozen=True, kw_only=True):
    node_id: NodeId
    uuid: str
    # The answer may be held back so long, if there are no commands yet.
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    active_transfers: NonNegative = 0
    blocks: NonNegative = 0
    volumes: Annotated[list[VolumeReport], msgspec.Meta(max_length=256)] = []
    # Since the process began, of its block streams: the dashboard's charts are made of them.
    received_bytes: NonNegative = 0
    sent_bytes: NonNegative = 0
    requests: NonNegative = 0
    errors: NonNegative = 0
    # The number of the last answer with commands that arrived, 0 if none did. None: a node that does not keep account.
    answer_seen: NonNegative | None = None


class DeleteReplicas(Struct, frozen=True, kw_only=True, tag="delete-replicas"):
    """Answered by `removed` in an incremental report, also for replicas that are not there."""

    blocks: list[BlockRef]


class CopyReplica(Struct, frozen=True, kw_only=True, tag="copy-replica"):
    """Fetch *block* from one of *sources*, verify it, keep it, report it as received (or failed).

    *bytes_per_s*: a limit of this copy's own (the balancer's), beside the node's; 0: none.
    """

    block: Block
    sources: list[NodeAddress]
    bytes_per_s: int = 0


class RecoverBlock(Struct, frozen=True, kw_only=True, tag="recover-block"):
    """Lead the recovery of a block whose writer is gone: agree on a length among *nodes*, give all the new generation,
    and report by CommitRecovery."""

    block: BlockRef
    new_generation: GenerationStamp
    nodes: list[NodeAddress]
    minimum_length: NonNegative  # synced bytes: less than this must never be agreed on


class ReportBlocks(Struct, frozen=True, kw_only=True, tag="report-blocks"):
    """Send a full block report now."""


class VerifyReplicas(Struct, frozen=True, kw_only=True, tag="verify-replicas"):
    """Rows say this node has these, its full report did not: answer by an incremental report."""

    blocks: list[BlockRef]


class ScrubVolumes(Struct, frozen=True, kw_only=True, tag="scrub-volumes"):
    """Read and verify everything now, from the beginning. *bytes_per_s* 0: as fast as clients let it."""

    bytes_per_s: int = 0


class BalanceDisks(Struct, frozen=True, kw_only=True, tag="balance-disks"):
    """Move replicas between this node's volumes until each is within *threshold_percent* of their average."""

    bytes_per_s: int = 0
    threshold_percent: float = 10.0


class ManageVolume(Struct, frozen=True, kw_only=True, tag="manage-volume"):
    """Empty a volume onto the node's others, stop doing that, or let an empty one go. Answered by a VolumeAnswer."""

    order_id: ShortText
    volume_id: ShortText
    action: Literal["drain", "keep", "remove"]


class VolumeAnswer(Struct, frozen=True, kw_only=True):
    """*problem*: why an order was refused, in which case nothing was changed; "" if it was obeyed."""

    node_id: NodeId
    order_id: ShortText
    problem: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    volumes: Annotated[list[VolumeReport], msgspec.Meta(max_length=256)] = []


Command = (
    DeleteReplicas
    | CopyReplica
    | RecoverBlock
    | ReportBlocks
    | VerifyReplicas
    | ScrubVolumes
    | BalanceDisks
    | ManageVolume
)


class HeartbeatAnswer(Struct, frozen=True, kw_only=True):
    commands: list[Command]
    register_again: bool = False  # the NameNode does not know this node (it has restarted)
    number: NonNegative = (
        0  # to be said in the next heartbeat; 0: it carries no commands of the queue
    )


class ReplicaReport(Struct, frozen=True, kw_only=True):
    block_id: BlockId
    generation: GenerationStamp
    length: NonNegative
    finalized: bool = True
    digest: bytes = b""  # of a finalized block, where cheap to tell
    damaged: bool = False  # its bytes do not fit; kept aside until the block has its copies again


class BlockReportPage(Struct, frozen=True, kw_only=True):
    """All replicas with start_after < block_id (and <= those of the last one, unless *last*), ascending."""

    node_id: NodeId
    report_id: str
    start_after: NonNegative
    replicas: Annotated[list[ReplicaReport], msgspec.Meta(max_length=50_000)]
    last: bool


class IncrementalReport(Struct, frozen=True, kw_only=True):
    """What changed on a DataNode since it last said so; safe to resend."""

    node_id: NodeId
    received: Annotated[list[ReplicaReport], msgspec.Meta(max_length=50_000)] = []
    removed: Annotated[list[BlockRef], msgspec.Meta(max_length=50_000)] = []
    bad: Annotated[list[BlockRef], msgspec.Meta(max_length=50_000)] = []
    failed: Annotated[
        list[BlockRef], msgspec.Meta(max_length=50_000)
    ] = []  # copies that came to nothing


class CommitRecovery(Struct, frozen=True, kw_only=True):
    """The outcome of RecoverBlock. No *commit*: no node has any byte of it, and none was ever synced."""

    block: BlockRef
    new_generation: GenerationStamp
    commit: BlockCommit | None = None


# --- frames of the WebSocket /v1/rpc -------------------------------------------------------------


class Hello(Struct, frozen=True, kw_only=True):
    """First message of a client. *client_id* outlives the connection: with a call's id it names a request."""

    wire_version: int
    client_id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    user: Annotated[str, msgspec.Meta(max_length=255)] = ""
    software: Annotated[str, msgspec.Meta(max_length=255)] = ""


class Welcome(Struct, frozen=True, kw_only=True):
    """The server's answer to Hello."""

    wire_version: int
    cluster_id: str
    version: str


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One call; a frame is a list of them. *call_id* grows through a client's life, over reconnects."""

    call_id: Annotated[int, msgspec.Meta(ge=1, le=2**62)]
    operation: str
    request: msgspec.Raw
    resent: bool = False  # may have been carried out before: look for its recorded answer
    # Where it comes from (common/tracing.py); "" where it is a request of its own.
    request_id: Annotated[str, msgspec.Meta(pattern=REQUEST_ID)] = ""
    traceparent: Annotated[str, msgspec.Meta(pattern=TRACEPARENT)] = ""


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One answer; a frame is a list of them, in any order. *value* is a Failure unless *ok*."""

    call_id: int
    ok: bool
    value: msgspec.Raw


MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_CALLS_PER_FRAME = 4_096
