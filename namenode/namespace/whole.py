"""Operations on whole files: putting files whose blocks are on DataNodes already, copying, joining."""

from __future__ import annotations

from ...common.codec import failure_of
from ...common.errors import (
    DfsError,
    InvalidRequest,
    IsADirectory,
    LeaseConflict,
    PathExists,
)
from ...common.messages import (
    Allocate,
    Allocation,
    Concat,
    Copy,
    PutFile,
    PutFiles,
    StatusList,
    StatusResult,
)
from ...common.model import BlockId, FileStatus, GenerationStamp, INodeId
from ...common.paths import shown
from .. import blockmap, dags, leases, quotas
from ..allocations import Allocations
from ..blockmap import GOOD, IN_LIMIT, INSERT_BLOCK, INSERT_FILE_BLOCK, INSERT_REPLICA, Placer
from ..leases import WriteRules
from ..permissions import READ, WRITE, Caller, require, require_removal
from ..store import sql
from ..store.base import NewEvent, Transaction
from ..store.sql import INode, marks
from .files import new_file, rounded_block_size
from .placing import make_place
from .walk import Walk, existing_file, status, walk


def allocate(
    tx: Transaction,
    caller: Caller,
    request: Allocate,
    *,
    now_ms: int,
    rules: WriteRules,
    placer: Placer,
) -> Allocation:
    replication = request.replication or rules.replication
    nodes = placer.choose(
        replication,
        client_host=caller.host,
        client_node=request.near,
        length=request.length * request.count,
        exclude=request.exclude,
        minimum=min(rules.min_replicas, replication),
    )
    leases.ensure_holder(tx, request.holder, now_ms)
    first = tx.new_ids("block", request.count)
    generation = tx.new_ids("generation")
    tx.execute(
        "INSERT INTO allocations (first_block_id, last_block_id, generation, replication, holder)"
        " VALUES (?, ?, ?, ?, ?)",
        (first, first + request.count - 1, generation, replication, request.holder),
    )
    return Allocation(
        first_block_id=BlockId(first),
        count=request.count,
        generation=GenerationStamp(generation),
        nodes=nodes,
    )


def put_files(
    tx: Transaction, caller: Caller, request: PutFiles, *, now_ms: int, rules: WriteRules
) -> StatusList:
    """Make whole files appear; each on its own, so that one's failure is not another's."""
    allocations = Allocations(tx, request.holder)
    wanted = [commit.block_id for entry in request.files for commit in entry.blocks]
    wanted += [c.block_id for entry in request.files if entry.dag for c in entry.dag.nodes]
    taken: set[int] = set()
    for start in range(0, len(wanted), IN_LIMIT):
        part = wanted[start : start + IN_LIMIT]
        rows = tx.all(f"SELECT block_id FROM blocks WHERE block_id IN ({marks(len(part))})", part)
        taken.update(row[0] for row in rows)
    known = {row[0] for row in tx.all("SELECT node_id FROM datanodes")}
    batch = _Batch()
    results = []
    placed_blocks: list[int] = []
    for entry in request.files:
        try:
            placed = _put_file(
                tx, caller, entry, batch, allocations, taken, known, now_ms=now_ms, rules=rules
            )
            results.append(StatusResult(status=placed))
            placed_blocks += [commit.block_id for commit in entry.blocks]
            if entry.dag is not None:
                placed_blocks += [commit.block_id for commit in entry.dag.nodes]
        except DfsError as error:
            results.append(StatusResult(failure=failure_of(error)))
    batch.write(tx, now_ms)
    allocations.take(placed_blocks)
    return StatusList(results=results)


class _Batch:
    """Rows of a batch of new files, written together at its end."""

    def __init__(self) -> None:
        self.nodes: list[INode] = []
        self.names: set[tuple[int, str]] = set()
        self.file_blocks: list[tuple[int, int, int]] = []
        self.blocks: list[tuple[int, int, int, int, int, bytes]] = []
        self.replicas: list[tuple[int, int, int, int]] = []
        self.events: list[NewEvent] = []
        self.dags: list[tuple[int, int, dags.Plan]] = []  # (inode id, replication, proven DAG)

    def write(self, tx: Transaction, now_ms: int) -> None:
        sql.insert_many(tx, self.nodes)
        tx.many(INSERT_FILE_BLOCK, self.file_blocks)
        tx.many(INSERT_BLOCK, self.blocks)
        tx.many(INSERT_REPLICA, self.replicas)
        for event in self.events:
            tx.emit(event)
        for inode_id, replication, plan in self.dags:
            dags.attach(tx, inode_id, dags.record(tx, plan, replication=replication, now_ms=now_ms))


