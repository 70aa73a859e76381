"""UnixFS: files, directories and symlinks as dag-pb nodes. This is what a node's data says.

Source: specs.ipfs.tech/unixfs. Protobuf with few fields; unknown ones are skipped, as protobuf has it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from ..errors import InvalidContent
from . import varint

MAX_BLOCKSIZES = 200_000  # more never fit a block
MURMUR3_X64_64 = 0x22
MAX_FANOUT = 1024  # as other software bounds it


class Kind(enum.IntEnum):
    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


class UnixFs(msgspec.Struct, frozen=True, kw_only=True):
    """One node's data. *blocksizes*: bytes of the file below each link. *mode*, *mtime_s* are optional (UnixFS 1.5)."""

    kind: Kind
    data: bytes | None = None
    filesize: int | None = None
    blocksizes: list[int] = []
    hash_type: int | None = None
    fanout: int | None = None
    mode: int | None = None
    mtime_s: int | None = None
    mtime_ns: int | None = None

    @property
    def is_directory(self) -> bool:
        return self.kind in (Kind.DIRECTORY, Kind.HAMT_SHARD)

    @property
    def is_file(self) -> bool:
        return self.kind in (Kind.FILE, Kind.RAW)


DIRECTORY_DATA = b"\x08\x01"


def encode(value: UnixFs) -> bytes:
    """The data in protobuf's bytes, fields in the order of their numbers."""
    out = bytearray(b"\x08" + varint.encode(value.kind))
    if value.data is not None:
        out += b"\x12" + varint.encode(len(value.data)) + value.data
    if value.filesize is not None:
        out += b"\x18" + varint.encode(value.filesize)
    for size in value.blocksizes:
        out += b"\x20" + varint.encode(size)
    if value.hash_type is not None:
        out += b"\x28" + varint.encode(value.hash_type)
    if value.fanout is not None:
        out += b"\x30" + varint.encode(value.fanout)
    if value.mode is not None:
        out += b"\x38" + varint.encode(value.mode)
    if value.mtime_s is not None:
        time = b"\x08" + _signed(value.mtime_s)
        if value.mtime_ns:
            time += b"\x15" + value.mtime_ns.to_bytes(4, "little")
        out += b"\x42" + varint.encode(len(time)) + time
    return bytes(out)


def _signed(value: int) -> bytes:
    if value >= 0:
        return varint.encode(value)
    value += 1 << 64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_file(filesize: int, blocksizes: Sequence[int]) -> bytes:
    """The data of a file's node that has links."""
    out = bytearray(b"\x08\x02\x18" + varint.encode(filesize))
    for size in blocksizes:
        out += b"\x20"
        out += varint.encode(size)
    return bytes(out)


def file_leaf(data: bytes) -> bytes:
    """The data of a dag-pb leaf (before raw leaves): the bytes themselves in it."""
    if not data:
        return encode(UnixFs(kind=Kind.FILE, filesize=0))
    return encode(UnixFs(kind=Kind.FILE, data=data, filesize=len(data)))


def _skip(data: memoryview, at: int, wire: int) -> int:
    if wire == 0:
        return varint.decode_loose(data, at)[1]
    if wire == 1:
        at += 8
    elif wire == 2:
        length, at = varint.decode_loose(data, at)
        at += length
    elif wire == 5:
        at += 4
    else:
        raise InvalidContent(f"UnixFS data has a field of wire type {wire}")
    if at > len(data):
        raise InvalidContent("UnixFS data is cut short")
    return at


def _mtime(data: memoryview) -> tuple[int | None, int | None]:
    at, seconds, nanoseconds = 0, None, None
    while at < len(data):
        key, at = varint.decode_loose(data, at)
        if key == 0x08:
            value, at = varint.decode_loose(data, at)
            seconds = value - (1 << 64) if value >> 63 else value
        elif key == 0x15:
            if at + 4 > len(data):
                raise InvalidContent("UnixFS data is cut short")
            nanoseconds = int.from_bytes(data[at : at + 4], "little")
            at += 4
        else:
            at = _skip(data, at, key & 7)
    if nanoseconds is not None and nanoseconds > 999_999_999:
        raise InvalidContent("a time has more nanoseconds than a second")
    if seconds is None:
        raise InvalidContent("a time has no seconds")
    return seconds, nanoseconds or None


def decode(data: bytes | memoryview | None) -> UnixFs:
    """What a node's data says. InvalidContent if it is no UnixFS."""
    if data is None:
        raise InvalidContent("the node has no data, so it is no UnixFS")
    view = memoryview(data)
    at = 0
    numbers: dict[int, int] = {}
    blocksizes: list[int] = []
    content: bytes | None = None
    seconds = nanoseconds = None
    while at < len(view):
        key, at = varint.decode_loose(view, at)
        number, wire = key >> 3, key & 7
        if number in (1, 3, 5, 6, 7) and wire == 0:
            numbers[number], at = varint.decode_loose(view, at)
        elif number == 4 and wire == 0:
            size, at = varint.decode_loose(view, at)
            blocksizes.append(size)
        elif number in (2, 4, 8) and wire == 2:
            length, at = varint.decode_loose(view, at)
            if length > len(view) - at:
                raise InvalidContent("UnixFS data is cut short")
            part = view[at : at + length]
            at += length
            if number == 2:
                content = bytes(part)
            elif number == 8:
                seconds, nanoseconds = _mtime(part)
            else:  # packed, as newer protobuf writes repeated numbers
                inner = 0
                while inner < length:
                    size, inner = varint.decode_loose(part, inner)
                    blocksizes.append(size)
        elif number <= 8:
            raise InvalidContent(f"UnixFS data has no field {number} of wire type {wire}")
        else:
            at = _skip(view, at, wire)
        if len(blocksizes) > MAX_BLOCKSIZES:
            raise InvalidContent("a UnixFS node has too many block sizes")
    if 1 not in numbers:
        raise InvalidContent("UnixFS data has no type")
    try:
        kind = Kind(numbers[1])
    except ValueError:
        raise InvalidContent(f"there is no UnixFS type {numbers[1]}") from None
    if any(number >> 63 for number in (*blocksizes, *numbers.values())):
        raise InvalidContent("a UnixFS size is larger than any file")
    return UnixFs(
        kind=kind,
        data=content,
        filesize=numbers.get(3),
        blocksizes=blocksizes,
        hash_type=numbers.get(5),
        fanout=numbers.get(6),
        mode=numbers.get(7),
        mtime_s=seconds,
        mtime_ns=nanoseconds,
    )
