"""The block stream protocol: how bytes travel between clients and DataNodes, and among DataNodes.

One TCP connection (the DataNode's data port) or one Unix-socket connection carries any number of requests,
one after another. The side that connects sends `PREAMBLE` once. After that, everything is frames:

    length  u32   bytes of the body
    kind    u8    Kind
    flags   u8    Flag
    zero    u16
    body    ...

All integers are big-endian. Bodies are msgpack structs of this module, except a PACKET's, which is a fixed
head (`PACKET_HEAD`: sequence u32, offset in the block u64, BLAKE3 of the payload 32 bytes) followed by at most
1 MiB of payload. What follows a request:

- `WriteBlock`: the node builds the rest of the pipeline and answers `WriteReady`. The client sends PACKETs, each
  contiguous with the one before; a packet never crosses a chunk boundary of the block. The node answers every
  packet with one ACK (`PacketAck`) when the packet is received by all nodes left in the pipeline and written there
  (with FLUSH: readable; with SYNC: fsynced there). The packet flagged LAST (its payload may be empty) finalizes the block: after its
  ACK, which comes when the block is durable, one RESPONSE `WriteDone` follows. A node that fails on the way is named in the
  ACKs' `failed`; the stream goes on if the nodes before it can, and it is for the client to call for a new pipeline.
- `WriteMany`: the payloads of all items, joined, follow the request immediately, with no frame around them. The answer is
  `WriteManyDone`, once all are durable on every node of the pipeline that has not failed.
- `ReadBlock`: the answer `ReadReady` is followed by exactly `length` raw bytes. If the node fails in the middle, it closes.
- `ReadMany`: the answer `ReadManyReady` is followed by the bytes of all items found, joined. Over a Unix socket those that have
  files of their own may come as open files instead (SCM_RIGHTS, with the answer's first byte).
- `OpenReplica` (Unix socket only): the answer `ReadReady` carries the replica's open file descriptor (SCM_RIGHTS, with the
  first byte of the frame header); it is positioned anywhere, use pread. A replica that has no file of its own is answered by
  `length` 0 and no descriptor (`descriptor` False): read it with ReadMany.
- the others: one RESPONSE.

An error is a RESPONSE flagged ERROR whose body is `messages.Failure`; the connection stays usable after it, except when the peer broke
the framing, or when an error cuts a packet stream short (then the node closes).
"""

from __future__ import annotations

import enum
import struct
from typing import Annotated, Literal

import msgspec

from .errors import InvalidRequest, RequestTooLarge
from .model import (
    MAX_BLOCK_BYTES,
    BlockBase,
    BlockId,
    BlockRef,
    GenerationStamp,
    NodeAddress,
    NodeId,
    NonNegative,
    Struct,
)
from .tracing import REQUEST_ID, TRACEPARENT

PREAMBLE = b"TwinFS\x00\x01"  # the last byte is the version of this protocol
HEADER = struct.Struct(">IBBH")
PACKET_HEAD = struct.Struct(">IQ32s")
MAX_PACKET_BYTES = 1024 * 1024
MAX_CONTROL_BYTES = 4 * 1024 * 1024
MAX_MANY_BYTES = 4 * 1024 * 1024  # payload of one WriteMany or ReadMany
MAX_MANY_ITEMS = 1024
MAX_MANY_FILES = 128  # open files that come with one ReadManyReady; Linux takes 253

BlockLength = Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOCK_BYTES)]


class Kind(enum.IntEnum):
    REQUEST = 1
    RESPONSE = 2
    PACKET = 3
    ACK = 4


class Flag(enum.IntFlag):
    NONE = 0
    ERROR = 1
    LAST = 2
    FLUSH = 4
    SYNC = 8


class Traced(Struct, frozen=True, kw_only=True):
    """What every request may say about where it comes from (common/tracing.py); since version 1, absent means nowhere."""

    request_id: Annotated[str, msgspec.Meta(pattern=REQUEST_ID)] = ""
    traceparent: Annotated[str, msgspec.Meta(pattern=TRACEPARENT)] = ""


class WriteBlock(Traced, frozen=True, kw_only=True, tag="write-block"):
    """Write a block through this node and then *targets*, in order (this node not among them).

    *base*: begin with the first bytes of another replica (its chunk-aligned part keeps its digests).
    *resume_at*: the node has a replica being written of this block id, of an older generation: cut it to this
    length and go on in the new generation. Otherwise the block begins empty.
    *durability*: "synced" fsyncs before the last ACK; "replicated" leaves that to the kernel.
    """

    block: BlockRef
    targets: list[NodeAddress] = []
    base: BlockBase | None = None
    resume_at: BlockLength | None = None
    durability: Literal["synced", "replicated"] = "synced"
    expected_bytes: BlockLength = 0  # a hint for choosing a volume


class WriteReady(Struct, frozen=True, kw_only=True):
    """The pipeline stands. *failed*: nodes left out because they could not be reached or refused; *failures* why."""

    length: NonNegative  # bytes the replica begins with (base or resume_at)
    failed: list[NodeId] = []
    failures: list[str] = []


class PacketAck(Struct, frozen=True, kw_only=True):
    sequence: int
    failed: list[NodeId] = []  # nodes lost since the block began


class WriteDone(Struct, frozen=True, kw_only=True):
    """The block is finalized on *nodes*. *digests*: of its chunks, joined."""

    length: NonNegative
    digests: bytes
    nodes: list[NodeId]


class SmallBlock(Struct, frozen=True, kw_only=True):
    block_id: BlockId
    generation: GenerationStamp
    length: BlockLength
    digest: bytes  # BLAKE3 of the bytes (at most one chunk)


