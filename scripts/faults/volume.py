"""`volume.py delete NAME`, `volume.py fill NAME`: take a DataNode's volume away, or its free space."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults import slow_disk
from scripts.faults.targets import (
    CantBreak,
    Target,
    at,
    chosen,
    dir_option,
    pid_option,
    run,
    say_if_ended,
    volume_of,
)

FILLER = "filler"
PIECE_BYTES = 1 << 20


def aside(volume: Path) -> Path:
    return volume.with_name(f"{volume.name}.deleted")


def delete(target: Target, number: int = 1) -> Path:
    """Take the volume's directory away under a running process; where it is kept."""
    volume = volume_of(target, number)
    if aside(volume).exists():
        raise CantBreak(f"{aside(volume)} is there from before: `volume.py restore` puts it back")
    if not volume.is_dir():
        raise CantBreak(f"there is no {volume}")
    volume.rename(aside(volume))
    return aside(volume)


def restore(target: Target, number: int = 1) -> None:
    """Put a deleted volume back."""
    volume = volume_of(target, number)
    if not aside(volume).exists():
        raise CantBreak(
            f"volume {number} of {target.name} was not deleted: there is no {aside(volume)}"
        )
    if volume.exists():
        raise CantBreak(f"{volume} is there again; move it away first")
    aside(volume).rename(volume)


def fill(target: Target, number: int = 1, *, leave_bytes: int = 0) -> str:
    """Use up the space of a volume that is a file system of its own; else have its writes fail as on a full disk."""
    volume = volume_of(target, number)
    if volume.stat().st_dev == volume.parent.stat().st_dev:
        slow_disk.fail(target, what=("writes",), volume=number, errno="ENOSPC")
        return "writes to it fail with ENOSPC (it is no file system of its own, so the disk was spared)"
    written = 0
    with (volume / FILLER).open("wb", buffering=0) as file:
        while True:
            facts = os.statvfs(volume)
            left = facts.f_bavail * facts.f_frsize - leave_bytes
            if left <= 0:
                break
            try:
                written += file.write(bytes(min(PIECE_BYTES, left)))
            except OSError:
                break
    return f"{written} bytes of a filler lie on it"


def empty(target: Target, number: int = 1) -> None:
    """Undo `fill`."""
    volume = volume_of(target, number)
    (volume / FILLER).unlink(missing_ok=True)
    if target.setting("faults"):
        # Other faults of its disks stay.
        target.drop_rules(lambda rule: rule.errno == "ENOSPC" and rule.under == str(volume))


@click.command()
@click.argument("what", type=click.Choice(["delete", "restore", "fill", "empty"]))
@click.argument("name", required=False)
@click.option("--volume", "number", type=int, default=1, help="Number of the volume, from 1.")
@click.option("--leave-bytes", type=click.IntRange(0), default=0, help="fill: leave so many free.")
@dir_option
@pid_option
def main(
    what: str,
    name: str | None,
    number: int,
    leave_bytes: int,
    folder: Path | None,
    pid: int | None,
) -> None:
    """Delete a volume of the DataNode NAME, or fill it; restore and empty undo that."""
    target = chosen(folder, pid, name)
    words = " ".join(word for word in (name or "", f"--volume {number}") if word)
    if what == "delete":
        print(f"Volume {number} of {target.name} is gone; it is kept as {delete(target, number)}.")
        undo = "restore"
    elif what == "fill":
        print(
            f"Volume {number} of {target.name} is full: {fill(target, number, leave_bytes=leave_bytes)}."
        )
        undo = "empty"
    else:
        (restore if what == "restore" else empty)(target, number)
        again = "back" if what == "restore" else "no longer full"
        print(f"Volume {number} of {target.name} is {again}.")
        if what == "restore" and target.alive:
            print("A process that has given the volume up takes it again when it is restarted.")
        say_if_ended(target, folder)
        return
    print(f"Undo: python scripts/faults/volume.py {undo} {words}{at(folder, pid)}")


if __name__ == "__main__":
    run(main)
