"""One thread at a time for each block whose replica changes its place or state."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

T = TypeVar("T")


class Exclusive:
    """Blocks that somebody has to himself. Who holds some must not ask for more."""

    def __init__(self) -> None:
        self._held: set[int] = set()
        self._ended = 0  # how often somebody let go
        self._change = threading.Condition()

    @contextlib.contextmanager
    def hold(self, block_ids: Collection[int]) -> Iterator[None]:
        """Wait until nobody holds any of *block_ids*, and hold them all."""
        wanted = set(block_ids)
        with self._change:
            self._change.wait_for(lambda: self._held.isdisjoint(wanted))
            self._held |= wanted
        try:
            yield
        finally:
            with self._change:
                self._held -= wanted
                self._ended += 1
                self._change.notify_all()

    def look(self, block_id: int, look: Callable[[], T | None]) -> T | None:
        """What *look* finds of a block. If that is nothing, and the block may have been moved meanwhile from a place that was
        not yet looked at to one that was: what it finds while nobody moves it. Not for who holds the block."""
        ended = self._ended
        found = look()
        if found is None and (self._ended != ended or block_id in self._held):
            with self.hold([block_id]):
                return look()
        return found
