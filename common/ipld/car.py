"""CAR: many CID blocks in one file or stream. Version 1, and version 2 around it with an index.

Source: ipld.io/specs/transport/car. Reading is incremental and bounded: `Reader.feed` takes bytes as they come, and gives
blocks, each verified against its CID.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..errors import InvalidContent
from . import dag_cbor, varint
from .cid import MAX_BLOCK_BYTES, MAX_CID_BYTES, Cid

MAX_HEADER_BYTES = 1024 * 1024  # some 25,000 roots
MAX_ROOTS = 16_384
PRAGMA = bytes.fromhex(
    "0aa16776657273696f6e02"
)  # the header of a version 1 file that says version 2
_V2 = struct.Struct("<16sQQQ")  # characteristics, data offset, data size, index offset
V2_HEADER_BYTES = len(PRAGMA) + _V2.size
_FULLY_INDEXED = 0x80
_INDEX_SORTED = 0x0401  # multihash-index-sorted
MAX_V2_PADDING = 16 * 1024 * 1024


class CarBlock(msgspec.Struct, frozen=True):
    """*offset*: of the block's frame, from the header's first byte (as version 2 indexes count)."""

    cid: Cid
    data: bytes
    offset: int


# --- writing -----------------------------------------------------------------------------------


def header(roots: Sequence[Cid]) -> bytes:
    """The front of a version 1 CAR."""
    body = dag_cbor.encode({"roots": list(roots), "version": 1})
    return varint.encode(len(body)) + body


def frame_head(cid: Cid, length: int) -> bytes:
    """What stands before a block's *length* bytes."""
    name = bytes(cid)
    return varint.encode(len(name) + length) + name


def frame(cid: Cid, data: bytes) -> bytes:
    """One block."""
    return frame_head(cid, len(data)) + data


def v2_header(data_size: int) -> bytes:
    """The front of a version 2 CAR around a version 1 of *data_size* bytes, with an index behind it."""
    characteristics = bytes((_FULLY_INDEXED,)) + bytes(15)
    return PRAGMA + _V2.pack(
        characteristics, V2_HEADER_BYTES, data_size, V2_HEADER_BYTES + data_size
    )


def v2_index(entries: Iterable[tuple[Cid, int]]) -> bytes:
    """A multihash-sorted index of (CID, offset of its frame in the version 1 part). Identity CIDs are left out."""
    tables: dict[int, dict[int, list[tuple[bytes, int]]]] = {}
    for cid, offset in entries:
        if not cid.is_identity:
            digest = cid.digest
            tables.setdefault(cid.hash_code, {}).setdefault(len(digest) + 8, []).append(
                (digest, offset)
            )
    out = bytearray(varint.encode(_INDEX_SORTED) + struct.pack("<I", len(tables)))
    for code in sorted(tables):
        widths = tables[code]
        out += struct.pack("<QI", code, len(widths))
        for width in sorted(widths):
            rows = sorted(widths[width])
            out += struct.pack("<IQ", width, width * len(rows))
            for digest, offset in rows:
                out += digest + struct.pack("<Q", offset)
    return bytes(out)


# --- reading -----------------------------------------------------------------------------------


def _roots(body: bytes) -> tuple[int, list[Cid]]:
    try:
        value: Any = dag_cbor.decode(body)
    except InvalidContent as error:
        raise InvalidContent(f"it does not begin as a CAR does: {error.message}") from None
    if not isinstance(value, dict):
        raise InvalidContent("it does not begin as a CAR does: the header is no map")
    version = value.get("version")
    if version == 2 and len(value) == 1:
        return 2, []
    if version != 1 or isinstance(version, bool):
        raise InvalidContent(f"there is no version {version!r} of a CAR")
    roots = value.get("roots")
    if not isinstance(roots, list) or not all(isinstance(root, Cid) for root in roots):
        raise InvalidContent("the header of a CAR has no list of roots")
    if len(roots) > MAX_ROOTS:
        raise InvalidContent(f"a CAR has {len(roots)} roots; {MAX_ROOTS} are the most")
    if set(value) != {"version", "roots"}:
        raise InvalidContent("the header of a CAR has other fields than it may have")
    return 1, roots


