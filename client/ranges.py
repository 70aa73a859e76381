"""Which reads serve many ranges of one file (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..common.checksum import CHUNK_BYTES

MOST_BYTES = 4 * CHUNK_BYTES  # of one read: longer ones are better spread over several


class Span(NamedTuple):
    """One read, and the ranges it serves, by their place in what was asked for."""

    start: int
    end: int
    serves: list[int]


def resolve(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    """A range as Python's slices mean it: negative numbers count from the end, and all is cut to the file."""
    low, high, _ = slice(start, end).indices(size)
    return low, max(low, high)


def plan(ranges: Sequence[tuple[int, int]], most_bytes: int = MOST_BYTES) -> list[Span]:
    """Reads that cover all of *ranges* (start, end), none of which is empty.

    A chunk is verified whole whatever is wanted of it, so ranges that touch the same or neighbouring chunks are read
    together, up to *most_bytes*.
    """
    spans: list[Span] = []
    for index in sorted(range(len(ranges)), key=ranges.__getitem__):
        start, end = ranges[index]
        if spans:
            last = spans[-1]
            near = start // CHUNK_BYTES <= -(-last.end // CHUNK_BYTES)
            if near and max(end, last.end) - last.start <= max(most_bytes, last.end - last.start):
                last.serves.append(index)
                spans[-1] = last._replace(end=max(end, last.end))
                continue
        spans.append(Span(start, end, [index]))
    return spans
