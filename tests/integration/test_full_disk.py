"""Disks that are full to the last byte: what is there is read, a restart works, and deleting makes room again.

Method: the folders of the processes are file systems of their own (tmpfs), which the test fills.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinfs.client import sync
from twinfs.common.errors import DfsError
from twinfs.common.watch import GetOverview

from ..support.cluster import Cluster, running, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems of its own")
MIB = 1 << 20
SIZE = 128 * MIB
SMALL, LARGE = 20_000, 300_000


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node, whose volume is such a file system, as is the NameNode's folder."""
    folder = tmp_path_factory.mktemp("cluster")
    with (
        mounted(folder / "nn"),
        mounted(folder / "datanode1"),
        running(folder, datanodes=1) as found,
    ):
        yield found
        assert found.tracebacks() == []


def fill(folder: Path) -> None:
    """Leave not one page."""
    with (folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    found = os.statvfs(folder)
    assert found.f_bavail == 0


def content(number: int) -> bytes:
    return random.Random(number).randbytes(LARGE if number % 2 else SMALL)


def test_a_datanode(cluster: Cluster) -> None:
    volume = cluster.folder / "datanode1"
    assert (volume / "ballast").stat().st_blocks * 512 >= 8 * MIB
    (server,) = cluster.datanodes
    with sync.FileSystem.connect(cluster.url) as fs:
        for number in range(20):
            fs.write_bytes(f"/kept/{number}", content(number), replication=1)
        for number in range(40):
            fs.write_bytes(f"/going/{number}", content(100 + number), replication=1)
        fill(volume)
        with pytest.raises(DfsError, match=r"free are needed|space left"):
            fs.write_bytes("/more", bytes(5 * MIB), replication=1)
        server.restart()
        cluster.wait_live(1)
        assert not (volume / "ballast").exists()
        # What was kept free is for what makes room, not for more.
        with pytest.raises(DfsError, match=r"free are needed|space left"):
            fs.write_bytes("/more", bytes(5 * MIB), replication=1)
        for number in range(20):
            assert fs.read_bytes(f"/kept/{number}") == content(number)
        fs.delete("/going", recursive=True)

        def room() -> bool:
            found = os.statvfs(volume)
            return found.f_bavail * found.f_frsize > 10 * MIB

        wait_until(room, "what was deleted gives its room back", 60.0)
        (volume / "filler").unlink()
        wait_until((volume / "ballast").exists, "room is kept again", 60.0)
        wait_until(lambda: cluster.report().nodes[0].remaining_bytes > 50 * MIB, "it is known")
        fs.write_bytes("/more", content(1), replication=1)
        for number in range(20):
            assert fs.read_bytes(f"/kept/{number}") == content(number)
        assert fs.read_bytes("/more") == content(1)


def test_a_namenode(cluster: Cluster) -> None:
    folder = cluster.folder / "nn"
    with sync.FileSystem.connect(cluster.url) as fs:
        fs.write_bytes("/before", content(2), replication=1)
        fill(folder)
        cluster.namenode.restart()
        cluster.wait_live(1)
        assert not (folder / "ballast").exists()
        assert fs.read_bytes("/before") == content(2)
        fs.delete("/before")
        fill(folder)
        with pytest.raises(DfsError, match="space left"):
            for number in range(2_000):
                fs.mkdirs(f"/many/{number:0200}")
        told = {
            problem.code: problem.severity
            for problem in fs.call("overview", GetOverview()).problems
        }
        assert told["metadata-disk"] == "critical"
        (folder / "filler").unlink()
        fs.write_bytes("/after", content(3), replication=1)
        cluster.namenode.restart()
        cluster.wait_live(1)
        assert (folder / "ballast").exists()
        assert fs.read_bytes("/after") == content(3)
