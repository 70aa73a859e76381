"""A cluster that detects and repairs quickly, shared by the tests of a module, and looking at what is on its disks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from twinfs.client.cli import cli
from twinfs.common.errors import DfsError, exit_code

from ..support.cluster import Cluster, Server, running, wait_until

QUICK = ("--heartbeat-interval-s", "0.3", "--stale-after-s", "1.5", "--dead-after-s", "3")
QUICK_WRITES = ("--delete-grace-s", "0.2", "--lease-timeout-s", "5")


class Bench:
    """A running cluster with what these tests do to it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def dfs(self, *words: str, code: int | None = 0) -> str:
        """Run a command in this process; its output. *code* None allows any exit code."""
        done = CliRunner().invoke(cli, ["--namenode", self.cluster.url, *words])
        found, text = done.exit_code, done.output
        if isinstance(done.exception, DfsError):
            found, text = exit_code(done.exception), text + done.exception.message
        elif done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        if code is not None:
            assert found == code, f"{words}: {found}\n{text}"
        return text

    def put(self, path: str, data: bytes, *options: str) -> None:
        source = self.cluster.folder / "source"
        source.write_bytes(data)
        parent = path.rpartition("/")[0]
        if parent:
            self.dfs("mkdir", "-p", parent)
        self.dfs("put", "-f", *options, str(source), path)

    def get(self, path: str) -> bytes:
        target = self.cluster.folder / "target"
        self.dfs("get", "-f", path, str(target))
        return target.read_bytes()

    def fsck(self, path: str = "/", *options: str) -> dict[str, Any]:
        """The summary of `dfs fsck --json`."""
        lines = self.dfs("fsck", path, "--json", *options, code=None).splitlines()
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def blocks(self, path: str) -> list[dict[str, Any]]:
        lines = self.dfs("fsck", path, "--json", "--locations", code=None).splitlines()
        found: list[dict[str, Any]] = json.loads(lines[0])["blocks"]
        return found

    def holders(self, path: str) -> list[Server]:
        """DataNodes with a good copy of the file's first block."""
        addresses = {
            replica["address"]
            for replica in self.blocks(path)[0]["replicas"]
            if replica["state"] == "good" and replica["node_state"] == "live"
        }
        return [s for s in self.cluster.datanodes if s.facts["data"] in addresses]

    def files_of(self, server: Server, path: str) -> list[Path]:
        """Where a node keeps the blocks of a file, if they have files of their own."""
        ids = [block["block"]["block_id"] for block in self.blocks(path)]
        folder = self.cluster.folder / server.name
        return [f for i in ids for f in folder.glob(f"**/blocks/*/blk_{i}_*")]

    def healed(self, what: str, limit_s: float = 60.0) -> dict[str, Any]:
        """Wait until every block has its copies and nothing is left to be deleted."""
        last: dict[str, Any] = {}

        def clean() -> bool:
            nonlocal last
            last = self.fsck()
            cluster = last["cluster"]
            return (
                last["status"] == "healthy"
                and not any(
                    last[key] for key in ("under_replicated", "over_replicated", "mis_replicated")
                )
                and not any(
                    cluster[key]
                    for key in ("corrupt_replicas", "orphans", "pending_deletion", "copying")
                )
            )

        try:
            wait_until(clean, what, limit_s)
        except AssertionError:
            print(json.dumps(last, indent=1))
            raise
        return last

    def number(self, server: Server) -> int:
        """The id that the NameNode gave to a DataNode."""
        return next(
            node.address.node_id
            for node in self.cluster.report().nodes
            if node.address.data == server.facts["data"]
        )

    def admin_state(self, server: Server) -> str:
        return next(
            node.admin_state
            for node in self.cluster.report().nodes
            if node.address.data == server.facts["data"]
        )


def bench(folder: Path, **options: Any) -> Iterator[Bench]:
    given = options.pop("namenode_options", ())
    with running(folder, namenode_options=(*QUICK, *QUICK_WRITES, *given), **options) as cluster:
        yield Bench(cluster)
        assert cluster.tracebacks() == []


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Four DataNodes on two racks."""
    folder = tmp_path_factory.mktemp("four")
    racks = folder / "racks"
    racks.write_text("# none yet\n")
    yield from bench(
        folder / "cluster", datanodes=4, namenode_options=("--topology-file", str(racks))
    )
