"""Time, chance and identity: the one module that may read a clock or ask for randomness."""

from __future__ import annotations

import os
import random
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """Two readings: one for durations, one for dates."""

    def monotonic_s(self) -> float: ...

    def wall_ms(self) -> int: ...


class SystemClock:
    """The machine's own clock."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told, for tests and simulation."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._start_wall_ms = wall_ms
        self.now_s = 0.0

    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return self._start_wall_ms + int(self.now_s * 1000)


def system_random() -> random.Random:
    """A generator seeded by the operating system; tests pass a seeded `random.Random` instead."""
    return random.Random(int.from_bytes(os.urandom(16), "big"))


def new_uuid() -> str:
    """A random identity for a cluster, a DataNode or a volume."""
    return str(uuid.uuid4())


def format_time(wall_ms: int, pattern: str = "%Y-%m-%d %H:%M") -> str:
    """*wall_ms* in the user's time zone."""
    return time.strftime(pattern, time.localtime(wall_ms / 1000))


def to_next_tick_s(now_s: float, period_s: float) -> float:
    """How long to sleep before the next round of something that is done every *period_s*; between an eighth and nine eighths of that.

    All rounds of a process fall on the same ticks, so that an idle one is woken once for all of them, and not once for each.
    """
    left_s = period_s - now_s % period_s
    return left_s if left_s >= period_s / 8 else left_s + period_s


def elapsed_timer() -> float:
    """A high-resolution reading for measuring short intervals in seconds."""
    return time.perf_counter()
