"""`crash.py points`, `crash.py at NAME POINT`, `crash.py now NAME`: end a process at a chosen moment of its work.

Every fsync, rename, link and commit is a point. With --power-loss the process first takes away what it had not made
durable, as if the machine had lost power.
"""

from __future__ import annotations

import fnmatch
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults.targets import (
    CantBreak,
    Target,
    at,
    chosen,
    counted,
    dir_option,
    pid_option,
    run,
    say_if_ended,
    wait_until,
)
from twinfs.common.disk import POINTS
from twinfs.common.faults import NOW, Rule

CRASH_LIMIT_S = 30.0


def arm(
    target: Target,
    point: str,
    *,
    after: bool = False,
    skip: int = 0,
    power_loss: bool = False,
) -> None:
    """Have it crash when it comes to *point* for the (skip + 1)th time."""
    if not fnmatch.filter(POINTS, point):
        raise CantBreak(f"there is no point {point!r}; `crash.py points` lists them")
    if power_loss:
        _require_tracking(target)
    target.add_rule(
        Rule(
            id=f"crash {point}",
            point=point,
            do="power-loss" if power_loss else "crash",
            when="after" if after else "before",
            skip=skip,
        )
    )


def disarm(target: Target) -> int:
    """Take back all crashes that have not happened (or that would happen again after a restart)."""
    return target.drop_rules(lambda rule: rule.do in ("crash", "power-loss"))


def power_loss(target: Target) -> None:
    """Lose power now: the process is gone when this returns, and what it had not made durable, too."""
    if not target.alive:
        raise CantBreak(f"{target.name} is not running")
    _require_tracking(target)
    rule = Rule(id="power-loss now", point=NOW, do="power-loss")
    target.add_rule(rule, wait=False)
    wait_until(lambda: not target.alive, f"{target.name} crashed", CRASH_LIMIT_S)
    disarm(target)


def _require_tracking(target: Target) -> None:
    from twinfs.common.faults import read_plan

    if not read_plan(target.plan_file).track:
        raise CantBreak(
            f'{target.name} does not keep track of what is durable: it has to be started with "track": '
            "true in its fault plan, as `dfs cluster start --faults` does"
        )


@click.group()
def main() -> None:
    """Crash a process at a point of its work."""


@main.command()
def points() -> None:
    """List the points."""
    width = max(map(len, POINTS))
    for name, what in POINTS.items():
        print(f"{name:{width}}  {what}")


def _named(name: str | None) -> str:
    return f" {name}" if name else ""


def _tell_of_restart(when: str, name: str | None, folder: Path | None) -> None:
    if name is None:
        print(f"{when}: start it again as it was started.")
    else:
        print(f"{when}: python scripts/faults/restart.py {name}{at(folder, None)}")


@main.command("at")
@click.argument("words", nargs=-1, required=True, metavar="NAME POINT")
@click.option("--after", is_flag=True, help="Right after it, not before.")
@click.option("--skip", type=click.IntRange(0), default=0, help="Let it pass so often before.")
@click.option("--power-loss", "loses", is_flag=True, help="Lose what is not durable.")
@dir_option
@pid_option
def at_command(
    words: tuple[str, ...],
    after: bool,
    skip: int,
    loses: bool,
    folder: Path | None,
    pid: int | None,
) -> None:
    """Crash NAME (or --pid PID without a name) when it comes to POINT (a name or a pattern)."""
    *names, point = words
    if len(names) != (0 if pid is not None else 1):
        raise click.UsageError("give NAME POINT, or --pid PID POINT")
    name = names[0] if names else None
    target = chosen(folder, pid, name)
    arm(target, point, after=after, skip=skip, power_loss=loses)
    how = "loses power" if loses else "crashes"
    print(f"{target.name} {how} {'after' if after else 'before'} {point}, visit {skip + 1}.")
    print(f"Undo: python scripts/faults/crash.py disarm{_named(name)}{at(folder, pid)}")
    _tell_of_restart("and, once it has happened", name, folder)


@main.command("now")
@click.argument("name", required=False)
@dir_option
@pid_option
def now_command(name: str | None, folder: Path | None, pid: int | None) -> None:
    """NAME loses power at once. (Without loss of data: kill.py.)"""
    target = chosen(folder, pid, name)
    power_loss(target)
    print(f"{target.name} has lost power. What it lost is the last line of {target.plan_file}.log")
    _tell_of_restart("Undo", name, folder)


@main.command("disarm")
@click.argument("name", required=False)
@dir_option
@pid_option
def disarm_command(name: str | None, folder: Path | None, pid: int | None) -> None:
    """Take back the crashes of NAME that have not happened."""
    target = chosen(folder, pid, name)
    print(f"{counted(disarm(target), 'crash', 'es')} taken back from {target.name}.")
    say_if_ended(target, folder)


if __name__ == "__main__":
    run(main)
