"""Real TwinFS processes for tests: started, killed, restarted on the same ports and directories."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.messages import ClusterReport, GetReport
from twinfs.common.runtime import SystemClock

START_LIMIT_S = 30.0
POLL_S = 0.02


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = 90.0) -> None:
    """Wait for a fact; AssertionError when it does not come true in time."""
    clock, pause = SystemClock(), threading.Event()
    deadline_s = clock.monotonic_s() + limit_s
    while not condition():
        assert clock.monotonic_s() < deadline_s, f"{what} did not come true within {limit_s} s"
        pause.wait(POLL_S)


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: str, limit_s: float = 90.0
) -> None:
    """`wait_until` for a condition that has to be awaited."""
    clock, loop = SystemClock(), asyncio.get_running_loop()
    deadline_s = clock.monotonic_s() + limit_s
    while not await condition():
        assert clock.monotonic_s() < deadline_s, f"{what} did not come true within {limit_s} s"
        pause = loop.create_future()
        loop.call_later(POLL_S, pause.set_result, None)
        await pause


class Server:
    """One process."""

    def __init__(self, folder: Path, name: str, module: str, arguments: list[str]) -> None:
        self.folder = folder
        self.name = name
        self.module = module
        self.arguments = arguments
        self.facts: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{name}.log"

    def start(self) -> None:
        ready = self.folder / f"{self.name}.ready"
        ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments, "--ready-file", str(ready)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )
        process = self.process
        wait_until(
            lambda: ready.exists() or process.poll() is not None,
            f"{self.name} ready",
            START_LIMIT_S,
        )
        if not ready.exists():
            raise AssertionError(f"{self.name} did not start:\n{self.log_text()}")
        self.facts = json.loads(ready.read_text())

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGABRT)
                self.process.wait()
        return self.process.returncode

    def restart(self) -> None:
        """On the same ports."""
        self.kill()
        for flag, key in (("--port", "http"), ("--data-port", "data")):
            if flag in self.arguments and key in self.facts:
                index = self.arguments.index(flag) + 1
                self.arguments[index] = self.facts[key].rpartition(":")[2]
        self.start()


class Cluster:
    """A NameNode and DataNodes in a directory of the test's own."""

    def __init__(
        self,
        folder: Path,
        *,
        datanodes: int = 3,
        namenode_options: tuple[str, ...] = (),
        datanode_options: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.namenode = Server(
            folder,
            "namenode",
            "twinfs.namenode",
            [
                *("--dir", str(folder / "nn"), "--port", "0"),
                *("--safe-mode-nodes", str(datanodes), *namenode_options),
            ],
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
            for _ in range(self._count):
                self.add_datanode()
            self.wait_live(self._count)
        except BaseException:
            self.stop()
            raise
        return self

    def add_datanode(self, *options: str) -> Server:
        name = f"datanode{len(self.datanodes) + 1}"
        server = Server(
            self.folder,
            name,
            "twinfs.datanode",
            [
                *("--namenode", self.url, "--dir", str(self.folder / name)),
                *("--port", "0", "--data-port", "0", *self._datanode_options, *options),
            ],
        )
        self.datanodes.append(server)
        server.start()
        return server

    def report(self) -> ClusterReport:
        namenode = HttpNameNode(self.url, user="root")
        try:
            return namenode.call("report", GetReport())  # type: ignore[no-any-return]
        finally:
            namenode.close()

    def wait_live(self, count: int, limit_s: float = 90.0) -> None:
        wait_until(
            lambda: sum(node.state == "live" for node in self.report().nodes) == count,
            f"{count} live DataNodes",
            limit_s,
        )

    def stop(self) -> None:
        for server in [*self.datanodes, self.namenode]:
            server.stop()

    def logs(self) -> str:
        return "\n".join(
            f"--- {server.name}\n{server.log_text()[-6000:]}"
            for server in [self.namenode, *self.datanodes]
        )

    def tracebacks(self) -> list[str]:
        """Servers whose log has a traceback: never a normal thing."""
        return [s.name for s in [self.namenode, *self.datanodes] if "Traceback" in s.log_text()]


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[Cluster]:
    """A cluster for a `with` block; its logs are printed if the block fails."""
    cluster = Cluster(folder, **options)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()
