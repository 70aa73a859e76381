"""Backups of a namespace in use, and what is left of a cluster that came back from one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from twinfs.client.sync import FileSystem
from twinfs.common.errors import InvalidConfig, PathNotFound, StoreDamaged, StoreError
from twinfs.common.model import MIB
from twinfs.namenode import backup

from ..support.cluster import Cluster, running, wait_until

NAMENODE = [sys.executable, "-m", "twinfs.namenode"]


def dfs_namenode(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [*NAMENODE, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if not code else done.stderr


def restored(cluster: Cluster, repository: Path) -> None:
    """Stop the NameNode, lose its directory, restore, start again."""
    cluster.namenode.kill()
    shutil.rmtree(cluster.folder / "nn")
    dfs_namenode("restore", repository, "--dir", cluster.folder / "nn")
    cluster.namenode.restart()
    cluster.wait_live(len(cluster.datanodes))


def test_a_backup_brings_the_cluster_back(tmp_path: Path) -> None:
    """The NameNode's disk is lost: everything up to the backup is there, and what came later is not in the way."""
    repository = tmp_path / "backups"
    with running(tmp_path / "cluster", datanodes=2) as cluster:
        with FileSystem.connect(cluster.url) as fs:
            fs.write_bytes("/small", b"small")
            fs.write_bytes("/large", b"l" * (3 * MIB + 1))
            said = dfs_namenode("backup", repository, "--dir", cluster.folder / "nn")
            assert said.startswith("backup 1 of ")
            fs.write_bytes("/later", b"after the backup" * 10_000)
        restored(cluster, repository)
        with FileSystem.connect(cluster.url) as fs:
            assert fs.read_bytes("/small") == b"small"
            assert fs.read_bytes("/large") == b"l" * (3 * MIB + 1)
            with pytest.raises(PathNotFound):
                fs.read_bytes("/later")
            # Ids go on where none was ever given, so nothing is mixed up with what the DataNodes still have.
            fs.write_bytes("/new", b"n" * 200_000)
            assert fs.read_bytes("/new") == b"n" * 200_000
        kept = list(cluster.folder.glob("datanode*/blocks/*/blk_*"))
        dfs_namenode("release", "--dir", cluster.folder / "nn", code=74)
        cluster.namenode.stop()
        assert "go with" in dfs_namenode("release", "--dir", cluster.folder / "nn")
        assert (
            dfs_namenode("release", "--dir", cluster.folder / "nn") == "nothing was being spared\n"
        )
        cluster.namenode.restart()
        for node in cluster.datanodes:
            node.restart()
        cluster.wait_live(2)
        # /later's two replicas go, /large's and /new's stay.
        wait_until(
            lambda: len(list(cluster.folder.glob("datanode*/blocks/*/blk_*"))) == len(kept) - 2,
            "the orphans go",
        )
        with FileSystem.connect(cluster.url) as fs:
            assert fs.read_bytes("/large") == b"l" * (3 * MIB + 1)


def test_backups_beside_writers_are_whole_and_incremental(tmp_path: Path) -> None:
    """Each is the state of one moment: of the directories that a writer makes one after the other, a beginning."""
    repository = tmp_path / "backups"
    with running(tmp_path / "cluster", datanodes=1) as cluster:
        folder = cluster.folder / "nn"
        with FileSystem.connect(cluster.url) as fs:
            for number in range(300):
                fs.mkdirs(f"/filler/{number:04}/with/some/depth")
            fs.mkdirs("/made")
            acknowledged = 0
            stop = threading.Event()

            def write() -> None:
                nonlocal acknowledged
                while not stop.is_set():
                    fs.mkdirs(f"/made/{acknowledged:06}")
                    acknowledged += 1

            writer = threading.Thread(target=write)
            writer.start()
            try:
                promised = []
                for number in range(3):
                    promised.append(acknowledged)
                    backup.backup(folder, repository, now_ms=number)
            finally:
                stop.set()
                writer.join()
        cluster.namenode.stop()
        found = list(backup.manifests(repository))
        assert [manifest.number for manifest in found] == [1, 2, 3]
        assert found[1].new_bytes < found[0].new_bytes / 2
        for manifest, least in zip(found, promised, strict=True):
            target = tmp_path / f"restored{manifest.number}"
            backup.restore(repository, manifest, target)
            cluster.namenode.arguments[cluster.namenode.arguments.index("--dir") + 1] = str(target)
            cluster.namenode.restart()
            with FileSystem.connect(cluster.url) as fs:
                there = [status.name for status in fs.list("/made")]
            assert there == [f"{n:06}" for n in range(len(there))]
            assert len(there) >= least


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three backups of an idle namespace that grows a little in between."""
    with running(tmp_path / "cluster", datanodes=1) as cluster:
        with FileSystem.connect(cluster.url) as fs:
            for number in range(3):
                fs.mkdirs(f"/d{number}")
                backup.backup(cluster.folder / "nn", tmp_path / "backups", now_ms=number)
    return tmp_path / "backups"


def test_damage_is_found_and_nothing_is_restored(repository: Path, tmp_path: Path) -> None:
    found = list(backup.manifests(repository))
    pack = repository / "00000001.pack"
    content = bytearray(pack.read_bytes())
    piece = found[0].pieces[0]
    content[piece.offset + piece.length // 2] ^= 1
    pack.write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"00000001\.pack"):
        backup.verify(repository, found[0])
    with pytest.raises(StoreDamaged):
        backup.restore(repository, found[0], tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []
    pack.unlink()
    assert "can't be read" in dfs_namenode("backups", repository, "--verify", code=74)


def test_thinning_out_keeps_what_the_rest_needs(repository: Path, tmp_path: Path) -> None:
    assert backup.prune(repository, keep=1) == [1, 2]
    (left,) = backup.manifests(repository)
    assert left.number == 3
    backup.verify(repository, left)
    listed = json.loads(dfs_namenode("backups", repository, "--json"))
    assert (listed["number"], listed["cluster_id"]) == (3, left.cluster_id)


def test_refusals(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no namespace"):
        backup.backup(tmp_path / "nowhere", repository, now_ms=0)
    with running(tmp_path / "other", datanodes=1) as other:
        assert "a directory of its own" in dfs_namenode(
            "backup", repository, "--dir", other.folder / "nn", code=2
        )
        # Where a namespace is, none is restored over it.
        assert "is there" in dfs_namenode(
            "restore", repository, "--dir", other.folder / "nn", code=2
        )
    assert "there is no backup 9" in dfs_namenode(
        "restore", repository, "--dir", tmp_path / "new", "--number", 9, code=2
    )
    assert "there is no backup" in dfs_namenode(
        "restore", tmp_path / "empty", "--dir", tmp_path / "new", code=2
    )
    with backup._alone(repository), pytest.raises(StoreError, match="under way"):
        backup.prune(repository, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system of its own")
def test_a_full_disk_leaves_the_backups_that_are_there(repository: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, with a repository on a file system that is nearly full."""
    folder = tmp_path / "cluster" / "nn"
    small = tmp_path / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=1m tmpfs {small} && cp -r {repository}/. {small}/ && "
        f"head -c 950000 /dev/urandom > {small}/filler; "
        f"{sys.executable} -m twinfs.namenode backup {small} --dir {folder}; echo code $?; "
        f"rm {small}/filler; {sys.executable} -m twinfs.namenode backups {small} --verify; ls {small}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert "code 74" in done.stdout and "no space left" in done.stderr, done
    assert done.stdout.count("backup ") == 3
    assert "image.tmp" not in done.stdout