class WriteMany(Traced, frozen=True, kw_only=True, tag="write-many"):
    """Whole small blocks (each at most 1 MiB, one chunk), stored on this node and *targets*."""

    items: Annotated[list[SmallBlock], msgspec.Meta(min_length=1, max_length=MAX_MANY_ITEMS)]
    targets: list[NodeAddress] = []
    durability: Literal["synced", "replicated"] = "synced"


class WriteManyDone(Struct, frozen=True, kw_only=True):
    """All items are durable on *nodes*; *failed* nodes have none or some of them."""

    nodes: list[NodeId]
    failed: list[NodeId] = []
    failures: list[str] = []


class ReadBlock(Traced, frozen=True, kw_only=True, tag="read-block"):
    """Bytes of a replica. Chunk-aligned *offset*s verify without waste. *length* -1: to its end."""

    block: BlockRef
    offset: NonNegative = 0
    length: int = -1
    digests: bool = False  # send the chunk digests of the whole replica too
    background: bool = False  # for repair or balancing: who serves it stands back for clients


class ReadReady(Struct, frozen=True, kw_only=True):
    """*length* raw bytes follow. *block_length*: of the replica now (it may be growing)."""

    length: NonNegative
    block_length: NonNegative
    digests: bytes = b""
    finalized: bool = True
    generation: GenerationStamp = GenerationStamp(0)
    descriptor: bool = False


class ReadMany(Traced, frozen=True, kw_only=True, tag="read-many"):
    """Whole finalized blocks, of `MAX_MANY_BYTES` together."""

    blocks: Annotated[list[BlockRef], msgspec.Meta(min_length=1, max_length=MAX_MANY_ITEMS)]
    background: bool = False  # as in ReadBlock
    files: bool = False  # whether open files are welcome


class ReadManyReady(Struct, frozen=True, kw_only=True):
    """*lengths*, one an item: -1 not here, -2 here but corrupt, -3 left out because the answer would be too large; else so many bytes
    follow, but of the items whose places *files* lists: their bytes are in the open files that come with this, in that order."""

    lengths: list[int]
    files: list[int] = []


class OpenReplica(Traced, frozen=True, kw_only=True, tag="open-replica"):
    block: BlockRef
    digests: bool = False


class ReplicaInfo(Traced, frozen=True, kw_only=True, tag="replica-info"):
    """Length, digests and state of a replica: answered by ReadReady with length 0."""

    block: BlockRef


class BeginRecovery(Traced, frozen=True, kw_only=True, tag="begin-recovery"):
    """Stop any writer of the replica and say what is here (ReadReady, length 0); older generations refused afterwards."""

    block: BlockRef
    new_generation: GenerationStamp


class FinishRecovery(Traced, frozen=True, kw_only=True, tag="finish-recovery"):
    """Cut the replica to *length*, finalize it durably in the new generation; answered by WriteDone."""

    block: BlockRef
    new_generation: GenerationStamp
    length: BlockLength


Request = (
    WriteBlock
    | WriteMany
    | ReadBlock
    | ReadMany
    | OpenReplica
    | ReplicaInfo
    | BeginRecovery
    | FinishRecovery
)

_request_decoder = msgspec.msgpack.Decoder(Request)
_encoder = msgspec.msgpack.Encoder()


def pack_frame(kind: Kind, body: Struct, flags: Flag = Flag.NONE) -> bytes:
    """A whole frame around a struct."""
    encoded = _encoder.encode(body)
    if len(encoded) > MAX_CONTROL_BYTES:
        raise RequestTooLarge(f"a control message of {len(encoded)} bytes exceeds the limit")
    return HEADER.pack(len(encoded), kind, flags, 0) + encoded


def pack_packet_header(
    sequence: int, offset: int, digest: bytes, length: int, flags: Flag
) -> bytes:
    """Frame header and packet head; the payload of *length* bytes is to follow."""
    return HEADER.pack(PACKET_HEAD.size + length, Kind.PACKET, flags, 0) + PACKET_HEAD.pack(
        sequence, offset, digest
    )


def unpack_header(header: bytes | bytearray | memoryview) -> tuple[int, Kind, Flag]:
    """Body length, kind and flags of a frame header; InvalidRequest or RequestTooLarge if it is none."""
    length, kind, flags, zero = HEADER.unpack(header)
    if not 1 <= kind <= 4 or zero or flags > 15:
        raise InvalidRequest("what came is no frame of the block stream protocol")
    limit = MAX_PACKET_BYTES + PACKET_HEAD.size if kind == Kind.PACKET else MAX_CONTROL_BYTES
    if length > limit:
        raise RequestTooLarge(f"a frame of {length} bytes exceeds the limit of {limit}")
    return length, Kind(kind), Flag(flags)


def decode_request(body: bytes | bytearray | memoryview) -> Request:
    """A request from its frame's body; InvalidRequest if it is malformed."""
    try:
        request: Request = _request_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"malformed request: {error}") from None
    return request


__all__ = [
    "HEADER",
    "MAX_CONTROL_BYTES",
    "MAX_MANY_BYTES",
    "MAX_MANY_FILES",
    "MAX_MANY_ITEMS",
    "MAX_PACKET_BYTES",
    "PACKET_HEAD",
    "PREAMBLE",
    "BeginRecovery",
    "FinishRecovery",
    "Flag",
    "Kind",
    "OpenReplica",
    "PacketAck",
    "ReadBlock",
    "ReadMany",
    "ReadManyReady",
    "ReadReady",
    "ReplicaInfo",
    "Request",
    "SmallBlock",
    "Traced",
    "WriteBlock",
    "WriteDone",
    "WriteMany",
    "WriteManyDone",
    "WriteReady",
    "decode_request",
    "pack_frame",
    "pack_packet_header",
    "unpack_header",
]
