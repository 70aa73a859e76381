"""Programs that were written for other file systems work on dfs:// as they are."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

import dask.bag
import dask.dataframe
import duckdb
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import zarr
from upath import UPath

from twinfs.client.fsspec_adapter import DfsFileSystem

ROWS = 20_000


@pytest.fixture(scope="module")
def base(shared_fs: DfsFileSystem, address: str) -> Iterator[str]:
    """URL of a directory for this module."""
    shared_fs.makedirs("/interop")
    yield f"dfs://{address}/interop"
    DfsFileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "id": np.arange(ROWS),
            "city": rng.choice(["Köln", "Paris", "東京"], ROWS),
            "year": rng.choice([2024, 2025, 2026], ROWS),
            "value": rng.normal(size=ROWS),
            "day": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 365, ROWS), "D"),
        }
    )


@pytest.mark.parametrize("compression", [None, "gzip", "zip"])
def test_pandas_csv(base: str, frame: pd.DataFrame, compression: str | None) -> None:
    url = f"{base}/frame-{compression}.csv"
    frame.to_csv(url, index=False, compression=compression)
    back = pd.read_csv(url, parse_dates=["day"], compression=compression)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    if compression is None:
        parts = pd.read_csv(url, chunksize=3000, usecols=["id"])
        assert sum(len(part) for part in parts) == ROWS
        frame.head(3).to_csv(url, mode="a", header=False, index=False)
        assert len(pd.read_csv(url)) == ROWS + 3


def test_pandas_parquet(base: str, frame: pd.DataFrame) -> None:
    url = f"{base}/frame.parquet"
    frame.to_parquet(url)
    pd.testing.assert_frame_equal(pd.read_parquet(url), frame)
    part = pd.read_parquet(url, columns=["value"], filters=[("city", "==", "Paris")])
    assert list(part.columns) == ["value"]
    assert len(part) == (frame.city == "Paris").sum()
    frame.to_parquet(f"{base}/by-year", partition_cols=["year"])
    back = pd.read_parquet(f"{base}/by-year", filters=[("year", "=", 2025)])
    assert len(back) == (frame.year == 2025).sum()


def test_pandas_json_and_pickle(base: str, frame: pd.DataFrame) -> None:
    frame.to_json(f"{base}/frame.jsonl", orient="records", lines=True, date_format="iso")
    assert len(pd.read_json(f"{base}/frame.jsonl", lines=True)) == ROWS
    frame.to_pickle(f"{base}/frame.pickle")
    pd.testing.assert_frame_equal(pd.read_pickle(f"{base}/frame.pickle"), frame)


def test_pyarrow_dataset_reads_only_the_partitions_it_needs(
    base: str, frame: pd.DataFrame, shared_fs: DfsFileSystem
) -> None:
    table = pa.Table.from_pandas(frame)
    path = "/interop/dataset"
    ds.write_dataset(
        table,
        path,
        filesystem=shared_fs,
        format="parquet",
        partitioning=ds.partitioning(pa.schema([("year", pa.int64())]), flavor="hive"),
    )
    found = ds.dataset(path, filesystem=shared_fs, partitioning="hive")
    assert found.count_rows() == ROWS
    wanted = ds.field("year") == 2026
    files = [fragment.path for fragment in found.get_fragments(filter=wanted)]
    assert [PurePosixPath(file).parent.name for file in files] == ["year=2026"]
    # What is pruned is not even opened: it may be damaged, or gone.
    shared_fs.pipe_file(f"{path}/year=2024/part-0.parquet", b"no parquet")
    assert found.to_table(filter=wanted).num_rows == (frame.year == 2026).sum()
    with pytest.raises((pa.ArrowInvalid, OSError)):
        found.to_table()


@pytest.mark.parametrize("cache", ["none", "readahead", "bytes"])
def test_pyarrow_reads_into_memory_of_its_own(
    base: str, shared_fs: DfsFileSystem, cache: str
) -> None:
    """`read_buffer` is `read` for it, by path and by CID."""
    data = random.Random(cache).randbytes(9 << 20)
    path = f"{DfsFileSystem._strip_protocol(base)}/buffers-{cache}"
    shared_fs.pipe_file(path, data, file_block_size=2 << 20)
    by_cid = fsspec.filesystem("dfs+cid", namenode=shared_fs.config.namenode)
    for fs, name in ((shared_fs, path), (by_cid, shared_fs.checksum(path))):
        with fs.open(name, "rb", cache_type=cache) as file:
            for start, size in ((0, 5 << 20), (5, 10), (6 << 20, 5 << 20), (0, 0), (1 << 20, -1)):
                file.seek(start)
                wanted = data[start:] if size < 0 else data[start : start + size]
                assert bytes(memoryview(file.read_buffer(size))) == wanted
                assert file.tell() == start + len(wanted)
            assert bytes(memoryview(file.read_buffer())) == b""
        with fs.open(name, "rb", cache_type=cache) as file:
            assert pa.PythonFile(file).read(6 << 20) == data[: 6 << 20]
            assert pa.PythonFile(file).read_at(5 << 20, 2 << 20) == data[2 << 20 : 7 << 20]
        with pytest.raises(ValueError, match="closed"):
            file.read_buffer(5 << 20)


def test_pyarrow_parquet_and_file_systems(base: str, shared_fs: DfsFileSystem) -> None:
    table = pa.table({"n": list(range(100_000))})
    pq.write_table(table, "/interop/plain.parquet", filesystem=shared_fs, row_group_size=10_000)
    with shared_fs.open("/interop/plain.parquet") as file:
        one = pq.ParquetFile(file)
        assert one.num_row_groups == 10
        assert one.read_row_group(7)["n"][0].as_py() == 70_000
    wrapped = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(shared_fs))
    info = wrapped.get_file_info("/interop/plain.parquet")
    assert info.is_file
    assert info.size == shared_fs.size("/interop/plain.parquet")
    assert info.mtime.timestamp() == shared_fs.modified("/interop/plain.parquet").timestamp()
    wrapped.create_dir("/interop/arrow/deep")
    with wrapped.open_output_stream("/interop/arrow/deep/file") as out:
        out.write(b"arrow")
    wrapped.copy_file("/interop/arrow/deep/file", "/interop/arrow/copy")
    wrapped.move("/interop/arrow/copy", "/interop/arrow/moved")
    selector = pa.fs.FileSelector("/interop/arrow", recursive=True)
    assert sorted(found.base_name for found in wrapped.get_file_info(selector)) == [
        *["deep", "file", "moved"]
    ]
    with wrapped.open_input_file("/interop/arrow/moved") as file:
        assert file.read_at(3, 1) == b"rro"
    wrapped.delete_dir("/interop/arrow")
    assert not shared_fs.exists("/interop/arrow")


def test_duckdb(base: str, frame: pd.DataFrame, shared_fs: DfsFileSystem) -> None:
    for year, part in frame.groupby("year"):
        part.to_parquet(f"{base}/duck/year={year}/part.parquet", index=False)
    with duckdb.connect() as db:
        db.register_filesystem(shared_fs)
        rows = db.sql(
            "SELECT year, count(*) AS n, sum(id) AS ids FROM read_parquet('dfs:///interop/duck/*/*.parquet',"
            " hive_partitioning = true) WHERE year > 2024 GROUP BY year ORDER BY year"
        ).fetchall()
        wanted = frame[frame.year > 2024].groupby("year").id.agg(["count", "sum"])
        assert rows == [(year, n, ids) for year, n, ids in wanted.itertuples()]
        db.sql("COPY (SELECT range AS n FROM range(100000)) TO 'dfs:///interop/duck.parquet'")
        assert pd.read_parquet(f"{base}/duck.parquet").n.sum() == sum(range(100_000))
        db.sql("COPY (SELECT 1 AS one) TO 'dfs:///interop/duck.csv'")
        assert db.sql("SELECT one FROM 'dfs:///interop/duck.csv'").fetchall() == [(1,)]


def test_dask(base: str, frame: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frames = dask.dataframe.from_pandas(frame, npartitions=4)
        frames.to_parquet(f"{base}/dask")
        back = dask.dataframe.read_parquet(f"{base}/dask")
        assert back.npartitions == 4
        total = back.value.sum().compute(scheduler="threads")
        assert total == pytest.approx(frame.value.sum())
        frame.to_csv(f"{base}/dask-1.csv", index=False)
        frame.to_csv(f"{base}/dask-2.csv", index=False)
        lines = dask.dataframe.read_csv(f"{base}/dask-*.csv", blocksize=200_000)
        assert lines.npartitions > 4
        assert lines.id.count().compute(scheduler="threads") == 2 * ROWS
        texts = dask.bag.read_text(f"{base}/dask-*.csv", blocksize=100_000)
        assert texts.count().compute(scheduler="threads") == 2 * (ROWS + 1)


def test_zarr(base: str, shared_fs: DfsFileSystem) -> None:
    data = np.arange(1000 * 1000, dtype="i4").reshape(1000, 1000)
    group = zarr.open_group(f"{base}/zarr", mode="w")
    array = group.create_array("a", shape=data.shape, chunks=(250, 250), dtype=data.dtype)
    array[:] = data
    array.attrs["unit"] = "m"
    back = zarr.open_group(f"{base}/zarr", mode="r")["a"]
    assert isinstance(back, zarr.Array)
    assert back.attrs["unit"] == "m"
    assert (back[300:700, 100:900] == data[300:700, 100:900]).all()
    assert len(shared_fs.find("/interop/zarr/a/c")) == 16


def ppm(number: int) -> bytes:
    """A small picture in a format that needs no library."""
    rng = random.Random(number)
    return b"P6 16 16 255\n" + rng.randbytes(16 * 16 * 3)


def test_streaming_a_tar_of_images(base: str, shared_fs: DfsFileSystem) -> None:
    """As loaders of training data do: shards are read from front to back, samples are files of one stem."""
    for shard in range(3):
        with fsspec.open(f"{base}/train-{shard:03}.tar", "wb") as out:
            with tarfile.open(fileobj=out, mode="w|") as tar:
                for number in range(shard * 100, shard * 100 + 100):
                    for name, data in (
                        (f"{number:06}.ppm", ppm(number)),
                        (f"{number:06}.cls", b"%d" % (number % 10)),
                    ):
                        entry = tarfile.TarInfo(name)
                        entry.size = len(data)
                        tar.addfile(entry, io.BytesIO(data))

    def samples(url: str) -> Iterator[dict[str, bytes]]:
        with fsspec.open(url, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            sample: dict[str, bytes] = {}
            stem = ""
            for entry in tar:
                path = PurePosixPath(entry.name)
                if sample and path.stem != stem:
                    yield sample
                    sample = {}
                stem = path.stem
                member = tar.extractfile(entry)
                assert member is not None
                sample[path.suffix] = member.read()
            yield sample

    shards = sorted(shared_fs.glob("/interop/train-*.tar"))
    assert len(shards) == 3
    seen = [s for shard in shards for s in samples(shared_fs.unstrip_protocol(shard))]
    assert [int(sample[".cls"]) for sample in seen] == [n % 10 for n in range(300)]
    assert all(sample[".ppm"] == ppm(number) for number, sample in enumerate(seen))
    # Random access to a member, as with an index of the archive.
    with shared_fs.open(shards[1]) as stream, tarfile.open(fileobj=stream) as tar:
        member = tar.extractfile("000150.ppm")
        assert member is not None
        assert member.read() == ppm(150)


def test_universal_pathlib(base: str, address: str) -> None:
    root = UPath(base) / "paths"
    root.mkdir()
    with pytest.raises(FileExistsError):
        root.mkdir()
    root.mkdir(exist_ok=True)
    with pytest.raises(FileNotFoundError):
        (root / "a" / "b").mkdir()
    (root / "a" / "b").mkdir(parents=True)
    file = root / "a" / "file.txt"
    assert file.write_text("grüße") == 5 or file.read_text() == "grüße"
    assert file.read_text() == "grüße"
    assert file.read_bytes() == "grüße".encode()
    assert (file.name, file.stem, file.suffix, file.parent.name) == (
        "file.txt",
        "file",
        ".txt",
        "a",
    )
    assert str(file) == f"dfs://{address}/interop/paths/a/file.txt"
    assert UPath(str(file)) == file
    assert file.exists() and file.is_file() and not file.is_dir()
    assert file.stat().st_size == 7
    assert [path.name for path in (root / "a").iterdir()] == ["b", "file.txt"]
    assert list(root.glob("**/*.txt")) == [file]
    assert list(root.rglob("*.txt")) == [file]
    assert file.relative_to(root).parts == ("a", "file.txt")
    assert file.with_suffix(".md").name == "file.md"
    moved = file.rename(root / "moved.txt")
    assert not file.exists()
    assert moved.read_text() == "grüße"
    with moved.open("a") as out:
        out.write("!")
    assert moved.read_text() == "grüße!"
    moved.touch()
    assert moved.stat().st_size == 8
    assert [(len(dirs), len(files)) for _, dirs, files in root.walk()] == [(1, 1), (1, 0), (0, 0)]
    moved.unlink()
    with pytest.raises(FileNotFoundError):
        moved.unlink()
    (root / "a" / "b").rmdir()
    root.fs.rm(root.path, recursive=True)
    assert not root.exists()


def test_universal_pathlib_by_content(
    shared_fs: DfsFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_fs.pipe({"/interop/kept/a": b"one", "/interop/kept/d/b": b"two"})
    monkeypatch.setenv("TWINFS_NAMENODE", shared_fs.config.namenode)
    cid = shared_fs.checksum("/interop/kept")
    root = UPath(f"dfs+cid://{cid}")
    assert str(root) == f"dfs+cid://{cid}"
    assert [path.name for path in root.iterdir()] == ["a", "d"]
    file = root / "d" / "b"
    assert file.read_bytes() == b"two"
    assert UPath(str(file)) == UPath(root, "d/b") == root.joinpath("d", "b") == file
    assert (file.name, file.parent.parent, file.is_file()) == ("b", root, True)
    assert list(root.rglob("b")) == [file]
    assert not (root / "none").exists()
    assert pickle.loads(pickle.dumps(file)).read_text() == "two"
    with pytest.raises(OSError, match="can't be changed"):
        file.write_text("three")
    with pytest.raises(OSError, match="'nonsense' is no CID"):
        UPath("dfs+cid://nonsense").stat()


def test_local_caches_notice_a_change(
    base: str, shared_fs: DfsFileSystem, tmp_path: object
) -> None:
    """fsspec's file caches ask by `ukey` whether what they keep is still what is there."""
    shared_fs.pipe("/interop/cached", b"one")
    options = {"cache_storage": str(tmp_path), "check_files": True}
    cached = fsspec.filesystem("filecache", fs=shared_fs, **options)
    assert cached.cat_file("/interop/cached") == b"one"
    shared_fs.pipe("/interop/cached", b"two")
    assert cached.cat_file("/interop/cached") == b"two"
    with fsspec.open(f"simplecache::{base}/cached", simplecache=options) as file:
        assert file.read() == b"two"


def test_a_mapping(base: str) -> None:
    mapper = fsspec.get_mapper(f"{base}/map", create=True)
    mapper["a/b"] = b"1"
    mapper.setitems({"c": b"2", "d": b"3"})
    assert sorted(mapper) == ["a/b", "c", "d"]
    assert mapper.getitems(["c", "d"]) == {"c": b"2", "d": b"3"}
    assert mapper["a/b"] == b"1"
    del mapper["c"]
    assert "c" not in mapper
    with pytest.raises(KeyError):
        _ = mapper["none"]
