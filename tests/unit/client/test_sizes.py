"""Sizes on the command line."""

from __future__ import annotations

import pytest

from twinfs.client.cli.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 65536),
        ("1.5M", 1_572_864),
        ("2g", 2 << 30),
        ("3 GiB", 3 << 30),
        ("1TB", 1 << 40),
        ("9007199254740993", 9_007_199_254_740_993),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1e9", "1.M", "12X", "1 0", "99999999E", "½"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|bytes"):
        parse_size(text)
