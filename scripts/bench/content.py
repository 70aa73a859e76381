"""Content: adding by hash, the same again, CIDs of files, a tree of small files, and collecting while adds go on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster import dfs, running
from figures import Figure, Series
from settings import Settings

from twinfs.client.filesystem import FileSystem
from twinfs.client.importer import Importer, NoSink
from twinfs.common import content as c
from twinfs.common.config import NameNodeConfig
from twinfs.common.ipld.cid import RAW, Cid
from twinfs.common.ipld.layout import TWINFS
from twinfs.common.messages import Allocate
from twinfs.common.model import BlockId, NodeAddress, NodeId
from twinfs.common.runtime import SystemClock, elapsed_timer
from twinfs.namenode import contents
from twinfs.namenode.dags import INSERT_CONTENT
from twinfs.namenode.leases import WriteRules
from twinfs.namenode.namespace import whole
from twinfs.namenode.permissions import Caller
from twinfs.namenode.store import open_store
from twinfs.namenode.store.base import MetadataStore, Transaction

MIB = 1024 * 1024
HELD = 1_000_000
ROWS_AT_ONCE = 20_000
ADDED_AT_ONCE = 256
ADDS = 200
CALLER = Caller("bench", superuser=True, host="127.0.0.1")


def measure(settings: Settings) -> list[Figure]:
    """1 GiB and 10,000 small files, 3 DataNodes, 1 copy of the large, 3 of the small."""
    file, tree = settings.large_file(), settings.small_tree()
    size = settings.large_bytes / MIB
    rates: dict[str, list[float]] = {
        n: [] for n in ("hash", "put", "add", "again", "tree", "cid", "process", "start")
    }
    with running(settings.fresh("content")) as cluster:
        for number in range(settings.runs):
            rates["hash"].append(size / dfs(cluster.url, "add", "-n", "-Q", str(file)))
            rates["add"].append(
                size / dfs(cluster.url, "add", "-Q", "--replication", "1", str(file))
            )
            rates["again"].append(
                size / dfs(cluster.url, "add", "-Q", "--replication", "1", str(file))
            )
            where = f"/large{number}"
            rates["put"].append(
                size / dfs(cluster.url, "put", "--replication", "1", str(file), where)
            )
            rates["cid"] += asyncio.run(_cid_ms(cluster.url, where))
            for _ in range(5):
                rates["process"].append(1000 * dfs(cluster.url, "cid", where))
                rates["start"].append(1000 * _python_s())
            rates["tree"].append(
                settings.small_files / dfs(cluster.url, "add", "-r", "-Q", str(tree))
            )
            dfs(cluster.url, "rm", "--skip-trash", where)
            for pin in ("large", "tree"):
                root = _root(file if pin == "large" else tree)
                dfs(cluster.url, "pin", "rm", root)
            dfs(cluster.url, "gc")
    hashing = Series("dfs add -n", tuple(rates["hash"]))
    return [
        Figure("dfs add, 1 GiB, 1 copy", "MiB/s", rates["add"], hashing),
        Figure("dfs put, 1 GiB, 1 copy", "MiB/s", rates["put"], hashing),
        Figure(
            "dfs add, the same again", "MiB/s", rates["again"], hashing, at_least=0.8, of_bound=True
        ),
        Figure("CID of a 1 GiB file, asked by a program", "ms", rates["cid"], at_most=50),
        Figure(
            "dfs cid of it, whole process",
            "ms",
            rates["process"],
            Series("python -c pass", tuple(rates["start"])),
            at_most=50,
            smaller=True,
        ),
        Figure("dfs add -r, 3 copies", "files/s", rates["tree"], at_least=4_000),
    ]


def _root(path: Path) -> str:
    return str(asyncio.run(Importer(TWINFS, NoSink()).path(path, "")).cid)


def _python_s() -> float:
    """How long an interpreter takes that does nothing."""
    began_s = elapsed_timer()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return elapsed_timer() - began_s


async def _cid_ms(url: str, path: str) -> list[float]:
    """Asked a few times, by a program that is connected."""
    took = []
    async with FileSystem.connect(url) as fs:
        await fs.stat(path)
        for _ in range(5):
            began_s = elapsed_timer()
            await fs.content.cid(path)
            took.append((elapsed_timer() - began_s) * 1000)
    return took


# --- collecting ---


def measure_collecting(settings: Settings) -> list[Figure]:
    """A store with a million loose CID blocks: how long adds take while they are collected. The metadata alone, on SQLite."""
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        return asyncio.run(_collecting(Path(folder)))


async def _collecting(folder: Path) -> list[Figure]:
    store = await open_store(NameNodeConfig(dir=str(folder), user="bench"), SystemClock())
    try:
        await _fill(store)
        quiet = await _adds(store)
        done = asyncio.Event()
        collector = asyncio.create_task(_collect(store, done))
        busy = await _adds(store)
        done.set()
        steps, collected = await collector
    finally:
        await store.close()
    alone = Series("no collection", tuple(quiet))
    return [
        Figure(f"add of {ADDED_AT_ONCE} blocks while collecting, each", "ms", busy, alone),
        Figure("the slowest of them", "ms", [max(busy)], at_most=100),
        Figure("one step of collecting, the longest", "ms", [max(steps)]),
        Figure("collected meanwhile", "blocks/s", [collected / sum(steps) * 1000]),
    ]


async def _fill(store: MetadataStore) -> None:
    """HELD loose blocks, each with a row of blocks and three replicas."""

    def nodes(tx: Transaction) -> None:
        for n in (1, 2, 3):
            tx.execute(
                "INSERT INTO datanodes (node_id, uuid, host, data_address, http_address,"
                " socket_path, rack, admin_state, registered_ms) VALUES (?, ?, 'h', ?, ?, '', '/r', 0, 0)",
                (n, f"u{n}", f"h:{n}", f"h:{n}"),
            )

    await store.run(nodes)
    for start in range(0, HELD, ROWS_AT_ONCE):

        def rows(tx: Transaction, start: int = start) -> None:
            ids = range(10**9 + start, 10**9 + start + ROWS_AT_ONCE)
            digests = {i: Cid.of(RAW, b"%d" % i).multihash for i in ids}
            tx.many(
                "INSERT INTO blocks (block_id, generation, length, refs, replication, digest)"
                " VALUES (?, 1, 4096, 1, 3, ?)",
                [(i, digests[i][2:]) for i in ids],
            )
            tx.many(
                "INSERT INTO replicas (block_id, node_id, state, generation) VALUES (?, ?, 0, 1)",
                [(i, n) for i in ids for n in (1, 2, 3)],
            )
            tx.many(INSERT_CONTENT, [(i, digests[i], RAW, i, 0, 0, 0, 0, 1, 1) for i in ids])

        await store.run(rows)


class _Placer:
    """Three nodes that are always there."""

    def choose(self, count: int, **_: object) -> list[NodeAddress]:
        return [NodeAddress(node_id=NodeId(n), host="h", data="h", http="h") for n in (1, 2, 3)]


RULES = WriteRules(replication=3, block_bytes=MIB, min_replicas=2, lease_timeout_ms=60_000)


async def _adds(store: MetadataStore) -> list[float]:
    """What the NameNode does for an add: ask, allocate, put; milliseconds of each round."""
    clock, took = SystemClock(), list[float]()
    for number in range(ADDS):
        tag = clock.wall_ms()
        data = [b"%d %d %d" % (tag, number, i) for i in range(ADDED_AT_ONCE)]
        hashes = [Cid.of(RAW, one).multihash for one in data]
        began_s = elapsed_timer()
        have = c.HaveContents(holder="bench", multihashes=hashes)
        await store.run(lambda tx, r=have: contents.have(tx, CALLER, r, now_ms=clock.wall_ms()))
        ask = Allocate(holder="bench", count=ADDED_AT_ONCE, length=4096)
        allocation = await store.run(
            lambda tx, r=ask: whole.allocate(
                tx, CALLER, r, now_ms=clock.wall_ms(), rules=RULES, placer=_Placer()
            )
        )
        blocks = [
            c.PutContent(
                multihash=hashed,
                codec=RAW,
                block=c.ContentBlock(
                    block_id=BlockId(allocation.first_block_id + index),
                    generation=allocation.generation,
                    length=len(data[index]),
                    digest=hashed[2:],
                    nodes=[NodeId(1), NodeId(2), NodeId(3)],
                ),
            )
            for index, hashed in enumerate(hashes)
        ]
        put = c.PutContents(holder="bench", blocks=blocks)
        await store.run(
            lambda tx, r=put: contents.put(tx, CALLER, r, now_ms=clock.wall_ms(), rules=RULES)
        )
        took.append((elapsed_timer() - began_s) * 1000)
    return took


async def _collect(store: MetadataStore, done: asyncio.Event) -> tuple[list[float], int]:
    """Collect until the adds are done: (milliseconds of each step, blocks that went)."""
    clock, took, blocks = SystemClock(), list[float](), 0
    request = c.Collect(grace_s=60.0, limit=128)
    while not done.is_set():
        began_s = elapsed_timer()
        step = await store.run(
            lambda tx: contents.collect(tx, CALLER, request, now_ms=clock.wall_ms(), rules=RULES)
        )
        took.append((elapsed_timer() - began_s) * 1000)
        blocks += step.blocks
        if not step.work:
            break
    return took, blocks
