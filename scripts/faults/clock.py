"""`clock.py NAME --offset-s N --rate R`: set a process's clock wrong; with neither, right again."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults.targets import (
    Target,
    at,
    chosen,
    dir_option,
    pid_option,
    run,
    say_if_ended,
)
from twinfs.common.faults import Skew


def skew(target: Target, *, offset_s: float = 0.0, rate: float = 1.0) -> None:
    """*offset_s* shifts its dates, *rate* is how fast its time runs."""
    wrong = Skew(offset_s=offset_s, rate=rate)
    target.change_plan(lambda plan: msgspec.structs.replace(plan, clock=wrong))


@click.command()
@click.argument("name", required=False)
@click.option(
    "--offset-s", type=float, default=0.0, help="Seconds its dates are ahead (or behind)."
)
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 100),
    default=1.0,
    help="How fast its time runs; 2 is twice as fast as ours.",
)
@dir_option
@pid_option
def main(
    name: str | None, offset_s: float, rate: float, folder: Path | None, pid: int | None
) -> None:
    """Set the clock of the process NAME wrong (it has to have a fault plan)."""
    target = chosen(folder, pid, name)
    skew(target, offset_s=offset_s, rate=rate)
    if offset_s == 0.0 and rate == 1.0:
        print(f"The clock of {target.name} is right.")
        say_if_ended(target, folder)
        return
    print(
        f"The clock of {target.name} is {offset_s:+g} s off and runs at {rate:g} times our speed."
    )
    words = f" {name}" if name else ""
    print(f"Undo: python scripts/faults/clock.py{words}{at(folder, pid)}")


if __name__ == "__main__":
    run(main)
