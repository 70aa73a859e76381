"""Who may write: leases of open files, allocations of blocks without a file, and taking them back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..common.config import NameNodeConfig
from ..common.errors import InvalidRequest, LeaseConflict, LeaseLost, NamespaceError, PathNotFound
from ..common.messages import CommitRecovery, Recovered, RecoverLease, RenewLease
from ..common.model import BlockId, BlockRef, GenerationStamp, INodeId, NodeId
from ..common.paths import shown
from . import blockmap, quotas
from .blockmap import BEING_WRITTEN, OpenBlock
from .namespace.walk import ancestors, existing_file, path_of, walk
from .permissions import WRITE, Caller, require
from .store import sql
from .store.base import NewEvent, Transaction
from .store.sql import FLAG_OPEN, INode

# The holder of files whose writer has lost them, until their last blocks are recovered.
RECOVERY_HOLDER: Final = "namenode-recovery"
RECOVERY_RETRY_MS: Final = 5_000  # a recovery that has not ended after this is begun again


@dataclass(frozen=True, slots=True)
class WriteRules:
    """Settings that writing operations obey; see `NameNodeConfig`."""

    replication: int
    block_bytes: int
    min_replicas: int
    lease_timeout_ms: int

    @classmethod
    def of(cls, config: NameNodeConfig) -> WriteRules:
        return cls(
            replication=config.replication,
            block_bytes=config.block_bytes,
            min_replicas=config.min_replicas,
            lease_timeout_ms=int(config.lease_timeout_s * 1000),
        )


class Recovery(NamedTuple):
    """A block whose writer is gone, for a DataNode to lead the recovery of."""

    block: BlockRef
    new_generation: GenerationStamp
    nodes: list[NodeId]
    minimum_length: int


def touch_holder(tx: Transaction, holder: str, now_ms: int) -> None:
    """Note a sign of life of *holder*."""
    tx.execute(
        "INSERT INTO lease_holders (holder, renewed_ms) VALUES (?, ?)"
        " ON CONFLICT (holder) DO UPDATE SET renewed_ms = excluded.renewed_ms",
        (holder, now_ms),
    )


def ensure_holder(tx: Transaction, holder: str, now_ms: int) -> None:
    """Make a new holder known; an old one keeps its last renewal, so this is one look at most for most calls."""
    if holder in tx.holders:
        return
    if tx.one("SELECT 1 FROM lease_holders WHERE holder = ?", (holder,)) is None:
        touch_holder(tx, holder, now_ms)
    tx.holders.add(holder)


def renew_lease(tx: Transaction, caller: Caller, request: RenewLease, *, now_ms: int) -> None:
    touch_holder(tx, request.holder, now_ms)


def take(tx: Transaction, inode_id: int, holder: str, now_ms: int) -> None:
    ensure_holder(tx, holder, now_ms)
    tx.execute("INSERT INTO leases (inode_id, holder) VALUES (?, ?)", (inode_id, holder))


def holder_of(tx: Transaction, inode_id: int) -> tuple[str, int] | None:
    """(holder, last renewed ms) of an open file."""
    row = tx.one(
        "SELECT l.holder, h.renewed_ms FROM leases l LEFT JOIN lease_holders h"
        " ON h.holder = l.holder WHERE l.inode_id = ?",
        (inode_id,),
    )
    return None if row is None else (row[0], row[1] or 0)


def conflict(
    tx: Transaction, node: INode, path: str, now_ms: int, timeout_ms: int
) -> LeaseConflict:
    """Why an open file can't be opened for writing once more."""
    found = holder_of(tx, node.inode_id)
    holder, renewed_ms = found or ("nobody", 0)
    silent_s = max(0, now_ms - renewed_ms) // 1000
    if holder == RECOVERY_HOLDER or (now_ms - renewed_ms) > timeout_ms:
        return LeaseConflict(
            f"{shown(path)} was left open by a writer that is gone; it is being closed, try again"
        )
    return LeaseConflict(
        f"{shown(path)} is being written by {holder}, last heard of {silent_s} s ago; "
        "wait, or close it with `dfs lease recover`"
    )


