"""BLAKE3 digests of chunks, and the one digest that stands for a block.

A block is cut into chunks of 1 MiB (the last may be shorter); each chunk has a 32-byte BLAKE3 digest.
The *block digest*, which the NameNode keeps, is the chunk's digest for a block of one chunk, and the
BLAKE3 of all chunk digests joined for a longer one. Whoever holds the block digest can prove the digest
list, and with the list every single chunk. An empty block's digest is that of no bytes.
"""

from __future__ import annotations

import hmac

from blake3 import blake3

CHUNK_BYTES = 1024 * 1024
DIGEST_BYTES = 32


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 of *data*, 32 bytes. Releases the GIL for large inputs."""
    return blake3(data).digest()


def block_digest(chunk_digests: bytes) -> bytes:
    """The digest of a block from its chunk digests joined (32 bytes each, in order)."""
    if len(chunk_digests) == DIGEST_BYTES:
        return chunk_digests
    return blake3(chunk_digests).digest()


def digest_matches(block: bytes, chunk_digests: bytes) -> bool:
    """Whether *chunk_digests* is the list that *block* (a block digest) stands for."""
    return hmac.compare_digest(block, block_digest(chunk_digests))


def chunk_count(length_bytes: int) -> int:
    """How many chunks *length_bytes* bytes make; an empty block has none."""
    return -(-length_bytes // CHUNK_BYTES)


class ChunkHasher:
    """Digests of the chunks of a stream given in pieces of any size."""

    __slots__ = ("_done", "_filled_bytes", "_open")

    def __init__(self, digests: bytes = b"", partial: bytes = b"") -> None:
        """Continue after the complete chunks *digests* and the bytes *partial* of the next one."""
        self._done = bytearray(digests)
        self._open = blake3(partial)
        self._filled_bytes = len(partial)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while view:
            piece = view[: CHUNK_BYTES - self._filled_bytes]
            if len(piece) == CHUNK_BYTES:
                self._done += blake3(piece).digest()
            else:
                self._open.update(piece)
                self._filled_bytes += len(piece)
                if self._filled_bytes == CHUNK_BYTES:
                    self._done += self._open.digest()
                    self._open = blake3()
                    self._filled_bytes = 0
            view = view[len(piece) :]

    def add_whole_chunk(self, digest: bytes) -> None:
        """Note a chunk whose digest is already known; only at a chunk boundary."""
        assert self._filled_bytes == 0, "not at a chunk boundary"
        self._done += digest

    @property
    def at_boundary(self) -> bool:
        return self._filled_bytes == 0

    def digests(self) -> bytes:
        """All chunk digests joined, the last possibly that of a partial chunk. May go on after."""
        if self._filled_bytes:
            return bytes(self._done) + self._open.digest()
        return bytes(self._done)
