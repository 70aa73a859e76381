"""Collecting in a store with a million CID blocks while adds go on: on a peer, and in a cluster, both as processes."""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import running
from figures import Figure, Series
from peers import peer
from settings import MIB, Settings

from twinfs.client.filesystem import FileSystem
from twinfs.client.importer import Importer as ClusterImporter
from twinfs.client.peer_client import PeerClient
from twinfs.client.peer_import import Importer
from twinfs.common.ipld import dag_pb, unixfs
from twinfs.common.ipld.cid import DAG_PB, RAW, Cid
from twinfs.common.ipld.dag_pb import PBLink
from twinfs.common.ipld.layout import PROFILES, Made
from twinfs.common.runtime import SystemClock, elapsed_timer
from twinfs.datanode.blockstore import BlockStore
from twinfs.datanode.cidstore import CidStore
from twinfs.datanode.volumes import Volume

TWINFS = PROFILES["twinfs"]
HELD = LOOSE = 500_000
LINKS = 1_000  # of a node that holds blocks
BLOCK_BYTES = 256
PUT_AT_ONCE = 8_000
QUIET_ADDS = 300
BUSY_S = 90.0  # adds beside a collection go on for so long at most; then it is cut off
LARGE_EVERY = 10  # adds: one of 3 MiB among those of 4 KiB


def some(rng: random.Random, number: int) -> bytes:
    return rng.randbytes(3 * MIB if number % LARGE_EVERY == 0 else 4096)


def figures(where: str, quiet: list[float], busy: list[float], more: str) -> list[Figure]:
    alone = Series("no collection", tuple(quiet))
    note = f"{HELD:,} blocks held, {LOOSE:,} loose; {len(busy)} adds meanwhile, each of 4 KiB or (one of {LARGE_EVERY}) 3 MiB, {more}"
    return [
        Figure(f"{where}: an add while a collection goes on", "ms", busy, alone, smaller=True),
        Figure(
            f"{where}: 99 of 100 of them within", "ms", [percentile(busy)],
            Series("no collection", (percentile(quiet),)), smaller=True,
        ),
        Figure(
            f"{where}: the slowest of them", "ms", [max(busy)],
            Series("no collection", (max(quiet),)), at_most=100, smaller=True, note=note,
        ),
    ]  # fmt: skip


def percentile(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1]


# --- a peer ---


def measure_peer(settings: Settings) -> list[Figure]:
    """A collection, from its first look at the store to the last block, beside adds of one client."""
    rng = settings.rng
    folder = settings.fresh("filled")
    root = fill_volume(folder / "v", rng)
    with peer(settings, folder) as url:
        client = PeerClient(url, timeout_s=600.0)
        client.call("POST", "/v1/peer/pins", {"cid": str(root), "here": True})
        roots: list[Cid] = []
        quiet = [add_ms(client, some(rng, number), roots) for number in range(QUIET_ADDS)]
        over = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            collecting = thread.submit(collect, url, over)
            busy: list[float] = []
            began_s = elapsed_timer()
            while not collecting.done() and elapsed_timer() - began_s < BUSY_S:
                busy.append(add_ms(client, some(rng, len(busy)), roots))
            over.set()
            removed, took_s, marked_s = collecting.result()
        lost = client.have([*roots, root]).count(False)
        client.close()
    assert not lost and marked_s and removed <= LOOSE, (lost, removed)
    more = f"pinned; {marked_s:.0f} s until the first block went, {removed:,} had gone after {took_s:.0f} s; nothing that was added was lost"
    return figures("peer", quiet, busy, more)


