"""Raw bytes in request lines are escaped, whatever the packets; bodies are never touched."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinfs.common.request_lines import RequestLines

NAME = "/webhdfs/v1/ä b/😀?op=OPEN".replace(" ", "%20").encode()
ESCAPED = b"/webhdfs/v1/%C3%A4%20b/%F0%9F%98%80?op=OPEN"
BODY = "ä GET /ä HTTP/1.1\r\n\r\n".encode()


def request(method: bytes, name: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return (
        method
        + b" "
        + name
        + b" HTTP/1.1\r\n"
        + b"".join(h + b"\r\n" for h in headers)
        + b"\r\n"
        + body
    )


def chunked(*parts: bytes) -> bytes:
    return (
        b"".join(b"%X;ext=1\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\nX-End: \xe4\r\n\r\n"
    )


PARTS = [
    (request(b"GET", NAME, b"Host: h"), request(b"GET", ESCAPED, b"Host: h")),
    (
        request(b"PUT", NAME, b"content-LENGTH: %d" % len(BODY), body=BODY),
        request(b"PUT", ESCAPED, b"content-LENGTH: %d" % len(BODY), body=BODY),
    ),
    (
        request(b"POST", NAME, b"Transfer-Encoding: chunked", body=chunked(BODY, b"\xff" * 9)),
        request(b"POST", ESCAPED, b"Transfer-Encoding: chunked", body=chunked(BODY, b"\xff" * 9)),
    ),
    (b"\r\n" + request(b"GET", NAME, b"X: \xe4"), b"\r\n" + request(b"GET", ESCAPED, b"X: \xe4")),
    (request(b"PUT", NAME, b"Content-Length: 0"), request(b"PUT", ESCAPED, b"Content-Length: 0")),
]
UPGRADE = request(b"GET", b"/v1/rpc", b"Upgrade: websocket", b"Connection: Upgrade")


def fed(data: bytes, cuts: list[int]) -> bytes:
    lines = RequestLines()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return b"".join(lines.feed(data[a:b]) for a, b in itertools.pairwise(places))


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(PARTS), max_size=6),
    st.booleans(),
    st.lists(st.integers(0, 1500), max_size=12),
)
def test_any_sequence_in_any_packets(
    parts: list[tuple[bytes, bytes]], upgraded: bool, cuts: list[int]
) -> None:
    sent, wanted = b"".join(p[0] for p in parts), b"".join(p[1] for p in parts)
    if upgraded:
        sent, wanted = sent + UPGRADE + NAME + BODY, wanted + UPGRADE + NAME + BODY
    assert fed(sent, cuts) == wanted


def test_byte_by_byte() -> None:
    sent = b"".join(p[0] for p in PARTS)
    assert fed(sent, list(range(len(sent)))) == b"".join(p[1] for p in PARTS)


@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Content-Length: 6"],
        [b"Content-Length: -1"],
        [b"Content-Length: 5, 5"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"X: 1", b" folded: \xe4"],
    ],
)
def test_what_is_not_understood_is_left_alone(headers: list[bytes]) -> None:
    """After a framing that can be read in two ways, nothing is changed any more."""
    rest = BODY + request(b"GET", NAME)
    sent = request(b"PUT", ESCAPED, *headers) + rest
    assert fed(sent, [10, 40]) == sent


@given(st.binary(max_size=400))
def test_what_is_no_http_only_grows(data: bytes) -> None:
    """Garbage does no harm: only bytes above 0x7F may have been escaped."""
    out = RequestLines().feed(data)
    assert len(out) >= len(data)
    if data.isascii():
        assert out == data


def test_a_header_without_end_stops_the_looking() -> None:
    lines = RequestLines()
    lines.feed(b"GET / HTTP/1.1\r\n")
    for _ in range(40):
        lines.feed(b"c" * 10_000)
    assert lines.feed(b"\r\n\r\nGET /\xe4 HTTP/1.1\r\n") == b"\r\n\r\nGET /\xe4 HTTP/1.1\r\n"


def test_whether_all_that_came_is_whole() -> None:
    """Else a client that closes its half has broken off."""
    for data, whole in ((data, wanted == data) for data, wanted in ENDS):
        lines = RequestLines()
        lines.feed(data)
        assert lines.ends_after(b"/webhdfs/v1") == whole, data
    lines = RequestLines()
    assert not lines.ends_after(b"/webhdfs/v1")


WHOLE = request(b"PUT", b"/webhdfs/v1/x?op=MKDIRS", b"Content-Length: 3", body=b"abc")
CHUNKED = request(b"PUT", b"/webhdfs/v1/x", b"Transfer-Encoding: chunked", body=chunked(b"abc"))
ELSEWHERE = request(b"GET", b"/v1/events?follow=1")
ENDS = [
    (WHOLE, WHOLE),
    (CHUNKED, CHUNKED),
    (ELSEWHERE + WHOLE, ELSEWHERE + WHOLE),
    (WHOLE[:-1], WHOLE),
    (CHUNKED[:-1], CHUNKED),
    (WHOLE + b"G", WHOLE),
    (WHOLE + ELSEWHERE, b""),
    (ELSEWHERE, b""),
    (UPGRADE, b""),
]
