"""Bytes that say who wrote them: every written piece begins with its number and goes on with bytes drawn from it.

So a reader knows of each byte which write it comes from, or that nobody wrote it.
"""

from __future__ import annotations

import functools
import random
import struct
import zlib

MAGIC = b"TWIN"
HEAD = struct.Struct(">4sQII")  # magic, number of the write, length of the piece, CRC of these
MIN_BYTES = HEAD.size
Piece = tuple[int, int]  # (number of the write, how many of its first bytes)
Value = tuple[Piece, ...]


@functools.lru_cache(maxsize=64)
def piece(seed: int, number: int, length: int) -> bytes:
    """The *length* bytes (MIN_BYTES at least) of write *number*."""
    assert length >= MIN_BYTES
    body = random.Random(f"{seed}:{number}").randbytes(length - MIN_BYTES)
    return HEAD.pack(MAGIC, number, length, check_of(number, length)) + body


def check_of(number: int, length: int) -> int:
    return zlib.crc32(f"{number} {length}".encode())


def identify(seed: int, data: bytes) -> Value | str:
    """Which pieces *data* is made of, the last one perhaps cut short; a sentence if nobody wrote these bytes."""
    found: list[Piece] = []
    offset = 0
    while offset < len(data):
        left = len(data) - offset
        if left < MIN_BYTES:
            if not MAGIC.startswith(data[offset : offset + 4][: len(MAGIC)]):
                return f"nobody wrote the {left} bytes at {offset}"
            found.append((0, left))  # the beginning of a head: it can't be told whose
            break
        magic, number, length, check = HEAD.unpack_from(data, offset)
        if magic != MAGIC or length < MIN_BYTES or check != check_of(number, length):
            return f"nobody wrote the bytes at {offset}"
        size = min(length, left)
        wanted = piece(seed, number, length)
        if data[offset : offset + size] != wanted[:size]:
            first = next(i for i in range(size) if data[offset + i] != wanted[i])
            return f"byte {offset + first} is not what write {number} wrote there"
        found.append((number, size))
        offset += size
    return tuple(found)
