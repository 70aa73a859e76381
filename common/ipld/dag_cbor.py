"""dag-cbor: CBOR in one strict form, with links.

Source: ipld.io/specs/codecs/dag-cbor. Decoding refuses every second way of writing a value: longer integers than needed, unsorted or
repeated keys, indefinite lengths, floats that are not 64-bit, other tags than 42. Values are None, bool, int, float, str, bytes, list, dict and Cid.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from ..errors import InvalidContent
from .cid import MAX_BLOCK_BYTES, Cid

MAX_DEPTH = 128
_MAX_INT = 1 << 64


def encode(value: Any) -> bytes:
    """The block of *value*. InvalidContent for what dag-cbor can't say."""
    out = bytearray()
    _encode(value, out, 0)
    return bytes(out)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * size):
            return bytes((major << 5 | code,)) + number.to_bytes(size, "big")
    raise InvalidContent("an integer is beyond 64 bits")


def _encode(value: Any, out: bytearray, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidContent(f"a value is nested more than {MAX_DEPTH} deep")
    if value is None:
        out += b"\xf6"
    elif value is True:
        out += b"\xf5"
    elif value is False:
        out += b"\xf4"
    elif isinstance(value, int):
        out += _head(0, value) if value >= 0 else _head(1, -1 - value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidContent("dag-cbor has no infinite and no undefined numbers")
        out += b"\xfb" + struct.pack(">d", value)
    elif isinstance(value, str):
        try:
            text = value.encode()
        except UnicodeEncodeError:
            raise InvalidContent("a text is no Unicode") from None
        out += _head(3, len(text)) + text
    elif isinstance(value, bytes):
        out += _head(2, len(value)) + value
    elif isinstance(value, Cid):
        data = b"\0" + bytes(value)
        out += b"\xd8\x2a" + _head(2, len(data)) + data
    elif isinstance(value, list | tuple):
        out += _head(4, len(value))
        for entry in value:
            _encode(entry, out, depth + 1)
    elif isinstance(value, dict):
        out += _head(5, len(value))
        for key, entry in sorted(value.items(), key=lambda item: _key_order(item[0])):
            _encode(key, out, depth + 1)
            _encode(entry, out, depth + 1)
    else:
        raise InvalidContent(f"dag-cbor has no {type(value).__name__}")


def _key_order(key: Any) -> tuple[int, bytes]:
    if not isinstance(key, str):
        raise InvalidContent("the keys of a map are texts")
    try:
        text = key.encode()
    except UnicodeEncodeError:
        raise InvalidContent("a text is no Unicode") from None
    return len(text), text


def decode(block: bytes | bytearray | memoryview) -> Any:
    """The value of a block. InvalidContent if it is not strict dag-cbor."""
    if len(block) > MAX_BLOCK_BYTES:
        raise InvalidContent(f"a dag-cbor block of {len(block)} bytes exceeds {MAX_BLOCK_BYTES}")
    data = bytes(block)
    value, at = decode_first(data)
    if at != len(data):
        raise InvalidContent("bytes follow the value")
    return value


def decode_first(data: bytes, at: int = 0) -> tuple[Any, int]:
    """(the value at *at*, offset after it)."""
    return _decode(data, at, 0)


def _number(data: bytes, at: int) -> tuple[int, int, int]:
    """(major type, number, offset after the head)."""
    if at >= len(data):
        raise InvalidContent("a value is cut short")
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    if low < 24:
        return major, low, at
    if low > 27:
        raise InvalidContent("a value has an indefinite or reserved length")
    size = 1 << (low - 24)
    if at + size > len(data):
        raise InvalidContent("a value is cut short")
    number = int.from_bytes(data[at : at + size], "big")
    if major != 7 and number < (24 if size == 1 else 1 << (4 * size)):
        raise InvalidContent("a number is not in its shortest form")
    return major, number, at + size


def _decode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise InvalidContent(f"a value is nested more than {MAX_DEPTH} deep")
    start = at
    major, number, at = _number(data, at)
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major in (2, 3):
        if number > len(data) - at:
            raise InvalidContent("a value is cut short")
        part = data[at : at + number]
        at += number
        return (part if major == 2 else _text(part)), at
    if major == 4:
        if number > len(data) - at:
            raise InvalidContent("a list is cut short")
        entries = []
        for _ in range(number):
            entry, at = _decode(data, at, depth + 1)
            entries.append(entry)
        return entries, at
    if major == 5:
        return _map(data, at, number, depth)
    if major == 6:
        return _link(data, at, number)
    return _simple(data, start)


def _text(part: bytes) -> str:
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise InvalidContent("a text is no UTF-8") from None


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[str, Any], int]:
    if 2 * count > len(data) - at:
        raise InvalidContent("a map is cut short")
    found: dict[str, Any] = {}
    last: tuple[int, bytes] | None = None
    for _ in range(count):
        key, at = _decode(data, at, depth + 1)
        order = _key_order(key)
        if last is not None and order <= last:
            raise InvalidContent("the keys of a map are repeated or out of order")
        last = order
        found[key], at = _decode(data, at, depth + 1)
    return found, at


def _link(data: bytes, at: int, tag: int) -> tuple[Cid, int]:
    if tag != 42:
        raise InvalidContent(f"dag-cbor has no tag {tag}")
    major, number, at = _number(data, at)
    if major != 2 or number > len(data) - at or data[at : at + 1] != b"\0":
        raise InvalidContent("a link is malformed")
    return Cid.from_bytes(data[at + 1 : at + number]), at + number


def _simple(data: bytes, at: int) -> tuple[Any, int]:
    first = data[at]
    if first == 0xF4:
        return False, at + 1
    if first == 0xF5:
        return True, at + 1
    if first == 0xF6:
        return None, at + 1
    if first == 0xFB:
        value = struct.unpack(">d", data[at + 1 : at + 9])[0]
        if not math.isfinite(value):
            raise InvalidContent("dag-cbor has no infinite and no undefined numbers")
        return value, at + 9
    raise InvalidContent(f"dag-cbor has no value 0x{first:02x}")
