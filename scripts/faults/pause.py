"""`pause.py NAME...`: stop processes without ending them (SIGSTOP), as a machine that hangs; --resume goes on."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from scripts.faults.targets import Target, at, chosen, dir_option, pid_option, run, send, wait_until

PAUSE_LIMIT_S = 10.0  # a thread that waits for a disk stops after that


def pause(target: Target) -> None:
    send(target, signal.SIGSTOP)


def resume(target: Target) -> None:
    send(target, signal.SIGCONT)


def is_paused(target: Target) -> bool:
    try:
        facts = Path(f"/proc/{target.pid}/stat").read_text()
    except OSError:
        return False
    return target.alive and facts.rpartition(")")[2].split()[0] == "T"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--resume", "going_on", is_flag=True, help="Let them go on.")
@dir_option
@pid_option
def main(names: tuple[str, ...], going_on: bool, folder: Path | None, pid: int | None) -> None:
    """Pause (or resume) the processes NAMES."""
    targets = [chosen(folder, pid, name) for name in names or (None,)]
    for target, name in zip(targets, names or ("",), strict=True):
        was_paused = is_paused(target)
        (resume if going_on else pause)(target)
        if not going_on:
            wait_until(lambda target=target: is_paused(target), "it is paused", PAUSE_LIMIT_S)  # type: ignore[misc]
        elif not was_paused:
            print(f"{target.name} (pid {target.pid}) was not paused.")
            continue
        print(f"{target.name} (pid {target.pid}) {'goes on' if going_on else 'is paused'}.")
        words = " ".join(word for word in (name, "" if going_on else "--resume") if word)
        print(f"Undo: python scripts/faults/pause.py {words}{at(folder, pid)}")


if __name__ == "__main__":
    run(main)
