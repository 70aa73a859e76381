"""How long to wait before trying again."""

from __future__ import annotations

import random
from typing import Final

PATIENCE_S: Final = 3.0  # who tries again for longer than that is to say so


def backoff_s(attempt: int, rng: random.Random, *, base_s: float, cap_s: float) -> float:
    """Delay before retry *attempt* (0-based): full jitter under an exponential ceiling.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    return rng.uniform(0.0, min(cap_s, base_s * 2.0 ** min(attempt, 32)))
