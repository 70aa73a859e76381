"""Names of files that are being made."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinfs.client.beside import beside

SUFFIX = ".4194304-139999999999999.part"  # the longest that is used


@pytest.mark.parametrize(
    "name", ["a", "a" * 255, "海" * 85, "é" * 127, "a" + "😀" * 63, "\udcff" * 255]
)
def test_whatever_name_a_file_may_have_there_is_one_beside_it(tmp_path: Path, name: str) -> None:
    """Long names that are not ASCII could not be fetched: characters were counted, and file systems count bytes."""
    goal = tmp_path / name
    made = beside(goal, SUFFIX)
    made.write_bytes(b"x")
    made.replace(goal)
    assert made.name.startswith(".") and goal.read_bytes() == b"x"
