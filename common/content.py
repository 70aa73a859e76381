"""What is said about content: CIDs of paths, CID blocks that the cluster holds, pins, and their collection.

Multihashes travel as bytes; a CID is codec and multihash (version 0 where it was given so).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .messages import MAX_BATCH, BlockSize, Failure, FileDag, Holder, PathText
from .model import (
    MAX_BLOCK_BYTES,
    BlockId,
    Digest,
    FileStatus,
    GenerationStamp,
    INodeId,
    LocatedBlock,
    Mode,
    NodeId,
    NonNegative,
    Replication,
    Struct,
)

Multihash = Annotated[bytes, msgspec.Meta(min_length=2, max_length=160)]
Codec = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
PinName = Annotated[str, msgspec.Meta(max_length=255)]


class SetDag(Struct, frozen=True, kw_only=True):
    """Record the DAG of a file that has none (after append, truncate, concat, recovery). Refused if its blocks are not *blocks*."""

    path: PathText
    inode_id: INodeId
    holder: Holder
    blocks: Annotated[list[BlockId], msgspec.Meta(max_length=65_536)]
    dag: FileDag


class PathCid(Struct, frozen=True, kw_only=True):
    """The CID of a path. *cid* is empty where it is not known (yet): then it is to be computed.

    *size*: bytes of a file; *tsize*: with its nodes (what a directory's link says).
    """

    cid: bytes = b""
    status: FileStatus | None = None
    tsize: int = 0
    failure: Failure | None = None


class GetCids(Struct, frozen=True, kw_only=True):
    paths: Annotated[list[PathText], msgspec.Meta(max_length=MAX_BATCH)]


class PathCids(Struct, frozen=True, kw_only=True):
    results: list[PathCid]
    event_offset: int = 0  # of the newest event seen: what was true then


class CacheCid(Struct, frozen=True, kw_only=True):
    """Remember the CID of a directory, as it was when the event *event_offset* was the newest. Its node must be held already."""

    path: PathText
    inode_id: INodeId
    event_offset: NonNegative
    multihash: Multihash
    tsize: NonNegative


# --- CID blocks --------------------------------------------------------------------------------


class FindCids(Struct, frozen=True, kw_only=True):
    """*files*: for roots of files, say where the leaves are, too."""

    multihashes: Annotated[list[Multihash], msgspec.Meta(max_length=MAX_BATCH)]
    files: bool = False


class FoundCid(Struct, frozen=True, kw_only=True):
    """A CID block that is held: the whole of *located*. *leaves*: blocks whose chunks are the leaves of the file under it, in order."""

    codec: int
    complete: bool
    located: LocatedBlock
    leaves: list[LocatedBlock] | None = None


class FoundCids(Struct, frozen=True, kw_only=True):
    """One for each multihash asked for; None for those that are not held as blocks of their own."""

    found: list[FoundCid | None]


class ContentBlock(Struct, frozen=True, kw_only=True):
    """A block that content or a file is to refer to: newly written (on *nodes*), or there already (*nodes* empty)."""

    block_id: BlockId
    generation: GenerationStamp
    length: Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOCK_BYTES)]
    digest: Digest
    nodes: Annotated[list[NodeId], msgspec.Meta(max_length=512)] = []


class PutContent(Struct, frozen=True, kw_only=True):
    """One CID block. *data*: the block's bytes where its codec has links, which are read there; empty for raw.

    Children come before their parents, or were put before. A block whose children are not held is kept incomplete.
    """

    multihash: Multihash
    codec: Codec
    block: ContentBlock
    data: bytes = b""


class PutContentFile(Struct, frozen=True, kw_only=True):
    """A file without a path: BLAKE3, more than one chunk. Its root is computed from the digests."""

    blocks: Annotated[list[ContentBlock], msgspec.Meta(min_length=1, max_length=65_536)]
    dag: FileDag


class BeginAdd(Struct, frozen=True, kw_only=True):
    """From now until EndAdd nothing that *holder* puts or asks for by HaveContents is collected."""

    holder: Holder


class EndAdd(Struct, frozen=True, kw_only=True):
    holder: Holder


class HaveContents(Struct, frozen=True, kw_only=True):
    """Which are held, with all below them; those are touched, so that they stay while the add goes on.

    *adopt*: files with paths among them are held for themselves from now on, by metadata. What is held gets *replication* copies
    (None: as many as the cluster's default says) where it had fewer: with its leaves and nodes if it is a file, alone if not.
    """

    holder: Holder
    multihashes: Annotated[list[Multihash], msgspec.Meta(max_length=MAX_BATCH)]
    adopt: bool = False
    replication: Replication | None = None


class HadContents(Struct, frozen=True, kw_only=True):
    """2: held with all below it, 1: the block alone, 0: not held."""

    have: list[int]


class PutContents(Struct, frozen=True, kw_only=True):
    """*adopt*: files with paths that are directly below are held for themselves from now on, by metadata."""

    holder: Holder
    blocks: Annotated[list[PutContent], msgspec.Meta(max_length=MAX_BATCH)] = []
    files: Annotated[list[PutContentFile], msgspec.Meta(max_length=MAX_BATCH)] = []
    replication: Replication | None = None
    adopt: bool = False


class PutContentsAnswer(Struct, frozen=True, kw_only=True):
    """How many are new; and the codec-and-multihash of those that are kept incomplete."""

    added: int
    incomplete: list[bytes] = []


class LinkFile(Struct, frozen=True, kw_only=True):
    """A file of blocks that are there already: no byte is moved. Knowing a block's digest is the right to it, as knowing a CID is."""

    path: PathText
    blocks: Annotated[list[ContentBlock], msgspec.Meta(max_length=65_536)]
    holder: Holder = "link"
    mode: Mode = 0o644
    overwrite: bool = False
    create_parents: bool = True
    replication: Replication | None = None
    block_size: BlockSize | None = None
    mtime_ms: int | None = None


class FindBlocks(Struct, frozen=True, kw_only=True):
    """Finalized blocks by id, as a DataNode named them for a CID: where they are, and their digests."""

    blocks: Annotated[list[BlockId], msgspec.Meta(max_length=MAX_BATCH)]


class FoundBlocks(Struct, frozen=True, kw_only=True):
    located: list[LocatedBlock | None]


# --- pins --------------------------------------------------------------------------------------

PinKind = Literal["recursive", "direct"]


class PinAdd(Struct, frozen=True, kw_only=True):
    """*version*: as the CID was given (0 or 1), to show it so."""

    multihash: Multihash
    codec: Codec
    version: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    kind: PinKind = "recursive"
    name: PinName = ""


class PinRemove(Struct, frozen=True, kw_only=True):
    """*name* None: every pin of the CID (of the *kind*, if given) that the caller may remove."""

    multihash: Multihash
    kind: PinKind | None = None
    name: PinName | None = None


class PinsRemoved(Struct, frozen=True, kw_only=True):
    count: int


class ListPins(Struct, frozen=True, kw_only=True):
    """A page of pins; *after* is `next_after` of the page before. *multihash*: those of one CID."""

    after: PathText = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=5_000)] = 1_000
    kind: PinKind | None = None
    name: PinName | None = None
    multihash: Multihash | None = None


