"""How much there is, counted in the background: a page at a time, and the more seldom the longer it takes.

Nothing waits for it, so that a cold NameNode with many millions of files shows its first page at once; each figure says when it
was counted. At most about one hundredth of the time is spent in counting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from prometheus_client.metrics_core import Metric

from ..common.errors import DfsError
from ..common.metrics import gauge, gauges
from ..common.model import NodeId
from ..common.runtime import Clock, elapsed_timer
from .blockmap import GOOD, IS_CORRUPT, IS_TO_DELETE
from .datanodes import DataNodes
from .store.base import MetadataStore, Operation, Transaction
from .store.sql import marks

T = TypeVar("T")
log = logging.getLogger(__name__)
INODES_PER_PAGE = 20_000
BLOCKS_PER_PAGE = 5_000
PAUSE_S = 0.002  # between pages, at least; as long as the page took, if that is more: readers have others to serve
SHORTEST_INTERVAL_S = 10.0
INTERVAL_PER_WORK = 100.0


@dataclass(frozen=True, slots=True)
class Census:
    """*counted_ms*: when it was complete; 0 while the first count is under way."""

    counted_ms: int = 0
    files: int = 0
    directories: int = 0
    blocks: int = 0
    under_replicated: int = 0
    missing: int = 0
    pending_deletion: int = 0
    damaged: int = 0


class Counting:
    """The loop, and its last result."""

    def __init__(self, store: MetadataStore, nodes: DataNodes, clock: Clock) -> None:
        self._store = store
        self._nodes = nodes
        self._clock = clock
        self.last = Census()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            work_s = 0.0
            try:
                work_s = await self.count()
            except DfsError as error:
                log.warning("the count of files and blocks has to wait: %s", error)
            except Exception:
                log.exception("the count of files and blocks failed; it is tried again")
            await asyncio.sleep(max(SHORTEST_INTERVAL_S, work_s * INTERVAL_PER_WORK))

    async def count(self) -> float:
        """Count once; the seconds of work it took."""
        nodes = self._nodes
        dead = sorted({node.node_id for node in nodes.all()} - nodes.not_dead())
        found, work_s = Census(), 0.0
        place: tuple[int, str] | None = (-1, "")
        while place is not None:
            start = place
            (place, files, directories), took_s = await self._page(partial(_inodes, after=start))
            work_s += took_s
            found = replace(
                found, files=found.files + files, directories=found.directories + directories
            )
        after: int | None = 0
        while after is not None:
            last = after
            (after, blocks, short, missing), took_s = await self._page(
                partial(_blocks, after=last, dead=dead)
            )
            work_s += took_s
            found = replace(
                found,
                blocks=found.blocks + blocks,
                under_replicated=found.under_replicated + short,
                missing=found.missing + missing,
            )
        deletions, damaged = await self._store.read(_attention)
        self.last = replace(
            found,
            pending_deletion=deletions,
            damaged=damaged,
            counted_ms=self._clock.wall_ms(),
        )
        return work_s

    async def _page(self, count: Operation[T]) -> tuple[T, float]:
        """What *count* found, and how long it took."""
        began_s = elapsed_timer()
        found = await self._store.read(count)
        took_s = elapsed_timer() - began_s
        await asyncio.sleep(max(PAUSE_S, took_s))
        return found, took_s

    def families(self) -> Iterator[Metric]:
        """For `/metrics`; nothing before the first count is done."""
        last = self.last
        if not last.counted_ms:
            return
        yield gauge("twinfs_files", "Files, as last counted.", last.files)
        yield gauge("twinfs_directories", "Directories, as last counted.", last.directories)
        blocks = {
            "total": last.blocks,
            "under-replicated": last.under_replicated,
            "missing": last.missing,
            "pending-deletion": last.pending_deletion,
            "damaged": last.damaged,
        }
        yield gauges("twinfs_blocks", "Blocks by state, as last counted.", "state", blocks)
        yield gauge(
            "twinfs_counted_timestamp_seconds", "When they were counted.", last.counted_ms / 1000
        )


def _attention(tx: Transaction) -> tuple[int, int]:
    """Replicas that wait for deletion, and damaged ones."""
    counts = [
        tx.one(f"SELECT COUNT(*) FROM replicas WHERE {state}")
        for state in (IS_TO_DELETE, IS_CORRUPT)
    ]
    deletions, damaged = (row[0] if row else 0 for row in counts)
    return deletions, damaged


def _inodes(tx: Transaction, after: tuple[int, str]) -> tuple[tuple[int, str] | None, int, int]:
    """Of the next page of rows after *after*: (where it ends, or None at the end of all; files; directories)."""
    end = tx.one(
        "SELECT parent_id, name FROM inodes WHERE (parent_id, name) > (?, ?)"
        f" ORDER BY parent_id, name LIMIT 1 OFFSET {INODES_PER_PAGE - 1}",
        after,
    )
    limit = "" if end is None else " AND (parent_id, name) <= (?, ?)"
    rows = tx.all(
        "SELECT kind, COUNT(*) FROM inodes WHERE (parent_id, name) > (?, ?)"
        f"{limit} AND parent_id <> 2 GROUP BY kind",
        (*after, *(end or ())),
    )
    kinds = {row[0]: row[1] for row in rows}
    return (None if end is None else (end[0], end[1])), kinds.get(2, 0), kinds.get(1, 0)


def _blocks(
    tx: Transaction, after: int, dead: Sequence[NodeId]
) -> tuple[int | None, int, int, int]:
    """Of the next page of blocks: (its last one, or None at the end; blocks; with too few copies; with none)."""
    # With the plus it is a condition and no way to look: else each block might be looked up once for every node.
    condition = f" AND +r.node_id NOT IN ({marks(len(dead))})" if dead else ""
    row = tx.one(
        "SELECT COUNT(*), COALESCE(SUM(CASE WHEN c < w THEN 1 ELSE 0 END), 0),"
        " COALESCE(SUM(CASE WHEN c = 0 THEN 1 ELSE 0 END), 0), MAX(id) FROM"
        " (SELECT b.block_id AS id, b.replication AS w,"
        "  (SELECT COUNT(*) FROM replicas r WHERE r.block_id = b.block_id"
        f"   AND r.state = {GOOD}{condition}) AS c"
        "  FROM blocks b WHERE b.block_id > ? AND b.digest IS NOT NULL"
        "  ORDER BY b.block_id LIMIT ?) counted",
        (*dead, after, BLOCKS_PER_PAGE),
    )
    assert row is not None
    more = row[0] == BLOCKS_PER_PAGE
    return (row[3] if more else None), int(row[0]), int(row[1]), int(row[2])
