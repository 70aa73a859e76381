"""A NameNode with a million files, and with two: memory, restart to the first answer, paging a large directory."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster import Cluster, resident_mib, wait_for
from figures import Figure, Series
from settings import Settings

from twinfs.client.filesystem import FileSystem
from twinfs.client.http_namenode import HttpNameNode
from twinfs.common.checksum import digest_of
from twinfs.common.errors import Unavailable
from twinfs.common.messages import ListDirectory, LocateMany, Mkdirs, MkdirsMany, Stat, StatMany
from twinfs.common.runtime import elapsed_timer, new_uuid

BIG = 100_000  # entries of the one large directory
PER_FOLDER = 1_000
COPIES = 3
FIRST_ID = 1_000_000
TOUCHED = 20_000  # paths that are looked up before memory is read
CLIENT = Path(__file__).with_name("listing_client.py")


def measure(settings: Settings) -> list[Figure]:
    cluster = Cluster(
        settings.folder / "scale", datanodes=0, namenode_options=("--safe-mode-nodes", "0")
    ).start()  # makes the database
    namenode = cluster.namenode
    database = cluster.folder / "nn" / "namespace.db"
    try:
        _work(cluster, 0, settings)
        empty = resident_mib(namenode.pid)
        namenode.stop()
        fill(database, 0, settings.scale_files, big=True)
        restarts = []
        for _ in range(settings.runs):
            restarts.append(_restart_s(cluster))
            wait_for(namenode.ready.exists, "the NameNode ready again")
            namenode.stop()
        namenode.start()
        _work(cluster, settings.scale_files, settings)
        one = resident_mib(namenode.pid)
        blocked = [_longest_wait_ms(cluster) for _ in range(settings.runs)]
        namenode.stop()
        fill(database, settings.scale_files, settings.scale_files, big=False)
        namenode.start()
        _work(cluster, 2 * settings.scale_files, settings)
        two = resident_mib(namenode.pid)
    finally:
        cluster.stop()
    million = settings.scale_files / 1_000_000
    files = f"{million:g} million files"
    return [
        Figure(f"NameNode, {files}", "MiB", [one], Series("with none", (empty,)), at_most=250.0),
        Figure("growth by a further million", "MiB", [(two - one) / million], at_most=20.0),
        Figure("restart to the first answer", "s", restarts, at_most=2.0),
        Figure("longest stat while 100,000 are listed", "ms", blocked, at_most=50.0),
    ]


def fill(
    database: Path,
    first: int,
    count: int,
    *,
    big: bool,
    copies: int = COPIES,
    content: Callable[[int], bytes] | None = None,
) -> None:
    """Rows of closed files of one block in *copies* copies, as `put_files` leaves them.

    *content*: the bytes of the block with that id, all of one length; without it, 4 KiB whose digest is nobody's. Written past the NameNode, which is stopped, because a million calls would take minutes.
    """
    connection = sqlite3.connect(database, isolation_level=None)
    execute, many = connection.execute, connection.executemany
    execute("PRAGMA synchronous = OFF")
    execute("BEGIN")
    if first == 0:
        many(
            "INSERT INTO datanodes (node_id, uuid, host, data_address, http_address, socket_path,"
            " rack, admin_state, registered_ms) VALUES (?, ?, '127.0.0.1', ?, ?, '', '/r', 0, 0)",
            [(n, f"node-{n}", f"127.0.0.1:{n}", f"127.0.0.1:{n}") for n in range(1, copies + 1)],
        )
        execute("UPDATE counters SET next = next + ? WHERE name = 'node'", (copies,))
    inode = (
        "INSERT INTO inodes (parent_id, name, inode_id, kind, mode, flags, replication, owner, grp,"
        " mtime_ms, atime_ms, length, block_size) VALUES (?, ?, ?, ?, ?, 0, ?, 'somebody',"
        " 'supergroup', 1700000000000, 1700000000000, ?, 134217728)"
    )
    start = FIRST_ID * (1 + first // 100_000)
    top = start
    folders = [(1, f"m{first}", top, 1, 0o755, 0, 0)]
    rows: list[tuple[object, ...]] = []
    made = 0

    length = len(content(0)) if content else 4096

    def block(block_id: int) -> tuple[int, int, int, bytes]:
        data = content(block_id) if content else b""
        return block_id, length, copies, digest_of(data) if content else bytes(32)

    def flush() -> None:
        many(inode, rows)
        ids = [int(str(row[2])) for row in rows]
        many("INSERT INTO file_blocks VALUES (?, 0, ?)", ((n, n) for n in ids))
        many("INSERT INTO blocks VALUES (?, 1, ?, 1, ?, ?)", map(block, ids))
        many("INSERT INTO replicas VALUES (?, ?, 0, 1)", _copies(ids, copies))
        rows.clear()

    folder = 0
    while made < count:
        size = BIG if big and made == 0 else PER_FOLDER
        folder += 1
        name = "big" if size == BIG else f"d{folder:05d}"
        folder_id = start + folder
        folders.append((top, name, folder_id, 1, 0o755, 0, 0))
        for number in range(min(size, count - made)):
            rows.append(
                (folder_id, f"f{number:06d}", start + 100_000 + made, 2, 0o644, copies, length)
            )
            made += 1
        if len(rows) >= 50_000:
            flush()
    flush()
    many(inode, folders)
    execute("UPDATE counters SET next = next + 1000000000 WHERE name IN ('inode', 'block')")
    execute("COMMIT")
    execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def _copies(ids: list[int], copies: int) -> Iterator[tuple[int, int]]:
    for block_id in ids:
        for node in range(1, copies + 1):
            yield block_id, node


def _restart_s(cluster: Cluster) -> float:
    """From starting the process to the first answered read, after a kill -9 in the midst of writes."""
    namenode = cluster.namenode
    namenode.start()
    asyncio.run(_write(cluster.url))
    namenode.kill()
    # On the port it had, so that clients that wait there are answered.
    port = namenode.facts["http"].rpartition(":")[2]
    namenode.arguments[namenode.arguments.index("--port") + 1] = port
    waiting = HttpNameNode(cluster.url, user="root", retry_s=0.0)
    pause = threading.Event()
    began_s = elapsed_timer()
    namenode.launch()
    try:
        while True:
            try:
                waiting.call("stat", Stat(path="/m0/big/f000001"))
                return elapsed_timer() - began_s
            except Unavailable:
                pause.wait(0.005)
    finally:
        waiting.close()


async def _write(url: str) -> None:
    """Enough for a write-ahead log of some size."""
    async with FileSystem.connect(url) as fs:
        for _ in range(20):
            names = [Mkdirs(path=f"/r-{new_uuid()}") for _ in range(500)]
            await fs.call("mkdirs_many", MkdirsMany(directories=names))


def _work(cluster: Cluster, files: int, settings: Settings) -> None:
    """Use the NameNode as clients do, so that its caches are as full as they get."""
    asyncio.run(_touch(cluster.url, files, settings.rng))


async def _touch(url: str, files: int, rng: random.Random) -> None:
    async with FileSystem.connect(url) as fs:
        if not files:
            await fs.stat("/")
            return
        tops = range(0, files, 1_000_000)
        for _ in range(TOUCHED // 500):
            paths = [
                f"/m{rng.choice(tops)}/d{rng.randrange(2, 900):05d}/f{rng.randrange(1000):06d}"
                for _ in range(500)
            ]
            await fs.call("stat_many", StatMany(paths=paths))
            await fs.call("locate_many", LocateMany(paths=paths))
        after = ""
        while True:
            page = await fs.call(
                "list", ListDirectory(path="/m0/big", start_after=after, limit=5_000)
            )
            if not page.more:
                break
            after = page.entries[-1].name


def _longest_wait_ms(cluster: Cluster) -> float:
    """The longest of many stats while another process lists the large directory again and again."""
    lister = subprocess.Popen(
        [sys.executable, str(CLIENT), cluster.url, "/m0/big"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert lister.stdout is not None
    lister.stdout.readline()
    longest_s = asyncio.run(_stat_until(cluster.url, lister))
    told = json.loads(lister.stdout.read())
    if lister.wait() or told["entries"] != BIG:
        raise SystemExit("the listing failed")
    return longest_s * 1000


async def _stat_until(url: str, lister: subprocess.Popen[str]) -> float:
    longest_s = 0.0
    async with FileSystem.connect(url) as fs:
        await fs.stat("/m0")
        while lister.poll() is None:
            began_s = elapsed_timer()
            await fs.stat("/m0/big/f000007")
            longest_s = max(longest_s, elapsed_timer() - began_s)
    return longest_s
