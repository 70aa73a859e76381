"""What `dfs fsck` sees: the files of a directory, their blocks, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from ..common.admin import Check, CheckedBlock, CheckedFile, CheckedReplica, CheckPage
from ..common.model import Block, BlockId, GenerationStamp, NodeId
from .blockmap import BEING_WRITTEN, CORRUPT, GOOD, IN_LIMIT, IS_CORRUPT, IS_TO_DELETE, TO_DELETE
from .datanodes import DataNodes
from .namespace.walk import existing
from .permissions import EXECUTE, READ, Caller, require
from .replication import BlockState, View, need_of
from .store import sql
from .store.base import Transaction
from .store.sql import INode, marks

_STATES: Final[dict[int, Literal["good", "being-written", "to-be-deleted", "corrupt"]]] = {
    GOOD: "good",
    BEING_WRITTEN: "being-written",
    TO_DELETE: "to-be-deleted",
    CORRUPT: "corrupt",
}


class _Row(NamedTuple):
    inode_id: int
    ordinal: int
    block_id: int
    generation: int
    length: int
    digest: bytes | None
    replication: int
    node_id: int | None
    state: int | None


def check(tx: Transaction, caller: Caller, request: Check, *, nodes: DataNodes) -> CheckPage:
    """One page of a directory, or one file."""
    found, node = existing(tx, caller, request.path)
    if node.is_directory:
        require(caller, node, READ | EXECUTE, found.path)
        entries = sql.children(tx, node.inode_id, request.start_after, request.limit + 1)
        more = len(entries) > request.limit
        del entries[request.limit :]
        base = found.path if found.path != "/" else ""
    else:
        entries, more = [node], False
        base = found.path.rpartition("/")[0]
    files = [entry for entry in entries if not entry.is_directory]
    rows = _rows(tx, [entry.inode_id for entry in files])
    view = View(nodes.candidates())
    checked = [
        _file(entry, f"{base}/{entry.name}", rows.get(entry.inode_id, []), view, nodes, request)
        for entry in files
    ]
    return CheckPage(
        files=checked,
        directories=[entry.name for entry in entries if entry.is_directory],
        more=more,
        next_after=entries[-1].name if entries else "",
    )


def _rows(tx: Transaction, inode_ids: Sequence[int]) -> dict[int, list[_Row]]:
    found: dict[int, list[_Row]] = {}
    for start in range(0, len(inode_ids), IN_LIMIT):
        part = inode_ids[start : start + IN_LIMIT]
        for row in tx.all(
            "SELECT f.inode_id, f.ordinal, b.block_id, b.generation, b.length, b.digest,"
            " b.replication, r.node_id, r.state FROM file_blocks f"
            " JOIN blocks b ON b.block_id = f.block_id"
            " LEFT JOIN replicas r ON r.block_id = b.block_id"
            f" WHERE f.inode_id IN ({marks(len(part))})"
            " ORDER BY f.inode_id, f.ordinal, r.node_id",
            part,
        ):
            found.setdefault(row[0], []).append(_Row(*row))
    return found


def _file(
    node: INode, path: str, rows: list[_Row], view: View, nodes: DataNodes, request: Check
) -> CheckedFile:
    by_ordinal: dict[int, list[_Row]] = {}
    for row in rows:
        by_ordinal.setdefault(row.ordinal, []).append(row)
    blocks = [
        judge(by_ordinal[ordinal], node.replication, view, nodes) for ordinal in sorted(by_ordinal)
    ]
    return CheckedFile(
        path=path,
        length=node.length,
        replication=node.replication,
        open_for_write=node.is_open,
        block_count=len(blocks),
        live_replicas=sum(block.live for block in blocks),
        corrupt_replicas=sum(block.corrupt for block in blocks),
        blocks=[block for block in blocks if request.detail or block.problems or block.corrupt],
    )


def judge(rows: Sequence[_Row], replication: int, view: View, nodes: DataNodes) -> CheckedBlock:
    """One block with all rows of its replicas. An open block is not judged: its writer sees to it."""
    first = rows[0]
    block = Block(
        block_id=BlockId(first.block_id),
        generation=GenerationStamp(first.generation),
        length=first.length,
        digest=None if first.digest is None else bytes(first.digest),
    )
    replicas = [_replica(row, nodes) for row in rows if row.node_id is not None]
    good = [replica for replica in replicas if replica.state == "good"]
    live = [replica for replica in good if replica.node_state in ("live", "stale")]
    damaged = [replica for replica in replicas if replica.state == "corrupt"]
    problems: list[Any] = []
    if block.digest is not None:
        state = BlockState(
            block,
            max(replication, 1),
            tuple(replica.node_id for replica in good),
            tuple(replica.node_id for replica in damaged),
        )
        need = need_of(state, view)
        if not live:
            here = [replica for replica in damaged if replica.node_state != "dead"]
            problems.append("corrupt" if here else "missing")
        if need.missing:
            problems.append("under-replicated")
        if need.surplus:
            problems.append("over-replicated")
        if need.misplaced:
            problems.append("mis-replicated")
    return CheckedBlock(
        block=block,
        wanted=replication,
        live=len(live),
        corrupt=len(damaged),
        racks=len({replica.rack for replica in live}),
        problems=problems,
        replicas=replicas,
    )


def _replica(row: _Row, nodes: DataNodes) -> CheckedReplica:
    assert row.node_id is not None
    assert row.state is not None
    node = nodes.get(NodeId(row.node_id))
    return CheckedReplica(
        node_id=NodeId(row.node_id),
        address="?" if node is None else node.address.data,
        rack="?" if node is None else node.address.rack,
        node_state="unknown" if node is None else nodes.state(node),
        admin_state="in-service" if node is None else node.admin.state,
        state=_STATES[row.state],
    )


class Loose(NamedTuple):
    """Counts of rows that no path leads to."""

    pending_deletion: int
    orphans: int
    corrupt_replicas: int
    unreferenced_blocks: int


def loose(tx: Transaction) -> Loose:
    """What is in the tables beside files: replicas to be deleted, of no block, corrupt; blocks of no file."""
    counts = []
    for statement in (
        f"SELECT COUNT(*) FROM replicas WHERE {IS_TO_DELETE}",
        f"SELECT COUNT(*) FROM replicas r WHERE r.state <> {TO_DELETE}"
        " AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.block_id = r.block_id)",
        f"SELECT COUNT(*) FROM replicas WHERE {IS_CORRUPT}",
        "SELECT COUNT(*) FROM blocks b WHERE b.refs <= 0",
    ):
        row = tx.one(statement)
        counts.append(0 if row is None else int(row[0]))
    return Loose(*counts)
