"""Digests do not depend on how the bytes arrive."""

import itertools

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from twinfs.common.checksum import (
    CHUNK_BYTES,
    ChunkHasher,
    block_digest,
    chunk_count,
    digest_matches,
)


def digests_of(data: bytes) -> bytes:
    return b"".join(
        blake3(data[at : at + CHUNK_BYTES]).digest() for at in range(0, len(data), CHUNK_BYTES)
    )


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(0, 3 * CHUNK_BYTES + 5),
    cuts=st.lists(st.integers(0, 3 * CHUNK_BYTES + 5), max_size=8),
)
def test_pieces_of_any_size_give_the_digests_of_the_whole(length: int, cuts: list[int]) -> None:
    data = (b"0123456789abcdef" * (length // 16 + 1))[:length]
    hasher = ChunkHasher()
    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    for start, end in itertools.pairwise(edges):
        hasher.update(data[start:end])
        assert hasher.digests() == digests_of(data[:end])
    assert len(hasher.digests()) == 32 * chunk_count(length)
    assert hasher.at_boundary == (length % CHUNK_BYTES == 0)


def test_hashing_continues_after_known_chunks() -> None:
    data = bytes(range(256)) * 5000
    whole = digests_of(data)
    hasher = ChunkHasher(whole[:32], data[CHUNK_BYTES : CHUNK_BYTES + 7])
    hasher.update(data[CHUNK_BYTES + 7 :])
    assert hasher.digests() == whole


def test_a_block_of_one_chunk_has_the_digest_b3sum_prints() -> None:
    digest = blake3(b"hello").digest()
    assert block_digest(digest) == digest
    assert digest_matches(digest, digest)


def test_a_list_that_was_changed_no_longer_matches() -> None:
    chunks = digests_of(b"x" * (2 * CHUNK_BYTES))
    digest = block_digest(chunks)
    assert digest_matches(digest, chunks)
    changed = bytearray(chunks)
    changed[40] ^= 1
    assert not digest_matches(digest, bytes(changed))
    assert not digest_matches(digest, chunks[:32])


def test_an_empty_block_has_the_digest_of_no_bytes() -> None:
    assert block_digest(b"") == blake3(b"").digest()
