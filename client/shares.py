"""Which replica is asked for which piece of a file, when all of them are asked at once. Pure: time comes in.

Every source takes the next piece when it is free, so that each moves as much as its speed allows. At the end, whoever is free
takes a piece that another has been at for longest, and whichever brings it first has brought it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_AT_A_PIECE = 2
BAD_IN_A_ROW = 3  # pieces that a source could not give before it is left alone


class Piece(NamedTuple):
    """A range of one block: *block* is its number in the file, *start* is within it."""

    block: int
    start: int
    size: int


class _Flight:
    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.sources: set[int] = set()


class Shares:
    """*holders* has, for each block of the file, the sources that hold it. Sources are numbers."""

    def __init__(self, pieces: Sequence[Piece], holders: Sequence[Sequence[int]]) -> None:
        self._waiting = list(reversed(pieces))
        self._holders = [set(sources) for sources in holders]
        self._flying: dict[Piece, _Flight] = {}
        self._failures: dict[int, int] = {}
        self._done: set[Piece] = set()

    @property
    def finished(self) -> bool:
        return not self._waiting and not self._flying

    def useful(self, source: int) -> bool:
        """Whether it may still be asked for anything."""
        return self._failures.get(source, 0) < BAD_IN_A_ROW

    def lost(self) -> Piece | None:
        """A piece that nobody who may still be asked holds."""
        for piece in self._waiting:
            if not any(self.useful(source) for source in self._holders[piece.block]):
                return piece
        return None

    def take(self, source: int, now_s: float) -> Piece | None:
        """The next piece for a source that is free; None if there is nothing for it now."""
        if not self.useful(source):
            return None
        for place in range(len(self._waiting) - 1, -1, -1):
            piece = self._waiting[place]
            if source in self._holders[piece.block]:
                del self._waiting[place]
                flight = self._flying[piece] = _Flight(now_s)
                flight.sources.add(source)
                return piece
        return self._help(source)

    def _help(self, source: int) -> Piece | None:
        slow = [
            (flight.began_s, piece)
            for piece, flight in self._flying.items()
            if source in self._holders[piece.block]
            and source not in flight.sources
            and len(flight.sources) < MAX_AT_A_PIECE
        ]
        if not slow:
            return None
        piece = min(slow)[1]
        self._flying[piece].sources.add(source)
        return piece

    def wanted(self, piece: Piece) -> bool:
        """False once somebody has brought it."""
        return piece not in self._done

    def brought(self, piece: Piece, source: int) -> bool:
        """All of it is there; False if another was first."""
        self._failures[source] = 0
        if piece in self._done:
            return False
        self._done.add(piece)
        self._flying.pop(piece, None)
        return True

    def failed(self, piece: Piece, source: int) -> None:
        """It did not give the piece, and is not asked for this block again."""
        self._failures[source] = self._failures.get(source, 0) + 1
        self._holders[piece.block].discard(source)
        flight = self._flying.get(piece)
        if flight is None:
            return
        flight.sources.discard(source)
        if not flight.sources:
            del self._flying[piece]
            self._waiting.append(piece)

    def found(self, index: int, sources: Sequence[int]) -> None:
        """The block is at these now."""
        self._holders[index] |= set(sources)
        for source in sources:
            self._failures[source] = 0
