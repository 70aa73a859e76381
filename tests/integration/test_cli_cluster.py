"""`dfs cluster`: a cluster in the background, started and stopped by hand."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.cluster import wait_until
from .commands import Dfs


@pytest.fixture
def dfs(tmp_path: Path) -> Iterator[Dfs]:
    found = Dfs("http://127.0.0.1:1", tmp_path, XDG_STATE_HOME=str(tmp_path / "state"))
    yield found
    # A test that failed must not leave servers behind.
    for state in tmp_path.rglob("cluster.json"):
        found.run("cluster", "stop", "--dir", state.parent)


def is_running(pid: int) -> bool:
    """A process that has ended and waits for its parent to notice does not run."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def test_a_life(dfs: Dfs, tmp_path: Path) -> None:
    """Start, use, stop, start again: what was stored is still there."""
    folder = tmp_path / "local"
    at = ("--dir", folder)
    assert dfs.run("cluster", "status", *at).out == "no cluster is running\n"
    first, export, last = dfs("cluster", "start", *at, "--datanodes", "2", "--port", "0").split(
        "\n"
    )[:3]
    url = first.split()[2].rstrip(",")
    assert first == f"NameNode at {url}, 2 DataNodes, data and logs in {folder}"
    assert export == f"Use it with:  export TWINFS_NAMENODE={url}"
    assert last == f"Stop it with: dfs cluster stop --dir {folder}"
    using = Dfs(url, tmp_path)
    using("put", "-", "/kept", stdin=b"kept")
    assert json.loads(using("stat", "--json", "/kept"))["replication"] == 2

    head, *rows = dfs("cluster", "status", *at).splitlines()
    assert head.split() == ["Process", "State", "Pid", "HTTP", "Data"]
    assert [row.split()[:2] for row in rows] == [
        ["namenode", "running"],
        ["datanode1", "running"],
        ["datanode2", "running"],
    ]
    ((namenode, *datanodes),) = dfs.json("cluster", "status", *at)
    assert f"http://{namenode['http']}" == url
    # By these, and no others, the cluster's reports name the nodes.
    assert all(node["data"] in using("report") for node in datanodes)
    assert dfs.fails("cluster", "start", *at, "--port", "0", code=2) == (
        f"a cluster is running in {folder} already; `dfs cluster stop` ends it"
    )

    os.kill(datanodes[0]["pid"], signal.SIGKILL)
    wait_until(lambda: dfs.run("cluster", "status", *at).code == 1, "the death shows")
    (found,) = (json.loads(dfs.run("cluster", "status", *at, "--json").out),)
    assert [entry["state"] for entry in found] == ["running", "dead", "running"]
    assert using("cat", "/kept") == "kept"

    assert dfs("cluster", "stop", *at) == "2 processes stopped\n"
    assert dfs("cluster", "stop", *at) == "no cluster was running\n"
    answer = dfs.run("cluster", "status", *at)
    assert (answer.code, answer.out, answer.err) == (1, "no cluster is running\n", "")

    text = dfs("cluster", "start", *at, "--datanodes", "2", "--port", "0")
    assert Dfs(text.split()[2].rstrip(","), tmp_path)("cat", "/kept") == "kept"
    assert dfs("cluster", "stop", *at) == "3 processes stopped\n"
    for entry in (namenode, *datanodes):
        assert not is_running(entry["pid"])


def test_a_start_that_fails_leaves_nothing_running(dfs: Dfs, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = dfs.fails("cluster", "start", "--port", port)
    assert said.startswith("namenode did not start: ")
    answer = dfs.run("cluster", "status")
    assert (answer.code, answer.out) == (1, "no cluster is running\n")
    assert (tmp_path / "state" / "twinfs" / "cluster" / "logs" / "namenode.log").exists()


def test_a_damaged_state_file_is_named(dfs: Dfs, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{", encoding="utf-8")
    for command in ("status", "stop", "start"):
        said = dfs.fails("cluster", command, "--dir", tmp_path, code=2)
        assert said.startswith(f"{tmp_path}/cluster.json can't be read: ")


def test_wrong_numbers_are_refused(dfs: Dfs) -> None:
    assert "--datanodes" in dfs.misused("cluster", "start", "--datanodes", "0")
    assert "--port" in dfs.misused("cluster", "start", "--port", "70000")
    assert "--replication" in dfs.misused("cluster", "start", "--replication", "0")
