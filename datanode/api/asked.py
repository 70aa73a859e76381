"""What a request asks for, read strictly: numbers, and one range of bytes."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from ...common.errors import InvalidRequest

MAX_DIGITS = 18  # fits 64 bits
MAX_TIME_DIGITS = 15  # of milliseconds: the year 33658


def number_of(text: str, what: str, *, digits: int = MAX_DIGITS) -> int:
    """A number without a sign. InvalidRequest, naming *what*, for anything else and for more *digits*."""
    if not text.isascii() or not text.isdigit() or len(text) > digits:
        raise InvalidRequest(f"the {what} must be a number")
    return int(text)


def range_of(
    request: web.Request, length: int, headers: Mapping[str, str] | None = None
) -> tuple[int, int, bool]:
    """(start, end, partial) of the *length* bytes that there are, by the header Range (RFC 9110, section 14).

    InvalidRequest for a malformed one; a 416 with *headers* where none of the bytes asked for are there.
    """
    if "Range" not in request.headers:
        return 0, length, False
    try:
        wanted = request.http_range
    except ValueError:
        raise InvalidRequest("the Range header is malformed") from None
    start = wanted.start or 0
    if start < 0:
        start = max(0, length + start)
    if start >= length:
        raise web.HTTPRequestRangeNotSatisfiable(
            headers={"Content-Range": f"bytes */{length}", **(headers or {})}
        )
    return start, min(length, wanted.stop if wanted.stop is not None else length), True
