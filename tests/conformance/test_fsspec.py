"""`dfs://` as fsspec's users see it, beyond what the abstract suite asks."""

from __future__ import annotations

import asyncio
import io
import pickle
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.callbacks import Callback, TqdmCallback
from fsspec.core import url_to_fs

from twinfs.client import ranges
from twinfs.client.fsspec_adapter import DfsFileSystem
from twinfs.common.checksum import digest_of
from twinfs.common.ipld.cid import RAW, Cid

from ..support.cluster import Cluster

MIB = 1 << 20
CACHES = ["none", "readahead", "bytes", "blockcache", "background", "first", "mmap", "all"]


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed * 1_000_003 + size).randbytes(size)


@pytest.fixture
def fs(shared_fs: DfsFileSystem) -> DfsFileSystem:
    return shared_fs


@pytest.fixture
def folder(fs: DfsFileSystem, request: pytest.FixtureRequest) -> str:
    """A directory of the test's own."""
    name = request.node.name
    path = f"/fs/{re.sub(r'[^a-z0-9]', '_', name)[:80]}{zlib.crc32(name.encode()):08x}"
    fs.makedirs(path)
    return path


# --- addresses ---


@pytest.mark.parametrize(
    ("url", "path", "options"),
    [
        ("dfs://nn:9870/a/b", "/a/b", {"host": "nn", "port": 9870}),
        ("dfs://nn/a", "/a", {"host": "nn"}),
        ("dfs:///a/b/", "/a/b", {}),
        ("dfs://nn:1", "/", {"host": "nn", "port": 1}),
        ("dfs://[::1]:9870/a", "/a", {"host": "::1", "port": 9870}),
        ("dfs://[::1]/a", "/a", {"host": "::1"}),
        ("dfs://ann@nn:1/a", "/a", {"host": "nn", "port": 1, "user": "ann"}),
        ("dfs://nn:1/100% #1?;é😀", "/100% #1?;é😀", {"host": "nn", "port": 1}),
        ("/plain/path", "/plain/path", {}),
        ("/odd/dfs://nn:1/x", "/odd/dfs://nn:1/x", {}),
        ("relative", "/relative", {}),
    ],
)
def test_addresses(url: str, path: str, options: dict[str, Any]) -> None:
    assert DfsFileSystem._strip_protocol(url) == path
    assert DfsFileSystem._get_kwargs_from_urls(url) == options


def test_an_address_without_a_sensible_port_is_refused() -> None:
    with pytest.raises(ValueError, match="no port"):
        fsspec.filesystem("dfs", **DfsFileSystem._get_kwargs_from_urls("dfs://nn:x/a"))


def test_the_protocol_is_registered_by_installing(address: str) -> None:
    fs, path = url_to_fs(f"dfs://{address}/some/file")
    assert isinstance(fs, DfsFileSystem)
    assert path == "/some/file"
    assert fs.unstrip_protocol(path) == f"dfs://{address}/some/file"
    with fsspec.open(f"dfs://{address}/registered", "wt") as file:
        file.write("grüße\n")
    with fsspec.open(f"dfs://{address}/registered", "rt", encoding="utf-8") as file:
        assert file.read() == "grüße\n"
    fs.close()


def test_no_host_means_the_configured_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINFS_NAMENODE", cluster.url)
    fs, path = url_to_fs("dfs:///configured", skip_instance_cache=True)
    fs.pipe(path, b"x")
    assert fs.cat("dfs:///configured") == b"x"
    fs.close()


def test_the_address_names_the_user(cluster: Cluster, fs: DfsFileSystem, address: str) -> None:
    fs.makedirs("/users", exist_ok=True)
    fs.call("set_mode", "/users", 0o1777)
    with fsspec.open(f"dfs://somebody@{address}/users/file", "wb") as file:
        file.write(b"x")
    assert fs.info("/users/file")["owner"] == "somebody"
    other = fsspec.filesystem("dfs", namenode=cluster.url, user="mallory")
    with pytest.raises(PermissionError):
        other.rm("/users/file")
    other.close()


@pytest.mark.parametrize("options", [{"replicas": 3}, {"durability": "none"}, {"retry_s": "soon"}])
def test_wrong_options_are_errors(cluster: Cluster, options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, OSError)):
        fsspec.filesystem("dfs", namenode=cluster.url, **options)


