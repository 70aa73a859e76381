"""The recent past in memory: rates, quantiles, growth; which directories are asked for; since when something is wrong.

Plain cores: they are told what the counters stand at and what time it is.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ..common.metrics import Distribution
from ..common.model import Struct
from ..common.watch import History, HistoryPoint, Problem

FINE_S: Final = 10.0
FINE_POINTS: Final = 360
COARSE_S: Final = 300.0
COARSE_POINTS: Final = 288
DAY_S: Final = 86_400.0
GROWTH_S: Final = 1_800.0  # a shorter time tells nothing of a day
# So long after a start, problems that there were before it may be found again and count as the same ones.
FOUND_AGAIN_MS: Final = 600_000
# They wait on purpose, or are said by DataNodes: no client has them in its latency.
NOT_CLIENTS: Final = frozenset(
    {
        "heartbeat",
        "register",
        "block_report",
        "incremental_report",
        "commit_recovery",
        "renew_lease",
    }
)
NOTHING: Final = Distribution((0,) * 11, 0.0)


@dataclass(frozen=True, slots=True)
class Counters:
    """What the counters stood at."""

    latencies: Mapping[str, Distribution] = field(default_factory=dict)
    errors: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0

    def clients(self) -> Distribution:
        found = NOTHING
        for name, latency in self.latencies.items():
            if name not in NOT_CLIENTS:
                found = found + latency
        return found


@dataclass(frozen=True, slots=True)
class Level:
    """What is not counted but stands at some level."""

    used_bytes: int = 0
    capacity_bytes: int = 0
    live_nodes: int = 0
    repair: int = 0
    files: int = 0


class _Ring:
    """Points of one resolution."""

    def __init__(self, interval_s: float, points: int) -> None:
        self.interval_s = interval_s
        self.points: collections.deque[HistoryPoint] = collections.deque(maxlen=points)
        self._began: tuple[float, Counters, Distribution] | None = None

    def step(self, counters: Counters, level: Level, now_s: float, time_ms: int) -> None:
        clients = counters.clients()
        if self._began is None:
            self._began = (now_s, counters, clients)
            return
        began_s, before, clients_before = self._began
        passed_s = now_s - began_s
        if passed_s < self.interval_s:
            return
        self._began = (now_s, counters, clients)
        calls = clients.since(clients_before)
        self.points.append(
            HistoryPoint(
                time_ms=time_ms,
                calls_s=round(calls.count / passed_s, 3),
                errors_s=round(max(0.0, counters.errors - before.errors) / passed_s, 3),
                p50_s=round(calls.quantile(0.5), 6),
                p99_s=round(calls.quantile(0.99), 6),
                # A node that restarted counts anew.
                received_bytes_s=round(
                    max(0, counters.received_bytes - before.received_bytes) / passed_s, 1
                ),
                sent_bytes_s=round(max(0, counters.sent_bytes - before.sent_bytes) / passed_s, 1),
                used_bytes=level.used_bytes,
                capacity_bytes=level.capacity_bytes,
                live_nodes=level.live_nodes,
                repair=level.repair,
                files=level.files,
            )
        )

    def recent(self) -> list[HistoryPoint]:
        """The points of the time that the ring is for: after a restart older ones may stand before a gap."""
        if not self.points:
            return []
        limit_ms = self.interval_s * (self.points.maxlen or 0) * 1000
        newest_ms = self.points[-1].time_ms
        return [point for point in self.points if newest_ms - point.time_ms <= limit_ms]


class Past:
    """The last moments, the last hour, the last day."""

    def __init__(self, live_s: float = 2.0) -> None:
        self._live = _Ring(live_s, 30)
        self._fine = _Ring(FINE_S, FINE_POINTS)
        self._coarse = _Ring(COARSE_S, COARSE_POINTS)

    def step(self, counters: Counters, level: Level, now_s: float, time_ms: int) -> None:
        for ring in (self._live, self._fine, self._coarse):
            ring.step(counters, level, now_s, time_ms)

    @property
    def now(self) -> HistoryPoint:
        return self._live.points[-1] if self._live.points else HistoryPoint(time_ms=0)

    def history(self, span: Literal["hour", "day"]) -> History:
        ring = self._fine if span == "hour" else self._coarse
        return History(span=span, interval_s=ring.interval_s, points=ring.recent())

    def keep(self) -> tuple[list[HistoryPoint], list[HistoryPoint]]:
        """The points of the last hour and of the last day, for `take_back` after a restart."""
        return list(self._fine.points), list(self._coarse.points)

    def take_back(self, fine: Iterable[HistoryPoint], coarse: Iterable[HistoryPoint]) -> None:
        """What `keep` gave before a restart. The time between is a gap."""
        for ring, points in ((self._fine, fine), (self._coarse, coarse)):
            since = list(ring.points)
            ring.points.clear()
            ring.points.extend([*points, *since])

    def growth_bytes_day(self) -> float | None:
        """How fast the space used grows, from the oldest to the newest point of the last day; None before there is half an hour."""
        points = self._coarse.recent() if len(self._coarse.points) > 2 else self._fine.recent()
        # Before the nodes have all reported, the space used only seems to grow.
        known = [point for point in points if point.live_nodes == points[-1].live_nodes]
        passed_s = (known[-1].time_ms - known[0].time_ms) / 1000 if known else 0.0
        if passed_s < GROWTH_S:
            return None
        return (known[-1].used_bytes - known[0].used_bytes) / passed_s * DAY_S


class Hot:
    """The directories most asked for, of a sample. Bounded; counts fade, so that yesterday's are forgotten."""

    LIMIT: Final = 1_000
    HALF_LIFE_S: Final = 30.0

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}

    def note(self, path: str, weight: float) -> None:
        """*weight* calls were about *path*, or so."""
        folder = path.rpartition("/")[0] or "/"
        known = self._weights.get(folder)
        if known is None and len(self._weights) >= self.LIMIT:
            # The least of them makes room, and hands its count on: what is really hot is not overlooked.
            least = min(self._weights, key=self._weights.__getitem__)
            known = self._weights.pop(least)
        self._weights[folder] = (known or 0.0) + weight

    def fade(self, passed_s: float) -> None:
        keep = 0.5 ** (passed_s / self.HALF_LIFE_S)
        self._weights = {
            path: weight * keep for path, weight in self._weights.items() if weight * keep > 0.05
        }

    def top(self, count: int) -> list[tuple[str, float]]:
        """(directory, calls per second), most first. A steady rate adds up to rate * half-life / ln 2."""
        rate = 0.6931 / self.HALF_LIFE_S
        found = sorted(self._weights.items(), key=lambda entry: -entry[1])[:count]
        return [(path, round(weight * rate, 2)) for path, weight in found]


