"""From the leaves of a file to its root: the balanced layout, built as the leaves come.

Leaves are grouped, up to *width* of them, under nodes, those under nodes again, until one is left; all leaves
are equally deep. A file of one leaf is that leaf. Only digests and lengths go in: bytes need not be at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from ..errors import InvalidRequest
from . import dag_pb, multihash, unixfs, varint
from .cid import BLAKE3, DAG_PB, RAW, SHA2_256, Cid

MIB = 1024 * 1024


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How content becomes a DAG: everything that a CID depends on beside the bytes.

    *shard_by*: what is compared with *shard_bytes* to decide whether a directory is sharded: the size of its "block", or the sum
    of its "links" (names and CIDs).
    """

    name: str
    hash_code: int
    cid_version: int
    raw_leaves: bool
    chunk_bytes: int
    width: int
    shard_by: str
    shard_bytes: int = 256 * 1024
    fanout: int = 256


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="twinfs",
            hash_code=BLAKE3,
            cid_version=1,
            raw_leaves=True,
            chunk_bytes=MIB,
            width=1024,
            shard_by="block",
        ),
        Profile(
            name="unixfs-v1-2025",
            hash_code=SHA2_256,
            cid_version=1,
            raw_leaves=True,
            chunk_bytes=MIB,
            width=1024,
            shard_by="block",
        ),
        Profile(
            name="unixfs-v0-2015",
            hash_code=SHA2_256,
            cid_version=0,
            raw_leaves=False,
            chunk_bytes=256 * 1024,
            width=174,
            shard_by="links",
        ),
    )
}
TWINFS = PROFILES["twinfs"]


def profile(name: str) -> Profile:
    """InvalidRequest for a name that is none."""
    found = PROFILES.get(name)
    if found is None:
        raise InvalidRequest(f"there is no profile {name!r}; known are {', '.join(PROFILES)}")
    return found


class Node(NamedTuple):
    """A part of a file: its CID, the bytes of the file below it, and its Tsize (with the blocks themselves)."""

    cid: Cid
    filesize: int
    tsize: int


class Made(NamedTuple):
    """A dag-pb block that was made: children before parents."""

    cid: Cid
    block: bytes


def node_cid(profile: Profile, block: bytes) -> Cid:
    """The CID of a dag-pb block under *profile*."""
    if profile.cid_version == 0:
        return Cid(0, DAG_PB, multihash.digest(profile.hash_code, block))
    return Cid.of(DAG_PB, block, profile.hash_code)


def leaf(profile: Profile, data: bytes | memoryview) -> tuple[Node, bytes | memoryview]:
    """One chunk as a leaf: (what the layout wants, its block)."""
    if profile.raw_leaves:
        return Node(Cid.of(RAW, data, profile.hash_code), len(data), len(data)), data
    block = dag_pb.encode([], unixfs.file_leaf(bytes(data)))
    return Node(node_cid(profile, block), len(data), len(block)), block


def raw_leaf(profile: Profile, digest: bytes, length: int) -> Node:
    """A raw leaf whose digest is known."""
    return Node(Cid.from_digest(RAW, digest, profile.hash_code), length, length)


class Layout:
    """Builds the tree over leaves that come one by one. Keeps at most *width* nodes a level.

    `add` gives the blocks that became complete by it, `finish` the rest; the root is in `root` then.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._levels: list[list[Node]] = [[]]
        self._leaves = 0
        self.root: Node | None = None

    def add(self, node: Node) -> list[Made]:
        self._leaves += 1
        return self._put(0, node)

    def _put(self, level: int, node: Node) -> list[Made]:
        made: list[Made] = []
        while True:
            if level == len(self._levels):
                self._levels.append([])
            nodes = self._levels[level]
            # A full group is closed when the next one begins: a file of just one group has no level above it.
            if len(nodes) < self._profile.width:
                nodes.append(node)
                return made
            parent, block = self._join(nodes)
            made.append(block)
            self._levels[level] = [node]
            node, level = parent, level + 1

    def _join(self, nodes: list[Node]) -> tuple[Node, Made]:
        sizes = [node.filesize for node in nodes]
        filesize = sum(sizes)
        links = dag_pb.encode_file_links(
            [bytes(node.cid) for node in nodes], [node.tsize for node in nodes]
        )
        data = unixfs.encode_file(filesize, sizes)
        block = links + b"\x0a" + varint.encode(len(data)) + data
        cid = node_cid(self._profile, block)
        tsize = len(block) + sum(node.tsize for node in nodes)
        return Node(cid, filesize, tsize), Made(cid, block)

    def finish(self) -> list[Made]:
        """Close all groups. Without any leaf: the caller adds that of no bytes before."""
        assert self._leaves, "a file has at least one leaf, if only an empty one"
        made: list[Made] = []
        level = 0
        while True:
            nodes = self._levels[level]
            if level == len(self._levels) - 1 and len(nodes) == 1:
                self.root = nodes[0]
                return made
            parent, block = self._join(nodes)
            made.append(block)
            made += self._put(level + 1, parent)
            level += 1


def build(profile: Profile, leaves: Iterable[Node]) -> tuple[Node, list[Made]]:
    """The root over *leaves* (at least one), and the dag-pb blocks under it, children first."""
    layout = Layout(profile)
    made: list[Made] = []
    for node in leaves:
        made += layout.add(node)
    made += layout.finish()
    assert layout.root is not None
    return layout.root, made


def root_of_digests(profile: Profile, digests: bytes, length: int) -> tuple[Node, list[Made]]:
    """The root of a file of *length* bytes from its chunks' digests joined (32 bytes each).

    Only for profiles of raw leaves. An empty file has no digests: its leaf is that of no bytes.
    """
    if not length:
        return leaf(profile, b"")[0], []
    chunk = profile.chunk_bytes
    count = -(-length // chunk)
    assert len(digests) == 32 * count
    return build(
        profile,
        (
            raw_leaf(profile, digests[32 * i : 32 * i + 32], min(chunk, length - i * chunk))
            for i in range(count)
        ),
    )


__all__ = [
    "PROFILES",
    "TWINFS",
    "Layout",
    "Made",
    "Node",
    "Profile",
    "build",
    "leaf",
    "node_cid",
    "profile",
    "raw_leaf",
    "root_of_digests",
]