def test_nobody_there_is_an_os_error() -> None:
    fs = fsspec.filesystem("dfs", host="127.0.0.1", port=1, retry_s=0.1)
    with pytest.raises(OSError, match=r"127\.0\.0\.1:1"):
        fs.ls("/")
    fs.close()


# --- looking ---


def test_details(fs: DfsFileSystem, folder: str) -> None:
    fs.pipe(f"{folder}/a", data_of(1000))
    fs.mkdir(f"{folder}/d")
    info = fs.info(f"{folder}/a")
    assert (info["name"], info["size"], info["type"]) == (f"{folder}/a", 1000, "file")
    assert info["mode"] == 0o100644
    listed = fs.ls(folder, detail=True)
    assert listed == [info, fs.info(f"{folder}/d")]
    assert fs.ls(folder, detail=False) == [f"{folder}/a", f"{folder}/d"]
    assert fs.ls(f"{folder}/a", detail=False) == [f"{folder}/a"]
    assert fs.info(f"{folder}/d")["type"] == "directory"
    assert fs.info("/")["type"] == "directory"
    modified = fs.modified(f"{folder}/a")
    assert modified == fs.created(f"{folder}/a") == datetime.fromtimestamp(info["mtime"], UTC)
    assert fs.isfile(f"{folder}/a")
    assert not fs.isfile(folder)
    assert fs.isdir(folder)
    assert not fs.isdir(f"{folder}/a")
    assert not fs.exists(f"{folder}/a/below")
    assert fs.size(f"{folder}/a") == 1000
    assert fs.sizes([f"{folder}/a", folder]) == [1000, 0]


def test_walking(fs: DfsFileSystem, folder: str) -> None:
    names = ["a", "b/c", "b/d/e", "b/d/f.csv", "g.csv", ".hidden"]
    fs.pipe({f"{folder}/{name}": name.encode() for name in names})
    fs.mkdir(f"{folder}/empty")

    def short(paths: Any) -> list[str]:
        return [path[len(folder) + 1 :] for path in paths]

    assert short(fs.find(folder)) == sorted(names)
    assert short(fs.find(folder, maxdepth=1)) == [".hidden", "a", "g.csv"]
    assert short(fs.find(folder, withdirs=True)) == sorted(["", *names, "b", "b/d", "empty"])
    assert list(fs.find(f"{folder}/b/d", detail=True)) == [f"{folder}/b/d/e", f"{folder}/b/d/f.csv"]
    assert fs.find(f"{folder}/a") == [f"{folder}/a"]
    assert fs.find(f"{folder}/none") == []
    assert short(fs.glob(f"{folder}/**/*.csv")) == ["b/d/f.csv", "g.csv"]
    assert short(fs.glob(f"{folder}/*")) == [".hidden", "a", "b", "empty", "g.csv"]
    assert short(fs.glob(f"{folder}/b/[cd]")) == ["b/c", "b/d"]
    assert fs.glob(f"{folder}/none*") == []
    assert short(fs.expand_path(f"{folder}/b", recursive=True)) == [
        *["b", "b/c", "b/d", "b/d/e", "b/d/f.csv"]
    ]
    with pytest.raises(FileNotFoundError):
        fs.expand_path(f"{folder}/none*")
    walked = {path: (dirs, files) for path, dirs, files in fs.walk(folder)}
    assert walked[f"{folder}/b"] == (["d"], ["c"])
    assert walked[f"{folder}/empty"] == ([], [])
    assert fs.du(folder) == sum(map(len, names))
    assert fs.du(f"{folder}/a") == 1
    assert fs.du(folder, total=False)[f"{folder}/b/d/e"] == 5
    assert fs.du(folder, maxdepth=1) == len("a") + len("g.csv") + len(".hidden")
    assert "g.csv" in fs.tree(folder)


def test_content_has_a_name(fs: DfsFileSystem, folder: str) -> None:
    small, large = data_of(1000), data_of(2 * MIB + 1)
    fs.pipe({f"{folder}/a": small, f"{folder}/b": large, f"{folder}/c": large})
    assert fs.ukey(f"{folder}/b") == fs.ukey(f"{folder}/c") != fs.ukey(f"{folder}/a")
    # Of one chunk, it is the BLAKE3 of the bytes: the same that b3sum and every IPFS tool say.
    assert fs.checksum(f"{folder}/a") == str(Cid(1, RAW, b"\x1e\x20" + digest_of(small)))
    assert fs.checksum(folder) != fs.checksum(f"{folder}/a")
    before = fs.ukey(f"{folder}/c")
    with fs.open(f"{folder}/c", "ab") as file:
        file.write(b"more")
    assert fs.ukey(f"{folder}/c") != before
    assert fs.ukey(folder)
    with pytest.raises(FileNotFoundError):
        fs.ukey(f"{folder}/none")


