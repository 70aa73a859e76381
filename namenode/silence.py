"""Who is silent, and who was only not heard: a NameNode that was away must not hold that against writers."""

from __future__ import annotations

from typing import Final

LOOK_S: Final = 2.0  # somebody looks at least that often
PART: Final = 4  # of a limit: writers renew so often in it


class Silence:
    """Whether silence can count. Pure: time comes in.

    It counts from when this NameNode has been listening for all of the limit. It was not while it was down, paused, starved or without its
    database, nor can it tell for how long when the wall clock, in which renewals are written down, has been set: whoever lives renews soon after, and all others
    wait a limit longer.
    """

    def __init__(self, limit_s: float, *, now_ms: int, now_s: float) -> None:
        """*limit_s*: the shortest that is asked about. *now_ms* is the wall clock, *now_s* the monotonic one."""
        self._slack_s = limit_s / PART
        self._since_s = now_s
        self._looked_s = now_s
        self._looked_ms = now_ms

    def look(self, now_ms: int, now_s: float) -> None:
        """To be called every LOOK_S."""
        elapsed_s = now_s - self._looked_s
        jump_s = (now_ms - self._looked_ms) / 1000 - elapsed_s
        self._looked_s, self._looked_ms = now_s, now_ms
        if elapsed_s > LOOK_S + self._slack_s or abs(jump_s) > self._slack_s:
            self._since_s = now_s

    def deaf(self, now_s: float) -> None:
        """What was said could not be written down just now (the database is away)."""
        self._since_s = now_s

    def before_ms(self, limit_s: float, now_ms: int, now_s: float) -> int | None:
        """Who was last heard of before this has been silent for *limit_s*; None as long as nobody can be said to be."""
        self.look(now_ms, now_s)
        if now_s - self._since_s <= limit_s:
            return None
        return now_ms - int(limit_s * 1000)