def _put_file(
    tx: Transaction,
    caller: Caller,
    entry: PutFile,
    batch: _Batch,
    allocations: Allocations,
    taken: set[int],
    known: set[int],
    *,
    now_ms: int,
    rules: WriteRules,
) -> FileStatus:
    found = walk(tx, caller, entry.path)
    if not found.parts:
        raise IsADirectory("/ is a directory")
    replication = entry.replication or rules.replication
    block_size = rounded_block_size(entry.block_size, rules)
    length = 0
    own: set[int] = set()
    for number, commit in enumerate(entry.blocks):
        allocations.require(commit)
        if commit.block_id in taken or commit.block_id in own:
            raise InvalidRequest(f"block {commit.block_id} belongs to a file already")
        own.add(commit.block_id)
        if commit.length > block_size or (
            commit.length < block_size and number < len(entry.blocks) - 1
        ):
            raise InvalidRequest(
                f"block {number} has {commit.length} bytes; all but the last must have {block_size}"
            )
        if not known.issuperset(commit.nodes):
            raise InvalidRequest(f"block {commit.block_id} names a DataNode that never registered")
        blockmap.check_commit(commit, replication, rules.min_replicas)
        length += commit.length
    plan: dags.Plan | None = None
    if entry.dag is not None:
        plan = dags.plan([dags.Written(c.length, c.digest) for c in entry.blocks], entry.dag)
        for commit in entry.dag.nodes:
            allocations.require(commit)
            if commit.block_id in taken or commit.block_id in own:
                raise InvalidRequest(f"block {commit.block_id} belongs to a file already")
            own.add(commit.block_id)
            if not known.issuperset(commit.nodes):
                raise InvalidRequest(f"block {commit.block_id} names an unknown DataNode")
            blockmap.check_commit(commit, replication, rules.min_replicas)
    if found.missing <= 1 and (found.parent.inode_id, found.parts[-1]) in batch.names:
        raise PathExists(f"{shown(found.path)} is named twice in this request")
    parent = make_place(
        tx,
        caller,
        found,
        overwrite=entry.overwrite,
        create_parents=entry.create_parents,
        space_bytes=length * replication,
        now_ms=now_ms,
        rules=rules,
    )
    node = new_file(
        tx.new_ids("inode"),
        caller,
        parent,
        found.parts[-1],
        mode=entry.mode,
        flags=0,
        replication=replication,
        block_size=block_size,
        mtime_ms=now_ms if entry.mtime_ms is None else entry.mtime_ms,
        length=length,
        unmasked=entry.unmasked,
    )
    taken |= own
    batch.nodes.append(node)
    batch.names.add((node.parent_id, node.name))
    for ordinal, commit in enumerate(entry.blocks):
        batch.file_blocks.append((node.inode_id, ordinal, commit.block_id))
        batch.blocks.append(
            (commit.block_id, commit.generation, commit.length, 1, replication, commit.digest)
        )
        for node_id in sorted(set(commit.nodes)):
            batch.replicas.append((commit.block_id, node_id, GOOD, commit.generation))
    if plan is not None:
        batch.dags.append((node.inode_id, replication, plan))
    batch.events.append(NewEvent(now_ms, "put", found.path, caller.user, INodeId(node.inode_id)))
    return status(node, found.path)