@pytest.mark.parametrize("name", ["a b", "100%", "a+b", "#1", "q?", "x;y", "😀", "e\u0301", "[1]*"])
def test_names_of_every_kind(fs: DfsFileSystem, folder: str, name: str, address: str) -> None:
    path = f"{folder}/{name}"
    with fs.open(path, "wb") as file:
        file.write(name.encode())
    assert fs.ls(folder, detail=False) == [path]
    assert fs.cat_file(path) == name.encode()
    with fsspec.open(f"dfs://{address}{path}", "rb", expand=False) as file:
        assert file.read() == name.encode()
    fs.rm_file(path)
    assert fs.ls(folder) == []


def test_errors_are_those_of_a_file_system(fs: DfsFileSystem, folder: str) -> None:
    fs.pipe(f"{folder}/file", b"x")
    fs.makedirs(f"{folder}/full/sub")
    wrong: list[tuple[type[Exception], Callable[[], Any]]] = [
        (FileNotFoundError, lambda: fs.info(f"{folder}/none")),
        (FileNotFoundError, lambda: fs.ls(f"{folder}/none")),
        (FileNotFoundError, lambda: fs.open(f"{folder}/none")),
        (FileNotFoundError, lambda: fs.cat(f"{folder}/none")),
        (FileNotFoundError, lambda: fs.rm(f"{folder}/none")),
        (FileNotFoundError, lambda: fs.rm(f"{folder}/none*")),
        (FileNotFoundError, lambda: fs.mv(f"{folder}/none", f"{folder}/x")),
        (FileNotFoundError, lambda: fs.mkdir(f"{folder}/a/b", create_parents=False)),
        (FileExistsError, lambda: fs.mkdir(folder)),
        (FileExistsError, lambda: fs.makedirs(folder)),
        (FileExistsError, lambda: fs.makedirs(f"{folder}/file", exist_ok=True)),
        (FileExistsError, lambda: fs.open(f"{folder}/file", "xb")),
        (FileExistsError, lambda: fs.pipe_file(f"{folder}/file", b"", mode="create")),
        (IsADirectoryError, lambda: fs.open(folder)),
        (IsADirectoryError, lambda: fs.cat_file(folder)),
        (IsADirectoryError, lambda: fs.rm_file(folder)),
        (NotADirectoryError, lambda: fs.rmdir(f"{folder}/file")),
        (NotADirectoryError, lambda: fs.info(f"{folder}/file/below")),
        (OSError, lambda: fs.rmdir(f"{folder}/full")),
        (OSError, lambda: fs.rm(f"{folder}/full")),
        (OSError, lambda: fs.pipe_file(f"{folder}/{'n' * 256}", b"")),
        (NotImplementedError, lambda: fs.open(f"{folder}/file", "r+b")),
        (TypeError, lambda: fs.open(f"{folder}/file", "rb", colour="red")),
    ]
    for kind, call in wrong:
        with pytest.raises(kind):
            call()
    assert fs.cat(f"{folder}/file") == b"x"
    assert fs.isdir(f"{folder}/full/sub")
    both = fs.cat([f"{folder}/file", f"{folder}/none"], on_error="return")
    assert both[f"{folder}/file"] == b"x"
    assert isinstance(both[f"{folder}/none"], FileNotFoundError)


# --- reading ---


@pytest.fixture(scope="module")
def big(shared_fs: DfsFileSystem) -> tuple[str, bytes]:
    """A file of several blocks, the last chunk short."""
    data = data_of(9 * MIB + 12_345)
    shared_fs.pipe_file("/big", data, file_block_size=2 * MIB)
    return "/big", data


