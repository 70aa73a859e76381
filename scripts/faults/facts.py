"""What the databases and disks of a cluster say, read without asking its servers: facts for `scripts/checker/audit.py`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from scripts.checker.audit import Block, Facts, Replica
from twinfs.common.checksum import CHUNK_BYTES, block_digest, digest_of

from .targets import Cluster, Target

TO_DELETE = 2


def gather(cluster: Cluster) -> Facts:
    """Of a cluster at rest; its processes may run."""
    blocks, open_files = _namespace(cluster.target("namenode"))
    replicas: dict[int, dict[int, Replica]] = {}
    unreadable: list[str] = []
    remains: list[str] = []
    for name in cluster.names:
        if name != "namenode":
            for volume in cluster.target(name).volumes:
                if not (volume / "VERSION").exists():
                    continue  # deleted
                node = int(json.loads((volume / "VERSION").read_text())["node_id"])
                known = replicas.setdefault(node, {})
                try:
                    found = _volume(volume)
                except sqlite3.Error as error:  # damaged, or just being made anew
                    unreadable.append(f"{name}/{volume.name} can't be read: {error}")
                    continue
                for block_id, replica in found.items():
                    other = known.get(block_id)
                    if other is not None and other.finalized != replica.finalized:
                        remains.append(f"block {block_id} on node {node}")
                    if other is None or not other.finalized:
                        known[block_id] = replica
    return Facts(
        blocks=blocks,
        replicas=replicas,
        open_files=open_files,
        nodes=len(replicas),
        unreadable=unreadable,
        remains=remains,
    )


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30.0)


def _namespace(namenode: Target) -> tuple[dict[int, Block], list[str]]:
    (folder,) = namenode.volumes
    with closing(_read_only(folder / "namespace.db")) as connection:
        holders: dict[int, list[int]] = {}
        for block_id, node in connection.execute(
            "SELECT r.block_id, r.node_id FROM replicas r JOIN blocks b ON b.block_id = r.block_id"
            " AND b.generation = r.generation WHERE r.state = 0 ORDER BY r.node_id"
        ):
            holders.setdefault(block_id, []).append(node)
        blocks = {
            row[0]: Block(
                row[1], row[2], bytes(row[3]).hex(), row[4], tuple(holders.get(row[0], ()))
            )
            for row in connection.execute(
                "SELECT block_id, generation, length, digest, replication FROM blocks"
                " WHERE digest IS NOT NULL AND refs > 0"
            )
        }
        opened = [
            f"block {row[0]} of inode {row[1]}"
            for row in connection.execute("SELECT block_id, inode_id FROM open_blocks")
        ]
    return blocks, opened


def _volume(volume: Path) -> dict[int, Replica]:
    """What lies on the volume, hashed anew."""
    found: dict[int, Replica] = {}
    recorded: set[str] = set()
    with closing(_read_only(volume / "index.db")) as connection:
        for block_id, generation, length, inline in connection.execute(
            "SELECT block_id, generation, length, inline FROM replicas"
        ).fetchall():
            if not all(isinstance(v, int) for v in (block_id, generation, length, inline)):
                raise sqlite3.DatabaseError("a row has words for numbers")
            if inline:
                row = connection.execute(
                    "SELECT data FROM small WHERE block_id = ?", (block_id,)
                ).fetchone()
                data = row[0] if row is not None and isinstance(row[0], bytes) else b""
                size, digest = len(data), _digest([data] if data else [])
            else:
                file = volume / "blocks" / f"{block_id & 0xFF:02x}" / f"blk_{block_id}_{generation}"
                recorded.add(file.name)
                size, digest = _file(file)
            # The index's length counts only if the bytes are there.
            found[block_id] = Replica(generation, min(length, size), digest, True)
    for file in [*volume.glob("blocks/*/blk_*"), *volume.glob("writing/blk_*")]:
        if file.name not in recorded:
            _, block_id, generation = file.name.split("_")
            with suppress(FileNotFoundError):  # published or deleted meanwhile
                known = Replica(int(generation), file.stat().st_size, "", False)
                found.setdefault(int(block_id), known)
    return found


def _file(path: Path) -> tuple[int, str]:
    size, chunks = 0, []
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                size += len(chunk)
                chunks.append(chunk)
    except FileNotFoundError:
        return 0, "missing"
    return size, _digest(chunks)


def _digest(chunks: list[bytes]) -> str:
    return block_digest(b"".join(digest_of(chunk) for chunk in chunks)).hex()
