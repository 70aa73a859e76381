"""Operations on files: creating, writing through handles, closing, appending, cutting."""

from __future__ import annotations

from ...common.errors import (
    InvalidRequest,
    IsADirectory,
    LeaseLost,
    NotEnoughReplicas,
    PathExists,
)
from ...common.messages import (
    AbandonBlock,
    AddBlock,
    Append,
    BlockCommit,
    Complete,
    Create,
    OpenedFile,
    Sync,
    Truncate,
    UpdatePipeline,
)
from ...common.model import (
    MAX_BLOCK_BYTES,
    MIB,
    BlockBase,
    BlockId,
    BlockRef,
    FileStatus,
    GenerationStamp,
    INodeId,
    NodeAddress,
    NodeId,
    TargetBlock,
)
from ...common.paths import shown
from .. import acls, blockmap, dags, leases, quotas
from ..allocations import require_new, taken
from ..blockmap import BEING_WRITTEN, NodeDirectory, OpenBlock, Placer
from ..leases import WriteRules
from ..permissions import WRITE, Caller, require, require_removal
from ..store import sql
from ..store.base import NewEvent, Transaction
from ..store.sql import FLAG_OPEN, KIND_FILE, INode
from . import allocations
from .tree import forget_writer, make_parents, require_creation
from .walk import Walk, ancestors, existing_file, status, walk


