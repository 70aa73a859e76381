"""Which blocks a holder may put: those allocated to it that belong to nothing yet."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from ..common.errors import InvalidRequest, LeaseLost
from ..common.messages import BlockCommit
from . import blockmap
from .blockmap import IN_LIMIT
from .store.base import Transaction
from .store.sql import marks


class Allocations:
    """The blocks a holder may put."""

    def __init__(self, tx: Transaction, holder: str) -> None:
        self._rows = tx.all(
            "SELECT first_block_id, last_block_id, generation FROM allocations WHERE holder = ?"
            " ORDER BY first_block_id",
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


def require_new(
    tx: Transaction,
    holder: str,
    commits: Sequence[BlockCommit],
    *,
    replication: int,
    min_replicas: int,
) -> None:
    """Refuse *commits* unless each is a block of *holder* that nothing has yet, on as many nodes as is needed."""
    allocations = Allocations(tx, holder)
    for commit in commits:
        allocations.require(commit)
        blockmap.check_commit(commit, replication, min_replicas)
    ids = [commit.block_id for commit in commits]
    taken = len(set(ids)) < len(ids)
    for start in range(0, len(ids), IN_LIMIT):
        part = ids[start : start + IN_LIMIT]
        where = f"block_id IN ({marks(len(part))})"
        taken = taken or tx.one(f"SELECT 1 FROM blocks WHERE {where}", part) is not None
    if taken:
        raise InvalidRequest("a block of the request belongs to something already")
    blockmap.known_nodes(tx, {node_id for commit in commits for node_id in commit.nodes})
