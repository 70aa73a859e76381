"""Rows by which operators' decisions hold for every NameNode of the cluster, and after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ..common.messages import AdminState
from ..common.model import NodeId
from .blockmap import GOOD
from .datanodes import Admin
from .store.base import Transaction
from .store.sql import marks

STATES: Final[tuple[AdminState, ...]] = (
    "in-service",
    "decommissioning",
    "decommissioned",
    "entering-maintenance",
    "in-maintenance",
)
SAFE_MODE: Final = "safe_mode"
BALANCER: Final = "balancer"


def order(tx: Transaction, name: str) -> dict[str, Any] | None:
    row = tx.one("SELECT value FROM orders WHERE name = ?", (name,))
    if row is None:
        return None
    found: dict[str, Any] = msgspec.json.decode(row[0])
    return found


def give_order(tx: Transaction, name: str, value: object, now_ms: int) -> None:
    tx.execute(
        "INSERT INTO orders (name, value, changed_ms) VALUES (?, ?, ?) ON CONFLICT (name)"
        " DO UPDATE SET value = excluded.value, changed_ms = excluded.changed_ms",
        (name, msgspec.json.encode(value).decode(), now_ms),
    )


def withdraw_order(tx: Transaction, name: str) -> None:
    tx.execute("DELETE FROM orders WHERE name = ?", (name,))


def admin_rows(tx: Transaction) -> dict[NodeId, Admin]:
    """What was decided about every node."""
    return {
        NodeId(row[0]): Admin(STATES[row[1]], row[2], row[3], row[4])
        for row in tx.all(
            "SELECT node_id, admin_state, admin_until_ms, admin_left, admin_total FROM datanodes"
        )
    }


def set_admin_state(
    tx: Transaction, node_ids: Sequence[NodeId], state: AdminState, until_ms: int, now_ms: int
) -> None:
    """Counting what has to be copied begins anew: *admin_left* is -1 until somebody has counted."""
    tx.many(
        "UPDATE datanodes SET admin_state = ?, admin_until_ms = ?, admin_since_ms = ?,"
        " admin_left = ?, admin_total = 0 WHERE node_id = ?",
        [
            (
                STATES.index(state),
                until_ms,
                now_ms,
                -1 if state in ("decommissioning", "entering-maintenance") else 0,
                node_id,
            )
            for node_id in node_ids
        ],
    )


def progress(tx: Transaction, node_id: NodeId, admin: Admin, left: int) -> bool:
    """Note how many blocks are left; False if the decision has been changed meanwhile."""
    return bool(
        tx.execute(
            "UPDATE datanodes SET admin_left = ?, admin_total = CASE WHEN admin_total < ? THEN ?"
            " ELSE admin_total END WHERE node_id = ? AND admin_state = ?",
            (left, left, left, node_id, STATES.index(admin.state)),
        )
    )


def advance(tx: Transaction, node_id: NodeId, admin: Admin, state: AdminState) -> bool:
    """Go from *admin* to *state*, unless the decision has been changed meanwhile."""
    return bool(
        tx.execute(
            "UPDATE datanodes SET admin_state = ?, admin_left = 0 WHERE node_id = ?"
            " AND admin_state = ? AND admin_until_ms = ?",
            (STATES.index(state), node_id, STATES.index(admin.state), admin.until_ms),
        )
    )


def expired_maintenance(tx: Transaction, now_ms: int) -> int:
    """Put nodes whose maintenance has ended back in service; how many."""
    return tx.execute(
        "UPDATE datanodes SET admin_state = 0, admin_until_ms = 0, admin_left = 0, admin_total = 0"
        " WHERE admin_state IN (3, 4) AND admin_until_ms > 0 AND admin_until_ms <= ?",
        (now_ms,),
    )


def most_copies_wanted(tx: Transaction, node_ids: Sequence[NodeId]) -> int:
    """The largest replication of a block that has a good copy on one of the nodes; 0: they hold nothing."""
    row = tx.one(
        "SELECT MAX(b.replication) FROM replicas r JOIN blocks b ON b.block_id = r.block_id"
        f" WHERE r.state = {GOOD} AND r.node_id IN ({marks(len(node_ids))})",
        list(node_ids),
    )
    return 0 if row is None or row[0] is None else int(row[0])
