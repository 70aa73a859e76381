"""Which blocks a holder may put: those allocated to it that belong to nothing yet."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

from ..common.errors import InvalidRequest, LeaseLost
from ..common.messages import BlockCommit
from . import blockmap
from .blockmap import IN_LIMIT
from .store.base import Transaction
from .store.sql import marks


class Allocations:
    """The blocks a holder may put."""

    def __init__(self, tx: Transaction, holder: str) -> None:
        self._tx = tx
        self._holder = holder
        self._rows = tx.all(
            "SELECT first_block_id, last_block_id, generation, replication FROM allocations"
            " WHERE holder = ? ORDER BY first_block_id",
            (holder,),
        )
        self._firsts = [row[0] for row in self._rows]

    def require(self, commit: BlockCommit) -> None:
        index = bisect.bisect_right(self._firsts, commit.block_id) - 1
        if index < 0 or self._rows[index][1] < commit.block_id:
            raise LeaseLost(
                f"block {commit.block_id} is not allocated to this client (any more); write it again"
            )
        if self._rows[index][2] != commit.generation:
            raise InvalidRequest(f"block {commit.block_id} was allocated in another generation")

    def take(self, block_ids: Iterable[int]) -> None:
        """Cut *block_ids* out of the rows: they belong to something now, or to nobody. To be called once.

        A client that lives for months gathers no rows so, and what lies on disks of ids that it does not use is found to be orphaned.
        """
        cut: dict[int, list[int]] = {}
        for block_id in sorted(set(block_ids)):
            index = bisect.bisect_right(self._firsts, block_id) - 1
            if index >= 0 and block_id <= self._rows[index][1]:
                cut.setdefault(index, []).append(block_id)
        whole: list[tuple[int]] = []
        for index, ids in cut.items():
            first, last, generation, replication = self._rows[index]
            pieces = _left(first, last, ids)
            if not pieces:
                whole.append((first,))
                continue
            self._tx.execute(
                "UPDATE allocations SET first_block_id = ?, last_block_id = ? WHERE first_block_id = ?",
                (*pieces[0], first),
            )
            self._tx.many(
                "INSERT INTO allocations (first_block_id, last_block_id, generation, replication, holder)"
                " VALUES (?, ?, ?, ?, ?)",
                [(*piece, generation, replication, self._holder) for piece in pieces[1:]],
            )
        self._tx.many("DELETE FROM allocations WHERE first_block_id = ?", whole)


def _left(first: int, last: int, taken: Sequence[int]) -> list[tuple[int, int]]:
    """What is left of the ids *first* to *last* without *taken*, which are in order."""
    pieces = []
    for block_id in taken:
        if block_id > first:
            pieces.append((first, block_id - 1))
        first = block_id + 1
    if first <= last:
        pieces.append((first, last))
    return pieces


def require_new(
    tx: Transaction,
    holder: str,
    commits: Sequence[BlockCommit],
    *,
    replication: int,
    min_replicas: int,
) -> None:
    """Refuse *commits* unless each is a block of *holder* that nothing has yet, on as many nodes as is needed.

    Whoever puts them calls `taken`.
    """
    allocations = Allocations(tx, holder)
    for commit in commits:
        allocations.require(commit)
        blockmap.check_commit(commit, replication, min_replicas)
    ids = [commit.block_id for commit in commits]
    known = len(set(ids)) < len(ids)
    for start in range(0, len(ids), IN_LIMIT):
        part = ids[start : start + IN_LIMIT]
        where = f"block_id IN ({marks(len(part))})"
        known = known or tx.one(f"SELECT 1 FROM blocks WHERE {where}", part) is not None
    if known:
        raise InvalidRequest("a block of the request belongs to something already")
    blockmap.known_nodes(tx, {node_id for commit in commits for node_id in commit.nodes})


def taken(tx: Transaction, holder: str, commits: Iterable[BlockCommit]) -> None:
    """*commits* belong to something now."""
    Allocations(tx, holder).take(commit.block_id for commit in commits)
