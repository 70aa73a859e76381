"""HAMT-sharded directories: a trie over the names' hashes, one dag-pb node a bucket.

Source: specs.ipfs.tech/unixfs, "dag-pb HAMTDirectory". Each level takes log2(fanout) bits of murmur3-x64-64 of the name, from the
highest down. A link's name is its slot in upper-case hex, two digits for fanout 256, then the entry's name; without one it is a shard below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import InvalidContent, InvalidRequest
from . import dag_pb, unixfs
from .dag_pb import PBLink, PBNode
from .layout import Made, Node, Profile, node_cid
from .murmur3 import hash64
from .unixfs import MAX_FANOUT, MURMUR3_X64_64, Kind, UnixFs

_HASH_BITS = 64


def slot_of(hashed: bytes, depth: int, fanout: int) -> int:
    """The slot of a name, by the hash of its bytes, in a shard *depth* levels below the root."""
    bits = fanout.bit_length() - 1
    if bits * (depth + 1) > _HASH_BITS:
        raise InvalidContent("a sharded directory is deeper than its hash is long")
    return int.from_bytes(hashed, "big") >> (_HASH_BITS - bits * (depth + 1)) & (fanout - 1)


def prefix_digits(fanout: int) -> int:
    """How many hex digits stand before the names."""
    return len(f"{fanout - 1:X}")


def fanout_of(value: UnixFs) -> int:
    """The fanout of a shard. InvalidContent for one that no shard may have."""
    fanout = value.fanout
    if value.kind != Kind.HAMT_SHARD or fanout is None:
        raise InvalidContent("the node is no shard of a directory")
    if not 8 <= fanout <= MAX_FANOUT or fanout & (fanout - 1):
        raise InvalidContent(f"a shard can't have a fanout of {fanout}")
    if value.hash_type not in (None, MURMUR3_X64_64):
        raise InvalidContent(f"a shard can't be hashed with function {value.hash_type}")
    return fanout


# --- building ----------------------------------------------------------------------------------


def build(profile: Profile, entries: Mapping[str, Node]) -> tuple[Node, list[Made]]:
    """The root shard of a directory, and its blocks, children first."""
    hashed = [(hash64(name.encode()), name) for name in entries]
    made: list[Made] = []
    root = _shard(profile, entries, hashed, 0, made)
    return root, made


def _shard(
    profile: Profile,
    entries: Mapping[str, Node],
    names: Iterable[tuple[bytes, str]],
    depth: int,
    made: list[Made],
) -> Node:
    fanout, digits = profile.fanout, prefix_digits(profile.fanout)
    slots: dict[int, list[tuple[bytes, str]]] = {}
    for hashed, name in names:
        try:
            slot = slot_of(hashed, depth, fanout)
        except InvalidContent:
            raise InvalidRequest(
                f"too many names of a directory have the hash of {name!r}"
            ) from None
        slots.setdefault(slot, []).append((hashed, name))
    links: list[PBLink] = []
    bits = 0
    tsize = 0
    for slot in sorted(slots):
        bits |= 1 << slot
        inside = slots[slot]
        prefix = f"{slot:0{digits}X}"
        if len(inside) == 1:
            name = inside[0][1]
            node = entries[name]
            links.append(PBLink(node.cid, prefix + name, node.tsize))
        else:
            node = _shard(profile, entries, inside, depth + 1, made)
            links.append(PBLink(node.cid, prefix, node.tsize))
        tsize += node.tsize
    data = unixfs.encode(
        UnixFs(
            kind=Kind.HAMT_SHARD,
            data=bits.to_bytes(-(-bits.bit_length() // 8), "big"),
            hash_type=MURMUR3_X64_64,
            fanout=fanout,
        )
    )
    block = dag_pb.encode(links, data)
    cid = node_cid(profile, block)
    made.append(Made(cid, block))
    return Node(cid, 0, tsize + len(block))


# --- reading -----------------------------------------------------------------------------------


def split_link(link: PBLink, fanout: int) -> tuple[int, str]:
    """(slot, entry name or "" for a shard below) of a shard's link."""
    digits = prefix_digits(fanout)
    name = link.name or ""
    prefix = name[:digits]
    try:
        slot = int(prefix, 16)
    except ValueError:
        slot = -1
    if len(prefix) != digits or prefix != f"{slot:0{digits}X}" or slot >= fanout:
        raise InvalidContent("a link of a shard does not begin with its slot")
    return slot, name[digits:]


def find(
    node: PBNode, value: UnixFs, name: str, hashed: bytes, depth: int
) -> tuple[PBLink | None, bool]:
    """Where *name* is, seen from one shard: (link, whether that is a shard to look further in)."""
    fanout = fanout_of(value)
    slot = slot_of(hashed, depth, fanout)
    for link in node.links:
        at, entry = split_link(link, fanout)
        if at != slot:
            continue
        if entry == name and entry:
            return link, False
        if not entry:
            return link, True
    return None, False
