"""Bits flipped in replicas and indexes of a running cluster: a short form of `scripts/flips.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.faults.local import LocalFaultyCluster
from scripts.flips import Flipper, main


@pytest.mark.timeout(300)
async def test_every_flip_is_found_none_is_read_and_all_are_healed(tmp_path: Path) -> None:
    with LocalFaultyCluster(tmp_path, datanodes=4, volumes=2, proxy=False) as cluster:
        found = await Flipper(cluster, seed=2).run(24, 25, replicas=10)
    assert found.flips == 24
    assert found.good, str(found)
    assert found.by_scrubbers + found.by_readers + found.at_start == 24
    assert found.by_scrubbers > 12
    assert found.reads == 50


@pytest.mark.parametrize("words", ["--flips 0", "--flips -3", "--files 0"])
def test_no_flips_are_no_success(words: str) -> None:
    assert CliRunner().invoke(main, words.split()).exit_code == 2
