"""Merkle trees against RFC 6962's definition, proofs against forgers; signed notes."""

from __future__ import annotations

import hashlib
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from twinfs.common import merkle, notes
from twinfs.common.errors import InvalidRequest


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def source(leaves: list[bytes]) -> merkle.Node:
    def node(level: int, number: int) -> bytes:
        first = number << level
        part = leaves[first : first + (1 << level)]
        assert len(part) == 1 << level, "only whole subtrees are asked for"
        return merkle.fold([merkle.leaf_hash(leaf) for leaf in part])

    return node


LEAVES = [bytes([n]) * 3 for n in range(70)]


def test_known_roots() -> None:
    """Those of the test vectors that Certificate Transparency's implementations share."""
    data = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        bytes(range(0x50, 0x58)),
        bytes(range(0x60, 0x70)),
    ]
    node = source(data)
    assert (
        merkle.root(node, 0).hex()
        == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert (
        merkle.root(node, 1).hex()
        == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert (
        merkle.root(node, 8).hex()
        == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )


@pytest.mark.parametrize("size", [*range(1, 18), 31, 32, 33, 63, 64, 65, 70])
def test_roots_and_proofs_of_every_leaf(size: int) -> None:
    node, root = source(LEAVES), mth(LEAVES[:size])
    assert merkle.root(node, size) == root
    for index in range(size):
        proof = merkle.inclusion(node, index, size)
        leaf = merkle.leaf_hash(LEAVES[index])
        assert merkle.verify_inclusion(leaf, index, size, proof, root)
        assert not merkle.verify_inclusion(merkle.leaf_hash(b"forged"), index, size, proof, root)
        assert not merkle.verify_inclusion(leaf, index, size, [*proof, root], root)
        if proof:
            assert not merkle.verify_inclusion(leaf, index, size, proof[:-1], root)
        if size > 1:
            assert not merkle.verify_inclusion(leaf, (index + 1) % size, size, proof, root)


@pytest.mark.parametrize("size", [*range(1, 18), 33, 64, 70])
def test_consistency_of_every_beginning(size: int) -> None:
    node, new = source(LEAVES), mth(LEAVES[:size])
    for old in range(1, size + 1):
        before = mth(LEAVES[:old])
        proof = merkle.consistency(node, old, size)
        assert merkle.verify_consistency(old, size, before, new, proof)
        assert not merkle.verify_consistency(
            old, size, mth([b"forged", *LEAVES[1:old]]), new, proof
        )
        assert not merkle.verify_consistency(old, size, before, mth([b"x", *LEAVES[1:size]]), proof)
        for cut in range(len(proof)):
            assert not merkle.verify_consistency(
                old, size, before, new, proof[:cut] + proof[cut + 1 :]
            )


def test_no_proof_of_what_is_not_there() -> None:
    node = source(LEAVES)
    for call in (
        lambda: merkle.inclusion(node, 5, 5),
        lambda: merkle.inclusion(node, -1, 5),
        lambda: merkle.consistency(node, 0, 5),
        lambda: merkle.consistency(node, 6, 5),
    ):
        with pytest.raises(InvalidRequest):
            call()
    assert not merkle.verify_inclusion(b"", 3, 3, [], b"")
    assert not merkle.verify_consistency(0, 3, b"", b"", [])
    assert not merkle.verify_consistency(3, 4, b"", b"", [])


def key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(random.Random(seed).randbytes(32))


def test_a_checkpoint_is_opened_by_its_key_alone() -> None:
    root = bytes(range(32))
    note = notes.checkpoint("twinfs/x", 7, root, key(1))
    assert notes.open_checkpoint(note, notes.verifier_key("twinfs/x", key(1))) == (7, root)
    with pytest.raises(InvalidRequest):
        notes.open_checkpoint(note, notes.verifier_key("twinfs/x", key(2)))
    with pytest.raises(InvalidRequest):
        notes.open_checkpoint(note, notes.verifier_key("twinfs/y", key(1)))


@pytest.mark.parametrize("position", range(0, 140, 7))
def test_no_changed_checkpoint_is_opened(position: int) -> None:
    note = notes.checkpoint("twinfs/x", 7, bytes(32), key(1))
    verifier = notes.verifier_key("twinfs/x", key(1))
    changed = (
        note[:position]
        + ("A" if note[position : position + 1] != "A" else "B")
        + note[position + 1 :]
    )
    if changed == note:
        return
    with pytest.raises(InvalidRequest):
        notes.open_checkpoint(changed, verifier)


@pytest.mark.parametrize("verifier", ["", "x", "a+b+c", "a+00000000+AQ==", "a+" + "é"])
def test_bad_keys_are_told_so(verifier: str) -> None:
    with pytest.raises(InvalidRequest, match="verifier key"):
        notes.open_checkpoint("x", verifier)
