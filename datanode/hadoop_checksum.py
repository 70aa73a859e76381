"""Hadoop's file checksum: MD5 of the blocks' MD5s of the CRC32Cs of every 512 bytes.

The same bytes in blocks of the same size have the same checksum in HDFS, so `distcp` and the like can compare. Source:
Hadoop's FileChecksumHelper and MD5MD5CRC32FileChecksum, down to the zeros below.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import google_crc32c

BYTES_PER_CRC = 512
_HEAD = struct.Struct(">iq")  # bytes per CRC, CRCs per block
_EMPTY_BUFFER_BYTES = 32


class BlockChecksum:
    """The MD5 of one block's CRCs, from its bytes in order."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._rest = b""
        self._value = google_crc32c.value

    def update(self, data: bytes) -> None:
        if self._rest:
            missing = BYTES_PER_CRC - len(self._rest)
            data, self._rest = self._rest + data[:missing] + data[missing:], b""
        whole = len(data) // BYTES_PER_CRC * BYTES_PER_CRC
        value = self._value
        words = [value(data[at : at + BYTES_PER_CRC]) for at in range(0, whole, BYTES_PER_CRC)]
        self._md5.update(struct.pack(f">{len(words)}I", *words))
        self._rest = data[whole:]

    def digest(self) -> bytes:
        if self._rest:
            self._md5.update(struct.pack(">I", self._value(self._rest)))
            self._rest = b""
        return self._md5.digest()


@dataclass(frozen=True, slots=True)
class FileChecksum:
    """What GETFILECHECKSUM answers."""

    algorithm: str
    data: bytes


def file_checksum(blocks: Iterable[bytes], first_block_bytes: int) -> FileChecksum:
    """From the blocks' MD5s in order, and the length of the first."""
    digests = list(blocks)
    if not digests:
        # HDFS has always told this of an empty file: the MD5 of its buffer, and no sizes.
        md5 = hashlib.md5(bytes(_EMPTY_BUFFER_BYTES), usedforsecurity=False).digest()
        return FileChecksum("MD5-of-0MD5-of-0CRC32", _HEAD.pack(0, 0) + md5)
    joined = b"".join(digests)
    # It takes the MD5 of the whole buffer that gathers the MD5s, and that grows by doubling from 32 bytes.
    size = _EMPTY_BUFFER_BYTES
    while size < len(joined):
        size *= 2
    md5 = hashlib.md5(joined.ljust(size, b"\x00"), usedforsecurity=False).digest()
    per_block = first_block_bytes // BYTES_PER_CRC if len(digests) > 1 else 0
    name = f"MD5-of-{per_block}MD5-of-{BYTES_PER_CRC}CRC32C"
    return FileChecksum(name, _HEAD.pack(BYTES_PER_CRC, per_block) + md5)
