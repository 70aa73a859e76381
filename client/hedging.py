"""When a read that takes long deserves a second one elsewhere. Pure."""

from __future__ import annotations

import collections


class Hedging:
    """Watches how long reads take; a read much slower than most is asked for again.

    Source: Dean and Barroso, "The Tail at Scale", 2013 (hedged requests).
    """

    def __init__(self, *, least_s: float = 0.1, first_s: float = 0.5, most_s: float = 2.0) -> None:
        """*least_s* and *most_s* bound the delay; *first_s* is used until enough reads were seen."""
        self._least_s = least_s
        self._first_s = first_s
        self._most_s = most_s
        self._recent_s: collections.deque[float] = collections.deque(maxlen=100)

    def took(self, seconds: float) -> None:
        self._recent_s.append(seconds)

    def delay_s(self) -> float:
        """How long to wait for a read before asking a second replica: three times the 95th percentile."""
        if len(self._recent_s) < 10:
            return self._first_s
        slow_s = sorted(self._recent_s)[int(len(self._recent_s) * 0.95)]
        return min(self._most_s, max(self._least_s, 3 * slow_s))
