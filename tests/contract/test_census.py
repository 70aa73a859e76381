"""Counting files and blocks in the background: the same as counting them one by one, on both databases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from twinfs.common.model import NodeId
from twinfs.common.runtime import ManualClock
from twinfs.namenode import census
from twinfs.namenode.census import Counting
from twinfs.namenode.store.base import MetadataStore, Transaction

NODES = range(1, 8)
DEAD = frozenset({NodeId(3), NodeId(6)})


class Nodes:
    """Seven, two of them dead."""

    def all(self) -> Sequence[Any]:
        return [SimpleNamespace(node_id=NodeId(n)) for n in NODES]

    def not_dead(self) -> set[NodeId]:
        return {NodeId(n) for n in NODES} - DEAD


async def test_the_count_is_right(store: MetadataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Method: random rows, with every state of a replica, counted in pages that cut through everything."""
    monkeypatch.setattr(census, "INODES_PER_PAGE", 37)
    monkeypatch.setattr(census, "BLOCKS_PER_PAGE", 23)
    rng = random.Random(5)
    blocks, replicas, inodes = [], [], []
    short = missing = pending = damaged = finalized = 0
    for block_id in range(1000, 1300):
        wanted, open_ = rng.choice((1, 2, 3)), rng.random() < 0.05
        blocks.append((block_id, 1, 10, 1, wanted, None if open_ else bytes(32)))
        good = 0
        for node in rng.sample(NODES, rng.randrange(5)):
            state = rng.choice((0, 0, 0, 0, 1, 2, 3))
            replicas.append((block_id, node, state, 1))
            good += state == 0 and NodeId(node) not in DEAD
            pending += state == 2
            damaged += state == 3
        if not open_:
            finalized += 1
            short += good < wanted
            missing += good == 0
    files = folders = 0
    for number in range(500):
        parent, kind = rng.choice((1, 2, 10, 11, 12)), rng.choice((1, 2, 2, 2))
        inodes.append(
            (parent, f"n{number:03}", 5000 + number, kind, 0o755, 0, 1, "u", "g", 1, 1, 1, 1)
        )
        if parent != 2:
            files += kind == 2
            folders += kind == 1

    def write(tx: Transaction) -> None:
        tx.many(
            "INSERT INTO blocks (block_id, generation, length, refs, replication, digest)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            blocks,
        )
        tx.many(
            "INSERT INTO replicas (block_id, node_id, state, generation) VALUES (?, ?, ?, ?)",
            replicas,
        )
        tx.many(
            "INSERT INTO inodes (parent_id, name, inode_id, kind, mode, flags, replication, owner,"
            " grp, mtime_ms, atime_ms, length, block_size)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            inodes,
        )

    before = Counting(store, Nodes(), ManualClock())  # type: ignore[arg-type]
    await before.count()
    await store.run(write)
    counting = Counting(store, Nodes(), ManualClock())  # type: ignore[arg-type]
    await counting.count()
    found, empty = counting.last, before.last
    assert (found.files - empty.files, found.directories - empty.directories) == (files, folders)
    assert (found.blocks, found.under_replicated, found.missing) == (finalized, short, missing)
    assert (found.pending_deletion, found.damaged) == (pending, damaged)
    assert min(short, missing, pending, damaged) > 10
