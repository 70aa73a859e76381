"""What a process counts about itself, cheap enough for its hot paths, and how Prometheus reads it.

The counters are plain Python lists: an observation costs well under a microsecond. prometheus_client turns them into text
when somebody asks. Names follow Prometheus's guidelines: base units, `_total` for counters. Every label has a bounded set of
values, so that a process never has more than a few hundred series, whatever is stored.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .runtime import elapsed_timer, to_next_tick_s

log = logging.getLogger(__name__)
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
# From what a cached read takes to what no client waits for. Ten of them: there is a series for each, and operation.
BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
MAX_NAMES: Final = 100  # label values of one family; what comes after them is counted as "other"
LOOP_PROBE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram at one moment: how many observations fell into each bucket (the last one: beyond all bounds), and their sum."""

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def since(self, earlier: Distribution | None) -> Distribution:
        """What was added after *earlier*."""
        if earlier is None:
            return self
        counts = tuple(a - b for a, b in zip(self.counts, earlier.counts, strict=True))
        return Distribution(counts, self.total - earlier.total)

    def __add__(self, other: Distribution) -> Distribution:
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Distribution(counts, self.total + other.total)

    def quantile(self, fraction: float, bounds: Sequence[float] = BOUNDS_S) -> float:
        """The value below which *fraction* of the observations lie, taken to be even within a bucket; 0 if there are none.

        What lies beyond the last bound counts as that bound.
        """
        wanted = fraction * self.count
        if wanted <= 0:
            return 0.0
        below = 0
        for index, found in enumerate(self.counts):
            if below + found >= wanted and found:
                if index >= len(bounds):
                    return bounds[-1]
                low = bounds[index - 1] if index else 0.0
                return low + (bounds[index] - low) * (wanted - below) / found
            below += found
        return bounds[-1]


class Histograms:
    """One histogram for each value of a label. Not locked: to be used from one thread, or under the caller's lock."""

    __slots__ = ("_bounds", "_rows", "_totals")

    def __init__(self, bounds: Sequence[float] = BOUNDS_S) -> None:
        self._bounds = tuple(bounds)
        self._rows: dict[str, list[int]] = {}
        self._totals: dict[str, float] = {}

    def observe(self, name: str, value: float, count: int = 1) -> None:
        """*count* observations of the same *value*."""
        row = self._rows.get(name)
        if row is None:
            if len(self._rows) >= MAX_NAMES:
                name = "other"
            row = self._rows.setdefault(name, [0] * (len(self._bounds) + 1))
            self._totals.setdefault(name, 0.0)
        row[bisect_left(self._bounds, value)] += count
        self._totals[name] += value * count

    def snapshot(self) -> dict[str, Distribution]:
        return {
            name: Distribution(tuple(row), self._totals.get(name, 0.0))
            for name, row in list(self._rows.items())
        }

    def family(self, name: str, text: str, label: str) -> Metric:
        family = HistogramMetricFamily(name, text, labels=[label] if label else [])
        for value, found in self.snapshot().items():
            buckets: list[tuple[str, float]] = []
            below = 0
            for bound, count in zip((*self._bounds, float("inf")), found.counts, strict=True):
                below += count
                buckets.append(("+Inf" if bound == float("inf") else repr(bound), below))
            family.add_metric([value] if label else [], buckets, found.total)
        return family


class Counts:
    """Numbers that only grow, by the value of a label. Locked: block streams run in threads."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1) -> None:
        with self._lock:
            if name not in self._values and len(self._values) >= MAX_NAMES:
                name = "other"
            self._values[name] = self._values.get(name, 0) + amount

    def snapshot(self) -> dict[str, float]:
        with self._lock:
            return dict(self._values)

    def get(self, name: str) -> float:
        return self._values.get(name, 0)


def counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A family of counters, one for each value of *label*; its name without the `_total`."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def total(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def pairs(
    name: str, text: str, labels: tuple[str, str], values: Mapping[tuple[str, str], float]
) -> Metric:
    """A family of counters with two labels; its name without the `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for value, number in values.items():
        family.add_metric(value, number)
    return family


def lookups(values: Mapping[str, tuple[float, float]]) -> Metric:
    """Of caches: (hits, misses) by the cache's name. The same family in every process."""
    found: dict[tuple[str, str], float] = {}
    for cache, (hits, misses) in values.items():
        found |= {(cache, "hit"): hits, (cache, "miss"): misses}
    text = "Looks into caches, by what came of them."
    return pairs("twinfs_cache_lookups", text, ("cache", "result"), found)


def group_sizes(name: str, bounds: Sequence[int], sizes: Sequence[int], operations: int) -> Metric:
    """A histogram of operations made durable together; *sizes*: groups that fit under each of *bounds*, and the larger ones."""
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip((*map(float, bounds), float("inf")), sizes, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), below))
    family = HistogramMetricFamily(name, "Operations committed by one fsync.")
    family.add_metric([], buckets, operations)
    return family


Source = Callable[[], Iterable[Metric]]


class _Sources(Collector):
    """Families made when they are asked for."""

    def __init__(self) -> None:
        self.sources: list[Source] = []

    def collect(self) -> Iterator[Metric]:
        for source in self.sources:
            yield from source()


class Exposition:
    """Everything a process shows at `/metrics`."""

    def __init__(self, role: str, version: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._sources = _Sources()
        self.loop_delay = Histograms()
        self._facts = (role, version)
        self.add(self._own)
        self._registry.register(self._sources)

    def add(self, source: Source) -> None:
        """*source* is called for each scrape, on the event loop: it must not wait for anything."""
        self._sources.sources.append(source)

    def _own(self) -> Iterator[Metric]:
        role, version = self._facts
        info = GaugeMetricFamily("twinfs_build_info", "What runs here.", labels=["role", "version"])
        info.add_metric([role, version], 1)
        yield info
        yield self.loop_delay.family(
            "twinfs_event_loop_delay_seconds", "How late the event loop ran a timer.", ""
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)

    async def watch_loop(self, slow_s: float) -> None:
        """Measure how late timers run, until cancelled; say so when it is more than *slow_s*."""
        while True:
            began_s = elapsed_timer()
            pause_s = to_next_tick_s(began_s, LOOP_PROBE_S)
            await asyncio.sleep(pause_s)
            late_s = max(0.0, elapsed_timer() - began_s - pause_s)
            self.loop_delay.observe("", late_s)
            if late_s > slow_s:
                log.warning(
                    "the event loop was held up for %.2f s",
                    late_s,
                    extra={"fields": {"slow": "event-loop", "duration_ms": round(late_s * 1e3)}},
                )


def readiness(problems: Sequence[str], **facts: Any) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body) of `/readyz`: 200 when there are no *problems*."""
    return (503 if problems else 200), {"ready": not problems, "problems": list(problems), **facts}
