"""Quotas: what does not fit is refused by the directory that has no room, and says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from twinfs.common.errors import NameQuotaExceeded, SpaceQuotaExceeded
from twinfs.namenode import quotas
from twinfs.namenode.store import sql
from twinfs.namenode.store.base import Transaction
from twinfs.namenode.store.sql import FLAG_QUOTA, KIND_DIRECTORY, KIND_FILE, INode

from .memory import memory_transaction

NONE = -1


@pytest.fixture
def tx() -> Iterator[Transaction]:
    with memory_transaction() as found:
        yield found


def directory(number: int, parent: int = 1, flags: int = FLAG_QUOTA) -> INode:
    return INode(
        parent, f"d{number}", number, KIND_DIRECTORY, 0o755, flags, 0, "a", "a", 0, 0, 0, 0
    )


def file(number: int, parent: int, length: int, replication: int) -> INode:
    return INode(
        parent, f"f{number}", number, KIND_FILE, 0o644, 0, replication, "a", "a", 0, 0, length, 1
    )


def limit(tx: Transaction, node: INode, names: int, space: int, used: tuple[int, int]) -> None:
    tx.execute("INSERT INTO quotas VALUES (?, ?, ?, ?, ?)", (node.inode_id, names, space, *used))


def used(tx: Transaction, node: INode) -> tuple[int, ...] | None:
    return tx.one("SELECT names_used, space_used FROM quotas WHERE inode_id = ?", (node.inode_id,))


def test_what_fits_exactly_is_taken_and_one_more_is_not(tx: Transaction) -> None:
    node = directory(10)
    limit(tx, node, 5, 100, (3, 60))
    quotas.check(tx, [node], 2, 40)
    with pytest.raises(NameQuotaExceeded, match=r"d10.* 5 names and has 3: 3 more"):
        quotas.check(tx, [node], 3, 0)
    with pytest.raises(SpaceQuotaExceeded, match=r"d10.* 100 bytes.* has 60: 41 more"):
        quotas.check(tx, [node], 0, 41)


def test_a_directory_over_its_quota_can_still_be_emptied(tx: Transaction) -> None:
    node = directory(10)
    limit(tx, node, 1, 10, (9, 90))
    quotas.check(tx, [node], 0, 0)
    quotas.check(tx, [node], -1, -10)
    quotas.check(tx, [node], 0, -10)
    with pytest.raises(NameQuotaExceeded):
        quotas.check(tx, [node], 1, -10)


def test_no_limit_is_no_limit_and_zero_is_one(tx: Transaction) -> None:
    free, closed = directory(10), directory(11)
    limit(tx, free, NONE, NONE, (10**9, 10**15))
    limit(tx, closed, NONE, 0, (1, 0))
    quotas.check(tx, [free], 10**6, 10**12)
    quotas.check(tx, [closed], 1, 0)
    with pytest.raises(SpaceQuotaExceeded):
        quotas.check(tx, [closed], 0, 1)


def test_every_directory_above_has_its_say(tx: Transaction) -> None:
    outer, plain, inner = directory(10), directory(11, 10, flags=0), directory(12, 11)
    limit(tx, outer, 4, NONE, (4, 0))
    limit(tx, inner, 100, NONE, (1, 0))
    assert quotas.limited([outer, plain, inner]) == [outer, inner]
    with pytest.raises(NameQuotaExceeded, match="d10"):
        quotas.check(tx, [outer, plain, inner], 1, 0)
    quotas.check(tx, [plain, inner], 1, 0)


def test_a_charge_reaches_every_directory_above_and_can_be_taken_back(tx: Transaction) -> None:
    outer, inner, other = directory(10), directory(12, 10), directory(13)
    for node in (outer, inner, other):
        limit(tx, node, NONE, NONE, (1, 0))
    quotas.charge(tx, [outer, inner], 2, 30)
    assert [used(tx, node) for node in (outer, inner, other)] == [(3, 30), (3, 30), (1, 0)]
    quotas.charge(tx, [outer, inner], -2, -30)
    assert used(tx, outer) == used(tx, inner) == (1, 0)


def test_usage_counts_the_whole_tree_with_its_copies(tx: Transaction) -> None:
    top, below = directory(10), directory(11, 10)
    nodes = [top, below, file(12, 10, 100, 3), file(13, 11, 10, 2), directory(14, 11)]
    for node in (*nodes, directory(15), file(16, 15, 1_000, 3)):
        sql.insert(tx, node)
    assert quotas.usage(tx, top) == (5, 320)
    assert quotas.usage(tx, below) == (3, 20)
    assert quotas.usage(tx, nodes[2]) == (1, 300)
    assert quotas.usage(tx, nodes[4]) == (1, 0)


def test_whether_there_is_any_quota(tx: Transaction) -> None:
    assert not quotas.any_quota(tx)
    limit(tx, directory(10), NONE, NONE, (1, 0))
    assert quotas.any_quota(tx)