def fill_volume(folder: Path, rng: random.Random) -> Cid:
    """The root of what is to be held."""
    volume = Volume(folder, reserved_bytes=0)
    store = BlockStore([volume], small_block_bytes=65536, rng=rng)
    cids = CidStore(store, wall_ms=SystemClock().wall_ms, on_bad=lambda block: None)
    nodes: list[Cid] = []
    for _ in range((HELD + LOOSE) // PUT_AT_ONCE):
        batch = [rng.randbytes(BLOCK_BYTES) for _ in range(PUT_AT_ONCE)]
        blocks = [(Cid.of(RAW, data), data) for data in batch]
        cids.put(blocks)
        made = [
            folder_of([cid for cid, _ in blocks[start : start + LINKS]])
            for start in range(0, PUT_AT_ONCE // 2, LINKS)
        ]
        cids.put(made)
        nodes += [one.cid for one in made]
    top = folder_of(nodes)
    cids.put([top])
    store.close()
    return top.cid


def folder_of(children: list[Cid]) -> Made:
    links = [PBLink(cid, f"{number:05}", BLOCK_BYTES) for number, cid in enumerate(children)]
    data = dag_pb.encode(links, unixfs.DIRECTORY_DATA)
    return Made(Cid.of(DAG_PB, data), data)


def add_ms(client: PeerClient, data: bytes, roots: list[Cid]) -> float:
    """What `dfs add -` does, without the start of a process."""
    began_s = elapsed_timer()
    client.begin_add()
    importer = Importer(client, TWINFS)
    added = importer.add_stream([data])
    client.call("POST", "/v1/peer/pins", {"cid": str(added.root), "here": True})
    client.end_add()
    took_ms = (elapsed_timer() - began_s) * 1000
    importer.close()
    roots.append(added.root)
    return took_ms


def collect(url: str, over: threading.Event) -> tuple[int, float, float]:
    """Collect until that is done or *over*: (replicas that went, seconds, seconds until the first went)."""
    client = PeerClient(url, timeout_s=600.0)
    began_s = elapsed_timer()
    removed, first_s = 0, 0.0
    for line in client.lines("POST", "/v1/peer/collect", {}):
        removed += line.get("blocks", 0)
        first_s = first_s or elapsed_timer() - began_s
        if over.is_set():
            break
    client.close()
    return removed, elapsed_timer() - began_s, first_s


# --- a cluster ---


def measure_cluster(settings: Settings) -> list[Figure]:
    """The same with a NameNode and three DataNodes, one copy of each block, collected by `dfs gc`."""
    with running(settings.fresh("cluster")) as cluster:
        return asyncio.run(_cluster(cluster.url, settings.rng))


async def _cluster(url: str, rng: random.Random) -> list[Figure]:
    async with FileSystem.connect(url) as fs:
        root = await fill_cluster(fs, rng)
        await fs.content.pin(root)
        roots: list[Cid] = []
        quiet = [await add_to_cluster_ms(fs, some(rng, n), roots) for n in range(QUIET_ADDS)]
        began_s = elapsed_timer()
        command = [str(Path(sys.executable).with_name("dfs")), "--namenode", url, "gc"]
        collecting = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        busy: list[float] = []
        while collecting.returncode is None and elapsed_timer() - began_s < BUSY_S:
            busy.append(await add_to_cluster_ms(fs, some(rng, len(busy)), roots))
        if collecting.returncode is None:
            collecting.terminate()
        await collecting.wait()
        took_s = elapsed_timer() - began_s
        totals = await fs.content.totals()
        for added in roots[:: max(1, len(roots) // 200)]:
            await fs.content.check(added)
    nodes = HELD // LINKS + 1
    assert totals.loose < LOOSE and totals.blocks - totals.loose >= HELD + nodes, totals
    gone = LOOSE - totals.loose
    return figures("cluster", quiet, busy, f"pinned; {gone:,} had gone after {took_s:.0f} s")


async def fill_cluster(fs: FileSystem, rng: random.Random) -> Cid:
    nodes: list[Cid] = []
    async with fs.content.sink(1) as sink:
        for _ in range((HELD + LOOSE) // PUT_AT_ONCE):
            made: list[Made] = []
            for start in range(0, PUT_AT_ONCE, LINKS):
                batch = [rng.randbytes(BLOCK_BYTES) for _ in range(LINKS)]
                cids = [Cid.of(RAW, data) for data in batch]
                for cid, data in zip(cids, batch, strict=True):
                    await sink.raw(cid, data)
                if start < PUT_AT_ONCE // 2:
                    made.append(folder_of(cids))
            await sink.nodes(made)
            nodes += [one.cid for one in made]
        top = folder_of(nodes)
        await sink.nodes([top])
        await sink.finish()
    return top.cid


async def add_to_cluster_ms(fs: FileSystem, data: bytes, roots: list[Cid]) -> float:
    """What `dfs add -` does, without the start of a process."""

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    began_s = elapsed_timer()
    async with fs.content.sink() as sink:
        node = await ClusterImporter(TWINFS, sink).stream(pieces(), "")
        await sink.finish()
        await fs.content.pin_if_new(node.cid)
    took_ms = (elapsed_timer() - began_s) * 1000
    roots.append(node.cid)
    return took_ms
