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

# Of each field: its number and wire type, as one byte.
DATA_KEY, LINK_KEY = 0x0A, 0x12
HASH_KEY, NAME_KEY, TSIZE_KEY = 0x0A, 0x12, 0x18


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


def _end_of_field(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(start, end) of the bytes of a field whose length stands at *at*."""
    length, start = varint.decode(data, at)
    if length > end - start:
        raise InvalidContent("a field of a dag-pb node is cut short")
    return start, start + length


def _decode_link(data: bytes, at: int, end: int) -> PBLink:
    # Each field at most once, in this order; the keys that there are have one byte.
    if at == end or data[at] != HASH_KEY:
        raise InvalidContent("a dag-pb link does not begin with its hash")
    start, at = _end_of_field(data, at + 1, end)
    cid = Cid.from_bytes(data[start:at])
    name: str | None = None
    if at < end and data[at] == NAME_KEY:
        start, at = _end_of_field(data, at + 1, end)
        try:
            name = data[start:at].decode()
        except UnicodeDecodeError:
            raise InvalidContent("the name of a dag-pb link is no UTF-8") from None
    tsize: int | None = None
    if at < end and data[at] == TSIZE_KEY:
        tsize, at = varint.decode(data, at + 1)
    if at < end:
        raise InvalidContent(
            f"a dag-pb link has a field {data[at] >> 3} of wire type {data[at] & 7} that is unknown, repeated or out of order"
        )
    if at > end:
        raise InvalidContent("a varint is cut short")
    return PBLink(cid, name, tsize)


def decode(block: bytes | bytearray | memoryview) -> PBNode:
    """The node of a block. InvalidContent or InvalidCid if it is none."""
    if len(block) > MAX_BLOCK_BYTES:
        raise InvalidContent(f"a dag-pb node of {len(block)} bytes exceeds {MAX_BLOCK_BYTES}")
    whole = bytes(block)
    at, end = 0, len(whole)
    links: list[PBLink] = []
    data: bytes | None = None
    before_data = 0
    while at < end:
        key = whole[at]
        if key not in (LINK_KEY, DATA_KEY):
            raise InvalidContent(f"a dag-pb node has no field {key >> 3} of wire type {key & 7}")
        start, at = _end_of_field(whole, at + 1, end)
        if key == LINK_KEY:
            # Very old software wrote the data first. Links on both sides of it were never right.
            if before_data:
                raise InvalidContent("a dag-pb node has links on both sides of its data")
            links.append(_decode_link(whole, start, at))
        else:
            if data is not None:
                raise InvalidContent("a dag-pb node has its data twice")
            data = whole[start:at]
            before_data = len(links)
    return PBNode(links, data)
