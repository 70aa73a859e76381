"""`slow_disk.py NAME --delay-s S`, `slow_disk.py NAME --fail`: a disk that is slow, or that fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

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
    volume_of,
)
from twinfs.common.faults import Rule

POINTS = {
    "reads": ("disk.read",),
    "writes": ("disk.write",),
    "syncs": ("*.sync", "*.folder", "database.*"),
}


def slow(
    target: Target,
    delay_s: float,
    *,
    what: tuple[str, ...] = ("reads", "writes", "syncs"),
    volume: int | None = None,
) -> None:
    """Each of *what* takes *delay_s* longer, on one volume or on all."""
    for kind in what:
        for point in POINTS[kind]:
            target.add_rule(
                Rule(
                    id=f"disk slow {point} {_under(target, volume)}",
                    point=point,
                    do="delay",
                    delay_s=delay_s,
                    under=_under(target, volume),
                )
            )


def fail(
    target: Target,
    *,
    what: tuple[str, ...] = ("reads", "writes"),
    volume: int | None = None,
    errno: Literal["EIO", "ENOSPC", "EROFS"] = "EIO",
    probability: float = 1.0,
    seed: int = 0,
) -> None:
    """Each of *what* fails, with a probability."""
    for kind in what:
        for point in POINTS[kind]:
            target.add_rule(
                Rule(
                    id=f"disk {errno} {point} {_under(target, volume)}",
                    point=point,
                    do="error",
                    errno=errno,
                    probability=probability,
                    seed=seed,
                    under=_under(target, volume),
                )
            )


def heal(target: Target) -> int:
    """The disks work again; how many rules there were."""
    return target.drop_rules(lambda rule: rule.id.startswith("disk "))


def _under(target: Target, volume: int | None) -> str:
    if volume is None:
        return ""
    return str(volume_of(target, volume))


def _given(*options: str) -> bool:
    """Whether the command line says one of them."""
    context = click.get_current_context()
    return any(
        context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE
        for option in options
    )


@click.command()
@click.argument("name", required=False)
@click.option("--delay-s", type=click.FloatRange(0.0), default=None, help="How much slower.")
@click.option("--fail", "fails", is_flag=True, help="It fails instead.")
@click.option("--errno", type=click.Choice(["EIO", "ENOSPC", "EROFS"]), default="EIO", help="How.")
@click.option("--probability", type=click.FloatRange(0, 1), default=1.0, help="How often it fails.")
@click.option("--seed", default=0, help="Of the chance.")
@click.option(
    "--volume", type=int, default=None, help="Number of the volume, from 1; all if not given."
)
@click.option(
    "--only",
    type=click.Choice(list(POINTS)),
    multiple=True,
    help="Reads, writes or syncs only.",
)
@click.option("--heal", "healing", is_flag=True, help="The disk works again.")
@dir_option
@pid_option
def main(
    name: str | None,
    delay_s: float | None,
    fails: bool,
    errno: Literal["EIO", "ENOSPC", "EROFS"],
    probability: float,
    seed: int,
    volume: int | None,
    only: tuple[str, ...],
    healing: bool,
    folder: Path | None,
    pid: int | None,
) -> None:
    """Make a disk of the process NAME slow or failing (it has to have a fault plan)."""
    target = chosen(folder, pid, name)
    if (delay_s is not None) + fails + healing != 1:
        raise CantBreak("say one of --delay-s S, --fail, --heal")
    if not fails and _given("errno", "probability", "seed"):
        raise CantBreak("--errno, --probability and --seed go with --fail")
    if healing and _given("volume", "only"):
        raise CantBreak("--heal takes all faults from all disks of a process")
    if (
        target.role != "datanode"
        and {"reads", "writes"} & set(only or ("reads", "writes"))
        and fails
    ):
        raise CantBreak(f"{target.name} is no DataNode: of its disk, --only syncs can fail")
    which = "all volumes" if volume is None else f"volume {volume}"
    if healing:
        print(f"{counted(heal(target), 'fault')} taken from the disks of {target.name}.")
        say_if_ended(target, folder)
        return
    if delay_s is not None:
        slow(target, delay_s, what=only or tuple(POINTS), volume=volume)
        print(f"{', '.join(only or POINTS)} on {which} of {target.name} take {delay_s:g} s longer.")
    else:
        what = only or ("reads", "writes")
        fail(target, what=what, volume=volume, errno=errno, probability=probability, seed=seed)
        print(
            f"{', '.join(what)} on {which} of {target.name} fail with {errno}"
            + (f", {probability:.0%} of them." if probability < 1 else ".")
        )
    words = f" {name}" if name else ""
    print(f"Undo: python scripts/faults/slow_disk.py{words} --heal{at(folder, pid)}")


if __name__ == "__main__":
    run(main)
