"""What `/metrics` takes of processes that hold much: a NameNode and a DataNode with a million blocks, a peer with a million."""

from __future__ import annotations

import sqlite3
import statistics
import urllib.request
from pathlib import Path

import scale
from cluster import Cluster, Server, wait_for
from figures import Figure, Series
from peers import peer
from settings import Settings

from twinfs.common.checksum import digest_of
from twinfs.common.runtime import elapsed_timer
from twinfs.datanode.index import FIRST_LOCAL_BLOCK, Replica
from twinfs.datanode.volumes import Volume

SCRAPES = 40
AT_MOST_MS = 20.0
SERIES = 2_000
ROWS_AT_ONCE = 20_000


def scrape(url: str) -> tuple[list[float], str]:
    """(how long each of some scrapes took, in ms; what the last one said)."""
    took: list[float] = []
    for _ in range(SCRAPES):
        began_s = elapsed_timer()
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            text = answer.read().decode()
        took.append((elapsed_timer() - began_s) * 1000)
    return took, text


def series(text: str) -> float:
    return float(sum(not line.startswith("#") for line in text.splitlines()))


def value(url: str, name: str) -> float:
    """Of one series; 0 if it is not there."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
    return 0.0


def measure(settings: Settings) -> list[Figure]:
    return [*_cluster(settings), *_peer(settings)]


def _figures(who: str, url: str) -> list[Figure]:
    took, text = scrape(url)
    plain = []
    for _ in range(SCRAPES):
        began_s = elapsed_timer()
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            answer.read()
        plain.append((elapsed_timer() - began_s) * 1000)
    alone = Series("/healthz", (statistics.median(plain),))
    return [
        Figure(f"/metrics of {who}", "ms", took, alone, at_most=AT_MOST_MS, smaller=True),
        Figure(f"series of {who}", "", [series(text)], at_most=SERIES),
    ]


def content(number: int) -> bytes:
    """A block's bytes: few, and no others'."""
    return number.to_bytes(8, "big")


def fill_volume(folder: Path, first: int, count: int, cluster_id: str = "") -> None:
    """Replicas with the ids from *first* on, recorded as the store does: inline, with their digests."""
    volume = Volume(folder, reserved_bytes=0)
    if cluster_id:
        volume.identify(node_uuid="node-1", cluster_id=cluster_id, node_id=1)
    for start in range(first, first + count, ROWS_AT_ONCE):
        ids = range(start, min(start + ROWS_AT_ONCE, first + count))
        data = [(number, content(number)) for number in ids]
        rows = [Replica(n, 1, len(bytes_), True, digest_of(bytes_)) for n, bytes_ in data]
        volume.index.add(rows, data).result()
    volume.close()


def _cluster(settings: Settings) -> list[Figure]:
    """One DataNode, in its cluster's eyes the holder of all there is, so that nothing is to be repaired or deleted."""
    cluster = Cluster(
        settings.fresh("scrapes"), datanodes=0, namenode_options=("--replication", "1")
    ).start()
    count = settings.scale_files
    try:
        cluster.namenode.stop()
        database = cluster.folder / "nn" / "namespace.db"
        scale.fill(database, 0, count, big=False, copies=1, content=content)
        with sqlite3.connect(database) as connection:
            (cluster_id,) = connection.execute(
                "SELECT value FROM meta WHERE name = 'cluster_id'"
            ).fetchone()
            (first,) = connection.execute("SELECT MIN(block_id) FROM blocks").fetchone()
        connection.close()
        fill_volume(cluster.folder / "dn", first, count, cluster_id)
        cluster.namenode.start()
        node = Server(
            cluster.folder,
            "datanode",
            [
                *(
                    "twinfs.datanode",
                    "--namenode",
                    cluster.url,
                    "--dir",
                    str(cluster.folder / "dn"),
                ),
                *("--port", "0", "--data-port", "0"),
            ],
        )
        cluster.datanodes.append(node)
        node.start()
        url = f"http://{node.facts['http']}"
        total = 'twinfs_blocks{state="total"}'
        wait_for(lambda: value(cluster.url, total) == count, "blocks counted", 120)
        held = value(url, 'twinfs_datanode_replicas{state="finalized"}')
        if held != count:
            raise SystemExit(f"the DataNode holds {held:.0f} replicas")
        found = _figures("a NameNode, 1M files", cluster.url)
        return [*found, *_figures("a DataNode, 1M replicas", url)]
    finally:
        cluster.stop()


def _peer(settings: Settings) -> list[Figure]:
    folder = settings.fresh("filled")
    fill_volume(folder / "v", FIRST_LOCAL_BLOCK, settings.scale_files)
    with peer(settings, folder) as url:
        held = value(url, 'twinfs_datanode_replicas{state="finalized"}')
        if held != settings.scale_files:
            raise SystemExit(f"the peer holds {held:.0f} replicas")
        return _figures("a peer, 1M CID blocks", url)