def writing(tx: Transaction, inode_id: int, holder: str, path: str | None = None) -> INode:
    """The file *inode_id* that *holder* has open.

    Found through *path* where it still leads there, which is quick; PathNotFound if the file has been deleted, LeaseLost if *holder* does not
    have it open.
    """
    node: INode | None = None
    if path is not None:
        with contextlib.suppress(NamespaceError):  # a file stands in its way now
            node = walk(tx, Caller(holder, superuser=True), path).node
    if node is None or node.inode_id != inode_id:
        node = sql.find(tx, inode_id)
        if node is None or ancestors(tx, node) is None:
            raise PathNotFound("the file that was being written has been deleted")
    if not node.flags & FLAG_OPEN:
        raise LeaseLost("the file is not open for writing: it has been closed")
    row = tx.one("SELECT holder FROM leases WHERE inode_id = ?", (inode_id,))
    if row is None or row[0] != holder:
        raise LeaseLost("the lease on the file was lost: the writer was silent for too long")
    return node


def close(tx: Transaction, node: INode, now_ms: int, user: str, path: str, **more: object) -> INode:
    """Take the lease off a file whose blocks are all finalized."""
    tx.execute("DELETE FROM leases WHERE inode_id = ?", (node.inode_id,))
    node = sql.update(tx, node, flags=node.flags & ~FLAG_OPEN, **more)
    tx.emit(NewEvent(now_ms, "close", path, user, INodeId(node.inode_id)))
    return node


# --- recovery ----------------------------------------------------------------------------------


def recover_lease(
    tx: Transaction, caller: Caller, request: RecoverLease, *, now_ms: int
) -> tuple[Recovered, list[Recovery]]:
    """Begin to close a file that somebody left open. Closed at once if no block needs a DataNode's word."""
    found, node = existing_file(tx, caller, request.path)
    require(caller, node, WRITE, found.path)
    if not node.is_open:
        return Recovered(closed=True), []
    holder = holder_of(tx, node.inode_id)
    if holder is not None and holder[0] == RECOVERY_HOLDER:
        begun = tx.one(
            "SELECT MAX(recovery_ms) FROM open_blocks WHERE inode_id = ?", (node.inode_id,)
        )
        if begun is not None and begun[0] is not None and now_ms - begun[0] < RECOVERY_RETRY_MS:
            return Recovered(closed=False), []  # under way: to begin again would overtake it
    recoveries = begin_recovery(tx, node, now_ms=now_ms)
    return Recovered(closed=not recoveries), recoveries


def begin_recovery(tx: Transaction, node: INode, *, now_ms: int) -> list[Recovery]:
    """Take the file from its writer, and name the blocks that DataNodes have to agree on."""
    opened = blockmap.open_blocks(tx, node.inode_id)
    tx.execute("UPDATE leases SET holder = ? WHERE inode_id = ?", (RECOVERY_HOLDER, node.inode_id))
    recoveries = []
    for block in opened:
        targets = blockmap.holders(tx, block.block_id, BEING_WRITTEN)
        generation = tx.new_ids("generation")
        tx.execute(
            "UPDATE open_blocks SET recovery_generation = ?, recovery_ms = ? WHERE block_id = ?",
            (generation, now_ms, block.block_id),
        )
        recoveries.append(
            Recovery(
                block=BlockRef(
                    block_id=BlockId(block.block_id), generation=GenerationStamp(block.generation)
                ),
                new_generation=GenerationStamp(generation),
                nodes=targets,
                minimum_length=block.length,
            )
        )
    if not opened:
        _close_recovered(tx, node, now_ms)
    return recoveries


def _close_recovered(tx: Transaction, node: INode, now_ms: int) -> None:
    length = blockmap.length_of(tx, node.inode_id)
    path = path_of(tx, node)
    close(tx, node, now_ms, RECOVERY_HOLDER, path or "", length=length, mtime_ms=now_ms)


