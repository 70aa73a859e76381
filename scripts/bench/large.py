"""1 GiB put and get: one copy, three copies, over TCP, and through the open file of a DataNode on this machine."""

from __future__ import annotations

import asyncio
import filecmp
import os
from pathlib import Path

import bounds
from cluster import Cluster, running
from figures import Figure, Series
from settings import MIB, Settings

from twinfs.client.filesystem import FileSystem
from twinfs.common.runtime import elapsed_timer

READ_BYTES = 16 * MIB


def measure(settings: Settings) -> list[Figure]:
    source = settings.large_file()
    bounds.warm([source])
    with running(settings.fresh("large")) as cluster:
        return asyncio.run(_measure(settings, cluster, source))


async def _measure(settings: Settings, cluster: Cluster, source: Path) -> list[Figure]:
    size = settings.large_bytes / MIB
    rates: dict[str, list[float]] = {}

    def note(name: str, took_s: float) -> None:
        rates.setdefault(name, []).append(size / took_s)

    async with (
        FileSystem.connect(cluster.url) as near,
        FileSystem.connect(cluster.url, short_circuit=False) as far,
    ):
        for number in range(settings.runs):
            one, three = f"/one-{number}", f"/three-{number}"
            note("copy", bounds.copy_and_sync_s(source, settings.folder))
            note("put 1", await _put(near, source, one, 1))
            note("copies", bounds.copy_and_sync_s(source, settings.folder, 3))
            note("put 3", await _put(near, source, three, 3))
            os.sync()  # what the puts left to write must not slow the reading down
            note("stream", bounds.stream_and_hash_s(source))
            note("get", await _read(far, three))
            note("read", bounds.read_and_hash_s(source))
            note("get near", await _read(near, three))
            target = settings.folder / "fetched"
            began_s = elapsed_timer()
            await near.get_file(three, target)
            note("get file", elapsed_timer() - began_s)
            if number == 0 and not filecmp.cmp(target, source, shallow=False):
                raise SystemExit("what was fetched is not what was put")
            target.unlink()
            await near.delete(one)
            await near.delete(three)

    def bound(name: str, key: str) -> Series:
        return Series(name, tuple(rates[key]))

    return [
        Figure(
            "put 1 GiB, 1 copy",
            "MiB/s",
            rates["put 1"],
            bound("copy+fsync", "copy"),
            at_least=0.5,
            of_bound=True,
        ),
        Figure(
            "put 1 GiB, 3 copies",
            "MiB/s",
            rates["put 3"],
            bound("3 copies+fsync", "copies"),
            at_least=0.5,
            of_bound=True,
        ),
        Figure(
            "get 1 GiB over TCP",
            "MiB/s",
            rates["get"],
            bound("loopback+BLAKE3", "stream"),
            at_least=0.6,
            of_bound=True,
        ),
        Figure(
            "get 1 GiB by descriptor",
            "MiB/s",
            rates["get near"],
            bound("read+BLAKE3", "read"),
            at_least=0.8,
            of_bound=True,
        ),
        Figure("get 1 GiB into a file", "MiB/s", rates["get file"]),
    ]


async def _put(fs: FileSystem, source: Path, path: str, copies: int) -> float:
    began_s = elapsed_timer()
    await fs.put_file(source, path, replication=copies)
    return elapsed_timer() - began_s


async def _read(fs: FileSystem, path: str) -> float:
    """Every byte, verified, into one buffer that is used again and again."""
    buffer = bytearray(READ_BYTES)
    began_s = elapsed_timer()
    async with await fs.open(path) as reader:
        left = reader.length
        while left:
            count = await reader.readinto(buffer)
            if not count:
                raise SystemExit(f"{path} ended {left} bytes too early")
            left -= count
    return elapsed_timer() - began_s
