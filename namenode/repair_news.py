"""Rows by which the NameNode that repairs learns what others were told. See the schema."""

from __future__ import annotations

from collections.abc import Sequence

from .store.base import Transaction
from .store.sql import marks

TAKEN_AT_ONCE = 500


def tell(tx: Transaction, block_ids: Sequence[int]) -> None:
    """Have whoever repairs look at these blocks."""
    tx.many(
        "INSERT INTO repair_news (block_id) VALUES (?) ON CONFLICT (block_id) DO NOTHING",
        # In one order everywhere, so that two who tell do not wait for each other.
        [(block_id,) for block_id in sorted(set(block_ids))],
    )


def waiting(tx: Transaction) -> bool:
    """Whether anything was told; asked often, so that nothing is written where nothing happens."""
    return tx.one("SELECT 1 FROM repair_news LIMIT 1") is not None


def take(tx: Transaction) -> list[int]:
    """Some of what was told; it is forgotten with that."""
    rows = tx.all("SELECT block_id FROM repair_news ORDER BY block_id LIMIT ?", (TAKEN_AT_ONCE,))
    taken = [int(row[0]) for row in rows]
    if taken:
        tx.execute(f"DELETE FROM repair_news WHERE block_id IN ({marks(len(taken))})", taken)
    return taken
