"""Where a local file is while it is being made: beside its goal, so that it can be given its name in one step."""

from __future__ import annotations

import os
from pathlib import Path

MAX_BYTES = 200  # of the goal's name: file systems take 255 for all


def beside(goal: Path, suffix: str) -> Path:
    """A hidden name in the folder of *goal*. *suffix*: at most 50 bytes."""
    return goal.with_name("." + os.fsdecode(os.fsencode(goal.name)[:MAX_BYTES]) + suffix)


__all__ = ["beside"]
