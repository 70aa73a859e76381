"""UnixFS directories and symlinks from their entries: plain where small, sharded where large."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidContent
from . import dag_pb, hamt, unixfs, varint
from .dag_pb import PBLink
from .layout import Made, Node, Profile, node_cid
from .unixfs import Kind, UnixFs

MAX_NAME_BYTES = 255


def check_name(name: str) -> None:
    """InvalidContent for a name that a directory on disk can't have: "", ".", "..", with "/" or NUL, or too long."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidContent(f"a directory has an entry named {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidContent("a directory has an entry whose name is no Unicode text") from None
    if size > MAX_NAME_BYTES:
        raise InvalidContent(f"a directory has an entry whose name is of {size} bytes")


def plain_size(entries: Mapping[str, Node]) -> int:
    """Bytes of the block that a plain directory of *entries* has."""
    total = 2 + len(unixfs.DIRECTORY_DATA)
    for name, node in entries.items():
        cid, text = len(bytes(node.cid)), len(name.encode())
        body = (
            1 + varint.size(cid) + cid + 1 + varint.size(text) + text + 1 + varint.size(node.tsize)
        )
        total += 1 + varint.size(body) + body
    return total


def is_sharded(profile: Profile, entries: Mapping[str, Node]) -> bool:
    if profile.shard_by == "block":
        return plain_size(entries) > profile.shard_bytes
    size = sum(len(name.encode()) + len(bytes(node.cid)) for name, node in entries.items())
    return size > profile.shard_bytes


def build(profile: Profile, entries: Mapping[str, Node]) -> tuple[Node, list[Made]]:
    """The root of a directory and the blocks it needs itself, children first. Names are the caller's to check."""
    if is_sharded(profile, entries):
        return hamt.build(profile, entries)
    links = dag_pb.sorted_links(
        [PBLink(node.cid, name, node.tsize) for name, node in entries.items()]
    )
    block = dag_pb.encode(links, unixfs.DIRECTORY_DATA)
    cid = node_cid(profile, block)
    tsize = len(block) + sum(node.tsize for node in entries.values())
    return Node(cid, 0, tsize), [Made(cid, block)]


def symlink(profile: Profile, target: str) -> tuple[Node, Made]:
    """A symlink's node."""
    data = unixfs.encode(UnixFs(kind=Kind.SYMLINK, data=target.encode("utf-8", "surrogateescape")))
    block = dag_pb.encode([], data)
    cid = node_cid(profile, block)
    return Node(cid, 0, len(block)), Made(cid, block)