class Kept(Struct, frozen=True, kw_only=True):
    """Charts and the beginnings of problems, as written down (`keeping.py`). Fields may be added; unknown ones are ignored."""

    saved_ms: int
    fine: list[HistoryPoint] = []
    coarse: list[HistoryPoint] = []
    since_ms: dict[str, int] = {}  # of each problem that there was, by its code


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem as it is now; `Diary` knows since when."""

    code: str
    severity: Literal["critical", "warning"]
    text: str
    doing: str = ""
    eta_s: float = -1.0


class Diary:
    """Since when each problem has been there."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._until_ms = 0

    def take_back(self, since_ms: Mapping[str, int], now_ms: int) -> None:
        """Problems that there were before a restart: who is found again soon has been there since then."""
        self._before, self._until_ms = dict(since_ms), now_ms + FOUND_AGAIN_MS

    def keep(self) -> dict[str, int]:
        """For `take_back`; what was not found again yet is kept, too."""
        return {**self._before, **self._since}

    def step(self, findings: Iterable[Finding], now_ms: int) -> list[Problem]:
        """The problems, the gravest and oldest first. What is not found again is over."""
        found = {finding.code: finding for finding in findings}
        if now_ms >= self._until_ms:
            self._before = {}
        self._since = {
            code: self._since.get(code) or self._before.pop(code, now_ms) for code in found
        }
        problems = [
            Problem(
                code=finding.code,
                severity=finding.severity,
                text=finding.text,
                since_ms=self._since[code],
                doing=finding.doing,
                eta_s=finding.eta_s,
            )
            for code, finding in found.items()
        ]
        return sorted(problems, key=lambda p: (p.severity != "critical", p.since_ms, p.code))


class Pace:
    """How fast a queue empties: blocks per second, smoothed."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self.per_s = 0.0

    def step(self, length: int, now_s: float) -> float:
        """*length* now; the seconds until the queue is empty, -1 when nobody can say."""
        if self._last is not None and now_s > self._last[0]:
            gone = (self._last[1] - length) / (now_s - self._last[0])
            # What joined the queue hides what left it: only shrinking tells of the pace.
            if gone > 0:
                self.per_s = gone if not self.per_s else 0.7 * self.per_s + 0.3 * gone
        self._last = (now_s, length)
        if not length:
            self.per_s = 0.0
            return 0.0
        return length / self.per_s if self.per_s else -1.0
