"""A rival beside us: the same work on both, one after the other, in every run.

The rival is driven as its documentation says, over HTTP on kept-alive connections. It does not fsync; TwinFS does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import bounds
from clients import seconds_of
from cluster import resident_mib
from figures import Figure, Series
from figures import number as number_of
from race_client import FILES, FOLDERS, path_of
from settings import MIB, Settings
from systems import SYSTEMS, Files, Refused, Twin, TwinFiles, Weed

from twinfs.common.runtime import elapsed_timer

PROCESSES = 2
IN_FLIGHT = 64
WRITERS = 16
LISTED = 5_000
LISTINGS = 10
CALLS = {"stat": 40_000, "mkdir": 10_000, "rename": FILES * PROCESSES, "delete": FILES * PROCESSES}
LAST_WRITES, LAST_WRITES_S = 50, 15.0
STAGES = ("large", "small", "calls", "killed")  # what can be run alone
# (row, unit, times as good as the rival at least, whether less is better)
ROWS = {
    "start": ("start to first write", "s", 1.0, True),
    "put": ("put 1 GiB, 3 copies", "MiB/s", 3.0, False),
    "get": ("get 1 GiB", "MiB/s", 1.5, False),
    "get far": ("get 1 GiB, over TCP", "MiB/s", 1.0, False),
    "small put": ("put 4 KiB, 16 tasks", "files/s", 1.5, False),
    "batch": ("put 4 KiB as a tree", "files/s", 3.0, False),
    "small get": ("get 4 KiB, 16 tasks", "files/s", 1.5, False),
    "list": ("list 5,000 entries", "/s", 1.2, False),
    "mkdir": ("mkdir, 64 in flight", "/s", 1.2, False),
    "stat": ("stat, 64 in flight", "/s", 1.2, False),
    "rename": ("rename, 64 in flight", "/s", 1.2, False),
    "delete": ("delete, 64 in flight", "/s", 1.2, False),
    "memory": ("memory of all processes", "MiB", 1.0, True),
    "killed": ("writes of 50, one node killed", "done", 1.0, False),
}


def measure(settings: Settings, stages: list[str]) -> list[Figure]:
    """The stages named, or all."""
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise SystemExit(f"there is no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    values: dict[str, dict[str, list[float]]] = {name: {} for name in SYSTEMS}
    stages = stages or list(STAGES)
    source = settings.folder
    if "large" in stages:
        source = settings.large_file()
        bounds.warm([source])
    for number in range(settings.runs):
        for name in SYSTEMS:
            print(f"run {number + 1}: {name}", file=sys.stderr, flush=True)
            for row, value in _Race(name, settings, source, stages).run().items():
                values[name].setdefault(row, []).append(value)
                print(f"    {ROWS[row][0]}: {number_of(value)}", file=sys.stderr, flush=True)
    ours, theirs = values[Twin.name], values[Weed.name]
    # What only we have two ways of is held against their one.
    for row, other in (("get far", "get"), ("batch", "small put")):
        if other in theirs:
            theirs[row] = theirs[other]
    figures = []
    for row, (title, unit, times, smaller) in ROWS.items():
        if row not in ours:
            continue
        rival = Series(Weed.name, tuple(theirs[row]))
        figures.append(
            Figure(title, unit, ours[row], rival, at_least=times, of_bound=True, smaller=smaller)
        )
    return figures


class _Race:
    """All rows of one system, once."""

    def __init__(self, name: str, settings: Settings, source: Path, stages: Sequence[str]) -> None:
        self._name = name
        self._stages = stages
        self._settings = settings
        self._source = source
        self._found: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        folder = self._settings.fresh(self._name)
        os.sync()
        system = SYSTEMS[self._name](folder)
        try:
            began_s = elapsed_timer()
            system.launch()
            asyncio.run(self._first_write(system, began_s))
            if "large" in self._stages:
                asyncio.run(self._large(system))
            if "small" in self._stages or "calls" in self._stages:
                asyncio.run(self._small(system))
            if "calls" in self._stages:
                asyncio.run(self._list(system))
                for operation, count in CALLS.items():
                    self._found[operation] = count / self._clients(system, operation, count)
            self._found["memory"] = sum(resident_mib(pid) for pid in system.pids)
            if "killed" in self._stages:
                system.kill_one()
                self._found["killed"] = asyncio.run(self._writes_after_a_death(system))
        finally:
            system.stop()
            shutil.rmtree(folder, ignore_errors=True)
        return self._found

    def _clients(self, system: Twin | Weed, operation: str, count: int) -> float:
        share = [str(count // PROCESSES), str(IN_FLIGHT // PROCESSES)]
        return seconds_of(
            "race_client.py",
            [[self._name, system.url, operation, *share, str(n)] for n in range(PROCESSES)],
        )

    async def _first_write(self, system: Twin | Weed, began_s: float) -> None:
        async with system.client() as files:
            while True:
                try:
                    await files.put("/first", b"first")
                    break
                except (Refused, OSError):
                    await asyncio.sleep(0.02)
        self._found["start"] = elapsed_timer() - began_s

    async def _large(self, system: Twin | Weed) -> None:
        size = self._settings.large_bytes
        async with system.client() as files, system.client(near=False) as far:
            self._found["put"] = size / MIB / await _took(files.put_large(self._source, "/large"))
            os.sync()
            self._found["get"] = size / MIB / await _took(files.get_large("/large", size))
            if self._name == Twin.name:
                self._found["get far"] = size / MIB / await _took(far.get_large("/large", size))

    async def _small(self, system: Twin | Weed) -> None:
        async with system.client() as files:
            await self._put_and_get(files)
            if isinstance(files, TwinFiles):
                count = self._settings.small_files
                tree = self._settings.small_tree()
                self._found["batch"] = count / await _took(files.put_tree(tree, "/tree"))

    async def _put_and_get(self, files: Files) -> None:
        rng, size = self._settings.rng, self._settings.small_bytes
        for folder in range(FOLDERS):
            await files.mkdir(f"/race/{folder}")
        data = {
            path_of(client, number): rng.randbytes(size)
            for client in range(PROCESSES)
            for number in range(FILES)
        }

        async def put(path: str) -> None:
            await files.put(path, data[path])

        async def get(path: str) -> None:
            if await files.get(path) != data[path]:
                raise SystemExit(f"{self._name}: {path} came back with other bytes")

        self._found["small put"] = await _rate(list(data), put)
        self._found["small get"] = await _rate(list(data), get)

    async def _list(self, system: Twin | Weed) -> None:
        async with system.client() as files:
            await files.mkdir("/many")

            async def put(number: str) -> None:
                await files.put(f"/many/{number}", b"x")

            await _rate([str(number) for number in range(LISTED)], put)
            self._found["list"] = LISTINGS / await _took(self._list_all(files))

    async def _list_all(self, files: Files) -> None:
        for _ in range(LISTINGS):
            found = await files.list("/many")
            if found != LISTED:
                raise SystemExit(f"{self._name} lists {found} entries")

    async def _writes_after_a_death(self, system: Twin | Weed) -> float:
        """How many writes are acknowledged of 50 that are tried at once, within a time."""
        async with system.client() as files:

            async def put(number: int) -> bool:
                try:
                    async with asyncio.timeout(LAST_WRITES_S):
                        await files.put(f"/race/after-{number}", b"still here")
                    return True
                except (Refused, TimeoutError):
                    return False

            return float(sum(await asyncio.gather(*(put(n) for n in range(LAST_WRITES)))))


async def _took(work: Awaitable[None]) -> float:
    began_s = elapsed_timer()
    await work
    return elapsed_timer() - began_s


async def _rate(items: list[str], work: Callable[[str], Awaitable[None]]) -> float:
    """Calls a second of 16 tasks that each take the next item."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    began_s = elapsed_timer()
    await asyncio.gather(*(worker() for _ in range(WRITERS)))
    return len(items) / (elapsed_timer() - began_s)
