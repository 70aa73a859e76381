"""Where content is: the blocks of CIDs that are held, the CIDs of paths, and what there is in all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..common.codec import failure_of
from ..common.content import (
    CacheCid,
    ContentPage,
    ContentRow,
    ContentTotals,
    FindBlocks,
    FindCids,
    FoundBlocks,
    FoundCid,
    FoundCids,
    GetCids,
    GetContentTotals,
    ListContents,
    PathCid,
    PathCids,
    SetDag,
)
from ..common.errors import ContentNotFound, DfsError, InvalidRequest
from ..common.ipld.cid import Cid
from ..common.model import Block, LocatedBlock, NodeAddress, NodeId
from ..common.paths import shown
from . import blockmap, dags
from .allocations import require_new, taken
from .blockmap import GOOD, IN_LIMIT, NodeDirectory
from .dags import Content, Written, rows_of
from .leases import WriteRules
from .namespace.walk import existing, existing_file, status
from .permissions import READ, Caller, require
from .store.base import Transaction
from .store.sql import INode, marks

MAX_EVENTS_LOOKED_AT = 20_000  # more happened since: the directory's CID is computed anew


# --- blocks ------------------------------------------------------------------------------------


def located_blocks(
    tx: Transaction, ids: Sequence[int], nodes: NodeDirectory, client_host: str
) -> dict[int, LocatedBlock]:
    """Finalized blocks by id, with the nodes that hold them; those that are not there are left out."""
    found: dict[int, list[int]] = {}
    facts: dict[int, Block] = {}
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), IN_LIMIT):
        part = wanted[start : start + IN_LIMIT]
        for block_id, generation, length, digest, node_id in tx.all(
            "SELECT b.block_id, b.generation, b.length, b.digest, r.node_id FROM blocks b"
            f" LEFT JOIN replicas r ON r.block_id = b.block_id AND r.state = {GOOD}"
            " WHERE b.digest IS NOT NULL AND b.refs > 0"
            f" AND b.block_id IN ({marks(len(part))}) ORDER BY b.block_id, r.node_id",
            part,
        ):
            if block_id not in facts:
                facts[block_id] = Block(
                    block_id=block_id, generation=generation, length=length, digest=bytes(digest)
                )
                found[block_id] = []
            if node_id is not None:
                found[block_id].append(node_id)
    orders: dict[tuple[int, ...], list[NodeAddress]] = {}
    located = {}
    for block_id, holders in found.items():
        key = tuple(holders)
        if key not in orders:
            orders[key] = nodes.order([NodeId(n) for n in key], client_host)
        located[block_id] = LocatedBlock(block=facts[block_id], offset=0, nodes=orders[key])
    return located


def find_blocks(
    tx: Transaction, caller: Caller, request: FindBlocks, *, nodes: NodeDirectory
) -> FoundBlocks:
    found = located_blocks(tx, request.blocks, nodes, caller.host)
    return FoundBlocks(located=[found.get(block_id) for block_id in request.blocks])


def find(tx: Transaction, caller: Caller, request: FindCids, *, nodes: NodeDirectory) -> FoundCids:
    rows = rows_of(tx, request.multihashes)
    located = located_blocks(tx, [row.block_id for row in rows.values()], nodes, caller.host)
    leaves: dict[int, list[LocatedBlock]] = {}
    if request.files:
        leaves = _leaves_of(tx, list(rows.values()), nodes, caller.host)
    found: list[FoundCid | None] = []
    for key in request.multihashes:
        row = rows.get(key)
        if row is None or row.block_id not in located:
            found.append(None)
            continue
        found.append(
            FoundCid(
                codec=row.codec,
                complete=bool(row.complete),
                located=located[row.block_id],
                leaves=leaves.get(row.content_id),
            )
        )
    return FoundCids(found=found)


def _leaves_of(
    tx: Transaction, rows: Sequence[Content], nodes: NodeDirectory, client_host: str
) -> dict[int, list[LocatedBlock]]:
    """The blocks of files under their roots: their own, or those of a file with a path."""
    owners = {row.content_id: row.content_id for row in rows if row.leaves}
    others = [row.content_id for row in rows if not row.leaves]
    for start in range(0, len(others), IN_LIMIT):
        part = others[start : start + IN_LIMIT]
        for content_id, inode_id in tx.all(
            "SELECT content_id, MIN(inode_id) FROM file_dags"
            f" WHERE content_id IN ({marks(len(part))}) GROUP BY content_id",
            part,
        ):
            owners[content_id] = inode_id
    by_owner = blockmap.locate(tx, list(set(owners.values())), nodes, client_host)
    return {content_id: by_owner[owner] for content_id, owner in owners.items()}


def page(
    tx: Transaction, caller: Caller, request: ListContents, *, nodes: NodeDirectory
) -> ContentPage:
    rows = [
        Content(row[0], bytes(row[1]), *row[2:])
        for row in tx.all(
            f"SELECT {dags.COLUMNS} FROM contents WHERE content_id > ? ORDER BY content_id LIMIT ?",
            (request.after, request.limit),
        )
    ]
    located = located_blocks(tx, [row.block_id for row in rows], nodes, caller.host)
    leaves = _leaves_of(tx, [row for row in rows if row.leaves], nodes, caller.host)
    return ContentPage(
        rows=[
            ContentRow(
                content_id=row.content_id,
                cid=bytes(Cid(1, row.codec, row.multihash)),
                refs=row.refs,
                direct=row.direct,
                complete=bool(row.complete),
                located=located[row.block_id],
                leaves=leaves.get(row.content_id),
            )
            for row in rows
            if row.block_id in located
        ]
    )


def totals(tx: Transaction, caller: Caller, request: GetContentTotals) -> ContentTotals:
    row = tx.one(
        "SELECT COUNT(*), COALESCE(SUM(b.length), 0) FROM contents c"
        " JOIN blocks b ON b.block_id = c.block_id"
    )
    leaves = tx.one(
        "SELECT COALESCE(SUM(b.length), 0) FROM contents c JOIN file_blocks f"
        " ON f.inode_id = c.content_id JOIN blocks b ON b.block_id = f.block_id WHERE c.leaves = 1"
    )
    loose = tx.one("SELECT COUNT(*) FROM contents WHERE refs = 0 AND direct = 0")
    pins = tx.one("SELECT COUNT(*) FROM pins")
    assert row is not None and leaves is not None and loose is not None and pins is not None
    return ContentTotals(
        blocks=int(row[0]),
        bytes=int(row[1]) + int(leaves[0]),
        loose=int(loose[0]),
        pins=int(pins[0]),
    )


class Health(NamedTuple):
    """Of the blocks that content without a path is in."""

    blocks: int
    under_replicated: int
    missing: int


def health(tx: Transaction, alive: Sequence[NodeId]) -> Health:
    """Counted over all of them, each once; *alive*: the DataNodes whose copies count."""
    among = f" AND r.node_id IN ({marks(len(alive))})" if alive else " AND 1 = 0"
    row = tx.one(
        "SELECT COUNT(*), COALESCE(SUM(CASE WHEN copies > 0 AND copies < replication THEN 1 ELSE 0 END), 0),"
        " COALESCE(SUM(CASE WHEN copies = 0 THEN 1 ELSE 0 END), 0) FROM"
        " (SELECT b.block_id, b.replication, COUNT(r.node_id) AS copies FROM"
        "  (SELECT block_id FROM contents UNION SELECT f.block_id FROM contents c"
        "   JOIN file_blocks f ON f.inode_id = c.content_id WHERE c.leaves = 1) held"
        "  JOIN blocks b ON b.block_id = held.block_id"
        f"  LEFT JOIN replicas r ON r.block_id = b.block_id AND r.state = {GOOD}{among}"
        "  GROUP BY b.block_id, b.replication) counted",
        tuple(alive),
    )
    assert row is not None
    return Health(int(row[0]), int(row[1]), int(row[2]))


# --- CIDs of paths -----------------------------------------------------------------------------


def path_cids(tx: Transaction, caller: Caller, request: GetCids) -> PathCids:
    """The CIDs of files as far as they are known, of directories as far as they were computed and nothing changed since."""
    newest = _newest_event(tx)
    results = []
    for path in request.paths:
        try:
            found, node = existing(tx, caller, path)
            require(caller, node, READ, found.path)
            known = (
                _directory_cid(tx, node, found.path, newest)
                if node.is_directory
                else file_cid(tx, node)
            )
            cid, tsize = known or (b"", 0)
            results.append(PathCid(cid=cid, tsize=tsize, status=status(node, found.path)))
        except DfsError as error:
            results.append(PathCid(failure=failure_of(error)))
    return PathCids(results=results, event_offset=newest)


def _newest_event(tx: Transaction) -> int:
    """The newest sealed event; -1 while some wait to be sealed, as what they say can't be compared yet."""
    if tx.one("SELECT 1 FROM pending_events LIMIT 1") is not None:
        return -1
    row = tx.one("SELECT MAX(event_offset) FROM events")
    return 0 if row is None or row[0] is None else int(row[0])


