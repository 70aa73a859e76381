"""`dfs cluster`: a NameNode and DataNodes on this machine, in the background, for trying and for tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ...common.errors import DfsError, InvalidRequest, TimedOut, system_reason
from ...common.faults import Plan, write_plan
from ...common.messages import GetReport
from ...common.proxy import parse_proxy
from ...common.runtime import SystemClock
from ..http_namenode import HttpNameNode
from .support import json_option, print_json, table

START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0
POLL_S = 0.05


def default_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "twinfs" / "cluster"


dir_option = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=None,
    help="Where it keeps everything.",
)


@click.group(name="cluster")
def cluster_command() -> None:
    """A local cluster in the background."""


class LocalCluster:
    """The processes that a state file names. One is only touched if it is still the one that was started."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = (folder or default_folder()).resolve()
        self._state_file = self.folder / "cluster.json"

    def state(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._state_file.read_text(encoding="utf-8"))
            return found
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"{self._state_file} can't be read: {system_reason(error)}"
            ) from None

    def save(self, state: dict[str, Any]) -> None:
        temporary = self._state_file.with_suffix(".new")
        temporary.write_text(json.dumps(state, indent=2), encoding="utf-8")
        temporary.replace(self._state_file)

    def spawn(
        self, name: str, arguments: list[str], *, module: str = "", prefix: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Start a server detached from this terminal; its entry of the state file, once it answers.

        *module* runs instead of the role's own; *prefix* is a command that executes the rest in its own process.
        """
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        ready = self.folder / f"{name}.ready"
        ready.unlink(missing_ok=True)
        module = module or ("twinfs.namenode" if name == "namenode" else "twinfs.datanode")
        command = [*prefix, sys.executable, "-m", module, *arguments]
        with (logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--ready-file", str(ready)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        clock, pause = SystemClock(), threading.Event()
        deadline_s = clock.monotonic_s() + START_LIMIT_S
        while not ready.exists():
            if process.poll() is not None:
                tail = (logs / f"{name}.log").read_text(errors="replace").splitlines()[-1:]
                raise DfsError(f"{name} did not start: {' '.join(tail) or 'see its log'}")
            if clock.monotonic_s() > deadline_s:
                process.kill()
                raise TimedOut(f"{name} did not answer within {START_LIMIT_S:.0f} s")
            pause.wait(POLL_S)
        facts: dict[str, Any] = json.loads(ready.read_text(encoding="utf-8"))
        process.returncode = 0  # it outlives this program: nobody waits for it
        return {"name": name, "started": started(process.pid), "command": command, **facts}


def started(pid: int) -> str:
    """When a process began, as the kernel counts; "" if there is none (any more)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def is_alive(entry: dict[str, Any]) -> bool:
    return bool(entry["started"]) and started(entry["pid"]) == entry["started"]


@cluster_command.command("start")
@dir_option
@click.option("--datanodes", type=click.IntRange(1, 64), default=3, help="How many.")
@click.option(
    "--replication", type=click.IntRange(1, 512), default=None, help="Copies of new files."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9870,
    help="Of the NameNode; 0 takes a free one.",
)
@click.option(
    "--faults",
    is_flag=True,
    help="For trying it out: let the commands in scripts/faults break it.",
)
@click.option("--proxy", default="", help="http://HOST:PORT of a proxy between the processes.")
@json_option
def start_command(
    folder: Path | None,
    datanodes: int,
    replication: int | None,
    port: int,
    faults: bool,
    proxy: str,
    as_json: bool,
) -> None:
    """Start a NameNode and DataNodes (again, if there was a cluster in the directory)."""
    cluster = LocalCluster(folder)
    running = [entry for entry in cluster.state().get("processes", []) if is_alive(entry)]
    if running:
        raise InvalidRequest(
            f"a cluster is running in {cluster.folder} already; `dfs cluster stop` ends it"
        )
    cluster.folder.mkdir(parents=True, exist_ok=True)
    copies = replication if replication is not None else min(3, datanodes)
    processes: list[dict[str, Any]] = []
    state = {"processes": processes}
    try:
        processes.append(
            cluster.spawn(
                "namenode",
                [
                    *("--dir", str(cluster.folder / "namenode"), "--port", str(port)),
                    *("--replication", str(copies), "--safe-mode-nodes", str(datanodes)),
                    *(_breakable(cluster.folder, "namenode") if faults else ()),
                ],
            )
        )
        cluster.save(state)
        url = f"http://{processes[0]['http']}"
        for number in range(1, datanodes + 1):
            name = f"datanode{number}"
            arguments = ["--namenode", url, "--dir", str(cluster.folder / name)]
            arguments += _breakable(cluster.folder, name) if faults else []
            arguments += ["--proxy", named_proxy(proxy, name)] if proxy else []
            processes.append(cluster.spawn(name, [*arguments, "--port", "0", "--data-port", "0"]))
            cluster.save(state)
        _wait_for_nodes(url, datanodes)
    except BaseException:
        _end(processes)
        raise
    if as_json:
        print_json(_rows(processes))
        return
    click.echo(f"NameNode at {url}, {datanodes} DataNodes, data and logs in {cluster.folder}")
    if port != 9870:
        click.echo(f"Use it with:  export TWINFS_NAMENODE={url}")
    at = f" --dir {folder}" if folder else ""
    click.echo(f"Stop it with: dfs cluster stop{at}")


def _breakable(folder: Path, name: str) -> list[str]:
    """Options that give a server a plan of faults, empty for now."""
    plan = folder / "faults" / f"{name}.json"
    plan.parent.mkdir(exist_ok=True)
    write_plan(plan, Plan(track=True))
    return ["--faults", str(plan)]


def named_proxy(url: str, name: str) -> str:
    """The proxy's URL for the process *name*."""
    proxy = parse_proxy(url)
    if proxy is None:
        return ""
    return f"http://{name}@{proxy.host}:{proxy.port}"


def _wait_for_nodes(url: str, count: int) -> None:
    namenode = HttpNameNode(url, user="root")
    clock, pause = SystemClock(), threading.Event()
    deadline_s = clock.monotonic_s() + START_LIMIT_S
    try:
        while True:
            report = namenode.call("report", GetReport(counts=False))
            if sum(1 for node in report.nodes if node.state == "live") >= count:
                return
            if clock.monotonic_s() > deadline_s:
                raise TimedOut(f"only {len(report.nodes)} DataNodes have registered")
            pause.wait(POLL_S)
    finally:
        namenode.close()


def _end(processes: list[dict[str, Any]]) -> None:
    """TERM, and KILL for what does not end in time; DataNodes first."""
    clock, pause = SystemClock(), threading.Event()
    for entry in reversed(processes):
        if is_alive(entry):
            with contextlib.suppress(ProcessLookupError):
                os.kill(entry["pid"], signal.SIGTERM)
    deadline_s = clock.monotonic_s() + STOP_LIMIT_S
    while any(is_alive(entry) for entry in processes):
        if clock.monotonic_s() > deadline_s:
            for entry in processes:
                if is_alive(entry):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(entry["pid"], signal.SIGKILL)
        # Our own children have to be waited for, or they stay as zombies until we end.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pause.wait(POLL_S)


def _rows(processes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": entry["name"],
            "state": "running" if is_alive(entry) else "dead",
            "pid": entry["pid"],
            "http": entry["http"],
            "data": entry.get("data") or "",
        }
        for entry in processes
    ]


@cluster_command.command("stop")
@dir_option
@json_option
def stop_command(folder: Path | None, as_json: bool) -> None:
    """Stop the local cluster; its data stays."""
    cluster = LocalCluster(folder)
    state = cluster.state()
    running = [entry for entry in state.get("processes", []) if is_alive(entry)]
    _end(running)
    if state:
        cluster.save({"processes": []})
    if as_json:
        print_json(_rows(running))
    else:
        click.echo(f"{len(running)} processes stopped" if running else "no cluster was running")


@cluster_command.command("status")
@dir_option
@json_option
def status_command(folder: Path | None, as_json: bool) -> None:
    """What runs; exit 1 if something that should does not."""
    rows = _rows(LocalCluster(folder).state().get("processes", []))
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("no cluster is running")
    else:
        head = ("Process", "State", "Pid", "HTTP", "Data")
        for line in table([head, *[tuple(str(v) for v in row.values()) for row in rows]]):
            click.echo(line)
    if not rows or any(row["state"] == "dead" for row in rows):
        raise click.exceptions.Exit(1)
