"""The recent past: rates, growth, hot directories, problems and since when."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from twinfs.common.metrics import Distribution
from twinfs.common.watch import HistoryPoint
from twinfs.namenode.history import (
    FOUND_AGAIN_MS,
    Counters,
    Diary,
    Finding,
    Hot,
    Kept,
    Level,
    Pace,
    Past,
)
from twinfs.namenode.keeping import pack, unpack


def latency(fast: int, slow: int = 0) -> Distribution:
    return Distribution((fast, 0, 0, 0, 0, 0, 0, slow, 0, 0, 0), 0.0)


def test_rates_and_quantiles_are_of_an_interval_alone() -> None:
    past = Past()
    past.step(Counters({"stat": latency(1_000)}, errors=5), Level(), 0.0, 0)
    past.step(Counters({"stat": latency(1_000, 20)}, errors=7, sent_bytes=400), Level(), 2.0, 2_000)
    now = past.now
    assert (now.calls_s, now.errors_s, now.sent_bytes_s) == (10.0, 1.0, 200.0)
    assert now.p50_s > 0.1


def test_what_waits_on_purpose_is_no_clients_latency() -> None:
    past = Past()
    past.step(Counters({"heartbeat": latency(0)}), Level(), 0.0, 0)
    past.step(Counters({"heartbeat": latency(0, 50), "stat": latency(4)}), Level(), 2.0, 2_000)
    assert past.now.calls_s == 2.0
    assert past.now.p99_s < 0.001


def test_counters_that_begin_anew_give_no_negative_rate() -> None:
    past = Past()
    past.step(Counters(received_bytes=10**9), Level(), 0.0, 0)
    past.step(Counters(received_bytes=5), Level(), 2.0, 2_000)
    assert past.now.received_bytes_s == 0.0


def test_the_charts_are_bounded() -> None:
    past = Past()
    for second in range(0, 100_000, 10):
        past.step(Counters(), Level(used_bytes=second, live_nodes=1), float(second), second * 1_000)
    assert len(past.history("hour").points) == 360
    assert len(past.history("day").points) == 288
    assert past.growth_bytes_day() == 86_400.0


def test_growth_is_not_guessed_from_minutes() -> None:
    past = Past()
    for second in range(0, 600, 10):
        past.step(
            Counters(), Level(used_bytes=second**2, live_nodes=1), float(second), second * 1_000
        )
    assert past.growth_bytes_day() is None


def test_hot_directories_stay_few_and_the_hottest_are_found() -> None:
    hot = Hot()
    for number in range(5_000):
        hot.note(f"/cold{number}/file", 1)
        hot.note("/hot/file", 3)
    assert hot.top(1)[0][0] == "/hot"
    assert len(hot._weights) <= Hot.LIMIT
    hot.fade(3_600.0)
    assert hot.top(5) == []


def test_a_steady_rate_is_told_as_it_is() -> None:
    hot = Hot()
    for _ in range(300):
        hot.note("/a/f", 20)
        hot.fade(2.0)
    assert 8.0 < hot.top(1)[0][1] < 12.0


def test_the_diary_knows_since_when() -> None:
    diary = Diary()
    diary.step([Finding("a", "warning", "x")], 1_000)
    found = diary.step([Finding("b", "critical", "y"), Finding("a", "warning", "x")], 2_000)
    assert [(p.code, p.since_ms) for p in found] == [("b", 2_000), ("a", 1_000)]
    diary.step([], 3_000)
    assert diary.step([Finding("a", "warning", "x")], 4_000)[0].since_ms == 4_000


def test_the_pace_tells_when_a_queue_is_empty() -> None:
    pace = Pace()
    assert pace.step(100, 0.0) == -1.0
    assert pace.step(80, 2.0) == 8.0
    assert pace.step(0, 4.0) == 0.0


def test_charts_go_on_after_a_restart() -> None:
    """What was written down comes back before what is new; the time between is a gap, and the bound holds."""
    before = Past()
    for second in range(0, 90_000, 10):
        before.step(
            Counters(), Level(used_bytes=second, live_nodes=1), float(second), second * 1_000
        )
    fine, coarse = before.keep()
    kept = unpack(pack(Kept(saved_ms=90_000_000, fine=fine, coarse=coarse)))
    after = Past()
    after.take_back(kept.fine, kept.coarse)
    assert after.history("hour").points == before.history("hour").points
    assert after.growth_bytes_day() == before.growth_bytes_day() == 86_400.0
    # Half an hour later it serves again: half of the hour is from before.
    for second in range(91_800, 91_840, 10):
        after.step(
            Counters(), Level(used_bytes=second, live_nodes=1), float(second), second * 1_000
        )
    points = after.history("hour").points
    assert [point.time_ms for point in points[-3:]] == [91_810_000, 91_820_000, 91_830_000]
    assert points[0].time_ms >= 91_830_000 - 3_600_000
    assert len(points) == 180


def test_what_is_kept_is_small_and_nothing_else_is_believed() -> None:
    noise = random.Random(1)
    point = HistoryPoint(time_ms=1_764_000_000_000)
    fields = ("calls_s", "p50_s", "p99_s", "received_bytes_s", "sent_bytes_s")
    points = [
        replace(point, **{name: round(noise.random() * 1e6, 3) for name in fields})
        for _ in range(360)
    ]
    assert len(pack(Kept(saved_ms=1, fine=points, coarse=points[:288]))) < 64 * 1024
    for text in ("", "nonsense", "{}", pack(Kept(saved_ms=1))[:-3], "\u20ac" * 10):
        with pytest.raises(ValueError):
            unpack(text)


def test_a_problem_is_as_old_after_a_restart_as_it_was() -> None:
    before = Diary()
    dead = Finding("dead-3", "warning", "gone")
    before.step([dead], 1_000)
    after = Diary()
    after.take_back(before.keep(), 50_000)
    assert after.step([], 51_000) == []  # it takes a while until a node counts as dead again
    assert after.keep() == {"dead-3": 1_000}
    assert after.step([dead], 80_000)[0].since_ms == 1_000
    assert after.step([], 90_000) == []
    assert after.step([dead], 95_000)[0].since_ms == 95_000  # it was over in between


def test_a_problem_from_before_is_forgotten_in_the_end() -> None:
    diary = Diary()
    diary.take_back({"dead-3": 1_000}, 50_000)
    diary.step([], 50_000 + FOUND_AGAIN_MS)
    assert diary.keep() == {}
    late = diary.step([Finding("dead-3", "warning", "gone")], 60_000 + FOUND_AGAIN_MS)
    assert late[0].since_ms == 60_000 + FOUND_AGAIN_MS
