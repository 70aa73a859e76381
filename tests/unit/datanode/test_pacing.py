"""Background work keeps to its rate, and lets clients go first."""

from __future__ import annotations

import pytest

from twinfs.datanode.pacing import BURST_S, YIELD_TO_BUSY, Pace


def run(pace: Pace, pieces: int, size_bytes: int, busy: int = 0) -> float:
    """Take so many pieces one after the other, waiting as told; the seconds it took."""
    now_s = 0.0
    for _ in range(pieces):
        now_s += pace.take(size_bytes, now_s, busy)
    return now_s


def test_the_rate_is_kept() -> None:
    assert run(Pace(1000), 101, 100) == pytest.approx(10.0)


def test_clients_come_first_but_work_goes_on() -> None:
    assert run(Pace(1000), 11, 100, busy=1) == pytest.approx(2.0)
    slowest_s = run(Pace(1000), 11, 100, busy=1000)
    assert slowest_s == pytest.approx(YIELD_TO_BUSY)


def test_without_a_limit_only_clients_are_waited_for() -> None:
    assert run(Pace(0), 100, 1 << 20) == 0.0
    assert run(Pace(0), 1, 1 << 20, busy=3) > 0.0


def test_rest_is_saved_up_for_a_moment_only() -> None:
    pace = Pace(1000)
    pace.take(1000, 0.0)
    assert pace.take(1000, 100.0) == 0.0
    # A quarter of a second was saved up, no more.
    assert pace.take(1000, 100.0) == pytest.approx(1.0 - BURST_S)


def test_threads_share_one_budget() -> None:
    pace = Pace(100)
    assert [pace.take(50, 0.0) for _ in range(3)] == pytest.approx([0.0, 0.5, 1.0])
