"""Which processes to break: those of a cluster's folder (`dfs cluster start --dir FOLDER`), or any given by its pid.

What a process was started with is read from the kernel, so that a DataNode started by hand with `--config FILE` is
as good a target as one of `dfs cluster`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from twinfs.client.cli.cluster import LocalCluster, default_folder, is_alive, started
from twinfs.common import faults
from twinfs.common.config import ROLES, load
from twinfs.common.errors import DfsError
from twinfs.common.faults import Plan, Rule
from twinfs.common.runtime import SystemClock

TAKEN_LIMIT_S = 10.0
POLL_S = 0.02


class CantBreak(click.ClickException):
    """What was asked for can't be done; nothing was changed."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One server process, alive or not."""

    name: str
    pid: int
    started: str
    command: tuple[str, ...]  # from the interpreter on
    folder: Path  # its working directory

    @property
    def alive(self) -> bool:
        return is_alive({"pid": self.pid, "started": self.started})

    @property
    def role(self) -> str:
        for role in ("namenode", "datanode"):
            if f"twinfs.{role}" in self.command or role in self.command:
                return role
        for word in self.command:
            if word.rpartition(".")[2] in ("namenode", "datanode"):
                return word.rpartition(".")[2]
        raise CantBreak(f"process {self.pid} is neither a NameNode nor a DataNode")

    def setting(self, name: str) -> Any:
        """A field of the configuration it was started with."""
        flags = _flags(self.command)
        role = ROLES[self.role]
        file = flags.pop("config", [None])[0]
        given = {
            field.name: flags[field.name]
            if field.name in ("dir", "namenode")
            else flags[field.name][-1]
            for field in dataclasses.fields(role)
            if field.name in flags
        }
        if self.role == "namenode" and "dir" in given:
            given["dir"] = given["dir"][-1]
        return getattr(load(role, given, file=file and str(self.folder / file)), name)

    @property
    def volumes(self) -> list[Path]:
        """The directories of a DataNode; of a NameNode, the one its database lies in."""
        found = self.setting("dir")
        paths = [found] if isinstance(found, str) else list(found)
        return [(self.folder / path).resolve() for path in paths]

    # --- the plan of faults ---

    @property
    def plan_file(self) -> Path:
        found = self.setting("faults")
        if not found:
            raise CantBreak(
                f"{self.name} was not started with a fault plan: start it with --faults FILE, or the "
                "cluster with `dfs cluster start --faults`"
            )
        return (self.folder / found).resolve()

    def change_plan(self, change: Callable[[Plan], Plan], *, wait: bool = True) -> Plan:
        """Change what happens at its points; back when the process has taken the new plan (if it lives)."""
        file = self.plan_file
        plan = change(faults.read_plan(file))
        plan = msgspec.structs.replace(plan, version=plan.version + 1)
        try:
            plan = msgspec.convert(msgspec.to_builtins(plan), Plan)
        except msgspec.ValidationError as error:
            raise CantBreak(str(error)) from None
        faults.write_plan(file, plan)
        if wait and self.alive:
            taken = Path(f"{file}.taken")
            wait_until(
                lambda: (
                    not self.alive or (taken.exists() and taken.read_text() == str(plan.version))
                ),
                f"{self.name} took its new plan",
                TAKEN_LIMIT_S,
            )
        return plan

    def add_rule(self, rule: Rule, *, wait: bool = True) -> None:
        def change(plan: Plan) -> Plan:
            others = [known for known in plan.rules if known.id != rule.id]
            return msgspec.structs.replace(plan, rules=[*others, rule])

        self.change_plan(change, wait=wait)

    def drop_rules(self, wanted: Callable[[Rule], bool], *, wait: bool = True) -> int:
        """Take rules out of its plan; how many there were."""
        dropped = 0

        def change(plan: Plan) -> Plan:
            nonlocal dropped
            kept = [rule for rule in plan.rules if not wanted(rule)]
            dropped = len(plan.rules) - len(kept)
            return msgspec.structs.replace(plan, rules=kept)

        self.change_plan(change, wait=wait)
        return dropped


def _flags(command: Sequence[str]) -> dict[str, list[str]]:
    """The options in a command line, by the names of their fields."""
    found: dict[str, list[str]] = {}
    words = list(command)
    for index, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = words[index + 1] if index + 1 < len(words) else ""
        found.setdefault(name.replace("-", "_"), []).append(value)
    return found


def by_pid(pid: int) -> Target:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        folder = Path(f"/proc/{pid}/cwd").resolve()
    except OSError as error:
        raise CantBreak(f"there is no process {pid} to be broken: {error.strerror}") from None
    command = tuple(text.rstrip("\0").split("\0"))
    target = Target(f"process {pid}", pid, started(pid), command, folder)
    target.role  # noqa: B018  refuses what is no server of ours
    return target


