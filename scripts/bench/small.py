"""10,000 files of 4 KiB: as trees by the command line, and one call each by 16 tasks of one program."""

from __future__ import annotations

import asyncio
import shutil

import bounds
from cluster import Cluster, dfs, running
from figures import Figure, Series
from settings import Settings

from twinfs.client.filesystem import FileSystem
from twinfs.common.runtime import elapsed_timer

WRITERS = 16
CALLS = 4_000
RAW_FILES = 1_000


def measure_trees(settings: Settings) -> list[Figure]:
    """`dfs put -r`, `get -r`, `rm -r`: whole processes, from start to exit."""
    tree = settings.small_tree()
    count = settings.small_files
    rates: dict[str, list[float]] = {"put": [], "get": [], "rm": [], "files": []}
    with running(settings.fresh("trees")) as cluster:
        for number in range(settings.runs):
            rates["files"].append(_raw_files_per_s(settings))
            rates["put"].append(count / dfs(cluster.url, "put", "-r", str(tree), f"/t{number}"))
            target = settings.folder / f"got-{number}"
            rates["get"].append(count / dfs(cluster.url, "get", "-r", f"/t{number}", str(target)))
            if number == 0:
                _same(tree / "d000", target / "d000")
            shutil.rmtree(target)
            rates["rm"].append(count / dfs(cluster.url, "rm", "-r", "--skip-trash", f"/t{number}"))
    raw = Series("file+fsync, 1 copy", tuple(rates["files"]))
    return [
        Figure("dfs put -r, 3 copies", "files/s", rates["put"], raw, at_least=3_000),
        Figure("dfs get -r", "files/s", rates["get"], at_least=3_000),
        Figure("dfs rm -r", "files/s", rates["rm"], at_least=20_000),
    ]


def measure_calls(settings: Settings) -> list[Figure]:
    """`write_bytes` and `read_bytes`, a call for each file."""
    with running(settings.fresh("calls")) as cluster:
        return asyncio.run(_calls(settings, cluster))


async def _calls(settings: Settings, cluster: Cluster) -> list[Figure]:
    rates: dict[str, list[float]] = {"write": [], "read": [], "files": []}
    async with FileSystem.connect(cluster.url) as fs:
        for number in range(settings.runs):
            data = {
                f"/c{number}/{index % 10}/{index}": settings.rng.randbytes(settings.small_bytes)
                for index in range(CALLS)
            }
            for folder in range(10):
                await fs.mkdirs(f"/c{number}/{folder}")
            rates["files"].append(_raw_files_per_s(settings))
            rates["write"].append(await _by_tasks(list(data), lambda p, d=data: _write(fs, p, d)))
            rates["read"].append(await _by_tasks(list(data), lambda p, d=data: _read(fs, p, d)))
    raw = Series("file+fsync, 1 copy", tuple(rates["files"]))
    return [
        Figure("write_bytes, 16 tasks", "files/s", rates["write"], raw, at_least=1_600),
        Figure("read_bytes, 16 tasks", "files/s", rates["read"], at_least=5_000),
    ]


async def _write(fs: FileSystem, path: str, data: dict[str, bytes]) -> None:
    await fs.write_bytes(path, data[path])


async def _read(fs: FileSystem, path: str, data: dict[str, bytes]) -> None:
    if await fs.read_bytes(path) != data[path]:
        raise SystemExit(f"{path} has other bytes")


async def _by_tasks(paths: list[str], work) -> float:  # type: ignore[no-untyped-def]
    """Calls a second of 16 tasks that each take the next path."""
    waiting = iter(paths)

    async def worker() -> None:
        for path in waiting:
            await work(path)

    began_s = elapsed_timer()
    await asyncio.gather(*(worker() for _ in range(WRITERS)))
    return len(paths) / (elapsed_timer() - began_s)


def _raw_files_per_s(settings: Settings) -> float:
    data = settings.rng.randbytes(settings.small_bytes)
    return RAW_FILES / bounds.write_small_files_s(settings.folder / "raw-files", RAW_FILES, data)


def _same(one, other) -> None:  # type: ignore[no-untyped-def]
    for path in sorted(one.iterdir()):
        if path.read_bytes() != (other / path.name).read_bytes():
            raise SystemExit(f"{path.name} came back with other bytes")
