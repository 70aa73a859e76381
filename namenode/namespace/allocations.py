"""Blocks that were given out and belong to no file yet: going on with one after a failure, giving one back."""

from __future__ import annotations

from ...common.errors import InvalidRequest, LeaseLost
from ...common.messages import AbandonBlock, UpdatePipeline
from ...common.model import BlockBase, BlockId, BlockRef, GenerationStamp, NodeAddress, TargetBlock
from ..allocations import Allocations
from ..blockmap import NodeDirectory, Placer
from ..leases import WriteRules
from ..permissions import Caller
from ..store.base import Transaction


def update_pipeline(
    tx: Transaction,
    caller: Caller,
    request: UpdatePipeline,
    *,
    rules: WriteRules,
    placer: Placer,
    nodes: NodeDirectory,
) -> TargetBlock:
    """As `files.update_pipeline`, for a block that was allocated alone and is in no file."""
    block_id = request.block.block_id
    row = tx.one(
        "SELECT generation, replication FROM allocations WHERE first_block_id = ?"
        " AND last_block_id = ? AND holder = ?",
        (block_id, block_id, request.holder),
    )
    if row is None:
        raise LeaseLost("the block is not allocated to this client (any more)")
    if row[0] != request.block.generation:
        raise LeaseLost("the block is of a later generation already")
    keep = [a for node_id in request.keep if (a := nodes.address(node_id)) is not None]
    if not keep:
        raise InvalidRequest("none of the nodes to keep is known")
    added: list[NodeAddress] = []
    missing = row[1] - len(keep)
    if request.extend and missing > 0:
        added = placer.choose(
            missing,
            client_host=caller.host,
            length=request.length,
            exclude=request.exclude,
            having=[address.node_id for address in keep],
            minimum=max(0, min(rules.min_replicas, row[1]) - len(keep)),
        )
    generation = GenerationStamp(tx.new_ids("generation"))
    tx.execute(
        "UPDATE allocations SET generation = ? WHERE first_block_id = ?", (generation, block_id)
    )
    block = BlockRef(block_id=BlockId(block_id), generation=generation)
    base = BlockBase(block=block, length=request.length, sources=keep)
    return TargetBlock(block=block, nodes=[*keep, *added], base=base)


def abandon(tx: Transaction, request: AbandonBlock) -> None:
    """What was written of the blocks becomes orphans, which their DataNodes are told to delete when they report them."""
    first = int(request.block_id)
    Allocations(tx, request.holder).take(range(first, first + request.count))
