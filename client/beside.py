"""Where a local file is while it is being made: beside its goal, so that it can be given its name in one step."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

MAX_BYTES = 200  # of the goal's name: file systems take 255 for all
_numbers = itertools.count()


def beside(goal: Path, suffix: str) -> Path:
    """A hidden name in the folder of *goal*. *suffix*: at most 50 bytes."""
    return goal.with_name("." + os.fsdecode(os.fsencode(goal.name)[:MAX_BYTES]) + suffix)


def unfinished(goal: Path) -> Path:
    """As `beside`, each time another name: several may be making the same file, and who is done first has his own bytes."""
    return beside(goal, f".{os.getpid()}-{next(_numbers)}.part")


__all__ = ["beside", "unfinished"]
