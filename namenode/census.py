"""How much there is, counted in the background: a page at a time, and the more seldom the longer it takes.

Nothing waits for it, so that a cold NameNode with many millions of files shows its first page at once; each figure says when it
was counted. At most about one hundredth of the time is spent in counting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from prometheus_client.metrics_core import Metric

from ..common.errors import DfsError
from ..common.metrics import gauge, gauges
from ..common.model import NodeId
from ..common.runtime import Clock, elapsed_timer
from .blockmap import GOOD, IS_CORRUPT, IS_TO_DELETE
from .datanodes import DataNodes
from .store.base import MetadataStore, Transaction
from .store.sql import marks

log = logging.getLogger(__name__)
INODES_PER_PAGE = 20_000
BLOCKS_PER_PAGE = 5_000
PAUSE_S = 0.02  # between pages: readers have others to serve
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
        alive = sorted(self._nodes.not_dead())
        found, work_s = Census(), 0.0
        place: tuple[int, str] | None = (-1, "")
        while place is not None:
            began_s = elapsed_timer()
            start = place
            place, files, directories = await self._store.read(
                lambda tx, start=start: _inodes(tx, start)  # type: ignore[misc]
            )
            work_s += elapsed_timer() - began_s
            found = replace(
                found, files=found.files + files, directories=found.directories + directories
            )
            await asyncio.sleep(PAUSE_S)
        after: int | None = 0
        while after is not None:
            began_s = elapsed_timer()
            last = after
            after, blocks, short, missing = await self._store.read(
                lambda tx, last=last: _blocks(tx, last, alive)  # type: ignore[misc]
            )
            work_s += elapsed_timer() - began_s
            found = replace(
                found,
                blocks=found.blocks + blocks,
                under_replicated=found.under_replicated + short,
                missing=found.missing + missing,
            )
            await asyncio.sleep(PAUSE_S)
        deletions, damaged = await self._store.read(_attention)
        self.last = replace(
            found,
            pending_deletion=deletions,
            damaged=damaged,
            counted_ms=self._clock.wall_ms(),
        )
        return work_s

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
    tx: Transaction, after: int, alive: Sequence[NodeId]
) -> tuple[int | None, int, int, int]:
    """Of the next page of blocks: (its last one, or None at the end; blocks; with too few copies; with none)."""
    condition = f"r.node_id IN ({marks(len(alive))})" if alive else "1 = 0"
    row = tx.one(
        "SELECT COUNT(*), COALESCE(SUM(CASE WHEN c < w THEN 1 ELSE 0 END), 0),"
        " COALESCE(SUM(CASE WHEN c = 0 THEN 1 ELSE 0 END), 0), MAX(id) FROM"
        " (SELECT b.block_id AS id, b.replication AS w, COUNT(r.node_id) AS c FROM"
        "  (SELECT block_id, replication FROM blocks WHERE block_id > ? AND digest IS NOT NULL"
        "   ORDER BY block_id LIMIT ?) b"
        f" LEFT JOIN replicas r ON r.block_id = b.block_id AND r.state = {GOOD} AND {condition}"
        " GROUP BY b.block_id, b.replication) counted",
        (after, BLOCKS_PER_PAGE, *alive),
    )
    assert row is not None
    more = row[0] == BLOCKS_PER_PAGE
    return (row[3] if more else None), int(row[0]), int(row[1]), int(row[2])