def file_cid(tx: Transaction, node: INode) -> tuple[bytes, int] | None:
    """(CID, Tsize) of a closed file, where it is known."""
    if node.is_open:
        return None
    blocks = blockmap.file_blocks(tx, node.inode_id)
    single = dags.cid_of_blocks(blocks)
    if single is not None:
        return bytes(single), node.length
    row = tx.one(
        "SELECT c.multihash, c.codec, c.content_id FROM file_dags d"
        " JOIN contents c ON c.content_id = d.content_id WHERE d.inode_id = ?",
        (node.inode_id,),
    )
    if row is None:
        return None
    return bytes(Cid(1, row[1], bytes(row[0]))), node.length + _nodes_bytes(tx, row[2])


def _nodes_bytes(tx: Transaction, content_id: int) -> int:
    """Bytes of the dag-pb nodes of a file, each counted as often as it is linked: the layout links each once."""
    total, level = 0, [content_id]
    while level:
        part = level[:IN_LIMIT]
        row = tx.one(
            "SELECT COALESCE(SUM(b.length), 0) FROM contents c JOIN blocks b"
            f" ON b.block_id = c.block_id WHERE c.content_id IN ({marks(len(part))})",
            part,
        )
        total += int(row[0]) if row else 0
        below = tx.all(
            f"SELECT child_id FROM content_links WHERE parent_id IN ({marks(len(part))})", part
        )
        level = level[IN_LIMIT:] + [found[0] for found in below]
    return total


