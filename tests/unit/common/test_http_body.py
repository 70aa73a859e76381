"""The rest of a body is the same wherever the parser before was left, whatever the packets; broken chunks are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinfs.common.errors import InvalidRequest
from twinfs.common.http_body import MAX_LINE_BYTES, MAX_TRAILERS, BodyCut, BodyReader, Rest
from twinfs.common.request_lines import RequestLines

START = Rest(chunked=True, left=0)
LAST = b"0\r\n\r\n"


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


def from_packets(data: bytes, size: int) -> Callable[[memoryview], int]:
    """What a socket gives, at most *size* bytes at a time."""
    at = 0

    def receive(view: memoryview) -> int:
        nonlocal at
        piece = data[at : at + min(size, len(view))]
        view[: len(piece)] = piece
        at += len(piece)
        return len(piece)

    return receive


def read_all(reader: BodyReader, step: int) -> bytes:
    found = bytearray()
    while True:
        buffer = bytearray(step)
        size = reader.read_into(memoryview(buffer))
        found += buffer[:size]
        if size < step:
            return bytes(found)


@settings(max_examples=200)
@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    st.booleans(),
    st.integers(0, 2000),
    st.integers(1, 500),
    st.integers(1, 700),
)
def test_a_body_is_read_on_from_any_place(
    parts: list[bytes], chunked: bool, cut: int, packet: int, step: int
) -> None:
    """A parser that saw the first bytes, and this reader the rest, have together seen the body."""
    whole = b"".join(parts)
    if chunked:
        framing = b"Transfer-Encoding: chunked"
        body = b"".join(chunk(part, b" ;x=y") for part in parts) + b"0\r\nA: b\r\n\r\n"
    else:
        framing, body = b"Content-Length: %d" % len(whole), whole
    head = b"PUT /x HTTP/1.1\r\n" + framing + b"\r\n\r\n"
    lines = RequestLines()
    lines.feed(head + body[:cut])
    rest = lines.rest()
    if rest is None:  # the parser has seen all of it, but trailers perhaps
        assert lines.body_bytes in (0, len(whole))
        return
    reader = BodyReader(rest, from_packets(body[cut:] + b"GET /next", packet))
    assert whole[: lines.body_bytes] + read_all(reader, step) == whole


def test_large_chunks_are_read_past_the_buffer_between() -> None:
    body = bytes(300_000)
    data = chunk(body) + LAST
    assert read_all(BodyReader(START, from_packets(data, 1 << 20)), 250_000) == body


BROKEN = {
    "no size": b"x\r\n",
    "an empty size": b"\r\n",
    "a negative size": b"-1\r\n",
    "a size of too many digits": b"f" * 17 + b"\r\n",
    "a bare line feed": b"1\nx\r\n" + LAST,
    "more than the size says": b"1\r\nxx\r\n" + LAST,
    "a long extension": b"1;" + b"x" * MAX_LINE_BYTES + b"\r\nx\r\n" + LAST,
    "too many trailers": b"0\r\n" + b"a: b\r\n" * MAX_TRAILERS + b"\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_all(BodyReader(START, from_packets(data, 1 << 20)), 100)


@pytest.mark.parametrize("data", [b"", b"5\r\nab", b"2\r\nab", b"2\r\nab\r\n", b"0\r\na: b\r\n"])
def test_a_cut_is_no_end(data: bytes) -> None:
    with pytest.raises(BodyCut):
        read_all(BodyReader(START, from_packets(data, 3)), 100)
    with pytest.raises(BodyCut):
        read_all(BodyReader(Rest(chunked=False, left=10), from_packets(data[:9], 3)), 100)
