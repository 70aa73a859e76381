"""`pause.py NAME...`: stop processes without ending them (SIGSTOP), as a machine that hangs; --resume goes on."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults.targets import Target, at, chosen, dir_option, pid_option, run, send


def pause(target: Target) -> None:
    send(target, signal.SIGSTOP)


def resume(target: Target) -> None:
    send(target, signal.SIGCONT)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--resume", "going_on", is_flag=True, help="Let them go on.")
@dir_option
@pid_option
def main(names: tuple[str, ...], going_on: bool, folder: Path | None, pid: int | None) -> None:
    """Pause (or resume) the processes NAMES."""
    targets = [chosen(folder, pid, name) for name in names or (None,)]
    for target, name in zip(targets, names or ("",), strict=True):
        (resume if going_on else pause)(target)
        print(f"{target.name} (pid {target.pid}) {'goes on' if going_on else 'is paused'}.")
        words = " ".join(word for word in (name, "" if going_on else "--resume") if word)
        print(f"Undo: python scripts/faults/pause.py {words}{at(folder, pid)}")


if __name__ == "__main__":
    run(main)
