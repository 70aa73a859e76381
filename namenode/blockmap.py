"""Rows of blocks and replicas: what exists, where it is, and who still needs it."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from ..common.errors import InvalidRequest, NotEnoughReplicas
from ..common.messages import BlockCommit
from ..common.model import (
    Block,
    BlockId,
    BlockRef,
    GenerationStamp,
    LocatedBlock,
    NodeAddress,
    NodeId,
)
from .store.base import Transaction
from .store.sql import marks

GOOD: Final = 0
BEING_WRITTEN: Final = 1
TO_DELETE: Final = 2
CORRUPT: Final = 3
# Conditions on rows of `replicas` that few meet. Both halves are needed: only a statement that says `state <> 0` in so many words is
# answered from the small index of such rows (replicas_attention), instead of from all replicas of a node, or of the cluster.
IS_TO_DELETE: Final = f"state <> 0 AND state = {TO_DELETE}"
IS_CORRUPT: Final = f"state <> 0 AND state = {CORRUPT}"
IN_LIMIT: Final = 500  # values in one IN (...)


class NodeDirectory(Protocol):
    """Where DataNodes are."""

    def address(self, node_id: NodeId) -> NodeAddress | None: ...

    def order(self, node_ids: Sequence[NodeId], client_host: str) -> list[NodeAddress]:
        """Addresses of the nodes that may be asked, the nearest to *client_host* first."""


class Placer(Protocol):
    """Chooses DataNodes for new replicas."""

    def choose(
        self,
        count: int,
        *,
        client_host: str,
        length: int,
        client_node: NodeId | None = None,
        exclude: Sequence[NodeId] = (),
        having: Sequence[NodeId] = (),
        minimum: int = 1,
    ) -> list[NodeAddress]:
        """Up to *count* nodes in pipeline order, none of *exclude* or *having* (which hold replicas already).

        NotEnoughDataNodes if fewer than *minimum* can be had.
        """


class OpenBlock(NamedTuple):
    """A row of open_blocks with its row of blocks."""

    block_id: int
    inode_id: int
    base_block_id: int | None
    base_length: int | None
    recovery_generation: int | None
    generation: int
    length: int
    replication: int


_OPEN: Final = (
    "SELECT o.block_id, o.inode_id, o.base_block_id, o.base_length, o.recovery_generation,"
    " b.generation, b.length, b.replication FROM open_blocks o JOIN blocks b ON b.block_id = o.block_id"
)
INSERT_BLOCK: Final = (
    "INSERT INTO blocks (block_id, generation, length, refs, replication, digest)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
INSERT_FILE_BLOCK: Final = "INSERT INTO file_blocks (inode_id, ordinal, block_id) VALUES (?, ?, ?)"
INSERT_REPLICA: Final = (
    "INSERT INTO replicas (block_id, node_id, state, generation) VALUES (?, ?, ?, ?)"
)


def open_blocks(tx: Transaction, inode_id: int) -> list[OpenBlock]:
    """Blocks under construction of a file, in the order they were begun."""
    rows = tx.all(f"{_OPEN} WHERE o.inode_id = ? ORDER BY o.block_id", (inode_id,))
    return [OpenBlock(*row) for row in rows]


def open_block(tx: Transaction, block_id: int) -> OpenBlock | None:
    row = tx.one(f"{_OPEN} WHERE o.block_id = ?", (block_id,))
    return None if row is None else OpenBlock(*row)


def begin_block(
    tx: Transaction,
    inode_id: int,
    ordinal: int,
    block: BlockRef,
    replication: int,
    nodes: Iterable[NodeId],
    *,
    base: tuple[int, int] | None = None,
) -> None:
    """Record a block under construction as the file's block number *ordinal*.

    *base*: (block id, length) of what it begins with; the base's reference passes from the file to this row.
    """
    tx.execute(
        INSERT_BLOCK,
        (block.block_id, block.generation, base[1] if base else 0, 1, replication, None),
    )
    tx.execute(
        "INSERT INTO open_blocks (block_id, inode_id, base_block_id, base_length) VALUES (?, ?, ?, ?)",
        (block.block_id, inode_id, *(base or (None, None))),
    )
    if base is None:
        tx.execute(INSERT_FILE_BLOCK, (inode_id, ordinal, block.block_id))
    else:
        tx.execute(
            "UPDATE file_blocks SET block_id = ? WHERE inode_id = ? AND ordinal = ?",
            (block.block_id, inode_id, ordinal),
        )
    tx.many(
        INSERT_REPLICA, [(block.block_id, node, BEING_WRITTEN, block.generation) for node in nodes]
    )


def check_commit(commit: BlockCommit, replication: int, min_replicas: int) -> None:
    """NotEnoughReplicas unless the block is on as many nodes as an acknowledgement needs."""
    wanted = min(min_replicas, replication)
    if len(set(commit.nodes)) < wanted:
        raise NotEnoughReplicas(
            f"block {commit.block_id} is durable on {len(set(commit.nodes))} nodes; "
            f"{wanted} are needed before it can be committed"
        )


def commit_block(tx: Transaction, found: OpenBlock, commit: BlockCommit) -> None:
    """Finalize a block under construction. The caller has checked the commit."""
    tx.execute(
        "UPDATE blocks SET generation = ?, length = ?, digest = ? WHERE block_id = ?",
        (commit.generation, commit.length, commit.digest, commit.block_id),
    )
    tx.execute("DELETE FROM open_blocks WHERE block_id = ?", (commit.block_id,))
    # Nodes that dropped out may hold a part of it, of any generation up to now.
    tx.execute(
        "UPDATE replicas SET state = ?, generation = ? WHERE block_id = ?",
        (TO_DELETE, commit.generation, commit.block_id),
    )
    record_replicas(
        tx, [(commit.block_id, node, commit.generation) for node in sorted(set(commit.nodes))]
    )
    if found.base_block_id is not None:
        release(tx, {found.base_block_id: 1})


def record_replicas(tx: Transaction, replicas: Sequence[tuple[int, int, int]]) -> None:
    """Good replicas: (block id, node id, generation)."""
    tx.many(
        "INSERT INTO replicas (block_id, node_id, state, generation) VALUES (?, ?, 0, ?)"
        " ON CONFLICT (block_id, node_id)"
        " DO UPDATE SET state = 0, generation = excluded.generation",
        replicas,
    )


def drop_open_block(tx: Transaction, found: OpenBlock, *, revert: bool) -> None:
    """Forget a block under construction; with *revert* its file gets the base back in its place."""
    tx.execute("DELETE FROM open_blocks WHERE block_id = ?", (found.block_id,))
    if revert and found.base_block_id is not None:
        tx.execute(
            "UPDATE file_blocks SET block_id = ? WHERE inode_id = ? AND block_id = ?",
            (found.base_block_id, found.inode_id, found.block_id),
        )
    else:
        tx.execute(
            "DELETE FROM file_blocks WHERE inode_id = ? AND block_id = ?",
            (found.inode_id, found.block_id),
        )
        if found.base_block_id is not None:
            release(tx, {found.base_block_id: 1})
    release(tx, {found.block_id: 1})


def release(tx: Transaction, references: dict[int, int]) -> None:
    """Take references off blocks; those without any left go, and their replicas are to be deleted."""
    tx.many(
        "UPDATE blocks SET refs = refs - ? WHERE block_id = ?",
        [(count, block_id) for block_id, count in references.items()],
    )
    ids = list(references)
    gone: list[tuple[int]] = []
    for start in range(0, len(ids), IN_LIMIT):
        part = ids[start : start + IN_LIMIT]
        gone += [
            (row[0],)
            for row in tx.all(
                f"SELECT block_id FROM blocks WHERE refs <= 0 AND block_id IN ({marks(len(part))})",
                part,
            )
        ]
    tx.many("DELETE FROM blocks WHERE block_id = ?", gone)
    tx.many(f"UPDATE replicas SET state = {TO_DELETE} WHERE block_id = ?", gone)


def raise_replication(tx: Transaction, block_ids: Sequence[int], replication: int) -> None:
    """No fewer copies of these blocks than are asked for now. Repair finds those that lack some."""
    for start in range(0, len(block_ids), IN_LIMIT):
        part = block_ids[start : start + IN_LIMIT]
        tx.execute(
            "UPDATE blocks SET replication = ?"
            f" WHERE replication < ? AND block_id IN ({marks(len(part))})",
            (replication, replication, *part),
        )


def blocks_of(tx: Transaction, inode_ids: Sequence[int]) -> collections.Counter[int]:
    """How often each block is named by the files *inode_ids*."""
    found: collections.Counter[int] = collections.Counter()
    for start in range(0, len(inode_ids), IN_LIMIT):
        part = inode_ids[start : start + IN_LIMIT]
        found.update(
            row[0]
            for row in tx.all(
                f"SELECT block_id FROM file_blocks WHERE inode_id IN ({marks(len(part))})", part
            )
        )
    return found


class FileBlock(NamedTuple):
    """A block of a file with what locating needs."""

    ordinal: int
    block_id: int
    generation: int
    length: int
    digest: bytes | None


def file_blocks(tx: Transaction, inode_id: int) -> list[FileBlock]:
    return [
        FileBlock(*row)
        for row in tx.all(
            "SELECT f.ordinal, b.block_id, b.generation, b.length, b.digest"
            " FROM file_blocks f JOIN blocks b ON b.block_id = f.block_id"
            " WHERE f.inode_id = ? ORDER BY f.ordinal",
            (inode_id,),
        )
    ]


def last_ordinal(tx: Transaction, inode_id: int) -> int:
    """-1 for a file without blocks."""
    row = tx.one("SELECT MAX(ordinal) FROM file_blocks WHERE inode_id = ?", (inode_id,))
    return -1 if row is None or row[0] is None else int(row[0])


def length_of(tx: Transaction, inode_id: int) -> int:
    row = tx.one(
        "SELECT COALESCE(SUM(b.length), 0) FROM file_blocks f JOIN blocks b"
        " ON b.block_id = f.block_id WHERE f.inode_id = ?",
        (inode_id,),
    )
    return int(row[0]) if row else 0


_LOCATE: Final = (
    "SELECT f.inode_id, b.block_id, b.generation, b.length, b.digest, r.node_id, r.state"
    " FROM file_blocks f JOIN blocks b ON b.block_id = f.block_id"
    " LEFT JOIN replicas r ON r.block_id = b.block_id AND r.state <> 2"
    " AND r.generation = b.generation"
)


def locate(
    tx: Transaction, inode_ids: Sequence[int], nodes: NodeDirectory, client_host: str
) -> dict[int, list[LocatedBlock]]:
    """The blocks of files, in order, with the nodes that hold them."""
    found: dict[int, list[LocatedBlock]] = {inode_id: [] for inode_id in inode_ids}
    offsets = dict.fromkeys(inode_ids, 0)
    orders: dict[tuple[int, ...], list[NodeAddress]] = {}
    for start in range(0, len(inode_ids), IN_LIMIT):
        part = inode_ids[start : start + IN_LIMIT]
        rows = tx.all(
            f"{_LOCATE} WHERE f.inode_id IN ({marks(len(part))})"
            " ORDER BY f.inode_id, f.ordinal, r.node_id",
            part,
        )
        index, end = 0, len(rows)
        while index < end:
            inode_id, block_id, generation, length, digest, _, _ = rows[index]
            holders: list[int] = []
            damaged: list[int] = []
            while index < end and rows[index][1] == block_id and rows[index][0] == inode_id:
                node_id, state = rows[index][5], rows[index][6]
                if node_id is not None:
                    if node_id in holders or node_id in damaged:
                        break  # the same block twice in a row in one file
                    good = state == GOOD or (digest is None and state != CORRUPT)
                    (holders if good else damaged).append(node_id)
                index += 1
            # A damaged replica is better than none: its other chunks may be whole.
            key = tuple(holders or damaged)
            addresses = orders.get(key)
            if addresses is None:
                addresses = orders[key] = nodes.order([NodeId(n) for n in key], client_host)
            located = LocatedBlock(
                block=Block(
                    block_id=block_id,
                    generation=generation,
                    length=length,
                    digest=None if digest is None else bytes(digest),
                ),
                offset=offsets[inode_id],
                nodes=addresses,
                under_construction=digest is None,
            )
            if digest is None:
                located = _base_if_untouched(tx, located, nodes, client_host)
            found[inode_id].append(located)
            offsets[inode_id] += length
    return found


def _base_if_untouched(
    tx: Transaction, located: LocatedBlock, nodes: NodeDirectory, client_host: str
) -> LocatedBlock:
    """An open block that has nothing synced beyond its base is read from the base, which surely exists."""
    opened = open_block(tx, located.block.block_id)
    if opened is None or opened.base_block_id is None or opened.length > (opened.base_length or 0):
        return located
    row = tx.one(
        "SELECT generation, digest FROM blocks WHERE block_id = ?", (opened.base_block_id,)
    )
    if row is None:
        return located
    holders = [
        NodeId(found[0])
        for found in tx.all(
            "SELECT node_id FROM replicas WHERE block_id = ? AND state = 0", (opened.base_block_id,)
        )
    ]
    return LocatedBlock(
        block=Block(
            block_id=BlockId(opened.base_block_id),
            generation=GenerationStamp(row[0]),
            length=located.block.length,
            digest=bytes(row[1]),
        ),
        offset=located.offset,
        nodes=nodes.order(holders, client_host),
        under_construction=True,
    )


def holders(tx: Transaction, block_id: int, state: int = GOOD) -> list[NodeId]:
    return [
        NodeId(row[0])
        for row in tx.all(
            "SELECT node_id FROM replicas WHERE block_id = ? AND state = ? ORDER BY node_id",
            (block_id, state),
        )
    ]


def known_nodes(tx: Transaction, node_ids: Iterable[int]) -> None:
    """InvalidRequest if one of *node_ids* never registered."""
    known = {row[0] for row in tx.all("SELECT node_id FROM datanodes")}
    for node_id in node_ids:
        if node_id not in known:
            raise InvalidRequest(f"there is no DataNode {node_id}")
