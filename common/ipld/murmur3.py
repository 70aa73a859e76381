"""MurmurHash3 x64 128, seed 0, of which HAMT-sharded directories take the first 64 bits.

Source: Austin Appleby's public-domain description; test values in the tests.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F


def _mix(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def _k1(value: int) -> int:
    value = value * _C1 & _MASK
    value = (value << 31 | value >> 33) & _MASK
    return value * _C2 & _MASK


def _k2(value: int) -> int:
    value = value * _C2 & _MASK
    value = (value << 33 | value >> 31) & _MASK
    return value * _C1 & _MASK


def hash64(data: bytes) -> bytes:
    """The first 8 bytes of the 128-bit hash, big-endian, as HAMT directories use them."""
    h1 = h2 = 0
    length = len(data)
    whole = length & ~15
    for at in range(0, whole, 16):
        h1 ^= _k1(int.from_bytes(data[at : at + 8], "little"))
        h1 = (h1 << 27 | h1 >> 37) & _MASK
        h1 = ((h1 + h2) * 5 + 0x52DCE729) & _MASK
        h2 ^= _k2(int.from_bytes(data[at + 8 : at + 16], "little"))
        h2 = (h2 << 31 | h2 >> 33) & _MASK
        h2 = ((h2 + h1) * 5 + 0x38495AB5) & _MASK
    rest = data[whole:]
    if len(rest) > 8:
        h2 ^= _k2(int.from_bytes(rest[8:], "little"))
    if rest:
        h1 ^= _k1(int.from_bytes(rest[:8], "little"))
    h1 ^= length
    h2 ^= length
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    h1 = (_mix(h1) + _mix(h2)) & _MASK
    return h1.to_bytes(8, "big")