def _directory_cid(
    tx: Transaction, node: INode, path: str, newest: int
) -> tuple[bytes, int] | None:
    row = tx.one(
        "SELECT d.path, d.event_offset, d.tsize, c.multihash, c.codec FROM cached_cids d"
        " JOIN contents c ON c.content_id = d.content_id WHERE d.inode_id = ?",
        (node.inode_id,),
    )
    if row is None or row[0] != path or newest < 0:
        return None
    if newest - row[1] > MAX_EVENTS_LOOKED_AT:
        return None
    inside = path.rstrip("/") + "/"
    changed = tx.all(
        "SELECT path, destination FROM events WHERE event_offset > ? ORDER BY event_offset",
        (row[1],),
    )
    for event_path, destination in changed:
        for at in (event_path, destination):
            # Below it, or an ancestor of it: what was moved there or away is seen by neither path alone.
            if at and (
                at.startswith(inside) or at == path or inside.startswith(at.rstrip("/") + "/")
            ):
                return None
    return bytes(Cid(1, row[4], bytes(row[3]))), row[2]


def cache_cid(tx: Transaction, caller: Caller, request: CacheCid, *, now_ms: int) -> None:
    found, node = existing(tx, caller, request.path)
    require(caller, node, READ, found.path)
    row = rows_of(tx, [request.multihash]).get(request.multihash)
    if row is None:
        raise ContentNotFound("the directory's node is not held")
    if node.inode_id != request.inode_id or not node.is_directory:
        raise InvalidRequest(f"{shown(found.path)} is another than it was")
    dags.forget(tx, (), [node.inode_id])
    tx.execute(
        "INSERT INTO cached_cids (inode_id, path, event_offset, content_id, tsize)"
        " VALUES (?, ?, ?, ?, ?)",
        (node.inode_id, found.path, request.event_offset, row.content_id, request.tsize),
    )
    tx.execute("UPDATE contents SET refs = refs + 1 WHERE content_id = ?", (row.content_id,))


def set_dag(
    tx: Transaction, caller: Caller, request: SetDag, *, now_ms: int, rules: WriteRules
) -> PathCid:
    """Give a closed file the DAG that was computed from its replicas' digests. Who may read the file may do it."""
    found, node = existing_file(tx, caller, request.path)
    require(caller, node, READ, found.path)
    blocks = blockmap.file_blocks(tx, node.inode_id)
    if (
        node.inode_id != request.inode_id
        or node.is_open
        or [block.block_id for block in blocks] != list(request.blocks)
    ):
        raise InvalidRequest(f"{shown(found.path)} has changed since; compute its CID again")
    known = file_cid(tx, node)
    if known is None:
        plan = dags.plan([Written(b.length, bytes(b.digest or b"")) for b in blocks], request.dag)
        if plan is not None:
            require_new(
                tx,
                request.holder,
                request.dag.nodes,
                replication=node.replication,
                min_replicas=rules.min_replicas,
            )
            content_id = dags.record(tx, plan, replication=node.replication, now_ms=now_ms)
            dags.attach(tx, node.inode_id, content_id)
        known = file_cid(tx, node)
    # Also where somebody else was first: nobody will put them.
    taken(tx, request.holder, request.dag.nodes)
    cid, tsize = known or (b"", 0)
    return PathCid(cid=cid, tsize=tsize, status=status(node, found.path))


__all__ = [
    "cache_cid",
    "file_cid",
    "find",
    "find_blocks",
    "located_blocks",
    "page",
    "path_cids",
    "set_dag",
    "totals",
]
