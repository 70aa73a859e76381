"""`kill.py NAME...`: end processes at once (SIGKILL), or politely with --term."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults.targets import Target, at, chosen, dir_option, pid_option, run, send, wait_until

END_LIMIT_S = 30.0


def kill(target: Target, *, term: bool = False) -> None:
    """Back when the process is gone."""
    send(target, signal.SIGTERM if term else signal.SIGKILL)
    wait_until(lambda: not target.alive, f"{target.name} ended", END_LIMIT_S)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--term", is_flag=True, help="SIGTERM: let it end in order.")
@dir_option
@pid_option
def main(names: tuple[str, ...], term: bool, folder: Path | None, pid: int | None) -> None:
    """Kill the processes NAMES (namenode, datanode1, ...)."""
    targets = [chosen(folder, pid, name) for name in names or (None,)]
    for target in targets:
        kill(target, term=term)
        print(
            f"{target.name} (pid {target.pid}) got {'SIGTERM' if term else 'SIGKILL'} and is gone."
        )
        if pid is None:
            print(f"Undo: python scripts/faults/restart.py {target.name}{at(folder, pid)}")
        else:
            print(f"Undo: cd {shlex.quote(str(target.folder))} && {shlex.join(target.command)}")


if __name__ == "__main__":
    run(main)
