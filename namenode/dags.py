"""DAGs of files: proving a root from chunk digests, recording it, forgetting it when the file changes.

A root is never taken on a client's word: the digests it sends must be those that the blocks' own digests stand for, and
the nodes it wrote must be those that the digests make.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, chunk_count, digest_matches
from ..common.errors import InvalidRequest
from ..common.ipld import dag_pb, layout
from ..common.ipld.cid import BLAKE3, DAG_PB, RAW, Cid
from ..common.ipld.layout import TWINFS, Made, Node
from ..common.messages import FileDag
from . import blockmap
from .blockmap import GOOD, IN_LIMIT, INSERT_BLOCK, INSERT_REPLICA
from .store.base import Transaction
from .store.sql import marks

INSERT_CONTENT = (
    "INSERT INTO contents (content_id, multihash, codec, block_id, refs, direct, links, leaves,"
    " complete, touched_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_LINK = "INSERT INTO content_links (parent_id, child_id) VALUES (?, ?)"


class Written(NamedTuple):
    """A block with bytes, as far as a DAG needs it."""

    length: int
    digest: bytes


class Plan(NamedTuple):
    """A proven DAG: its root, and its dag-pb blocks (children first, the root last) with the blocks that hold them."""

    root: Node
    made: list[Made]
    dag: FileDag


def leaves(blocks: Sequence[Written], digests: bytes) -> list[Node]:
    """The leaves of a file, whole chunks or cut where its blocks end. InvalidRequest unless *digests* are those of *blocks*."""
    found: list[Node] = []
    at = 0
    for block in blocks:
        end = at + DIGEST_BYTES * chunk_count(block.length)
        part = digests[at:end]
        if len(part) != end - at or (part and not digest_matches(block.digest, part)):
            raise InvalidRequest("the digests sent with the file are not those of its blocks")
        left = block.length
        for index in range(0, len(part), DIGEST_BYTES):
            size = min(CHUNK_BYTES, left)
            left -= size
            found.append(layout.raw_leaf(TWINFS, part[index : index + DIGEST_BYTES], size))
        at = end
    if at != len(digests):
        raise InvalidRequest("there are more digests than the file has chunks")
    return found


def plan(blocks: Sequence[Written], dag: FileDag) -> Plan | None:
    """The proven DAG of a file of *blocks*; None for a file of at most one chunk, which needs none. InvalidRequest."""
    chunks = leaves(blocks, dag.digests)
    if len(chunks) < 2:
        if dag.nodes:
            raise InvalidRequest("a file of one chunk has no nodes")
        return None
    root, made = layout.build(TWINFS, chunks)
    if len(made) != len(dag.nodes):
        raise InvalidRequest(f"the file's DAG has {len(made)} nodes, not {len(dag.nodes)}")
    for one, commit in zip(made, dag.nodes, strict=True):
        if commit.digest != one.cid.digest or commit.length != len(one.block):
            raise InvalidRequest("a node sent with the file is not the one its digests make")
    return Plan(root, made, dag)


def record(tx: Transaction, found: Plan, *, replication: int, now_ms: int) -> int:
    """Hold the nodes of a proven DAG; the content id of its root, with no reference added to it.

    The root of a new DAG is incomplete: a caller that gives it its leaves (file_blocks) says so. The blocks
    of the nodes were checked by the caller to be the holder's.
    """
    known = rows_of(tx, [one.cid.multihash for one in found.made])
    ids: dict[bytes, int] = {}
    children = _children(found.made)
    root = found.root.cid.multihash
    for one, commit in zip(found.made, found.dag.nodes, strict=True):
        key = one.cid.multihash
        row = known.get(key)
        if row is not None:
            ids[key] = row.content_id
            tx.execute(
                "UPDATE contents SET touched_ms = ?, codec = ? WHERE content_id = ?",
                (now_ms, DAG_PB, row.content_id),
            )
        elif key not in ids:
            ids[key] = tx.new_ids("inode")
            tx.execute(
                INSERT_BLOCK,
                (commit.block_id, commit.generation, commit.length, 1, replication, commit.digest),
            )
            tx.many(
                INSERT_REPLICA,
                [(commit.block_id, n, GOOD, commit.generation) for n in sorted(set(commit.nodes))],
            )
            tx.execute(
                INSERT_CONTENT,
                (ids[key], key, DAG_PB, commit.block_id, 0, 0, 0, 0, 0, now_ms),
            )
        for child in children.get(key, ()):
            link(tx, ids[key], ids[child])
    return ids[root]


def _children(made: Sequence[Made]) -> dict[bytes, list[bytes]]:
    """Which nodes each node is above, each once."""
    found: dict[bytes, list[bytes]] = {}
    hashes = {one.cid.multihash for one in made}
    if len(made) == 1:
        return found
    for one in made:
        if one.block[4:6] == bytes((1, RAW)):
            continue  # the first link, behind four bytes of framing, is a leaf, and so are all
        inside = [entry.cid.multihash for entry in dag_pb.decode(one.block).links]
        found[one.cid.multihash] = [h for h in dict.fromkeys(inside) if h in hashes]
    return found


def link(tx: Transaction, parent_id: int, child_id: int) -> None:
    """Let one row hold another, if it does not already."""
    done = tx.execute(
        f"{INSERT_LINK} ON CONFLICT (parent_id, child_id) DO NOTHING", (parent_id, child_id)
    )
    if done:
        tx.execute("UPDATE contents SET refs = refs + 1 WHERE content_id = ?", (child_id,))
        tx.execute("UPDATE contents SET links = links + 1 WHERE content_id = ?", (parent_id,))


class Content(NamedTuple):
    """A row of contents."""

    content_id: int
    multihash: bytes
    codec: int
    block_id: int
    refs: int
    direct: int
    links: int
    leaves: int
    complete: int
    touched_ms: int


COLUMNS = (
    "content_id, multihash, codec, block_id, refs, direct, links, leaves, complete, touched_ms"
)


def rows_of(tx: Transaction, hashes: Sequence[bytes]) -> dict[bytes, Content]:
    """Rows of contents by multihash, of those that are held."""
    found: dict[bytes, Content] = {}
    wanted = list(dict.fromkeys(hashes))
    for start in range(0, len(wanted), IN_LIMIT):
        part = wanted[start : start + IN_LIMIT]
        for row in tx.all(
            f"SELECT {COLUMNS} FROM contents WHERE multihash IN ({marks(len(part))})", part
        ):
            found[bytes(row[1])] = Content(row[0], bytes(row[1]), *row[2:])
    return found


def raise_replication(tx: Transaction, rows: Sequence[Content], replication: int) -> None:
    """No fewer copies of what is held by *rows*: their own blocks and, of files, all leaves and nodes below."""
    blocks = {row.block_id for row in rows}
    below = [row.content_id for row in rows if row.leaves]
    blocks.update(blockmap.blocks_of(tx, below))
    while below:
        found: list[tuple[int, int]] = []
        for start in range(0, len(below), IN_LIMIT):
            part = below[start : start + IN_LIMIT]
            found += tx.all(
                "SELECT c.content_id, c.block_id FROM content_links l"
                " JOIN contents c ON c.content_id = l.child_id"
                f" WHERE l.parent_id IN ({marks(len(part))})",
                part,
            )
        below = [content_id for content_id, block_id in found if block_id not in blocks]
        blocks.update(block_id for _, block_id in found)
    blockmap.raise_replication(tx, sorted(blocks), replication)


# --- files with a path -------------------------------------------------------------------------


def attach(tx: Transaction, inode_id: int, content_id: int) -> None:
    """The file has this root from now on (and had none)."""
    tx.execute("INSERT INTO file_dags (inode_id, content_id) VALUES (?, ?)", (inode_id, content_id))
    tx.execute("UPDATE contents SET refs = refs + 1 WHERE content_id = ?", (content_id,))


def forget(tx: Transaction, file_ids: Sequence[int], directory_ids: Sequence[int] = ()) -> None:
    """Files that are about to change, and what is gone, have their CIDs no longer."""
    for table, ids in (("file_dags", file_ids), ("cached_cids", directory_ids)):
        for start in range(0, len(ids), IN_LIMIT):
            part = ids[start : start + IN_LIMIT]
            where = f"FROM {table} WHERE inode_id IN ({marks(len(part))})"
            rows = tx.all(f"SELECT content_id {where}", part)
            if rows:
                tx.many("UPDATE contents SET refs = refs - 1 WHERE content_id = ?", rows)
                tx.execute(f"DELETE {where}", part)


def share(tx: Transaction, source_id: int, copy_id: int) -> None:
    """A copy of a file on the same blocks has the same root."""
    row = tx.one("SELECT content_id FROM file_dags WHERE inode_id = ?", (source_id,))
    if row is not None:
        attach(tx, copy_id, row[0])


def cid_of_blocks(blocks: Sequence[blockmap.FileBlock]) -> Cid | None:
    """The CID of a file of at most one chunk; None for a longer one, or one that is being written."""
    held = [block for block in blocks if block.length or block.digest is None]
    if not held:
        return Cid.of(RAW, b"")
    if len(held) > 1 or held[0].length > CHUNK_BYTES or held[0].digest is None:
        return None
    return Cid.from_digest(RAW, bytes(held[0].digest), BLAKE3)


def adopt(tx: Transaction, row: Content) -> bool:
    """Hold the leaves of a file that has a path under its root's row, by metadata; False if it is no such file."""
    found = tx.one("SELECT MIN(inode_id) FROM file_dags WHERE content_id = ?", (row.content_id,))
    if row.leaves or found is None or found[0] is None:
        return False
    inode_id = found[0]
    references = blockmap.blocks_of(tx, [inode_id])
    tx.many(
        "UPDATE blocks SET refs = refs + ? WHERE block_id = ?",
        [(count, block_id) for block_id, count in references.items()],
    )
    tx.execute(
        "INSERT INTO file_blocks (inode_id, ordinal, block_id)"
        " SELECT CAST(? AS BIGINT), ordinal, block_id FROM file_blocks WHERE inode_id = ?",
        (row.content_id, inode_id),
    )
    tx.execute(
        "UPDATE contents SET leaves = 1, complete = 1 WHERE content_id = ?", (row.content_id,)
    )
    return True
