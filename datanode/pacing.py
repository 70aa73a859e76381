"""How fast background work may go. Pure: the time is passed in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

from ..common.runtime import Clock

BURST_S = 0.25  # so much of a second's bytes may go at once
YIELD_TO_BUSY = (
    8  # background work is slowed down to this part of its rate at most, however busy clients are
)
BEHIND_CLIENTS = 10  # the nice value of threads that copy


def stand_back() -> None:
    """Have the calling thread get what time of the processors clients leave, for good; it is never starved."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BEHIND_CLIENTS)


class Pace:
    """A budget of bytes a second; 0 is no limit. Several threads may share one."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_at_s: float | None = None
        self._lock = threading.Lock()

    def take(self, size_bytes: int, now_s: float, busy: int = 0) -> float:
        """Seconds to wait before *size_bytes* more. *busy*: requests of clients under way, which are yielded to.

        Without a limit, work still waits for clients: a little while for each of them.
        """
        share = min(1 + busy, YIELD_TO_BUSY)
        if not self.bytes_per_s:
            return 0.0 if share == 1 else 0.02 * share
        with self._lock:
            cost_s = size_bytes * share / self.bytes_per_s
            begins_s = now_s if self._free_at_s is None else max(self._free_at_s, now_s - BURST_S)
            self._free_at_s = begins_s + cost_s
            return max(0.0, begins_s - now_s)


SERVE_SLICE_BYTES = 256 * 1024


class ServeLimit:
    """What this node gives to others, together: a second's bytes, handed out in slices."""

    def __init__(self, bytes_per_s: float, clock: Clock) -> None:
        self._pace = Pace(bytes_per_s)
        self._clock = clock

    @property
    def slice_bytes(self) -> int:
        """To be sent at a time; 0: there is no limit, and nobody need wait."""
        return SERVE_SLICE_BYTES if self._pace.bytes_per_s else 0

    def delay_s(self, size_bytes: int) -> float:
        """Seconds to wait before so many bytes more are sent."""
        if not self._pace.bytes_per_s:
            return 0.0
        return self._pace.take(size_bytes, self._clock.monotonic_s())

    async def wait(self, size_bytes: int) -> None:
        """Until so many bytes more may be sent."""
        if self._pace.bytes_per_s:
            await asyncio.sleep(self.delay_s(size_bytes))
