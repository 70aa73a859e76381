"""A breakable cluster on this machine, for chaos runs and tests: with fault plans, and a proxy between all processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from twinfs.client.cli.cluster import is_alive, named_proxy
from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.errors import DfsError
from twinfs.common.faults import Plan, write_plan
from twinfs.common.messages import ClusterReport, GetReport

from . import kill, link, pause, slow_disk
from .proxy import Links, write_links
from .targets import CantBreak, Cluster, wait_until

# Everything is found out and healed within seconds, so that a run of minutes sees it often.
NAMENODE_OPTIONS = (
    *("--heartbeat-interval-s", "0.5", "--stale-after-s", "2", "--dead-after-s", "5"),
    *("--block-report-interval-s", "10", "--delete-grace-s", "2"),
    *("--lease-timeout-s", "5", "--lease-hard-timeout-s", "8", "--log-level", "WARNING"),
)
DATANODE_OPTIONS = ("--stall-timeout-s", "5", "--log-level", "WARNING")
START_LIMIT_S = 60.0


class LocalFaultyCluster(Cluster):
    """A NameNode, DataNodes and a proxy, in a folder of their own. To be used in a `with` block."""

    def __init__(
        self,
        folder: Path,
        *,
        datanodes: int = 3,
        replication: int = 3,
        volumes: int = 1,
        proxy: bool = True,
        seed: int = 0,
        namenode_options: Sequence[str] = (),
        datanode_options: Sequence[str] = (),
        modules: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """*modules*: what to run instead of `twinfs.namenode` and `twinfs.datanode`."""
        super().__init__(folder)
        self._count = datanodes
        self._replication = replication
        self._volumes = volumes
        self._seed = seed
        self._with_proxy = proxy
        self._namenode_options = namenode_options
        self._datanode_options = datanode_options
        self._modules = dict(modules or {})
        self._environment = dict(environment or {})
        self._proxy: subprocess.Popen[bytes] | None = None
        self.proxy_url = ""

    # --- its life ---

    def __enter__(self) -> LocalFaultyCluster:
        if self.entries():
            raise CantBreak(f"there is a cluster in {self.folder} already")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self) -> None:
        self.faults.mkdir(parents=True, exist_ok=True)
        if self._with_proxy:
            self._start_proxy()
        copies = min(self._replication, self._count)
        self._spawn(
            "namenode",
            [
                *("--dir", str(self.folder / "namenode"), "--port", "0"),
                *("--replication", str(copies), "--safe-mode-nodes", str(min(2, self._count))),
                *NAMENODE_OPTIONS,
                *self._namenode_options,
            ],
        )
        for _ in range(self._count):
            self.add_datanode()
        self.wait_live(self._count)

    def add_datanode(self) -> str:
        """Start one more; its name."""
        name = f"datanode{len(self.names)}"
        arguments = ["--namenode", self.url, "--port", "0", "--data-port", "0", *DATANODE_OPTIONS]
        for number in range(1, self._volumes + 1):
            arguments += ["--dir", str(self.folder / name / f"v{number}")]
        if self._volumes > 1:
            arguments += ["--failed-volumes-tolerated", str(self._volumes - 1)]
        if self.proxy_url:
            arguments += ["--proxy", named_proxy(self.proxy_url, name)]
        self._spawn(name, [*arguments, *self._datanode_options])
        return name

    def _spawn(self, name: str, arguments: list[str]) -> None:
        plan = self.faults / f"{name}.json"
        write_plan(plan, Plan(track=True))
        role = "namenode" if name == "namenode" else "datanode"
        with self._surroundings():
            entry = self.local.spawn(
                name, [*arguments, "--faults", str(plan)], module=self._modules.get(role, "")
            )
        state = self.local.state()
        self.local.save({"processes": [*state.get("processes", []), entry]})
        if self.proxy_url:
            link.name_addresses(self)

    @contextlib.contextmanager
    def _surroundings(self):  # type: ignore[no-untyped-def]
        """The environment that servers start in."""
        before = {key: os.environ.get(key) for key in self._environment}
        os.environ.update(self._environment)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value

    def _start_proxy(self) -> None:
        links, ready = self.faults / "links.json", self.faults / "proxy.ready"
        write_links(links, Links())
        with (self.faults / "proxy.log").open("ab") as log:
            self._proxy = subprocess.Popen(
                [
                    *(sys.executable, str(Path(__file__).with_name("proxy.py")), str(links)),
                    *("--ready-file", str(ready), "--seed", str(self._seed)),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        wait_until(ready.exists, "the proxy answers", START_LIMIT_S)
        self.proxy_url = f"http://{json.loads(ready.read_text())['proxy']}"

    def restart(self, name: str):  # type: ignore[no-untyped-def]
        self.reap()
        with self._surroundings():
            target = super().restart(name)
        if self.proxy_url:
            link.name_addresses(self)
        return target

    def reap(self) -> None:
        """Take note of children that have ended, so that they don't stay as zombies."""
        for entry in self.entries():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(entry["pid"], os.WNOHANG)

    def stop(self) -> None:
        """End everything; what is paused or unwilling is killed."""
        running = [entry for entry in self.entries() if is_alive(entry)]
        for entry in reversed(running):
            for number in (signal.SIGCONT, signal.SIGTERM):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(entry["pid"], number)
        try:
            wait_until(lambda: not any(is_alive(e) for e in running), "all ended", 20.0)
        except Exception:
            for entry in running:
                if is_alive(entry):
                    os.kill(entry["pid"], signal.SIGKILL)
        self.reap()
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait()
            self._proxy = None

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- looking ---

    @property
    def datanodes(self) -> list[str]:
        return [name for name in self.names if name != "namenode"]

    def report(self) -> ClusterReport:
        namenode = HttpNameNode(self.url, user="root", retry_s=START_LIMIT_S)
        try:
            return namenode.call("report", GetReport())  # type: ignore[no-any-return]
        finally:
            namenode.close()

    def wait_live(self, count: int, limit_s: float = START_LIMIT_S) -> None:
        seen = "no report"

        def live() -> bool:
            nonlocal seen
            try:
                nodes = self.report().nodes
            except DfsError as error:
                seen = f"no report: {error}"
                return False
            seen = ", ".join(f"{node.address.data} {node.state}" for node in nodes)
            return sum(node.state == "live" for node in nodes) >= count

        try:
            wait_until(live, f"{count} DataNodes are alive", limit_s)
        except CantBreak as error:
            running = ", ".join(e["name"] for e in self.entries() if is_alive(e))
            raise CantBreak(f"{error.message} ({seen}; running: {running})") from None

    def log_text(self, name: str) -> str:
        file = self.folder / "logs" / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def tracebacks(self) -> list[str]:
        return [name for name in self.names if "Traceback" in self.log_text(name)]

    # --- all faults taken back ---

    def heal(self) -> None:
        """Whole links and disks, right clocks, nobody paused, everybody running."""
        self.reap()
        if self.proxy_url:
            link.heal(self)
        for name in self.names:
            target = self.target(name)
            if target.alive:
                pause.resume(target)
            target.change_plan(lambda plan: Plan(version=plan.version, track=plan.track))
            if not target.alive:
                self.restart(name)
        self.wait_live(len(self.datanodes))

    def kill(self, name: str) -> None:
        kill.kill(self.target(name))
        self.reap()

    def heal_disk(self, name: str) -> None:
        slow_disk.heal(self.target(name))
