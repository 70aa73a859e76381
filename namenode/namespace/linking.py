"""Giving a path to blocks that are there already."""

from __future__ import annotations

from ...common.content import LinkFile
from ...common.errors import InvalidRequest, IsADirectory
from ...common.model import FileStatus, INodeId
from .. import contents
from ..blockmap import INSERT_FILE_BLOCK
from ..leases import WriteRules
from ..permissions import Caller
from ..store import sql
from ..store.base import NewEvent, Transaction
from .files import new_file, rounded_block_size
from .placing import make_place
from .walk import status, walk


def link_file(
    tx: Transaction, caller: Caller, request: LinkFile, *, now_ms: int, rules: WriteRules
) -> FileStatus:
    """A new file on blocks that others have too. BlockNotFound if one is not held (any more): then its bytes must be stored.

    Blocks of any length are taken, as after a concat.
    """
    found = walk(tx, caller, request.path)
    if not found.parts:
        raise IsADirectory("/ is a directory")
    if any(block.nodes for block in request.blocks):
        raise InvalidRequest("a link is made of blocks that are there already")
    contents.require_existing(tx, request.blocks)
    replication = request.replication or rules.replication
    block_size = max(
        rounded_block_size(request.block_size, rules),
        rounded_block_size(max((b.length for b in request.blocks), default=1) or 1, rules),
    )
    length = sum(block.length for block in request.blocks)
    parent = make_place(
        tx,
        caller,
        found,
        overwrite=request.overwrite,
        create_parents=request.create_parents,
        space_bytes=length * replication,
        now_ms=now_ms,
        rules=rules,
    )
    node = new_file(
        tx.new_ids("inode"),
        caller,
        parent,
        found.parts[-1],
        mode=request.mode,
        flags=0,
        replication=replication,
        block_size=block_size,
        mtime_ms=now_ms if request.mtime_ms is None else request.mtime_ms,
        length=length,
    )
    sql.insert(tx, node)
    tx.many(
        INSERT_FILE_BLOCK,
        [(node.inode_id, number, block.block_id) for number, block in enumerate(request.blocks)],
    )
    contents.share_blocks(tx, request.blocks, replication)
    tx.emit(NewEvent(now_ms, "put", found.path, caller.user, INodeId(node.inode_id)))
    return status(node, found.path)
