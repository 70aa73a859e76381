"""Taking unlinked trees apart, a bounded piece at a time, so that nobody waits for a large deletion."""

from __future__ import annotations

from . import blockmap, dags
from .store import sql
from .store.base import Transaction
from .store.sql import FLAG_OPEN, FLAG_QUOTA, FLAG_XATTR, UNLINKED_PARENT, INode, marks

_UNLINKED = (
    "SELECT parent_id, name, inode_id, kind, mode, flags, replication, owner, grp, mtime_ms,"
    " atime_ms, length, block_size FROM inodes WHERE parent_id = ? AND mtime_ms <= ? LIMIT ?"
)


def anything_to_reap(tx: Transaction, *, before_ms: int) -> bool:
    return bool(tx.all(_UNLINKED, (UNLINKED_PARENT, before_ms, 1)))


def reap(tx: Transaction, *, before_ms: int, limit: int) -> int:
    """Remove up to about *limit* rows of what was unlinked at *before_ms* or earlier; 0: nothing is left.

    A directory's files go with their blocks' references; its subdirectories are hung beside it, so that no depth is too deep.
    """
    done = 0
    files: list[INode] = []
    empty: list[INode] = []
    moved: list[tuple[int, str, int, int, str]] = []
    for node in [INode(*row) for row in tx.all(_UNLINKED, (UNLINKED_PARENT, before_ms, limit))]:
        if done >= limit:
            break
        if not node.is_directory:
            files.append(node)
            done += 1
            continue
        room = limit - done
        children = sql.children(tx, node.inode_id, "", room + 1)
        whole = len(children) <= room
        del children[room:]
        for child in children:
            if child.is_directory:
                moved.append(
                    (UNLINKED_PARENT, str(child.inode_id), node.mtime_ms, node.inode_id, child.name)
                )
            else:
                files.append(child)
        done += len(children)
        if whole:
            empty.append(node)
            done += 1
    tx.many(
        "UPDATE inodes SET parent_id = ?, name = ?, mtime_ms = ? WHERE parent_id = ? AND name = ?",
        moved,
    )
    _remove(tx, files, empty)
    return done


def _remove(tx: Transaction, files: list[INode], directories: list[INode]) -> None:
    ids = [node.inode_id for node in files]
    for node in files:
        if node.flags & FLAG_OPEN:
            for opened in blockmap.open_blocks(tx, node.inode_id):
                blockmap.drop_open_block(tx, opened, revert=False)
            tx.execute("DELETE FROM leases WHERE inode_id = ?", (node.inode_id,))
    dags.forget(tx, ids, [node.inode_id for node in directories])
    references = blockmap.blocks_of(tx, ids)
    if references:
        blockmap.release(tx, dict(references))
    for start in range(0, len(ids), blockmap.IN_LIMIT):
        part = ids[start : start + blockmap.IN_LIMIT]
        tx.execute(f"DELETE FROM file_blocks WHERE inode_id IN ({marks(len(part))})", part)
    both = [*files, *directories]
    xattrs = [(node.inode_id,) for node in both if node.flags & FLAG_XATTR]
    tx.many("DELETE FROM xattrs WHERE inode_id = ?", xattrs)
    quotas = [(node.inode_id,) for node in directories if node.flags & FLAG_QUOTA]
    tx.many("DELETE FROM quotas WHERE inode_id = ?", quotas)
    tx.many(
        "DELETE FROM inodes WHERE parent_id = ? AND name = ?",
        [(node.parent_id, node.name) for node in both],
    )
