"""Contents by rule, as tests/golden/unixfs_cids.mjs makes them, and importing them in memory."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from twinfs.common.ipld import directory, layout
from twinfs.common.ipld.cid import Cid
from twinfs.common.ipld.layout import Layout, Node, Profile

MIB = 1024 * 1024
Tree = Mapping[str, "bytes | Tree"]


@functools.lru_cache(maxsize=16)
def content(seed: int, length: int) -> bytes:
    out = bytearray(length)
    x = seed
    for index in range(length):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out[index] = x >> 24
    return bytes(out)


def repeated(seed: int, length: int) -> bytes:
    unit = content(seed, MIB)
    return (unit * (length // MIB + 1))[:length]


class Blocks(dict[bytes, bytes]):
    """Blocks by multihash, each checked as it comes."""

    def add(self, cid: Cid, block: bytes | memoryview) -> None:
        cid.verify(block)
        self[cid.multihash] = bytes(block)

    def get_block(self, cid: Cid) -> bytes:
        return cid.digest if cid.is_identity else self[cid.multihash]


def add_file(profile: Profile, chunks: Iterable[bytes], blocks: Blocks) -> Node:
    tree = Layout(profile)
    for chunk in chunks:
        node, block = layout.leaf(profile, chunk)
        if node.cid.multihash not in blocks:
            blocks.add(node.cid, block)
        for made in tree.add(node):
            blocks.add(*made)
    for made in tree.finish():
        blocks.add(*made)
    assert tree.root is not None
    return tree.root


def pieces(profile: Profile, data: bytes) -> list[bytes]:
    size = profile.chunk_bytes
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


def add_bytes(profile: Profile, data: bytes, blocks: Blocks) -> Node:
    return add_file(profile, pieces(profile, data), blocks)


def add_tree(profile: Profile, tree: Tree, blocks: Blocks) -> Node:
    entries = {
        name: add_bytes(profile, inside, blocks)
        if isinstance(inside, bytes)
        else add_tree(profile, inside, blocks)
        for name, inside in tree.items()
    }
    root, made = directory.build(profile, entries)
    for one in made:
        blocks.add(*one)
    return root