# fsspec's mmap cache leaves closing its temporary file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("cache", CACHES)
def test_block_caches(fs: DfsFileSystem, big: tuple[str, bytes], cache: str) -> None:
    path, data = big
    rng = random.Random(cache)
    with fs.open(path, "rb", cache_type=cache, block_size=MIB) as file:
        assert file.size == len(data)
        for _ in range(40):
            start = rng.randrange(len(data))
            size = rng.choice([1, 100, 70_000, 2 * MIB])
            file.seek(start)
            assert file.read(size) == data[start : start + size]
        file.seek(-7, 2)
        assert file.read() == data[-7:]
        assert file.read() == b""
        file.seek(0)
        assert b"".join(iter(lambda: file.read(300_001), b"")) == data


def test_lines_and_text(fs: DfsFileSystem, folder: str) -> None:
    lines = [f"Zeile {n} – ü\n" for n in range(20_000)]
    with fs.open(f"{folder}/text", "w", encoding="utf-8") as file:
        file.writelines(lines)
    with fs.open(f"{folder}/text", "r", encoding="utf-8") as file:
        assert list(file) == lines
    with fs.open(f"{folder}/text", "rb") as raw:
        assert [line.decode() for line in raw] == lines
    with fs.open(f"{folder}/text.gz", "wb", compression="infer") as packed:
        packed.write(b"z" * 100_000)
    assert fs.size(f"{folder}/text.gz") < 1000
    with fs.open(f"{folder}/text.gz", "rb", compression="infer") as packed:
        assert packed.read() == b"z" * 100_000
    assert fs.head(f"{folder}/text", 5) == b"Zeile"
    assert fs.tail(f"{folder}/text", 1) == b"\n"
    assert fs.read_block(f"{folder}/text", 10, 10, b"\n").endswith(b"\n")


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 10), (None, 5), (-5, None), (-10, -3), (5, -5), (MIB - 1, MIB + 1), (10**9, None), (7, 3)],
)
def test_ranges_are_slices(
    fs: DfsFileSystem, big: tuple[str, bytes], start: int | None, end: int | None
) -> None:
    path, data = big
    assert fs.cat_file(path, start=start, end=end) == data[start:end]
    assert fs.cat_ranges([path], [start], [end]) == [data[start:end]]


