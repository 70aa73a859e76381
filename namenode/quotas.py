"""Quotas of names and bytes: what a change would use, checked before it is written."""

from __future__ import annotations

from collections.abc import Iterable

from ..common.errors import NameQuotaExceeded, SpaceQuotaExceeded
from .store.base import Transaction
from .store.sql import FLAG_QUOTA, INode


def limited(chain: Iterable[INode]) -> list[INode]:
    """The directories of *chain* that have a quota."""
    return [node for node in chain if node.flags & FLAG_QUOTA]


def check(tx: Transaction, chain: Iterable[INode], names: int, space_bytes: int) -> None:
    """Raise if *names* more names and *space_bytes* more bytes do not fit below all of *chain*."""
    for node in limited(chain):
        row = tx.one(
            "SELECT names_limit, space_limit, names_used, space_used FROM quotas WHERE inode_id = ?",
            (node.inode_id,),
        )
        if row is None:
            continue
        where = f"the directory {node.name or '/'!r}"
        if names > 0 and 0 <= row[0] < row[2] + names:
            raise NameQuotaExceeded(
                f"{where} may hold {row[0]} names and has {row[2]}: {names} more do not fit"
            )
        if space_bytes > 0 and 0 <= row[1] < row[3] + space_bytes:
            raise SpaceQuotaExceeded(
                f"{where} may hold {row[1]} bytes, copies included, and has {row[3]}: "
                f"{space_bytes} more do not fit"
            )


def charge(tx: Transaction, chain: Iterable[INode], names: int, space_bytes: int) -> None:
    """Record a change that was checked (negative: something went away)."""
    if names or space_bytes:
        for node in limited(chain):
            tx.execute(
                "UPDATE quotas SET names_used = names_used + ?, space_used = space_used + ?"
                " WHERE inode_id = ?",
                (names, space_bytes, node.inode_id),
            )


def any_quota(tx: Transaction) -> bool:
    return tx.one("SELECT 1 FROM quotas LIMIT 1") is not None


def usage(tx: Transaction, node: INode) -> tuple[int, int]:
    """(names, bytes times replication) of *node* and all below it."""
    if not node.is_directory:
        return 1, node.length * node.replication
    row = tx.one(
        "WITH RECURSIVE tree (inode_id) AS (SELECT CAST(? AS BIGINT) UNION ALL"
        " SELECT i.inode_id FROM inodes i JOIN tree t ON i.parent_id = t.inode_id WHERE i.kind = 1)"
        " SELECT COUNT(*), COALESCE(SUM(i.length * i.replication), 0)"
        " FROM inodes i JOIN tree t ON i.parent_id = t.inode_id",
        (node.inode_id,),
    )
    assert row is not None
    return int(row[0]) + 1, int(row[1])
