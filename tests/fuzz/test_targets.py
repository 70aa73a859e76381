"""Every fuzz target, with hypothesis: seeds, and what is near them."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .targets import ALL, seeds

EXAMPLES = int(os.environ.get("TWINFS_FUZZ_EXAMPLES", "60"))
SEEDS = seeds()
near = st.builds(
    lambda seed, at, junk, cut: seed[:at] + junk + seed[at + cut :],
    st.sampled_from(SEEDS),
    st.integers(0, 80),
    st.binary(max_size=12),
    st.integers(0, 12),
)


@pytest.mark.parametrize("name", list(ALL))
def test_seeds(name: str) -> None:
    for seed in SEEDS:
        ALL[name](seed)


@pytest.mark.parametrize("name", list(ALL))
def test_anything_gives_a_right_answer_or_a_typed_error(name: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=400), near))
    def run(data: bytes) -> None:
        ALL[name](data)

    run()
