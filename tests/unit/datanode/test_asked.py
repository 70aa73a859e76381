"""Numbers and ranges as requests give them."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from twinfs.common.errors import InvalidRequest
from twinfs.datanode.api.asked import number_of, range_of


def asked(header: str | None) -> web.Request:
    return make_mocked_request("GET", "/", headers={} if header is None else {"Range": header})


@pytest.mark.parametrize(
    ("header", "length", "expected"),
    [
        (None, 10, (0, 10, False)),
        (None, 0, (0, 0, False)),
        ("bytes=2-4", 10, (2, 5, True)),
        ("bytes=2-", 10, (2, 10, True)),
        ("bytes=0-99", 10, (0, 10, True)),
        ("bytes=-3", 10, (7, 10, True)),
        ("bytes=-99", 10, (0, 10, True)),
    ],
)
def test_what_a_range_means(
    header: str | None, length: int, expected: tuple[int, int, bool]
) -> None:
    assert range_of(asked(header), length) == expected


@pytest.mark.parametrize(
    ("header", "length"), [("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-5", 0)]
)
def test_a_range_of_nothing_is_refused_with_the_length(header: str, length: int) -> None:
    with pytest.raises(web.HTTPRequestRangeNotSatisfiable) as refusal:
        range_of(asked(header), length, {"X-More": "1"})
    assert refusal.value.headers["Content-Range"] == f"bytes */{length}"
    assert refusal.value.headers["X-More"] == "1"


@pytest.mark.parametrize("header", ["bytes=b-a", "lines=1-2", "bytes=4-2"])
def test_a_malformed_range_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest):
        range_of(asked(header), 10)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "٣", "1" * 19, " 1", "0x1"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="the block id must be a number"):
        number_of(text, "block id")


def test_digits_are_bounded() -> None:
    assert number_of("123", "mtime", digits=3) == 123
    with pytest.raises(InvalidRequest):
        number_of("1234", "mtime", digits=3)