def test_many_ranges_of_many_files(fs: DfsFileSystem, big: tuple[str, bytes], folder: str) -> None:
    path, data = big
    small = {f"{folder}/{n}": data_of(n * 1000) for n in range(20)}
    fs.pipe(small)
    rng = random.Random(5)
    paths, starts, ends, wanted = [], [], [], []
    for _ in range(300):
        name = rng.choice([path, *small])
        content = data if name == path else small[name]
        start = rng.randrange(len(content) + 1)
        end = start + rng.choice([0, 1, 1000, 65_536])
        paths.append(name)
        starts.append(start)
        ends.append(end)
        wanted.append(content[start:end])
    assert fs.cat_ranges(paths, starts, ends) == wanted
    assert fs.cat_ranges(paths, starts, ends, max_gap=1 << 16) == wanted
    assert fs.cat_ranges([path, path], 1, 3) == [data[1:3]] * 2
    mixed = fs.cat_ranges([path, f"{folder}/none"], 0, 4)
    assert mixed[0] == data[:4]
    assert isinstance(mixed[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([path, f"{folder}/none"], 0, 4, on_error="raise")
    with pytest.raises(ValueError, match="equally long"):
        fs.cat_ranges([path], [0, 1], [2, 3])


def test_a_reader_keeps_to_the_file_it_opened(fs: DfsFileSystem, folder: str) -> None:
    first, second = data_of(MIB, 1), data_of(MIB, 2)
    fs.pipe(f"{folder}/f", first)
    with fs.open(f"{folder}/f", "rb", block_size=1000, cache_type="none") as file:
        assert file.read(1000) == first[:1000]
        fs.pipe(f"{folder}/f", second)
        assert file.read() == first[1000:]
    assert fs.cat(f"{folder}/f") == second


# --- writing ---


@pytest.mark.parametrize("size", [0, 1, 65_537, 4 * MIB - 1, 4 * MIB, 9 * MIB + 5])
def test_a_file_appears_whole_when_it_is_closed(fs: DfsFileSystem, folder: str, size: int) -> None:
    data, path = data_of(size), f"{folder}/f"
    with fs.open(path, "wb", file_block_size=MIB, replication=2) as file:
        for start in range(0, size, 700_001):
            file.write(data[start : start + 700_001])
        assert file.tell() == size
        assert not fs.exists(path)
    assert fs.cat_file(path) == data
    assert fs.info(path)["block_size"] == MIB
    assert fs.info(path)["replication"] == 2
    assert fs.ls(folder, detail=False) == [path]
    with fs.open(path, "wb") as file:
        file.write(b"new")
        file.write(data)
        assert fs.cat_file(path) == data
    assert fs.cat_file(path) == b"new" + data
    assert fs.ls(folder, detail=False) == [path]


@pytest.mark.parametrize("size", [10, 9 * MIB])
def test_an_exception_leaves_no_file(fs: DfsFileSystem, folder: str, size: int) -> None:
    with pytest.raises(ZeroDivisionError):
        with fs.open(f"{folder}/f", "wb") as file:
            file.write(data_of(size))
            raise ZeroDivisionError
    assert fs.ls(folder) == []


def test_append(fs: DfsFileSystem, folder: str) -> None:
    path = f"{folder}/log"
    wanted = b""
    for size in (0, 5, 70_000, 5 * MIB, 1):
        with fs.open(path, "ab") as file:
            assert file.tell() == len(wanted)
            file.write(data_of(size))
            wanted += data_of(size)
            assert file.tell() == len(wanted)
        assert fs.cat_file(path) == wanted
    assert fs.ls(folder, detail=False) == [path]


@pytest.mark.parametrize("size", [10, 9 * MIB])
def test_a_transaction_that_can_not_be_committed_changes_nothing(
    fs: DfsFileSystem, folder: str, size: int
) -> None:
    """One of its files is refused at the end: the others, before and after it, have not appeared."""
    fs.pipe(f"{folder}/a", b"former")
    with pytest.raises(FileExistsError), fs.transaction:
        for name, mode in (("a", "wb"), ("b", "xb"), ("c", "wb")):
            with fs.open(f"{folder}/{name}", mode) as file:
                file.write(data_of(size))
        fs.pipe(f"{folder}/b", b"somebody else's")
    assert fs.ls(folder, detail=False) == [f"{folder}/a", f"{folder}/b"]
    assert (fs.cat(f"{folder}/a"), fs.cat(f"{folder}/b")) == (b"former", b"somebody else's")
    with fs.transaction, fs.open(f"{folder}/c", "wb") as file:
        file.write(b"x")
    assert fs.cat(f"{folder}/c") == b"x"


@pytest.mark.parametrize("size", [10, 9 * MIB])
def test_a_transaction_is_all_or_nothing(fs: DfsFileSystem, folder: str, size: int) -> None:
    data = data_of(size)
    fs.pipe(f"{folder}/log", b"old ")
    with fs.transaction:
        for name in ("a", "b"):
            with fs.open(f"{folder}/{name}", "wb") as file:
                file.write(data)
        with fs.open(f"{folder}/log", "ab") as file:
            file.write(data)
        assert not fs.exists(f"{folder}/a")
        assert fs.cat(f"{folder}/log") == b"old "
    assert fs.cat(f"{folder}/a") == fs.cat(f"{folder}/b") == data
    assert fs.cat(f"{folder}/log") == b"old " + data
    with pytest.raises(ZeroDivisionError), fs.transaction:
        with fs.open(f"{folder}/c", "wb") as file:
            file.write(data)
        with fs.open(f"{folder}/a", "wb") as file:
            file.write(b"other")
        with fs.open(f"{folder}/log", "ab") as file:
            file.write(b"other")
        raise ZeroDivisionError
    assert fs.ls(folder, detail=False) == [f"{folder}/{n}" for n in ("a", "b", "log")]
    assert fs.cat(f"{folder}/a") == data
    assert fs.cat(f"{folder}/log") == b"old " + data
    with fs.open(f"{folder}/after", "wb") as file:
        file.write(b"x")
    assert fs.cat(f"{folder}/after") == b"x"


def test_touch(fs: DfsFileSystem, folder: str) -> None:
    fs.touch(f"{folder}/t")
    assert fs.size(f"{folder}/t") == 0
    fs.pipe(f"{folder}/t", b"x")
    fs.call("set_times", f"{folder}/t", mtime_ms=1000)
    assert fs.modified(f"{folder}/t").year == 1970
    fs.touch(f"{folder}/t", truncate=False)
    assert fs.modified(f"{folder}/t").year > 2000
    assert fs.cat(f"{folder}/t") == b"x"
    fs.touch(f"{folder}/t")
    assert fs.size(f"{folder}/t") == 0
    fs.touch(f"{folder}/new", truncate=False)
    assert fs.exists(f"{folder}/new")


def test_moving_and_removing(fs: DfsFileSystem, folder: str) -> None:
    fs.pipe({f"{folder}/d/{n}": b"%d" % n for n in range(5)})
    inode = fs.info(f"{folder}/d/1")["ino"]
    fs.mv(f"{folder}/d", f"{folder}/e", recursive=True)
    assert not fs.exists(f"{folder}/d")
    assert fs.info(f"{folder}/e/1")["ino"] == inode
    fs.mv(f"{folder}/e/1", f"{folder}/e/2")
    assert fs.cat(f"{folder}/e/2") == b"1"
    fs.mkdir(f"{folder}/into")
    fs.mv(f"{folder}/e/2", f"{folder}/into")
    assert fs.cat(f"{folder}/into/2") == b"1"
    fs.mv(f"{folder}/e/*", f"{folder}/into/", recursive=False)
    assert len(fs.ls(f"{folder}/into")) == 4
    fs.cp(f"{folder}/into", f"{folder}/copy", recursive=True)
    assert fs.du(f"{folder}/copy") == fs.du(f"{folder}/into") == 4
    fs.rm([f"{folder}/into/0", f"{folder}/copy"], recursive=True)
    fs.rm(f"{folder}/into/[34]")
    assert fs.find(folder) == [f"{folder}/into/2"]
    fs.rm(folder, recursive=True)
    assert not fs.exists(folder)


class Counting(Callback):
    """Keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.branches: list[Counting] = []

    def branched(self, path_1: str, path_2: str, **kwargs: Any) -> Counting:
        self.branches.append(Counting())
        return self.branches[-1]


def test_put_and_get_with_callbacks(fs: DfsFileSystem, folder: str, tmp_path: Path) -> None:
    sizes = {"a": 10, "d/b": 3 * MIB + 1, "d/c": 0}
    for name, size in sizes.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data_of(size))
    up, down = Counting(), Counting()
    fs.put(f"{tmp_path}/in/", f"{folder}/x/", recursive=True, callback=up)
    assert fs.du(f"{folder}/x") == sum(sizes.values())
    fs.get(f"{folder}/x/", f"{tmp_path}/out/", recursive=True, callback=down)
    for told in (up, down):
        assert told.size == told.value
        assert sorted(one.value for one in told.branches if one.size) == [10, 3 * MIB + 1]
        assert all(one.value == one.size for one in told.branches if one.size)
    for name, size in sizes.items():
        assert (tmp_path / "out" / name).read_bytes() == data_of(size)
    one = Counting()
    fs.put_file(f"{tmp_path}/in/d/b", f"{folder}/one", callback=one)
    assert one.value == one.size == 3 * MIB + 1
    with TqdmCallback(tqdm_kwargs={"file": io.StringIO(), "unit": "B"}) as bar:
        fs.get_file(f"{folder}/one", f"{tmp_path}/one", callback=bar)
    assert (tmp_path / "one").read_bytes() == data_of(3 * MIB + 1)
    with pytest.raises(FileNotFoundError):
        fs.get_file(f"{folder}/none", f"{tmp_path}/none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(FileExistsError):
        fs.put_file(f"{tmp_path}/in/a", f"{folder}/one", mode="create")


# --- loops, threads, processes ---


async def test_inside_an_event_loop(cluster: Cluster) -> None:
    fs = fsspec.filesystem("dfs", namenode=cluster.url, asynchronous=True)
    data = data_of(5 * MIB)
    await fs._makedirs("/async", exist_ok=True)
    await fs._pipe({f"/async/{n}": b"%d" % n for n in range(50)})
    assert await fs._cat_file("/async/7") == b"7"
    found = await asyncio.gather(*(fs._cat_file(f"/async/{n}") for n in range(50)))
    assert found == [b"%d" % n for n in range(50)]
    async with await fs.open_async("/async/file", "wb") as file:
        await file.write(data[:100])
        await file.write(data[100:])
    async with await fs.open_async("/async/file", "rb") as file:
        assert await file.read(10) == data[:10]
        assert await file.read() == data[10:]
        assert await file.read() == b""
    async with await fs.open_async("/async/file", "ab") as file:
        assert file.tell() == len(data)
        await file.write(b"end")
    assert await fs._cat_file("/async/file", start=-4) == data[-1:] + b"end"
    with pytest.raises(FileExistsError):
        await fs.open_async("/async/file", "xb")
    async with await fs.open_async("/async/new", "xb") as file:
        await file.write(b"new")
    assert await fs._cat_file("/async/new") == b"new"
    with pytest.raises(ZeroDivisionError):
        async with await fs.open_async("/async/broken", "wb") as file:
            await file.write(b"new")
            raise ZeroDivisionError
    assert not await fs._exists("/async/broken")
    await fs._rm("/async", recursive=True)
    await fs.aclose()


def test_one_instance_in_one_loop_after_another(cluster: Cluster) -> None:
    fs = fsspec.filesystem("dfs", namenode=cluster.url, asynchronous=True)

    async def use(number: int) -> bytes:
        await fs._pipe_file("/loops", b"%d" % number)
        try:
            return await fs._cat_file("/loops")  # type: ignore[no-any-return]
        finally:
            await fs.aclose()

    assert [asyncio.run(use(number)) for number in range(3)] == [b"0", b"1", b"2"]


def test_many_threads(fs: DfsFileSystem, folder: str) -> None:
    def work(number: int) -> bytes:
        path = f"{folder}/{number}"
        with fs.open(path, "wb") as file:
            file.write(b"%d" % number)
        with fs.open(path, "rb") as file:
            return file.read()

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(work, range(100))) == [b"%d" % n for n in range(100)]


READ = """
import pickle, sys
fs, file = pickle.loads(sys.stdin.buffer.read())
sys.stdout.buffer.write(file.read(5) + fs.cat_file("/pickled", start=10, end=15))
"""


def test_pickles_work_in_other_processes(cluster: Cluster, address: str) -> None:
    fs = fsspec.filesystem("dfs", namenode=cluster.url)
    fs.pipe("/pickled", bytes(range(100)))
    file = fs.open("/pickled", "rb")
    file.seek(3)
    again, copy = pickle.loads(pickle.dumps((fs, file)))
    assert again is fs
    assert copy.read(2) == bytes([3, 4])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ],
        input=pickle.dumps((fs, file)),
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == bytes([3, 4, 5, 6, 7, 10, 11, 12, 13, 14]), done.stderr.decode()
    assert done.stderr == b""
    restored = DfsFileSystem.from_json(fs.to_json())
    assert restored.cat_file("/pickled", end=3) == bytes(range(3))
    for one in (file, copy):
        one.close()
    with fs.open("/unfinished", "wb") as writing, pytest.raises(RuntimeError):
        pickle.dumps(writing)
    fs.close()


FORK = """
import os, sys, fsspec
fs = fsspec.filesystem("dfs", namenode=sys.argv[1])
fs.pipe("/forked", b"0123456789")
file = fs.open("/forked", "rb", cache_type="none")
assert file.read(2) == b"01"
children = []
for number in range(3):
    child = os.fork()
    if child == 0:
        ok = file.read(3) == b"234" and fs.cat("/forked") == b"0123456789"
        fs.pipe(f"/forked-{number}", b"child")
        with fs.open(f"/forked-{number}", "ab") as more:
            more.write(b"!")
        os._exit(0 if ok and fs.cat(f"/forked-{number}") == b"child!" else 1)
    children.append(child)
assert file.read(3) == b"234"
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
assert file.read() == b"56789"
assert fs.cat("/forked-2") == b"child!"
"""


def test_a_forked_process_goes_on_with_connections_of_its_own(cluster: Cluster) -> None:
    """Loaders of training data fork with the file system open."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, cluster.url],
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_program_that_closes_nothing_ends_quietly(cluster: Cluster) -> None:
    program = (
        "import sys, fsspec; fs = fsspec.filesystem('dfs', namenode=sys.argv[1]);"
        "fs.pipe('/quiet', b'x'); f = fs.open('/quiet'); print(f.read(), fs.ls('/quiet')[0]['size'])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, cluster.url],
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == b"b'x' 1\n"
    assert done.stderr == b""


# --- by content ---


def test_content_by_cid(cluster: Cluster, fs: DfsFileSystem, folder: str, tmp_path: Path) -> None:
    large = data_of(3 * MIB + 7)
    fs.pipe({f"{folder}/a": b"one", f"{folder}/d/large": large, f"{folder}/d/é": b"three"})
    root = fs.checksum(folder)
    cids = fsspec.filesystem("dfs+cid", namenode=cluster.url)
    assert cids.ls(root, detail=False) == [f"{root}/a", f"{root}/d"]
    assert cids.cat(f"dfs+cid://{root}/a") == b"one"
    info = cids.info(f"{root}/d/large")
    assert (info["size"], info["type"]) == (len(large), "file")
    assert info["cid"] == fs.checksum(f"{folder}/d/large") == cids.ukey(f"{root}/d/large")
    assert cids.cat_file(info["cid"]) == large
    assert cids.cat_file(info["cid"], start=MIB - 5, end=MIB + 5) == large[MIB - 5 : MIB + 5]
    assert cids.cat_ranges([info["cid"]] * 2, [0, -3], [2, None]) == [large[:2], large[-3:]]
    with cids.open(f"{root}/d/large") as file:
        file.seek(2 * MIB)
        assert file.read(10) == large[2 * MIB : 2 * MIB + 10]
    assert cids.find(root) == [f"{root}/a", f"{root}/d/large", f"{root}/d/é"]
    assert cids.glob(f"{root}/d/l*") == [f"{root}/d/large"]
    assert cids.du(root) == 3 + len(large) + 5
    assert cids.isdir(root)
    assert not cids.exists(f"{root}/none")
    cids.get(f"{root}/d/", f"{tmp_path}/out/", recursive=True)
    assert (tmp_path / "out" / "large").read_bytes() == large
    with pytest.raises(FileNotFoundError):
        cids.cat(f"{root}/none")
    with pytest.raises(IsADirectoryError):
        cids.open(root)
    with pytest.raises(OSError):
        cids.cat("nonsense")
    for change in (
        lambda: cids.pipe(f"{root}/new", b""),
        lambda: cids.rm(f"{root}/a"),
        lambda: cids.mv(f"{root}/a", f"{root}/b"),
        lambda: cids.touch(f"{root}/a"),
        lambda: cids.mkdir(f"{root}/x"),
        lambda: cids.open(f"{root}/a", "wb"),
    ):
        with pytest.raises(OSError, match="can't be changed"):
            change()
    # What changed at the path has another name; the old one still names what was there.
    fs.pipe(f"{folder}/a", b"two")
    assert fs.checksum(folder) != root
    assert cids.cat(f"{root}/a") == b"one"
    again = pickle.loads(pickle.dumps(cids))
    assert again.cat(f"{root}/a") == b"one"
    cids.close()


# --- the plan of reads ---


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_covers_what_is_asked_and_reads_no_chunk_twice(seed: int) -> None:
    rng = random.Random(seed)
    asked = []
    for _ in range(rng.randrange(1, 60)):
        start = rng.randrange(40 * MIB)
        asked.append((start, start + rng.randrange(1, 3 * MIB)))
    spans = ranges.plan(asked)
    assert sorted(index for span in spans for index in span.serves) == list(range(len(asked)))
    for span in spans:
        assert all(span.start <= asked[i][0] and asked[i][1] <= span.end for i in span.serves)
        alone = max(asked[i][1] - asked[i][0] for i in span.serves)
        assert span.end - span.start <= max(ranges.MOST_BYTES, alone)


def test_scattered_ranges_are_read_apart_and_near_ones_together() -> None:
    assert ranges.plan([(0, 10), (10 * MIB, 10 * MIB + 5)]) == [
        (0, 10, [0]),
        (10 * MIB, 10 * MIB + 5, [1]),
    ]
    assert ranges.plan([(MIB + 5, MIB + 9), (0, 10), (500, 900)]) == [(0, MIB + 9, [1, 2, 0])]


@pytest.mark.parametrize("size", [0, 1, 10])
def test_ranges_resolve_like_slices(size: int) -> None:
    data = bytes(range(size))
    edges = [None, *range(-12, 13)]
    for start in edges:
        for end in edges:
            low, high = ranges.resolve(start, end, size)
            assert data[low:high] == data[start:end]
            assert 0 <= low <= high <= size or low == high