def commit_recovery(
    tx: Transaction, caller: Caller, request: CommitRecovery, *, now_ms: int
) -> None:
    """What the leading DataNode agreed on. An answer to an older attempt is refused."""
    found = blockmap.open_block(tx, request.block.block_id)
    if found is None:
        return  # said before
    if found.recovery_generation != request.new_generation:
        raise InvalidRequest("the block is being recovered in a later generation")
    node = sql.find(tx, found.inode_id)
    if request.commit is None:
        if found.length > (found.base_length or 0):
            raise InvalidRequest("the block has synced bytes; it can't be given up")
        blockmap.drop_open_block(tx, found, revert=True)
        _refund(tx, node, found.base_length or 0)
    else:
        if request.commit.length < found.length:
            raise InvalidRequest(
                f"{found.length} bytes of the block were synced; {request.commit.length} is too short"
            )
        blockmap.commit_block(tx, found, request.commit)
        _refund(tx, node, request.commit.length)
    if node is None:
        return
    if request.commit is None or request.commit.length < node.block_size:
        _drop_later_blocks(tx, node, found)
    if not blockmap.open_blocks(tx, node.inode_id):
        _close_recovered(tx, node, now_ms)


def _drop_later_blocks(tx: Transaction, node: INode, short: OpenBlock) -> None:
    """Blocks begun after one that did not become full hold nothing that was ever synced."""
    for later in blockmap.open_blocks(tx, node.inode_id):
        if later.block_id > short.block_id:
            blockmap.drop_open_block(tx, later, revert=False)
            _refund(tx, node, 0)


def _refund(tx: Transaction, node: INode | None, length: int) -> None:
    """Give back what was reserved for a whole block that turned out *length* bytes long."""
    if node is not None and quotas.any_quota(tx):
        space_bytes = (node.block_size - length) * node.replication
        quotas.charge(tx, ancestors(tx, node) or [], 0, -space_bytes)


def silent_writers(tx: Transaction, before_ms: int, limit: int) -> list[INode]:
    """Open files whose holder was last heard of before *before_ms*, and those still being recovered."""
    rows = tx.all(
        "SELECT l.inode_id FROM leases l LEFT JOIN lease_holders h ON h.holder = l.holder"
        " WHERE COALESCE(h.renewed_ms, 0) < ? AND l.holder <> ? LIMIT ?",
        (before_ms, RECOVERY_HOLDER, limit),
    )
    nodes = [sql.find(tx, row[0]) for row in rows]
    return [node for node in nodes if node is not None]


def stalled_recoveries(tx: Transaction, before_ms: int, limit: int) -> list[INode]:
    """Files whose recovery was begun before *before_ms* and has not ended: to be begun again."""
    rows = tx.all(
        "SELECT DISTINCT inode_id FROM open_blocks WHERE recovery_ms < ? LIMIT ?",
        (before_ms, limit),
    )
    nodes = [sql.find(tx, row[0]) for row in rows]
    return [node for node in nodes if node is not None and node.is_open]


def not_of_the_future(tx: Transaction, now_ms: int, slack_ms: int) -> None:
    """After the clock was set back: those last heard of later than now were heard of just now."""
    tx.execute(
        "UPDATE lease_holders SET renewed_ms = ? WHERE renewed_ms > ?", (now_ms, now_ms + slack_ms)
    )


def expire_holders(tx: Transaction, before_ms: int, limit: int) -> int:
    """Forget holders that have nothing any more, and allocations of silent ones."""
    rows = tx.all(
        "SELECT holder FROM lease_holders WHERE renewed_ms < ? LIMIT ?", (before_ms, limit)
    )
    if not rows:
        return 0
    writing = {row[0] for row in tx.all("SELECT DISTINCT holder FROM leases")}
    gone = 0
    for (holder,) in rows:
        gone += tx.execute("DELETE FROM allocations WHERE holder = ?", (holder,))
        if holder not in writing:
            tx.holders.discard(holder)
            gone += tx.execute("DELETE FROM lease_holders WHERE holder = ?", (holder,))
    return gone
