"""fsspec: many scattered ranges at once, and pandas reading Parquet, beside the same from the local disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bounds
from blake3 import blake3
from cluster import running
from figures import Figure, Series
from settings import MIB, Settings

from twinfs.client import sync
from twinfs.common.runtime import elapsed_timer

RANGES = 64
RANGE_BYTES = 64 * 1024
ROWS = 6_250_000  # of four columns of random doubles: 200 MB that don't compress
TABLE_MEMORY_BYTES = (
    1024 * MIB
)  # more than a read takes: the table as it is in the file and as a frame
TABLE_TURNS = (
    5  # in each run: one takes a tenth of a second, and the machine's mood changes it by half
)
RANGES_MS = 60.0
PARQUET_TIMES = 1.5


def measure(settings: Settings) -> list[Figure]:
    import fsspec

    source = settings.large_file()
    table = _parquet(settings)
    bounds.warm([source, table])
    with running(settings.fresh("frames")) as cluster:
        with sync.FileSystem.connect(cluster.url) as fs:
            fs.put_file(source, "/large", replication=1)
            fs.put_file(table, "/table.parquet", replication=1)
        dfs = fsspec.filesystem("dfs", namenode=cluster.url)
        try:
            return [
                *_ranges(settings, cluster.url, dfs, source),
                _pandas(settings, cluster.url, table),
            ]
        finally:
            dfs.close()


def _parquet(settings: Settings) -> Path:
    import numpy as np
    import pandas as pd

    path = settings.folder / "table.parquet"
    rng = np.random.default_rng(settings.seed)
    frame = pd.DataFrame({name: rng.normal(size=ROWS) for name in "abcd"})
    frame.to_parquet(path, compression=None)
    return path


def _ranges(settings: Settings, url: str, dfs: Any, source: Path) -> list[Figure]:
    """Each time other ranges; the bound reads and hashes the chunks that they are in, one after another. Besides: the same with a
    file system that has just been made, and has to connect to the NameNode and a DataNode and open every block first."""
    import fsspec

    warm_ms, cold_ms, local_ms = [], [], []
    descriptor = os.open(source, os.O_RDONLY)

    def timed(files: Any) -> float:
        starts = [settings.rng.randrange(settings.large_bytes - RANGE_BYTES) for _ in range(RANGES)]
        ends = [start + RANGE_BYTES for start in starts]
        began_s = elapsed_timer()
        found = files.cat_ranges(["/large"] * RANGES, starts, ends)
        took_ms = (elapsed_timer() - began_s) * 1000
        began_s = elapsed_timer()
        for start in starts:
            blake3(os.pread(descriptor, MIB, start // MIB * MIB)).digest()
        local_ms.append((elapsed_timer() - began_s) * 1000)
        for start, data in zip(starts, found, strict=True):
            if data != os.pread(descriptor, RANGE_BYTES, start):
                raise SystemExit(f"the range at {start} has other bytes")
        return took_ms

    try:
        timed(dfs)
        local_ms.clear()
        for _ in range(settings.runs):
            warm_ms.append(timed(dfs))
            fresh = fsspec.filesystem("dfs", namenode=url, skip_instance_cache=True)
            cold_ms.append(timed(fresh))
            fresh.close()
    finally:
        os.close(descriptor)
    bound = Series("read + BLAKE3 of the chunks", tuple(local_ms))
    name = f"cat_ranges, {RANGES} of 64 KiB"
    return [
        Figure(name, "ms", warm_ms, bound, at_most=RANGES_MS, smaller=True),
        Figure(f"{name}, connecting first", "ms", cold_ms, bound, at_most=RANGES_MS, smaller=True),
    ]


def _pandas(settings: Settings, url: str, table: Path) -> Figure:
    import pandas as pd

    took_s, local_s = [], []
    for number in range(settings.runs * TABLE_TURNS + 1):
        bounds.use_memory(settings.folder, TABLE_MEMORY_BYTES)
        began_s = elapsed_timer()
        local = pd.read_parquet(table)
        local_s.append(elapsed_timer() - began_s)
        bounds.use_memory(settings.folder, TABLE_MEMORY_BYTES)
        began_s = elapsed_timer()
        found = pd.read_parquet("dfs:///table.parquet", storage_options={"namenode": url})
        took_s.append(elapsed_timer() - began_s)
        if number == 0 and not found.equals(local):
            raise SystemExit("pandas read other values")
    bound = Series("from the local disk", tuple(local_s[1:]))
    return Figure(
        "pandas read_parquet, 200 MB",
        "s",
        took_s[1:],
        bound,
        at_least=1 / PARQUET_TIMES,
        of_bound=True,
        smaller=True,
    )
