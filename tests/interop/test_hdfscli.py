"""PyPI's `hdfs` (HdfsCLI)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..support.cluster import Cluster

hdfs = pytest.importorskip("hdfs", reason="`make interop` installs what this needs")
pytestmark = pytest.mark.filterwarnings("default")
BASE = "/cli"


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Any:
    made = hdfs.InsecureClient(cluster.url, user="root", root=BASE)
    made.makedirs(BASE)
    return made


def test_reading_and_writing(client: Any) -> None:
    data = b"0123456789" * 300_000
    client.write("f", data)
    with client.read("f") as reader:
        assert reader.read() == data
    with client.read("f", offset=2_999_995, length=100) as reader:
        assert reader.read() == b"56789"
    with client.read("f", chunk_size=1 << 20) as pieces:
        assert b"".join(pieces) == data
    client.write("f", b"short", overwrite=True)
    client.write("f", b" and more", append=True)
    with client.read("f", encoding="utf-8") as reader:
        assert reader.read() == "short and more"
    with client.write("lines", encoding="utf-8") as writer:
        for number in range(1000):
            writer.write(f"{number}\n")
    with client.read("lines", encoding="utf-8", delimiter="\n") as lines:
        assert sum(int(line) for line in lines if line) == 499_500
    client.write("generated", (b"%d," % n for n in range(10)))
    assert client.status("generated")["length"] == 20


def test_trees(client: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a", "b/c", "ü ä/d+e"):
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name, encoding="utf-8")
    client.upload("tree", str(source), n_threads=3)
    assert client.list("tree") == ["a", "b", "ü ä"]
    walked = [(path, dirs, files) for path, dirs, files in client.walk("tree")]
    assert walked[0] == (f"{BASE}/tree", ["b", "ü ä"], ["a"])
    client.download("tree", str(tmp_path / "copy"), n_threads=3)
    assert (tmp_path / "copy" / "ü ä" / "d+e").read_text(encoding="utf-8") == "ü ä/d+e"
    summary = client.content("tree")
    assert (summary["directoryCount"], summary["fileCount"], summary["length"]) == (3, 3, 13)
    client.rename("tree", "moved")
    assert client.status("tree", strict=False) is None
    assert client.delete("moved", recursive=True)
    assert not client.delete("moved")


def test_attributes(client: Any) -> None:
    client.write("g", b"x", permission=600, blocksize=1 << 20, replication=1)
    status = client.status("g")
    assert (status["permission"], status["replication"], status["blockSize"]) == ("600", 1, 1 << 20)
    client.set_permission("g", "644")
    client.set_owner("g", owner="ann", group="staff")
    client.set_times("g", access_time=1_000, modification_time=2_000)
    client.set_replication("g", 2)
    status = client.status("g")
    shown = [status[k] for k in ("permission", "owner", "group", "accessTime", "modificationTime")]
    assert shown == ["644", "ann", "staff", 1_000, 2_000]
    checksum = client.checksum("g")
    assert set(checksum) == {"algorithm", "bytes", "length"}
    client.set_acl("g", "user:bob:rwx", clear=False)
    assert client.acl_status("g")["entries"] == ["user:bob:rwx", "group::r--"]
    client.remove_acl_entries("g", "user:bob:")
    client.remove_acl("g")
    assert client.acl_status("g")["entries"] == []


def test_errors(client: Any) -> None:
    client.write("file", b"x")
    client.write("other", b"y")
    failing: list[Any] = [
        lambda: client.list("none"),
        lambda: client.list("file"),
        lambda: client.rename("file", "other"),
        lambda: client.rename("none", "x"),
        lambda: client.set_times("none", access_time=5),
        lambda: client.set_owner("none", owner="x"),
        lambda: client.checksum("/cli"),
        lambda: client.write("file", b"z"),
        lambda: client.write("none", b"z", append=True),
        lambda: client.makedirs("file"),
        lambda: client.delete("/cli"),
        lambda: client.acl_status("none"),
        lambda: client.set_acl("file", "nonsense"),
        lambda: client.content("none"),
    ]
    for call in failing:
        with pytest.raises(hdfs.HdfsError):
            call()
    with pytest.raises(hdfs.HdfsError), client.read("none"):
        pass
    with client.read("file") as reader:
        assert reader.read() == b"x"
    stranger = hdfs.InsecureClient(client.url, user="stranger", root=BASE)
    with pytest.raises(hdfs.HdfsError, match="may not"):
        stranger.write("mine", b"z")


def test_an_upload_that_breaks_off_leaves_nothing(client: Any) -> None:
    """Neither under a new name nor in place of what was there."""

    def pieces() -> Any:
        yield b"x" * 2_000_000
        raise RuntimeError("broken off")

    client.write("kept", b"before", overwrite=True)
    for name, more in (("kept", {"overwrite": True}), ("fresh", {}), ("kept", {"append": True})):
        with pytest.raises(RuntimeError):
            client.write(name, pieces(), **more)
    with client.read("kept") as reader:
        assert reader.read() == b"before"
    assert client.status("fresh", strict=False) is None
