"""Counting: quantiles, bounded labels, and what Prometheus is shown."""

from __future__ import annotations

import random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from twinfs.common.metrics import MAX_NAMES, Counts, Distribution, Exposition, Histograms

BOUNDS = (1.0, 2.0, 4.0)


def test_a_histogram_sorts_observations_into_buckets() -> None:
    found = Histograms(BOUNDS)
    for value, count in ((0.5, 1), (1.0, 2), (1.5, 3), (4.1, 4)):
        found.observe("a", value, count)
    assert found.snapshot() == {"a": Distribution((3, 3, 0, 4), 0.5 + 2.0 + 4.5 + 16.4)}


def test_quantiles_lie_in_the_bucket_of_the_true_ones() -> None:
    rng = random.Random(3)
    values = sorted(rng.expovariate(1.0) for _ in range(5_000))
    found = Histograms((0.1, 0.5, 1.0, 2.0, 5.0, 20.0))
    for value in values:
        found.observe("", value)
    whole = found.snapshot()[""]
    for fraction in (0.5, 0.9, 0.99):
        true = values[int(fraction * len(values))]
        guess = whole.quantile(fraction, (0.1, 0.5, 1.0, 2.0, 5.0, 20.0))
        assert guess == pytest.approx(true, rel=0.5)


def test_quantiles_of_nothing_and_of_what_is_beyond_all_bounds() -> None:
    assert Distribution((0, 0, 0, 0), 0.0).quantile(0.99, BOUNDS) == 0.0
    assert Distribution((0, 0, 0, 5), 500.0).quantile(0.5, BOUNDS) == 4.0


def test_what_was_added_since() -> None:
    found = Histograms(BOUNDS)
    found.observe("a", 0.5)
    before = found.snapshot()["a"]
    found.observe("a", 3.0, 2)
    assert found.snapshot()["a"].since(before) == Distribution((0, 0, 2, 0), 6.0)
    assert before.since(None) == before


def test_labels_are_bounded() -> None:
    histograms, counts = Histograms(BOUNDS), Counts()
    for number in range(MAX_NAMES * 3):
        histograms.observe(f"n{number}", 1.0)
        counts.add(f"n{number}")
    assert len(histograms.snapshot()) == len(counts.snapshot()) == MAX_NAMES + 1
    assert histograms.snapshot()["other"].count == counts.get("other") == MAX_NAMES * 2


def test_the_text_is_what_prometheus_reads() -> None:
    exposition, histograms = Exposition("namenode", "1.2"), Histograms(BOUNDS)
    histograms.observe('odd "name"\n', 1.5, 3)
    exposition.add(lambda: [histograms.family("twinfs_x_seconds", "Help.", "operation")])
    families = {f.name: f for f in text_string_to_metric_families(exposition.text().decode())}
    samples = {
        (s.name, s.labels.get("le", "")): s.value for s in families["twinfs_x_seconds"].samples
    }
    assert samples[("twinfs_x_seconds_bucket", "1.0")] == 0
    assert samples[("twinfs_x_seconds_bucket", "2.0")] == 3
    assert samples[("twinfs_x_seconds_bucket", "+Inf")] == 3
    assert samples[("twinfs_x_seconds_sum", "")] == 4.5
    assert families["twinfs_x_seconds"].samples[0].labels["operation"] == 'odd "name"\n'
    assert families["twinfs_build_info"].samples[0].labels == {"role": "namenode", "version": "1.2"}
