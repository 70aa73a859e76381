"""Rounds of one period, and of its multiples, fall together."""

from __future__ import annotations

import pytest

from twinfs.common.runtime import to_next_tick_s


@pytest.mark.parametrize("now_s", [0.0, 0.3, 0.5, 0.7, 0.999, 1234.25])
@pytest.mark.parametrize("period_s", [0.2, 1.0, 2.0, 60.0])
def test_the_next_tick_is_about_a_period_away_at_most(now_s: float, period_s: float) -> None:
    left_s = to_next_tick_s(now_s, period_s)
    assert period_s / 8 <= left_s <= 1.125 * period_s
    off = (now_s + left_s) % period_s
    assert min(off, period_s - off) < 1e-6
