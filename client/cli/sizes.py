"""Sizes in bytes on the command line: 4096, 64K, 1.5M, 2G."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    Base = click.ParamType[int]
else:
    Base = click.ParamType  # older versions of click know no type here

SIZE = re.compile(r"(\d+)(\.\d+)?\s*([KMGTPE]?)(?:i?B)?", re.IGNORECASE)
MOST = 2**63 - 1


def parse_size(text: str) -> int:
    """Bytes; ValueError if *text* is no size. Units are powers of 1024."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: give bytes, or a number with K, M, G or T")
    unit: int = 1024 ** " KMGTPE".index(match[3].upper() or " ")
    # Whole numbers exactly, whatever their size.
    size = int(match[1]) * unit + int(float(match[2] or 0) * unit)
    if size > MOST:
        raise ValueError(f"{text!r} is more bytes than there can be")
    return size


class Size(Base):
    """An option's value as a number of bytes within limits."""

    name = "size"

    def __init__(self, least: int = 0, most: int = MOST) -> None:
        self.least = least
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            size = value if isinstance(value, int) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self.least <= size <= self.most:
            self.fail(f"{value} is not between {self.least} and {self.most} bytes", param, ctx)
        return size
