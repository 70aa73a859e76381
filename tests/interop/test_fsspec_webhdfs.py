"""fsspec's own `webhdfs`, and pandas and pyarrow through it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from ..support.cluster import Cluster

fsspec = pytest.importorskip("fsspec", reason="`make interop` installs what this needs")
pd = pytest.importorskip("pandas")
pytest.importorskip("requests")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def files(cluster: Cluster) -> Any:
    where = urlsplit(cluster.url)
    made = fsspec.filesystem("webhdfs", host=where.hostname, port=where.port, user="root")
    made.makedirs("/fsspec", exist_ok=True)
    return made


def test_files(files: Any) -> None:
    data = bytes(range(256)) * 50_000  # three pieces of what it sends at once
    with files.open("/fsspec/f", "wb") as stream:
        stream.write(data)
    assert files.cat_file("/fsspec/f") == data
    assert files.cat_file("/fsspec/f", start=100, end=110) == data[100:110]
    with files.open("/fsspec/f", "rb") as stream:
        stream.seek(-10, 2)
        assert stream.read() == data[-10:]
        stream.seek(5)
        assert stream.read(10) == data[5:15]
    assert files.size("/fsspec/f") == len(data)
    files.pipe_file("/fsspec/small", b"small")
    assert files.cat("/fsspec/small") == b"small"
    files.touch("/fsspec/empty")
    assert files.size("/fsspec/empty") == 0


def test_the_tree(files: Any, tmp_path: Any) -> None:
    files.makedirs("/fsspec/t/ä b/c")
    files.pipe_file("/fsspec/t/ä b/x+y", b"1")
    files.pipe_file("/fsspec/t/ä b/c/100%", b"22")
    assert sorted(files.find("/fsspec/t")) == ["/fsspec/t/ä b/c/100%", "/fsspec/t/ä b/x+y"]
    assert files.du("/fsspec/t") == 3
    assert files.glob("/fsspec/t/*/x*") == ["/fsspec/t/ä b/x+y"]
    assert files.isdir("/fsspec/t/ä b")
    assert files.isfile("/fsspec/t/ä b/x+y")
    assert files.content_summary("/fsspec/t")["fileCount"] == 2
    assert files.home_directory() == "/user/root"
    files.chmod("/fsspec/t", "700")
    files.chown("/fsspec/t", owner="ann")
    files.set_replication("/fsspec/t/ä b/x+y", 1)
    info = files.info("/fsspec/t")
    assert (info["permission"], info["owner"], info["type"]) == ("700", "ann", "directory")
    files.get("/fsspec/t", str(tmp_path / "t"), recursive=True)
    assert (tmp_path / "t" / "ä b" / "c" / "100%").read_bytes() == b"22"
    files.put(str(tmp_path / "t"), "/fsspec/back", recursive=True)
    files.mv("/fsspec/back", "/fsspec/moved", recursive=True)
    assert files.exists("/fsspec/moved/ä b/x+y")
    files.rm("/fsspec/moved", recursive=True)
    assert not files.exists("/fsspec/moved")
    checksum = files.ukey("/fsspec/t/ä b/x+y")
    assert checksum["algorithm"].startswith("MD5-of-")


def test_errors_are_pythons(files: Any) -> None:
    with pytest.raises(FileNotFoundError):
        files.cat_file("/fsspec/none")
    with pytest.raises(FileNotFoundError):
        files.info("/fsspec/none")
    files.pipe_file("/fsspec/there", b"")
    eve = {**files.storage_options, "user": "eve"}
    stranger = fsspec.filesystem("webhdfs", **eve)
    with pytest.raises(PermissionError):
        stranger.pipe_file("/fsspec/hers", b"")
    with pytest.raises(PermissionError):
        stranger.mkdir("/fsspec/hers")


def test_a_transaction(files: Any) -> None:
    with files.transaction:
        with files.open("/fsspec/late", "wb") as stream:
            stream.write(b"x" * 100)
        assert not files.exists("/fsspec/late")
    assert files.cat_file("/fsspec/late") == b"x" * 100


def test_pandas(files: Any, cluster: Cluster) -> None:
    url = cluster.url.replace("http://", "webhdfs://") + "/fsspec/frame"
    options = {"user": "root"}
    frame = pd.DataFrame({"n": range(20_000), "text": [f"ä {n}" for n in range(20_000)]})
    frame.to_csv(url + ".csv", index=False, storage_options=options)
    assert pd.read_csv(url + ".csv", storage_options=options).equals(frame)
    frame.to_parquet(url + ".parquet", storage_options=options)
    read = pd.read_parquet(url + ".parquet", columns=["n"], storage_options=options)
    assert read["n"].tolist() == list(range(20_000))


def test_pyarrow(files: Any) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"year": [2024, 2025, 2025, 2026], "value": [1.0, 2.0, 3.0, 4.0]})
    dataset.write_dataset(
        table,
        "/fsspec/dataset",
        format="parquet",
        partitioning=["year"],
        partitioning_flavor="hive",
        filesystem=files,
    )
    found = dataset.dataset(
        "/fsspec/dataset", format="parquet", partitioning="hive", filesystem=files
    )
    assert len(found.files) == 3
    kept = found.to_table(filter=dataset.field("year") == 2025)
    assert sorted(kept["value"].to_pylist()) == [2.0, 3.0]


def test_its_appending_fails_before_anything_is_sent(files: Any) -> None:
    """docs/webhdfs.md says so; the day this fails, it is mended. The address that the server gives it is good."""
    files.pipe_file("/fsspec/log", b"old ")
    with pytest.raises(ValueError, match="URL 'None'"), files.open("/fsspec/log", "ab") as stream:
        stream.write(b"new")
    told = files._call("APPEND", "POST", "/fsspec/log", redirect=False)
    files.session.post(told.headers["Location"], data=b"new").raise_for_status()
    assert files.cat_file("/fsspec/log") == b"old new"
