"""Merkle trees as RFC 6962 defines them (section 2.1): roots, inclusion and consistency proofs, and their verification.

Leaves are numbered from 0. Whoever has the leaves (or hashes of whole subtrees) makes proofs; whoever has two roots checks them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from .errors import InvalidRequest

Node = Callable[
    [int, int], bytes
]  # (level, number) -> hash of the perfect subtree over leaves number * 2^level and on
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root of a perfect subtree from its nodes of one level; their number is a power of two."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def _split(count: int) -> int:
    """The largest power of two below *count*, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1


def subtree(node: Node, first: int, count: int) -> bytes:
    """The hash over leaves *first* to *first* + *count* - 1; *first* is where such a subtree may begin."""
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, first >> level)
    left = _split(count)
    return node_hash(subtree(node, first, left), subtree(node, first + left, count - left))


def root(node: Node, size: int) -> bytes:
    """The root of the tree of the first *size* leaves."""
    return subtree(node, 0, size) if size else EMPTY_ROOT


def inclusion(node: Node, index: int, size: int) -> list[bytes]:
    """The proof that leaf *index* is in the tree of *size*."""
    if not 0 <= index < size:
        raise InvalidRequest(f"the tree of {size} has no leaf {index}")
    path: list[bytes] = []
    first, count = 0, size
    while count > 1:
        left = _split(count)
        if index - first < left:
            path.append(subtree(node, first + left, count - left))
            count = left
        else:
            path.append(subtree(node, first, left))
            first, count = first + left, count - left
    return path[::-1]


def consistency(node: Node, old: int, size: int) -> list[bytes]:
    """The proof that the tree of *old* leaves is the beginning of the tree of *size*."""
    if not 0 < old <= size:
        raise InvalidRequest(f"a tree of {old} can't be compared with one of {size}")
    if old == size:
        return []
    path: list[bytes] = []
    first, count, whole = 0, size, True
    while old - first != count:
        left = _split(count)
        if old - first <= left:
            path.append(subtree(node, first + left, count - left))
            count = left
        else:
            path.append(subtree(node, first, left))
            first, count, whole = first + left, count - left, False
    if not whole:
        path.append(subtree(node, first, count))
    return path[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes
) -> bool:
    """Whether *proof* shows that the leaf hash *leaf* is number *index* of the tree with root *expected* (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for entry in proof:
        if not last:
            return False
        if place & 1 or place == last:
            found = node_hash(entry, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, entry)
        place, last = place >> 1, last >> 1
    return not last and found == expected


def verify_consistency(
    old: int, size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether *proof* shows that the tree of *old* with *old_root* begins that of *size* with *new_root* (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= size:
        return False
    if old == size:
        return not proof and old_root == new_root
    entries = list(proof)
    if old & (old - 1) == 0:
        entries.insert(0, old_root)
    if not entries:
        return False
    place, last = old - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_found = new_found = entries[0]
    for entry in entries[1:]:
        if not last:
            return False
        if place & 1 or place == last:
            old_found, new_found = node_hash(entry, old_found), node_hash(entry, new_found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new_found = node_hash(new_found, entry)
        place, last = place >> 1, last >> 1
    return not last and old_found == old_root and new_found == new_root
