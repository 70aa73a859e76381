"""Unsigned varints (LEB128), as multiformats bound them: at most 9 bytes, in the shortest form.

Source: github.com/multiformats/unsigned-varint.
"""

from __future__ import annotations

from ..errors import InvalidContent

MAX_BYTES = 9  # 63 bits


def encode(value: int) -> bytes:
    """*value* (0 to 2**63 - 1) as a varint."""
    assert 0 <= value < 1 << 63
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes | bytearray | memoryview, at: int = 0) -> tuple[int, int]:
    """(value, offset after it) of the varint at *at*. InvalidContent if it is cut short, too long or not minimal."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    end = min(len(data), at + MAX_BYTES)
    for index in range(at, end):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and index > at:
                raise InvalidContent("a varint is not in its shortest form")
            return value, index + 1
        shift += 7
    if end == at + MAX_BYTES:
        raise InvalidContent("a varint is longer than 9 bytes")
    raise InvalidContent("a varint is cut short")


def decode_loose(data: bytes | bytearray | memoryview, at: int = 0) -> tuple[int, int]:
    """As `decode`, for protobuf: 64 bits in at most 10 bytes, longer forms than needed allowed."""
    value = shift = 0
    end = min(len(data), at + 10)
    for index in range(at, end):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise InvalidContent("a varint does not fit 64 bits")
            return value, index + 1
        shift += 7
    raise InvalidContent("a varint is cut short or too long")


def size(value: int) -> int:
    """How many bytes `encode` makes of *value*."""
    return max(1, -(-value.bit_length() // 7))
