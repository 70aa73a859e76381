"""Taking back what was begun and not promised yet."""

from __future__ import annotations

from ...common.errors import InvalidRequest
from ...common.messages import CancelAppend
from .. import blockmap, leases, quotas
from ..permissions import Caller
from ..store.base import Transaction
from .walk import ancestors, path_of


def cancel_append(tx: Transaction, caller: Caller, request: CancelAppend, *, now_ms: int) -> None:
    """The file gets its former last block back, whole; what was written of new ones is deleted."""
    node = leases.writing(tx, request.inode_id, request.holder)
    opened = blockmap.open_blocks(tx, node.inode_id)
    if any(block.length > (block.base_length or 0) for block in opened):
        raise InvalidRequest("what was synced can't be taken back")
    refund = 0
    for block in opened:
        blockmap.drop_open_block(tx, block, revert=True)
        refund += (node.block_size - (block.base_length or 0)) * node.replication
    if refund and quotas.any_quota(tx):
        quotas.charge(tx, ancestors(tx, node) or [], 0, -refund)
    length = blockmap.length_of(tx, node.inode_id)
    leases.close(tx, node, now_ms, caller.user, path_of(tx, node) or "", length=length)
