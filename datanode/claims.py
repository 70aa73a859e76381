"""What a collection on a peer must leave alone although no pin refers to it: replicas that adds have just put, or were told of.

An add first asks which blocks are here and sends the others; only its last step, the pin, refers to any of them. So every replica that
is made, and every one that somebody is told of in order to rely on it, is *claimed*: noted for as long as the add may go on. A claim and a
removal never cross: what is about to be removed counts as absent. Methods may be called from any thread, and are short.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence

from ..common.errors import Busy, Unavailable
from ..common.runtime import new_uuid

GRACE_S = 600.0  # claims of somebody who did not say that he adds hold for so long
SILENT_S = 3600.0  # an add that says nothing for so long has ended without a word
SLICE_S = 60.0  # claims are forgotten in slices of so long
MAX_ADDS = 4_096
MAX_CLAIMS = 8_000_000  # 8 bytes each
KEPT, WALKED = 1, 2


class Marks:
    """Which of the replicas that were there when a collection began are to stay: 9 bytes for each."""

    def __init__(self, ids: array[int]) -> None:
        """*ids*: ascending."""
        self.ids = ids
        self.flags = bytearray(len(ids))
        self._lock = threading.Lock()

    def mark(self, block_id: int, flag: int = KEPT) -> bool | None:
        """Whether *flag* is new on a replica; None for one that is not among them: it came later, and stays in any case."""
        at = bisect.bisect_left(self.ids, block_id)
        if at == len(self.ids) or self.ids[at] != block_id:
            return None
        with self._lock:  # those who mark at once must not lose each other's marks
            new = not self.flags[at] & flag
            self.flags[at] |= flag | KEPT
        return new


class Claims:
    """The claims on the replicas of one DataNode's own content."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._slices: collections.deque[tuple[float, array[int]]] = collections.deque()
        self._count = 0
        self._lost_s = float("-inf")  # claims up to then were too many to keep
        self._unnamed_s = float(
            "-inf"
        )  # when somebody claimed something without saying that he adds
        self._adds: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()
        self._heard_s = float("-inf")  # of anybody who adds
        self._marks: Marks | None = None
        self._doomed: frozenset[int] = frozenset()

    # --- adds ---

    def begin_add(self) -> str:
        """An add begins; its claims hold until `end_add`, or until it was silent for long. Busy where there are too many."""
        now_s = self._now_s()
        with self._lock:
            self._forget_silent(now_s)
            if len(self._adds) >= MAX_ADDS:
                raise Busy(f"{MAX_ADDS} adds go on already")
            name = new_uuid()
            self._adds[name] = (now_s, now_s)
            self._heard_s = now_s
            return name

    def renew_add(self, name: str) -> None:
        """The add goes on. Unavailable if it is not known (any more): what it was told may have been collected since."""
        with self._lock:
            known = self._adds.get(name)
            if known is None:
                raise Unavailable("the peer knows nothing of this add any more: add again")
            self._heard_s = self._now_s()
            self._adds[name] = (known[0], self._heard_s)
            self._adds.move_to_end(name)

    def end_add(self, name: str) -> None:
        with self._lock:
            self._adds.pop(name, None)
            self._forget_old(self._now_s())

    def unnamed(self) -> None:
        """Somebody adds without `begin_add`: what he claims from now on holds for a while."""
        with self._lock:
            self._heard_s = self._unnamed_s = self._now_s()

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """An add of this process's own."""
        name = self.begin_add()
        try:
            yield
        finally:
            self.end_add(name)

    def heard_within(self, seconds: float) -> bool:
        """Whether anybody who adds was heard of in the last *seconds*."""
        return self._now_s() - self._heard_s < seconds

    def _forget_silent(self, now_s: float) -> None:
        while self._adds:
            name, (_, heard_s) = next(iter(self._adds.items()))
            if now_s - heard_s < SILENT_S:
                return
            del self._adds[name]

    # --- claims ---

    def claim(self, block_id: int) -> bool:
        """Note that somebody relies on a replica. False: it is going; it counts as absent."""
        with self._lock:
            if block_id in self._doomed:
                return False
            if self._marks is not None:
                self._marks.mark(block_id)
            now_s = self._now_s()
            if not self._slices or now_s - self._slices[-1][0] >= SLICE_S:
                self._forget_old(now_s)
                self._slices.append((now_s, array("Q")))
            self._slices[-1][1].append(block_id)
            self._count += 1
            while self._count > MAX_CLAIMS and len(self._slices) > 1:
                self._count -= len(self._slices.popleft()[1])
                self._lost_s = self._slices[0][0]
            return True

    def _since_s(self, now_s: float) -> float:
        """Claims from then on hold; infinity: none."""
        self._forget_silent(now_s)
        oldest_s = min((began_s for began_s, _ in self._adds.values()), default=float("inf"))
        return min(oldest_s, now_s - GRACE_S) if now_s - self._unnamed_s < GRACE_S else oldest_s

    def _forget_old(self, now_s: float) -> None:
        since_s = self._since_s(now_s)
        # A slice has the claims until the next one begins.
        while self._slices:
            # Not if its end is the very moment: it may be of an add that has just begun.
            over = self._slices[1][0] <= since_s if len(self._slices) > 1 else now_s < since_s
            if not over:
                return
            self._count -= len(self._slices.popleft()[1])

    # --- collecting ---

    def start(self, marks: Marks) -> None:
        """A collection begins, of replicas that were there (those of *marks*). What is claimed, now or later, is marked.

        Busy: so much is being added that not all claims could be kept.
        """
        with self._lock:
            now_s = self._now_s()
            self._forget_old(now_s)
            if self._lost_s > self._since_s(now_s):
                raise Busy("more is being added than a collection could spare: try again later")
            if self._marks is not None:
                raise Busy("a collection is going on already")
            self._marks = marks
            before = [(claimed, len(claimed)) for _, claimed in self._slices]
        # Millions, maybe: nobody who adds is to wait meanwhile. Later ones mark for themselves.
        for claimed, count in before:
            for at in range(count):
                marks.mark(claimed[at])

    def doom(self, positions: Sequence[int]) -> list[int]:
        """Those of *positions* in the marks whose replicas nobody has claimed: to be removed, and then `removed`."""
        with self._lock:
            marks = self._marks
            assert marks is not None
            going = [at for at in positions if not marks.flags[at]]
            self._doomed = frozenset(marks.ids[at] for at in going)
            return going

    def removed(self) -> None:
        """What was doomed is gone."""
        with self._lock:
            self._doomed = frozenset()

    def stop(self) -> None:
        """The collection has ended."""
        with self._lock:
            self._marks = None
            self._doomed = frozenset()


__all__ = ["KEPT", "WALKED", "Claims", "Marks"]
