"""A cluster of real processes for a benchmark, and what they hold in memory."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.messages import ClusterReport, GetReport
from twinfs.common.runtime import elapsed_timer

START_LIMIT_S = 60.0
PAUSE_S = 0.005


def wait_for(condition: Any, what: str, limit_s: float = START_LIMIT_S) -> None:
    """Until *condition* returns something true."""
    deadline_s, pause = elapsed_timer() + limit_s, threading.Event()
    while not condition():
        if elapsed_timer() > deadline_s:
            raise SystemExit(f"{what} did not come true within {limit_s:.0f} s")
        pause.wait(PAUSE_S)


class Server:
    """One process; `facts` is what its ready file says."""

    def __init__(self, folder: Path, name: str, arguments: list[str]) -> None:
        self.folder = folder
        self.name = name
        self.arguments = arguments
        self.facts: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start the process without waiting for it."""
        self.ready.unlink(missing_ok=True)
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments, "--ready-file", str(self.ready)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

    @property
    def ready(self) -> Path:
        return self.folder / f"{self.name}.ready"

    def start(self) -> None:
        self.launch()
        ready, process = self.ready, self.process
        assert process is not None
        wait_for(lambda: ready.exists() or process.poll() is not None, f"{self.name} ready")
        if not ready.exists():
            raise SystemExit((self.folder / f"{self.name}.log").read_text(errors="replace"))
        self.facts = json.loads(ready.read_text(encoding="utf-8"))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()


class Cluster:
    """A NameNode and its DataNodes below *folder*."""

    def __init__(
        self,
        folder: Path,
        datanodes: int = 3,
        *,
        namenode_options: tuple[str, ...] = (),
        datanode_options: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.namenode = Server(
            folder,
            "namenode",
            ["twinfs.namenode", "--dir", str(folder / "nn"), "--port", "0", *namenode_options],
        )
        self.datanodes: list[Server] = []
        self._count = datanodes
        self._datanode_options = datanode_options

    @property
    def url(self) -> str:
        return f"http://{self.namenode.facts['http']}"

    def start(self) -> Cluster:
        try:
            self.namenode.start()
            for number in range(1, self._count + 1):
                node = Server(
                    self.folder,
                    f"datanode{number}",
                    [
                        *("twinfs.datanode", "--namenode", self.url),
                        *("--dir", str(self.folder / f"dn{number}")),
                        *("--port", "0", "--data-port", "0", *self._datanode_options),
                    ],
                )
                self.datanodes.append(node)
                node.start()
            if self._count:
                wait_for(self._all_live, f"{self._count} live DataNodes")
        except BaseException:
            self.stop()
            raise
        return self

    def report(self) -> ClusterReport:
        namenode = HttpNameNode(self.url, user="root")
        try:
            found: ClusterReport = namenode.call("report", GetReport(counts=False))
            return found
        finally:
            namenode.close()

    def _all_live(self) -> bool:
        return sum(node.state == "live" for node in self.report().nodes) == self._count

    @property
    def servers(self) -> list[Server]:
        return [self.namenode, *self.datanodes]

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()


@contextlib.contextmanager
def running(folder: Path, datanodes: int = 3, **options: Any) -> Iterator[Cluster]:
    cluster = Cluster(folder, datanodes, **options)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    return _status_kib(pid, "VmRSS") / 1024


def peak_mib(pid: int) -> float:
    """The most memory that was ever resident."""
    return _status_kib(pid, "VmHWM") / 1024


def _status_kib(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise ValueError(f"no {key} in the status of process {pid}")


def dfs(url: str, *arguments: str) -> float:
    """Run a `dfs` command as a process; how long it took, in seconds."""
    command = [str(Path(sys.executable).with_name("dfs")), *arguments]
    environ = {**os.environ, "TWINFS_NAMENODE": url}
    began_s = elapsed_timer()
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    took_s = elapsed_timer() - began_s
    if done.returncode:
        raise SystemExit(f"dfs {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return took_s