class Reader:
    """Takes a CAR in pieces of any size. Raises InvalidContent, InvalidCid, ChecksumMismatch or Unsupported at the first thing
    that is wrong. Keeps at most one frame beside the piece it was given."""

    def __init__(self, *, verify: bool = True, max_block_bytes: int = MAX_BLOCK_BYTES) -> None:
        self.version = 0  # 0 until it is known
        self.roots: list[Cid] | None = None  # None until the header was read
        self._verify = verify
        self._max_frame = max_block_bytes + MAX_CID_BYTES
        self._buffer = bytearray()
        self._skip = 0  # bytes to drop before going on
        self._left: int | None = None  # of the version 1 part inside a version 2
        self._position = 0  # in the version 1 part
        self._ended = False

    def feed(self, data: bytes | bytearray | memoryview) -> list[CarBlock]:
        """The blocks that are complete now."""
        self._buffer += data
        blocks: list[CarBlock] = []
        at = 0
        while not self._ended:
            if self._skip:
                step = min(self._skip, len(self._buffer) - at)
                self._skip -= step
                at += step
                if self._skip:
                    break
            if self._left == 0 and self.roots is not None:
                self._ended = True
                break
            after = self._step(at, blocks)
            if after == at:
                break
            at = after
        if self._ended:
            self._buffer.clear()  # an index or nothing: of no use to who reads in order
        else:
            del self._buffer[:at]
        return blocks

    def _step(self, at: int, blocks: list[CarBlock]) -> int:
        """Read one thing at *at* of the buffer; the offset after it, or *at* if it is not all there."""
        buffer = self._buffer
        if self.version == 2 and self._left is None:
            return self._v2_step(at)
        try:
            length, start = varint.decode(buffer, at)
        except InvalidContent:
            if len(buffer) - at >= varint.MAX_BYTES or (at < len(buffer) and buffer[-1] < 0x80):
                raise
            return at
        limit = self._max_frame if self.roots is not None else MAX_HEADER_BYTES
        if length > limit:
            raise InvalidContent(f"a frame of {length} bytes in a CAR exceeds {limit}")
        if length == 0:
            raise InvalidContent("a CAR has an empty frame")
        end = start + length
        if self._left is not None and end - at > self._left:
            raise InvalidContent("a frame goes beyond the data of the CAR")
        if end > len(buffer):
            return at
        body = bytes(buffer[start:end])
        if self.roots is None:
            version, roots = _roots(body)
            if version == 2:
                if self.version == 2:
                    raise InvalidContent("a CAR of version 2 has another inside")
                self.version = 2
                return end
            self.version = self.version or 1
            self.roots = roots
        else:
            cid, split = Cid.read(body)
            data = body[split:]
            if self._verify:
                cid.verify(data)
            blocks.append(CarBlock(cid, data, self._position))
        self._position += end - at
        if self._left is not None:
            self._left -= end - at
        return end

    def _v2_step(self, at: int) -> int:
        if len(self._buffer) - at < _V2.size:
            return at
        _, offset, size, index = _V2.unpack_from(self._buffer, at)
        if offset < V2_HEADER_BYTES or offset - V2_HEADER_BYTES > MAX_V2_PADDING or not size:
            raise InvalidContent("the header of a CAR of version 2 does not say where its data is")
        if index and index < offset + size:
            raise InvalidContent("the index of a CAR of version 2 lies inside its data")
        self._skip = offset - V2_HEADER_BYTES
        self._left = size
        return at + _V2.size

    def finish(self) -> None:
        """To be called at the end of the input. InvalidContent if it ended too early."""
        if self.roots is None:
            raise InvalidContent("the CAR ends before its header does")
        if self._left:
            raise InvalidContent("the CAR is cut short")
        if not self._ended and self._buffer:
            raise InvalidContent("the CAR ends in the middle of a block")


def read_all(data: bytes) -> tuple[list[Cid], list[CarBlock]]:
    """(roots, blocks) of a whole CAR in memory."""
    reader = Reader()
    blocks = list(itertools.chain(reader.feed(data)))
    reader.finish()
    assert reader.roots is not None
    return reader.roots, blocks
