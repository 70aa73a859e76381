"""When a second replica is asked depends on how long reads took lately, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twinfs.client.hedging import Hedging


def test_until_enough_was_seen_the_first_delay_counts() -> None:
    hedging = Hedging(first_s=0.7)
    for _ in range(9):
        hedging.took(0.2)
        assert hedging.delay_s() == 0.7
    hedging.took(0.2)
    assert hedging.delay_s() != 0.7


def test_the_delay_is_three_times_the_95th_percentile() -> None:
    hedging = Hedging(least_s=0.0, most_s=100.0)
    for hundredths in range(100):
        hedging.took(hundredths / 100)
    assert hedging.delay_s() == 3 * 0.95


def test_a_few_slow_reads_do_not_raise_the_delay() -> None:
    hedging = Hedging(least_s=0.0)
    for index in range(100):
        hedging.took(10.0 if index % 25 == 0 else 0.1)
    assert hedging.delay_s() < 0.4


def test_only_the_last_hundred_reads_count() -> None:
    hedging = Hedging(least_s=0.0)
    for _ in range(100):
        hedging.took(0.5)
    for _ in range(100):
        hedging.took(0.01)
    assert hedging.delay_s() < 0.04


def test_fast_reads_do_not_double_every_request_and_slow_ones_do_not_wait_for_ever() -> None:
    fast, slow = Hedging(), Hedging()
    for _ in range(50):
        fast.took(0.0001)
        slow.took(60.0)
    assert fast.delay_s() == 0.1
    assert slow.delay_s() == 2.0


@given(st.lists(st.floats(0, 1e6), max_size=150))
def test_the_delay_stays_within_its_bounds(taken_s: list[float]) -> None:
    hedging = Hedging(least_s=0.05, first_s=0.5, most_s=1.5)
    for seconds in taken_s:
        hedging.took(seconds)
        assert 0.05 <= hedging.delay_s() <= 1.5
