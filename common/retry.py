"""How long to wait before trying again."""

from __future__ import annotations

import logging
import random
from typing import Final

PATIENCE_S: Final = 3.0  # who tries again for longer than that says so


def backoff_s(attempt: int, rng: random.Random, *, base_s: float, cap_s: float) -> float:
    """Delay before retry *attempt* (0-based): full jitter under an exponential ceiling.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return rng.uniform(0.0, min(cap_s, base_s * 2.0 ** min(attempt, 32)))


class Patience:
    """Until when something is tried again; that it takes long is told once."""

    def __init__(self, log: logging.Logger, now_s: float, retry_s: float) -> None:
        self._log = log
        self._tell_s = now_s + PATIENCE_S
        self.deadline_s = now_s + retry_s

    def tell(self, why: str, now_s: float) -> None:
        """It is tried again because of *why*."""
        if now_s >= self._tell_s:
            self._tell_s = float("inf")
            self._log.warning("%s; trying for %.0f s more", why, self.deadline_s - now_s)