def rounded_block_size(size: int | None, rules: WriteRules) -> int:
    """Block sizes are multiples of 1 MiB, so that chunks fall where a fixed-size chunker puts them."""
    wanted = size or rules.block_bytes
    return min(MAX_BLOCK_BYTES, -(-wanted // MIB) * MIB)


def require_replaceable(
    tx: Transaction, caller: Caller, found: Walk, *, overwrite: bool, now_ms: int, rules: WriteRules
) -> None:
    """What replacing the node of *found* by a new file needs."""
    node = found.node
    assert node is not None
    if node.is_directory:
        raise IsADirectory(f"{shown(found.path)} is a directory")
    if not overwrite:
        if node.is_open:
            raise leases.conflict(tx, node, found.path, now_ms, rules.lease_timeout_ms)
        raise PathExists(f"{shown(found.path)} exists")
    require(caller, node, WRITE, found.path)
    require_removal(caller, found.parent, node, found.path)


def replace_file(tx: Transaction, found: Walk, now_ms: int) -> None:
    node = found.node
    assert node is not None
    sql.unlink(tx, node, now_ms)
    forget_writer(tx, node)
    quotas.charge(tx, found.chain, -1, -node.length * node.replication)


def new_file(
    inode_id: int,
    caller: Caller,
    parent: INode,
    name: str,
    *,
    mode: int,
    flags: int,
    replication: int,
    block_size: int,
    mtime_ms: int,
    length: int = 0,
    unmasked: int | None = None,
) -> INode:
    acl = ""
    if acls.inherits(parent):
        mode, acl = acls.inherited(parent, mode if unmasked is None else unmasked, directory=False)
    return INode(
        parent_id=parent.inode_id,
        name=name,
        inode_id=inode_id,
        kind=KIND_FILE,
        mode=mode,
        flags=flags,
        replication=replication,
        owner=caller.user,
        group=parent.group,
        mtime_ms=mtime_ms,
        atime_ms=mtime_ms,
        length=length,
        block_size=block_size,
        acl=acl,
    )


def create(
    tx: Transaction, caller: Caller, request: Create, *, now_ms: int, rules: WriteRules
) -> FileStatus:
    found = walk(tx, caller, request.path)
    if not found.parts:
        raise IsADirectory("/ is a directory")
    if found.node is not None:
        require_replaceable(
            tx, caller, found, overwrite=request.overwrite, now_ms=now_ms, rules=rules
        )
        replace_file(tx, found, now_ms)
        chain = found.chain
        quotas.charge(tx, chain, 1, 0)
    else:
        require_creation(tx, caller, found, parents=request.create_parents)
        chain = make_parents(tx, caller, found, 0o755, now_ms, found.missing - 1)
        quotas.charge(tx, found.chain, found.missing, 0)
    node = new_file(
        tx.new_ids("inode"),
        caller,
        chain[-1],
        found.parts[-1],
        mode=request.mode,
        flags=FLAG_OPEN,
        replication=request.replication or rules.replication,
        block_size=rounded_block_size(request.block_size, rules),
        mtime_ms=now_ms,
        unmasked=request.unmasked,
    )
    sql.insert(tx, node)
    leases.take(tx, node.inode_id, request.holder, now_ms)
    tx.emit(NewEvent(now_ms, "create", found.path, caller.user, INodeId(node.inode_id)))
    return status(node, found.path)


# --- blocks ------------------------------------------------------------------------------------


def _commits(
    tx: Transaction, node: INode, commits: list[BlockCommit], rules: WriteRules
) -> list[tuple[OpenBlock, BlockCommit]]:
    """Check *commits* against the file's open blocks; those already recorded are left out."""
    found = []
    for commit in commits:
        opened = blockmap.open_block(tx, commit.block_id)
        if opened is None:
            row = tx.one(
                "SELECT b.length, b.digest FROM file_blocks f JOIN blocks b ON b.block_id = f.block_id"
                " WHERE f.inode_id = ? AND f.block_id = ?",
                (node.inode_id, commit.block_id),
            )
            if row is None or row[0] != commit.length or bytes(row[1]) != commit.digest:
                raise InvalidRequest(f"block {commit.block_id} is not being written in this file")
            continue
        if opened.inode_id != node.inode_id:
            raise InvalidRequest(f"block {commit.block_id} is not being written in this file")
        if opened.generation != commit.generation:
            raise LeaseLost(f"block {commit.block_id} is now of a later generation")
        if commit.length < opened.length or commit.length > node.block_size:
            raise InvalidRequest(
                f"{commit.length} is no possible length of block {commit.block_id}"
            )
        blockmap.check_commit(commit, node.replication, rules.min_replicas)
        found.append((opened, commit))
    if found:
        blockmap.known_nodes(tx, {node_id for _, commit in found for node_id in commit.nodes})
    return found


def _apply_commits(
    tx: Transaction, node: INode, commits: list[tuple[OpenBlock, BlockCommit]]
) -> INode:
    """Record checked commits; the file's length follows, and quotas get back what was reserved."""
    if not commits:
        return node
    refund = 0
    for opened, commit in commits:
        blockmap.commit_block(tx, opened, commit)
        refund += (node.block_size - commit.length) * node.replication
    if refund and quotas.any_quota(tx):
        quotas.charge(tx, _chain(tx, node), 0, -refund)
    return sql.update(tx, node, length=blockmap.length_of(tx, node.inode_id))


def _chain(tx: Transaction, node: INode) -> list[INode]:
    return ancestors(tx, node) or []


def add_block(
    tx: Transaction,
    caller: Caller,
    request: AddBlock,
    *,
    now_ms: int,
    rules: WriteRules,
    placer: Placer,
) -> TargetBlock:
    node = leases.writing(tx, request.inode_id, request.holder, request.path)
    commits = _commits(tx, node, request.commits, rules)
    chain = _chain(tx, node) if quotas.any_quota(tx) else []
    quotas.check(tx, chain, 0, node.block_size * node.replication)
    nodes = placer.choose(
        node.replication,
        client_host=caller.host,
        client_node=request.near,
        length=node.block_size,
        exclude=request.exclude,
        minimum=min(rules.min_replicas, node.replication),
    )
    node = _apply_commits(tx, node, commits)
    quotas.charge(tx, chain, 0, node.block_size * node.replication)
    block = BlockRef(
        block_id=BlockId(tx.new_ids("block")),
        generation=GenerationStamp(tx.new_ids("generation")),
    )
    ordinal = blockmap.last_ordinal(tx, node.inode_id) + 1
    targets = [address.node_id for address in nodes]
    blockmap.begin_block(tx, node.inode_id, ordinal, block, node.replication, targets)
    return TargetBlock(block=block, nodes=nodes)


def abandon_block(tx: Transaction, caller: Caller, request: AbandonBlock, *, now_ms: int) -> None:
    if not request.inode_id:
        return allocations.abandon(tx, request)
    if request.count != 1:
        raise InvalidRequest("the blocks of a file are taken back one by one")
    node = leases.writing(tx, request.inode_id, request.holder)
    opened = blockmap.open_block(tx, request.block_id)
    if opened is None or opened.inode_id != node.inode_id:
        return  # said before
    if opened.base_block_id is not None or opened.length:
        raise InvalidRequest("a block with bytes that are visible can't be abandoned")
    blockmap.drop_open_block(tx, opened, revert=False)
    if quotas.any_quota(tx):
        quotas.charge(tx, _chain(tx, node), 0, -node.block_size * node.replication)


def update_pipeline(
    tx: Transaction,
    caller: Caller,
    request: UpdatePipeline,
    *,
    now_ms: int,
    rules: WriteRules,
    placer: Placer,
    nodes: NodeDirectory,
) -> TargetBlock:
    if not request.inode_id:
        return allocations.update_pipeline(
            tx, caller, request, rules=rules, placer=placer, nodes=nodes
        )
    node = leases.writing(tx, request.inode_id, request.holder)
    opened = blockmap.open_block(tx, request.block.block_id)
    if opened is None or opened.inode_id != node.inode_id:
        raise LeaseLost("the block is not being written any more")
    if opened.generation != request.block.generation:
        raise LeaseLost("the block is of a later generation already")
    if request.length < opened.length:
        raise InvalidRequest(f"{opened.length} bytes of the block were synced and must be kept")
    keep = [address for node_id in request.keep if (address := nodes.address(node_id)) is not None]
    if not keep:
        raise InvalidRequest("none of the nodes to keep is known")
    added: list[NodeAddress] = []
    missing = node.replication - len(keep)
    if request.extend and missing > 0:
        needed = min(rules.min_replicas, node.replication) - len(keep)
        added = placer.choose(
            missing,
            client_host=caller.host,
            length=node.block_size,
            exclude=request.exclude,
            having=[address.node_id for address in keep],
            minimum=max(0, needed),
        )
    generation = GenerationStamp(tx.new_ids("generation"))
    tx.execute("UPDATE blocks SET generation = ? WHERE block_id = ?", (generation, opened.block_id))
    # Nodes that are dropped keep what they have until the block is committed: the new pipeline may fail
    # before it has the bytes that were synced.
    tx.many(
        "INSERT INTO replicas (block_id, node_id, state, generation) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (block_id, node_id)"
        " DO UPDATE SET state = excluded.state, generation = excluded.generation",
        [(opened.block_id, a.node_id, BEING_WRITTEN, generation) for a in (*keep, *added)],
    )
    return TargetBlock(
        block=BlockRef(block_id=request.block.block_id, generation=generation),
        nodes=[*keep, *added],
        base=BlockBase(
            block=BlockRef(block_id=request.block.block_id, generation=generation),
            length=request.length,
            sources=keep,
        ),
    )


def sync(tx: Transaction, caller: Caller, request: Sync, *, now_ms: int, rules: WriteRules) -> None:
    node = leases.writing(tx, request.inode_id, request.holder)
    commits = _commits(tx, node, request.commits, rules)
    opened = blockmap.open_block(tx, request.block.block_id)
    if opened is None or opened.inode_id != node.inode_id:
        raise LeaseLost("the block is not being written any more")
    if opened.generation != request.block.generation:
        raise LeaseLost("the block is of a later generation already")
    if request.length > node.block_size:
        raise InvalidRequest("the block can't be that long")
    node = _apply_commits(tx, node, commits)
    if request.length > opened.length:
        tx.execute(
            "UPDATE blocks SET length = ? WHERE block_id = ?", (request.length, opened.block_id)
        )
        grown = request.length - opened.length
        # _apply_commits has counted the open block with its former length.
        sql.update(tx, node, length=node.length + grown, mtime_ms=now_ms)


def complete(
    tx: Transaction, caller: Caller, request: Complete, *, now_ms: int, rules: WriteRules
) -> FileStatus:
    node = leases.writing(tx, request.inode_id, request.holder, request.path)
    commits = _commits(tx, node, request.commits, rules)
    committing = {commit.block_id for _, commit in commits}
    for row in tx.all("SELECT block_id FROM open_blocks WHERE inode_id = ?", (node.inode_id,)):
        if row[0] not in committing:
            raise NotEnoughReplicas(f"block {row[0]} of the file is still being written")
    plan = _planned(tx, node, commits, request, rules) if request.dag is not None else None
    node = _apply_commits(tx, node, commits)
    if plan is not None:
        root = dags.record(tx, plan, replication=node.replication, now_ms=now_ms)
        dags.attach(tx, node.inode_id, root)
        assert request.dag is not None
        taken(tx, request.holder, request.dag.nodes)
    mtime_ms = now_ms if request.mtime_ms is None else request.mtime_ms
    node = leases.close(tx, node, now_ms, caller.user, request.path, mtime_ms=mtime_ms)
    return status(node, request.path)


def _planned(
    tx: Transaction,
    node: INode,
    commits: list[tuple[OpenBlock, BlockCommit]],
    request: Complete,
    rules: WriteRules,
) -> dags.Plan | None:
    """The proven DAG of a file as *commits* will make it. InvalidRequest if what the client sent is not its proof."""
    assert request.dag is not None
    new = {commit.block_id: dags.Written(commit.length, commit.digest) for _, commit in commits}
    blocks = [
        new.get(BlockId(block.block_id)) or dags.Written(block.length, bytes(block.digest or b""))
        for block in blockmap.file_blocks(tx, node.inode_id)
    ]
    require_new(
        tx,
        request.holder,
        request.dag.nodes,
        replication=node.replication,
        min_replicas=rules.min_replicas,
    )
    return dags.plan(blocks, request.dag)


# --- reopening ---------------------------------------------------------------------------------


def _reopen(
    tx: Transaction, caller: Caller, path: str, *, now_ms: int, rules: WriteRules
) -> tuple[Walk, INode]:
    found, node = existing_file(tx, caller, path)
    require(caller, node, WRITE, found.path)
    if node.is_open:
        raise leases.conflict(tx, node, found.path, now_ms, rules.lease_timeout_ms)
    return found, node


def _continue_block(
    tx: Transaction,
    caller: Caller,
    node: INode,
    last: blockmap.FileBlock,
    keep: int,
    *,
    rules: WriteRules,
    placer: Placer,
    nodes: NodeDirectory,
) -> tuple[TargetBlock, list[NodeId]]:
    """Targets for a new block that begins with *keep* bytes of *last*: the nodes that have it, and others if those
    are too few. Writes nothing."""
    having = blockmap.holders(tx, last.block_id)
    sources = nodes.order(having, caller.host)
    if not sources:
        raise NotEnoughReplicas(
            f"no DataNode with the last block, {last.block_id}, is there; try again later"
        )
    targets = sources[: node.replication]
    wanted = min(rules.min_replicas, node.replication)
    if len(targets) < wanted:
        targets = targets + placer.choose(
            wanted - len(targets),
            client_host=caller.host,
            length=node.block_size,
            having=[NodeId(n) for n in having],
            minimum=wanted - len(targets),
        )
    block = BlockRef(
        block_id=BlockId(tx.new_ids("block")),
        generation=GenerationStamp(tx.new_ids("generation")),
    )
    base = BlockBase(
        block=BlockRef(
            block_id=BlockId(last.block_id), generation=GenerationStamp(last.generation)
        ),
        length=keep,
        sources=sources,
    )
    target = TargetBlock(block=block, nodes=targets, base=base)
    return target, [address.node_id for address in targets]


def append(
    tx: Transaction,
    caller: Caller,
    request: Append,
    *,
    now_ms: int,
    rules: WriteRules,
    placer: Placer,
    nodes: NodeDirectory,
) -> OpenedFile:
    found, node = _reopen(tx, caller, request.path, now_ms=now_ms, rules=rules)
    blocks = blockmap.file_blocks(tx, node.inode_id)
    target, offset = None, node.length
    if blocks and blocks[-1].length < node.block_size:
        last = blocks[-1]
        reserved = (node.block_size - last.length) * node.replication
        quotas.check(tx, found.chain, 0, reserved)
        target, ids = _continue_block(
            tx, caller, node, last, last.length, rules=rules, placer=placer, nodes=nodes
        )
        offset = node.length - last.length
        blockmap.begin_block(
            tx,
            node.inode_id,
            last.ordinal,
            target.block,
            node.replication,
            ids,
            base=(last.block_id, last.length),
        )
        quotas.charge(tx, found.chain, 0, reserved)
    dags.forget(tx, [node.inode_id])
    node = sql.update(tx, node, flags=node.flags | FLAG_OPEN)
    leases.take(tx, node.inode_id, request.holder, now_ms)
    tx.emit(NewEvent(now_ms, "append", found.path, caller.user, INodeId(node.inode_id)))
    return OpenedFile(status=status(node, found.path), block=target, block_offset=offset)


def truncate(
    tx: Transaction,
    caller: Caller,
    request: Truncate,
    *,
    now_ms: int,
    rules: WriteRules,
    placer: Placer,
    nodes: NodeDirectory,
) -> OpenedFile:
    found, node = _reopen(tx, caller, request.path, now_ms=now_ms, rules=rules)
    if request.length > node.length:
        raise InvalidRequest(
            f"{shown(found.path)} has {node.length} bytes; truncating can't make it {request.length}"
        )
    if request.length == node.length:
        return OpenedFile(status=status(node, found.path), closed=True)
    blocks = blockmap.file_blocks(tx, node.inode_id)
    offset, cut = 0, None
    dropped: list[blockmap.FileBlock] = []
    for block in blocks:
        if offset >= request.length:
            dropped.append(block)
        elif offset + block.length > request.length:
            cut = block
            cut_offset = offset
        offset += block.length
    target: TargetBlock | None = None
    ids: list[NodeId] = []
    if cut is not None:
        keep = request.length - cut_offset
        target, ids = _continue_block(
            tx, caller, node, cut, keep, rules=rules, placer=placer, nodes=nodes
        )
    if dropped:
        tx.execute(
            "DELETE FROM file_blocks WHERE inode_id = ? AND ordinal >= ?",
            (node.inode_id, dropped[0].ordinal),
        )
        references: dict[int, int] = {}
        for block in dropped:
            references[block.block_id] = references.get(block.block_id, 0) + 1
        blockmap.release(tx, references)
    dags.forget(tx, [node.inode_id])
    freed = node.length - request.length
    tx.emit(
        NewEvent(
            now_ms,
            "truncate",
            found.path,
            caller.user,
            INodeId(node.inode_id),
            detail=f'{{"length":{request.length}}}',
        )
    )
    if cut is None or target is None:
        quotas.charge(tx, found.chain, 0, -freed * node.replication)
        node = sql.update(tx, node, length=request.length, mtime_ms=now_ms)
        return OpenedFile(status=status(node, found.path), closed=True)
    blockmap.begin_block(
        tx,
        node.inode_id,
        cut.ordinal,
        target.block,
        node.replication,
        ids,
        base=(cut.block_id, request.length - cut_offset),
    )
    # The open block is counted whole until it is finalized.
    space = (node.block_size - (request.length - cut_offset)) - freed
    quotas.charge(tx, found.chain, 0, space * node.replication)
    node = sql.update(
        tx, node, flags=node.flags | FLAG_OPEN, length=request.length, mtime_ms=now_ms
    )
    leases.take(tx, node.inode_id, request.holder, now_ms)
    return OpenedFile(status=status(node, found.path), block=target, block_offset=cut_offset)
