"""The nouns of the file system, as they travel between processes.

All are frozen msgspec structs: msgpack maps on the wire, JSON objects for people. A field added later
has a default, so that an older peer's message still decodes; a field is never renamed or reused.
Times are milliseconds since 1970 UTC, sizes are bytes, modes are POSIX permission bits (12 bits).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NewType

import msgspec

if TYPE_CHECKING:
    _Id = int
else:
    # What a database column holds. To the type checker an id is a plain int.
    _Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

BlockId = NewType("BlockId", _Id)
GenerationStamp = NewType("GenerationStamp", _Id)
INodeId = NewType("INodeId", _Id)
NodeId = NewType("NodeId", _Id)  # given by the NameNode to a DataNode's UUID at registration

ROOT_ID = INodeId(1)
MIB = 1024 * 1024
MAX_BLOCK_BYTES = 128 * MIB
DEFAULT_BLOCK_BYTES = 128 * MIB
MAX_REPLICATION = 512  # HDFS's dfs.replication.max

NonNegative = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
Replication = Annotated[int, msgspec.Meta(ge=1, le=MAX_REPLICATION)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
FileType = Literal["file", "directory"]
# Years 1 to 9999, so that every program can show it.
TimeMs = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000, le=253_402_300_799_999)]
# Text in a request that goes into the database: PostgreSQL takes no NUL.
NO_NUL = r"^[^\x00]*$"


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False, gc=False):
    """Base of every message."""


class BlockRef(Struct, frozen=True, kw_only=True):
    """Which block, in which generation."""

    block_id: BlockId
    generation: GenerationStamp


class Block(Struct, frozen=True, kw_only=True):
    """A block as the NameNode knows it. *digest* is None while it is being written."""

    block_id: BlockId
    generation: GenerationStamp
    length: NonNegative
    digest: bytes | None = None

    @property
    def ref(self) -> BlockRef:
        return BlockRef(block_id=self.block_id, generation=self.generation)


class NodeAddress(Struct, frozen=True, kw_only=True):
    """How to reach a DataNode.

    *data* is HOST:PORT of the block stream protocol, *http* that of the HTTP interface. *socket* is the
    path of the Unix socket that speaks the block stream protocol to clients on *host* (empty: none).
    """

    node_id: NodeId
    host: str
    data: str
    http: str
    socket: str = ""
    rack: str = "/default-rack"


class LocatedBlock(Struct, frozen=True, kw_only=True):
    """A block of a file and the nodes that hold it, nearest to the asking client first.

    *under_construction*: its length is what was last synced; a DataNode may hold more.
    """

    block: Block
    offset: NonNegative  # of the block's first byte in the file
    nodes: list[NodeAddress]
    under_construction: bool = False


class BlockBase(Struct, frozen=True, kw_only=True):
    """Where a block under construction takes its first bytes from (append, truncate, pipeline growth).

    The first *length* bytes of *block*; *sources* hold it, if the node itself does not.
    """

    block: BlockRef
    length: NonNegative
    sources: list[NodeAddress] = []


class TargetBlock(Struct, frozen=True, kw_only=True):
    """A block to write: its name and the nodes to write it to, in pipeline order."""

    block: BlockRef
    nodes: list[NodeAddress]
    base: BlockBase | None = None


class FileStatus(Struct, frozen=True, kw_only=True):
    """What `stat` answers. *length* is the visible length. Directories have zero sizes.

    *replication* and *block_size* are 0 for directories. *under_construction*: open for write.
    """

    path: str
    type: FileType
    length: NonNegative
    owner: str
    group: str
    mode: Mode
    mtime_ms: int
    atime_ms: int
    inode_id: INodeId
    replication: int = 0
    block_size: int = 0
    under_construction: bool = False
    children: int = -1  # of a directory, where it was counted; -1: not counted
    acl: bool = False  # has an ACL beside its mode bits

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_directory(self) -> bool:
        return self.type == "directory"


class FileBlocks(Struct, frozen=True, kw_only=True):
    """A file with the blocks that cover the range asked for, in order."""

    status: FileStatus
    blocks: list[LocatedBlock]


class ContentSummary(Struct, frozen=True, kw_only=True):
    """Counts below a path, the path itself included. Quotas: -1 is none."""

    directories: int
    files: int
    length: int
    space_consumed: int  # length times replication
    name_quota: int = -1
    space_quota: int = -1
    name_used: int = -1  # -1 where no quota is set
    space_used: int = -1


class Event(Struct, frozen=True, kw_only=True):
    """One entry of the ordered change stream. *hash* chains it to the one before.

    *kind*: mkdir, create, close, append, truncate, concat, rename, unlink, metadata, copy, quota ...
    """

    offset: int
    time_ms: int
    kind: str
    path: str
    user: str
    inode_id: INodeId
    destination: str = ""  # of a rename or copy
    detail: str = ""  # JSON object with what changed
    hash: bytes = b""
