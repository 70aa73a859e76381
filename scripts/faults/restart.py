"""`restart.py NAME...`: start processes that were killed or crashed, on their old ports."""

from __future__ import annotations

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults.targets import CantBreak, Cluster, at, dir_option, run


@click.command()
@click.argument("names", nargs=-1)
@dir_option
def main(names: tuple[str, ...], folder: Path | None) -> None:
    """Start the dead processes NAMES again (all that are dead, if none is named)."""
    cluster = Cluster(folder)
    if not cluster.names:
        raise cluster.nothing_here()
    wanted = names or tuple(n for n in cluster.names if not cluster.target(n).alive)
    for name in wanted:
        if cluster.target(name).alive:
            raise CantBreak(f"{name} is running (pid {cluster.target(name).pid})")
    for name in wanted:
        target = cluster.restart(name)
        print(f"{name} is running again (pid {target.pid}).")
        print(f"Undo: python scripts/faults/kill.py {name}{at(folder, None)}")
    if not wanted:
        print("Nothing was dead.")


if __name__ == "__main__":
    run(main)
