"""dag-pb: nodes of named, sized links and a byte string.

Source: ipld.io/specs/codecs/dag-pb. In bytes the links come before the data, and each link's fields in the order Hash, Name,
Tsize. Nodes are decoded as strictly as that: a block has one encoding, or two blocks would be one node.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import InvalidContent
from . import varint
from .cid import MAX_BLOCK_BYTES, Cid


class PBLink(msgspec.Struct, frozen=True, gc=False):
    """*tsize*: bytes of the DAG below, shared blocks counted each time; only a hint. *name* is "" in files."""

    cid: Cid
    name: str | None = ""
    tsize: int | None = 0


class PBNode(msgspec.Struct, frozen=True):
    links: list[PBLink]
    data: bytes | None = None


def _encode_link(link: PBLink) -> bytes:
    hashed = bytes(link.cid)
    out = b"\x0a" + varint.encode(len(hashed)) + hashed
    if link.name is not None:
        name = link.name.encode()
        out += b"\x12" + varint.encode(len(name)) + name
    if link.tsize is not None:
        out += b"\x18" + varint.encode(link.tsize)
    return out


def encode(links: Sequence[PBLink], data: bytes | None) -> bytes:
    """The node's block. Links are kept in the order given: sort those of a directory before (`sorted_links`)."""
    out = bytearray()
    for link in links:
        encoded = _encode_link(link)
        out += b"\x12"
        out += varint.encode(len(encoded))
        out += encoded
    if data is not None:
        out += b"\x0a" + varint.encode(len(data)) + data
    return bytes(out)


def encode_file_links(hashes: Sequence[bytes], tsizes: Sequence[int]) -> bytes:
    """The links of a file's node, whose names are all "": as `encode`, in one pass without objects."""
    parts = []
    for hashed, tsize in zip(hashes, tsizes, strict=True):
        size = varint.encode(tsize)
        body = (
            len(hashed) + 5 + len(size)
        )  # two bytes before the hash, two for the name, one before the size
        parts.append(
            b"\x12"
            + varint.encode(body)
            + b"\x0a"
            + bytes((len(hashed),))
            + hashed
            + b"\x12\x00\x18"
            + size
        )
    return b"".join(parts)


def sorted_links(links: Sequence[PBLink]) -> list[PBLink]:
    """In the order of their names' bytes, as a directory has them."""
    return sorted(links, key=lambda link: (link.name or "").encode())


def _field(data: memoryview, at: int) -> tuple[int, int, int]:
    """(field number, wire type, offset after the key)."""
    key, at = varint.decode(data, at)
    return key >> 3, key & 7, at


def _bytes_field(data: memoryview, at: int) -> tuple[memoryview, int]:
    length, at = varint.decode(data, at)
    if length > len(data) - at:
        raise InvalidContent("a field of a dag-pb node is cut short")
    return data[at : at + length], at + length


def _decode_link(data: memoryview) -> PBLink:
    at = 0
    cid: Cid | None = None
    name: str | None = None
    tsize: int | None = None
    last = 0
    while at < len(data):
        number, wire, at = _field(data, at)
        if number <= last:
            raise InvalidContent("the fields of a dag-pb link are out of order or repeated")
        last = number
        if number == 1 and wire == 2:
            found, at = _bytes_field(data, at)
            cid = Cid.from_bytes(bytes(found))
        elif number == 2 and wire == 2:
            found, at = _bytes_field(data, at)
            try:
                name = str(found, "utf-8")
            except UnicodeDecodeError:
                raise InvalidContent("the name of a dag-pb link is no UTF-8") from None
        elif number == 3 and wire == 0:
            tsize, at = varint.decode(data, at)
        else:
            raise InvalidContent(f"a dag-pb link has no field {number} of wire type {wire}")
    if cid is None:
        raise InvalidContent("a dag-pb link has no hash")
    return PBLink(cid, name, tsize)


def decode(block: bytes | bytearray | memoryview) -> PBNode:
    """The node of a block. InvalidContent or InvalidCid if it is none."""
    if len(block) > MAX_BLOCK_BYTES:
        raise InvalidContent(f"a dag-pb node of {len(block)} bytes exceeds {MAX_BLOCK_BYTES}")
    view = memoryview(block)
    at = 0
    links: list[PBLink] = []
    data: bytes | None = None
    before_data = 0
    while at < len(view):
        number, wire, at = _field(view, at)
        if wire != 2 or number not in (1, 2):
            raise InvalidContent(f"a dag-pb node has no field {number} of wire type {wire}")
        found, at = _bytes_field(view, at)
        if number == 2:
            # Very old software wrote the data first. Links on both sides of it were never right.
            if before_data:
                raise InvalidContent("a dag-pb node has links on both sides of its data")
            links.append(_decode_link(found))
        else:
            if data is not None:
                raise InvalidContent("a dag-pb node has its data twice")
            data = bytes(found)
            before_data = len(links)
    return PBNode(links, data)