def copy(
    tx: Transaction, caller: Caller, request: Copy, *, now_ms: int, rules: WriteRules
) -> FileStatus:
    """A second file on the same blocks."""
    source, node = existing_file(tx, caller, request.source)
    require(caller, node, READ, source.path)
    if node.is_open:
        raise LeaseConflict(f"{shown(source.path)} is being written; it can be copied when closed")
    found = walk(tx, caller, request.destination)
    if found.parts == source.parts:
        raise PathExists(f"{shown(found.path)} and {shown(source.path)} are the same file")
    if not found.parts:
        raise IsADirectory("/ is a directory")
    parent = make_place(
        tx,
        caller,
        found,
        overwrite=request.overwrite,
        create_parents=request.create_parents,
        space_bytes=node.length * node.replication,
        now_ms=now_ms,
        rules=rules,
    )
    made = new_file(
        tx.new_ids("inode"),
        caller,
        parent,
        found.parts[-1],
        mode=node.mode,
        flags=0,
        replication=node.replication,
        block_size=node.block_size,
        mtime_ms=now_ms,
        length=node.length,
    )
    sql.insert(tx, made)
    tx.execute(
        "UPDATE blocks SET refs = refs + (SELECT COUNT(*) FROM file_blocks f"
        " WHERE f.inode_id = ? AND f.block_id = blocks.block_id)"
        " WHERE block_id IN (SELECT block_id FROM file_blocks WHERE inode_id = ?)",
        (node.inode_id, node.inode_id),
    )
    tx.execute(
        "INSERT INTO file_blocks (inode_id, ordinal, block_id)"
        " SELECT CAST(? AS BIGINT), ordinal, block_id FROM file_blocks WHERE inode_id = ?",
        (made.inode_id, node.inode_id),
    )
    dags.share(tx, node.inode_id, made.inode_id)
    tx.emit(NewEvent(now_ms, "copy", source.path, caller.user, INodeId(made.inode_id), found.path))
    return status(made, found.path)


def concat(
    tx: Transaction, caller: Caller, request: Concat, *, now_ms: int, rules: WriteRules
) -> FileStatus:
    """Move the blocks of the sources to the end of the target, in order."""
    target, node = _whole(tx, caller, request.target, now_ms, rules)
    require(caller, node, WRITE, target.path)
    sources: list[tuple[Walk, INode]] = []
    seen = {node.inode_id}
    for path in request.sources:
        found, source = _whole(tx, caller, path, now_ms, rules)
        if source.inode_id in seen:
            raise InvalidRequest(f"{shown(found.path)} is named twice")
        seen.add(source.inode_id)
        require(caller, source, READ, found.path)
        require_removal(caller, found.parent, source, found.path)
        sources.append((found, source))
    added = sum(source.length for _, source in sources)
    quotas.check(
        tx,
        target.chain,
        0,
        added * node.replication
        - sum(
            source.length * source.replication
            for found, source in sources
            if found.chain == target.chain
        ),
    )

    dags.forget(tx, [node.inode_id, *(source.inode_id for _, source in sources)])
    ordinal = blockmap.last_ordinal(tx, node.inode_id) + 1
    for found, source in sources:
        blocks = tx.all(
            "SELECT block_id FROM file_blocks WHERE inode_id = ? ORDER BY ordinal",
            (source.inode_id,),
        )
        tx.execute("DELETE FROM file_blocks WHERE inode_id = ?", (source.inode_id,))
        tx.many(
            INSERT_FILE_BLOCK,
            [(node.inode_id, ordinal + number, row[0]) for number, row in enumerate(blocks)],
        )
        if node.replication > source.replication:
            tx.many(
                "UPDATE blocks SET replication = ? WHERE block_id = ? AND replication < ?",
                [(node.replication, row[0], node.replication) for row in blocks],
            )
        ordinal += len(blocks)
        quotas.charge(tx, found.chain, -1, -source.length * source.replication)
        sql.unlink(tx, source, now_ms)
    quotas.charge(tx, target.chain, 0, added * node.replication)
    node = sql.update(tx, node, length=node.length + added, mtime_ms=now_ms)
    tx.emit(NewEvent(now_ms, "concat", target.path, caller.user, INodeId(node.inode_id)))
    return status(node, target.path)


def _whole(
    tx: Transaction, caller: Caller, path: str, now_ms: int, rules: WriteRules
) -> tuple[Walk, INode]:
    found, node = existing_file(tx, caller, path)
    if node.is_open:
        raise leases.conflict(tx, node, found.path, now_ms, rules.lease_timeout_ms)
    return found, node