class Cluster:
    """A cluster in a folder, as `dfs cluster start` left it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.local = LocalCluster(folder)
        self.folder = self.local.folder
        self.faults = self.folder / "faults"

    def entries(self) -> list[dict[str, Any]]:
        return list(self.local.state().get("processes", []))

    @property
    def names(self) -> list[str]:
        return [entry["name"] for entry in self.entries()]

    def entry(self, name: str) -> dict[str, Any]:
        for entry in self.entries():
            if entry["name"] == name:
                return entry
        if not self.names:
            raise self.nothing_here()
        raise CantBreak(
            f"there is no {name!r} in the cluster at {self.folder}: {', '.join(self.names)}"
        )

    def nothing_here(self) -> CantBreak:
        return CantBreak(f"there is no cluster in {self.folder}; `dfs cluster start` starts one")

    def target(self, name: str) -> Target:
        entry = self.entry(name)
        return Target(
            name, entry["pid"], entry["started"], tuple(entry.get("command", ())), self.folder
        )

    @property
    def url(self) -> str:
        return f"http://{self.entry('namenode')['http']}"

    def addresses(self, name: str) -> list[str]:
        entry = self.entry(name)
        return [entry[key] for key in ("http", "data") if entry.get(key)]

    def restart(self, name: str) -> Target:
        """Start a dead process again, on its old ports; back when it answers."""
        entry = self.entry(name)
        if is_alive(entry):
            raise CantBreak(f"{name} is running (pid {entry['pid']})")
        if not entry.get("command"):
            raise CantBreak(f"it is not known how {name} was started")
        command = entry["command"]
        where = command.index("-m")  # before it: the interpreter, and perhaps `ip netns exec NAME`
        arguments = list(command[where + 2 :])
        for flag, key in (("--port", "http"), ("--data-port", "data")):
            if flag in arguments and entry.get(key):
                arguments[arguments.index(flag) + 1] = entry[key].rpartition(":")[2]
        again = self.local.spawn(
            name, arguments, module=command[where + 1], prefix=command[: where - 1]
        )
        state = self.local.state()
        state["processes"] = [
            again if known["name"] == name else known for known in state["processes"]
        ]
        self.local.save(state)
        return self.target(name)

    def undo_command(self, words: str) -> str:
        at = "" if self.folder == default_folder().resolve() else f" --dir {self.folder}"
        return f"python scripts/faults/{words}{at}"


def wait_until(condition: Callable[[], bool], what: str, limit_s: float) -> None:
    clock, pause = SystemClock(), threading.Event()
    deadline_s = clock.monotonic_s() + limit_s
    while not condition():
        if clock.monotonic_s() > deadline_s:
            raise CantBreak(f"it did not come true within {limit_s:.0f} s that {what}")
        pause.wait(POLL_S)


def send(target: Target, number: signal.Signals) -> None:
    if not target.alive:
        raise CantBreak(f"{target.name} is not running")
    os.kill(target.pid, number)


def volume_of(target: Target, number: int) -> Path:
    """A DataNode's volume by its number, from 1."""
    if target.role != "datanode":
        raise CantBreak(f"{target.name} is no DataNode: it has no volumes")
    volumes = target.volumes
    if not 1 <= number <= len(volumes):
        raise CantBreak(f"{target.name} has the volumes 1 to {len(volumes)}, not {number}")
    return volumes[number - 1]


def counted(number: int, what: str, plural: str = "s") -> str:
    """A number and its noun."""
    return f"{number} {what}{'' if number == 1 else plural}"


# --- options that all commands share ---

dir_option = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the cluster [default: that of `dfs cluster`].",
)
pid_option = click.option("--pid", type=int, default=None, help="A process that is in no folder.")


def chosen(folder: Path | None, pid: int | None, name: str | None) -> Target:
    """The process that a command line means."""
    if pid is not None:
        if name is not None:
            raise CantBreak("give a name or --pid, not both")
        return by_pid(pid)
    if name is None:
        cluster = Cluster(folder)
        if not cluster.names:
            raise cluster.nothing_here()
        raise CantBreak(f"name a process: {', '.join(cluster.names)}")
    return Cluster(folder).target(name)


def at(folder: Path | None, pid: int | None) -> str:
    """What to add to an undo command so that it finds the same process."""
    if pid is not None:
        return f" --pid {pid}"
    return "" if folder is None else f" --dir {folder}"


def say_if_ended(target: Target, folder: Path | None) -> None:
    """After an undo: a process that a fault has ended does not come back by itself."""
    if not target.alive:
        print(
            f"{target.name} is not running: python scripts/faults/restart.py {target.name}{at(folder, None)}"
        )


def run(command: click.Command) -> None:
    """Run a command; errors are one line."""
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except (DfsError, OSError, json.JSONDecodeError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