class Pin(Struct, frozen=True, kw_only=True):
    cid: bytes
    kind: PinKind
    name: str
    owner: str
    pinned_ms: int


class PinPage(Struct, frozen=True, kw_only=True):
    pins: list[Pin]
    next_after: str = ""  # "" at the end


# --- collecting and looking over ---------------------------------------------------------------


class Collect(Struct, frozen=True, kw_only=True):
    """One small step of collecting what nothing holds and nobody touched for *grace_s* seconds."""

    grace_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    limit: Annotated[int, msgspec.Meta(ge=1, le=2_000)] = 500
    dry_run: bool = False


class Collected(Struct, frozen=True, kw_only=True):
    """*work*: rows changed; 0 when there is nothing left to do. *blocks*, *bytes*: CID blocks that went."""

    work: int
    blocks: int
    bytes: int


class ListContents(Struct, frozen=True, kw_only=True):
    """A page of all that is held, to look it over. *after*: the last content id of the page before."""

    after: NonNegative = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 500


class ContentRow(Struct, frozen=True, kw_only=True):
    content_id: int
    cid: bytes
    refs: int
    direct: int
    complete: bool
    located: LocatedBlock
    leaves: list[LocatedBlock] | None = None


class ContentPage(Struct, frozen=True, kw_only=True):
    rows: list[ContentRow]


class ContentTotals(Struct, frozen=True, kw_only=True):
    blocks: int
    bytes: int
    loose: int  # held by nothing: to be collected
    pins: int


class GetContentTotals(Struct, frozen=True, kw_only=True):
    pass
