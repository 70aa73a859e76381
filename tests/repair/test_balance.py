"""Real processes: an empty node gets its share, volumes are evened out, and a node outlives the volumes it may lose."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.cluster import Server, wait_until
from .conftest import Bench, bench

MIB = 1024 * 1024
VOLUME = 64 * MIB


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Three small DataNodes, two copies of each file, 24 MiB in all."""
    folder = tmp_path_factory.mktemp("three")
    options = ("--volume-bytes", str(VOLUME), "--failed-volumes-tolerated", "1")
    for made in bench(
        folder / "cluster",
        datanodes=3,
        namenode_options=("--replication", "2"),
        datanode_options=options,
    ):
        source = folder / "files"
        source.mkdir()
        for number in range(48):
            (source / f"{number:02}").write_bytes(random.Random(number).randbytes(MIB))
        made.dfs("put", "-r", str(source), "/files")
        yield made


def fills(three: Bench) -> list[float]:
    return [100 * node.used_bytes / node.capacity_bytes for node in three.cluster.report().nodes]


def same(three: Bench) -> bool:
    return all(
        three.get(f"/files/{number:02}") == random.Random(number).randbytes(MIB)
        for number in range(0, 48, 7)
    )


def test_an_empty_node_gets_its_share(three: Bench) -> None:
    three.cluster.add_datanode()
    three.cluster.wait_live(4)
    wait_until(lambda: sum(fills(three)) > 140, "the nodes' own counts told")
    assert min(fills(three)) == 0.0
    lines = three.dfs("admin", "balancer", "--threshold", "8", "--json").splitlines()
    last = json.loads(lines[-1])
    assert last["state"] == "balanced"
    assert last["moved_bytes"] >= 16 * MIB
    three.healed("the sources relieved")
    wait_until(lambda: max(fills(three)) - min(fills(three)) <= 16.5, "the balance told")
    assert same(three)
    assert json.loads(three.dfs("admin", "balancer", "--status", "--json"))["state"] == "balanced"


def test_a_run_can_be_stopped(three: Bench) -> None:
    three.dfs("admin", "balancer", "--threshold", "0.1", "--bandwidth", "1", "--background")
    assert "running" in three.dfs("admin", "balancer", "--threshold", "1", code=2)
    assert "stopped" in three.dfs("admin", "balancer", "--stop")
    assert "threshold" in three.dfs("admin", "balancer", "--threshold", "0", code=2)
    three.healed("what was under way ended")
    assert same(three)


def volumes_of(three: Bench, server: Server) -> dict[str, Any]:
    told = json.loads(three.dfs("admin", "volume", "list", server.facts["data"], "--json"))
    return {volume["path"]: volume for volume in told["volumes"]}


def serves(three: Bench, server: Server, folder: Path) -> None:
    """Wait until *server* has registered with a volume. It counts as live all the while it restarts."""
    wait_until(lambda: str(folder) in volumes_of(three, server), f"{folder} served")


def test_a_new_volume_gets_its_share(three: Bench) -> None:
    server = three.cluster.datanodes[0]
    second = three.cluster.folder / "second"
    server.arguments += ["--dir", str(second)]
    server.stop()
    server.restart()
    serves(three, server, second)
    three.healed("everything there")

    def bytes_of(folder: Path) -> int:
        return sum(file.stat().st_size for file in folder.glob("blocks/*/blk_*"))

    first = three.cluster.folder / server.name
    before = bytes_of(first)
    assert bytes_of(second) == 0
    three.dfs("admin", "diskbalancer", server.facts["data"], "--threshold", "3")
    wait_until(lambda: "volumes are balanced" in server.log_text(), "the volumes balanced")
    assert abs(bytes_of(first) - bytes_of(second)) <= 5 * MIB
    assert bytes_of(first) + bytes_of(second) == before
    assert same(three)


def test_a_volume_in_use_is_drained_before_it_is_removed(three: Bench) -> None:
    server = three.cluster.datanodes[0]
    node, second = server.facts["data"], three.cluster.folder / "second"

    def volumes() -> dict[str, Any]:
        return volumes_of(three, server)

    # A heartbeat tells it; until then, the node's last word is older than what the disk balancer did.
    wait_until(lambda: volumes()[str(second)]["replicas"] > 4, "the volumes told")
    wait_until(lambda: len({str(volumes()) for _ in range(2)}) == 1, "nothing under way")
    before = volumes()
    assert set(before) == {str(second), str(three.cluster.folder / server.name)}
    refused = three.dfs("admin", "volume", "remove", node, str(second), code=2)
    assert "in use" in refused
    assert "drain it first" in refused
    assert "has no volume" in three.dfs("admin", "volume", "remove", node, "/nowhere", code=2)
    assert "no DataNode" in three.dfs("admin", "volume", "drain", "nobody", str(second), code=2)
    assert volumes() == before  # as the node itself said with its refusal
    three.healed("nothing has changed")
    assert same(three)
    # Now in the order that was asked for, under a reader.
    shown = three.dfs("admin", "volume", "drain", node, str(second), "--wait")
    assert "drained" in shown
    assert same(three)
    three.dfs("admin", "volume", "remove", node, before[str(second)]["volume_id"])
    assert set(volumes()) == {str(three.cluster.folder / server.name)}
    assert list(second.glob("blocks/*/blk_*")) == []
    refused = three.dfs("admin", "volume", "remove", node, str(second.parent / server.name), code=2)
    assert "only volume" in refused
    # Still configured, it is passed over; without the mark, it serves again.
    server.stop()
    server.restart()
    three.cluster.wait_live(4)
    assert len(volumes()) == 1
    assert "passed over" in server.log_text()
    server.stop()
    (second / "removed").unlink()
    server.restart()
    serves(three, server, second)
    assert not volumes()[str(second)]["draining"]
    three.dfs("admin", "diskbalancer", node, "--threshold", "3")
    wait_until(lambda: volumes()[str(second)]["replicas"] > 4, "the volume in use again")
    three.healed("everything there")
    assert same(three)


def test_a_node_outlives_a_volume_it_may_lose(three: Bench) -> None:
    server = three.cluster.datanodes[0]
    shutil.rmtree(three.cluster.folder / "second")
    wait_until(
        lambda: any(node.failed_volumes for node in three.cluster.report().nodes),
        "the failed volume told",
    )
    three.healed("what was on it made up for", 90.0)
    assert server.process is not None
    assert server.process.poll() is None
    assert same(three)
    # One more, and the node ends by itself, saying why.
    shutil.rmtree(three.cluster.folder / server.name)
    wait_until(lambda: server.process.poll() is not None, "the node gone")  # type: ignore[union-attr]
    assert "volume" in server.log_text().splitlines()[-1]
    three.healed("made up for again", 90.0)
    assert same(three)
