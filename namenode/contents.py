"""CID blocks that are held: putting them, keeping them through an add, and collecting what nothing holds.

Every row whose `complete` is 1 has all of its DAG held below it, by counted references, so holding a root holds everything and the
collector never has to walk a DAG: what has no references goes, and takes its own references with it, a bounded piece at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..common.checksum import CHUNK_BYTES
from ..common.content import (
    BeginAdd,
    Collect,
    Collected,
    ContentBlock,
    EndAdd,
    HadContents,
    HaveContents,
    PutContent,
    PutContentFile,
    PutContents,
    PutContentsAnswer,
)
from ..common.errors import BlockNotFound, InvalidContent, InvalidRequest
from ..common.ipld import dag, multihash
from ..common.ipld.cid import BLAKE3, CODEC_NAMES, IDENTITY, MAX_BLOCK_BYTES, RAW, Cid
from ..common.messages import BlockCommit
from . import blockmap, dags, leases
from .allocations import require_new, taken
from .blockmap import GOOD, IN_LIMIT, INSERT_BLOCK, INSERT_FILE_BLOCK, INSERT_REPLICA
from .dags import INSERT_CONTENT, INSERT_LINK, Content, Written, rows_of
from .leases import WriteRules
from .permissions import Caller
from .store.base import Transaction
from .store.sql import marks

READABLE = frozenset(CODEC_NAMES)  # codecs whose links can be read here


# --- adds --------------------------------------------------------------------------------------


def begin_add(tx: Transaction, caller: Caller, request: BeginAdd, *, now_ms: int) -> None:
    leases.touch_holder(tx, request.holder, now_ms)
    tx.execute(
        "INSERT INTO adds (holder, started_ms) VALUES (?, ?) ON CONFLICT (holder) DO NOTHING",
        (request.holder, now_ms),
    )


def end_add(tx: Transaction, caller: Caller, request: EndAdd, *, now_ms: int) -> None:
    tx.execute("DELETE FROM adds WHERE holder = ?", (request.holder,))


def have(
    tx: Transaction, caller: Caller, request: HaveContents, *, now_ms: int, rules: WriteRules
) -> HadContents:
    rows = rows_of(tx, request.multihashes)
    tx.many(
        "UPDATE contents SET touched_ms = ? WHERE content_id = ?",
        [(now_ms, row.content_id) for row in rows.values()],
    )
    if request.adopt:
        for known in list(rows.values()):
            if not known.complete and dags.adopt(tx, known):
                rows[known.multihash] = known._replace(leaves=1, complete=1)
    held = [row for row in rows.values() if row.complete]
    dags.raise_replication(tx, held, request.replication or rules.replication)
    return HadContents(
        have=[
            0 if (row := rows.get(key)) is None else 1 + row.complete for key in request.multihashes
        ]
    )


# --- putting -----------------------------------------------------------------------------------


def put(
    tx: Transaction, caller: Caller, request: PutContents, *, now_ms: int, rules: WriteRules
) -> PutContentsAnswer:
    """Hold CID blocks and files, all or none of them."""
    leases.ensure_holder(tx, request.holder, now_ms)
    checker = _Checker(tx, request, rules)
    links = [_links(entry) for entry in request.blocks]
    plans = []
    for file in request.files:
        found = dags.plan([Written(b.length, b.digest) for b in file.blocks], file.dag)
        if found is None:
            raise InvalidRequest("a file of at most one chunk is put as the raw block it is")
        plans.append(found)
    hashes = [entry.multihash for entry in request.blocks]
    hashes += [child for inside in links for child in inside]
    known = rows_of(tx, hashes)
    checker.check(known)

    added = 0
    for file, found in zip(request.files, plans, strict=True):
        added += _put_file(tx, file, found, checker, now_ms)
    if request.files:
        known = rows_of(tx, hashes)
    if request.adopt:
        adopted = [
            row._replace(leaves=1, complete=1)
            for row in known.values()
            if not row.complete and dags.adopt(tx, row)
        ]
        known.update({row.multihash: row for row in adopted})
        dags.raise_replication(tx, adopted, checker.replication)
    batch = _Batch(tx, now_ms, checker)
    for entry, inside in zip(request.blocks, links, strict=True):
        batch.put(entry, inside, known)
    batch.write()
    # Those whose content was held already, too: nobody will put them.
    taken(tx, request.holder, checker.fresh)
    return PutContentsAnswer(added=added + batch.added, incomplete=batch.incomplete)


def _links(entry: PutContent) -> list[bytes]:
    """The multihashes below a block, each once, read from its verified bytes. Identity CIDs are held by nobody."""
    code, digest, end = multihash.split(entry.multihash)
    if end != len(entry.multihash) or code == IDENTITY:
        raise InvalidRequest("what is to be put has no multihash that is put")
    if entry.block.length > MAX_BLOCK_BYTES:
        raise InvalidContent(f"a CID block of {entry.block.length} bytes exceeds {MAX_BLOCK_BYTES}")
    if code == BLAKE3 and entry.block.length <= CHUNK_BYTES and digest != entry.block.digest:
        raise InvalidContent("the block is not the one its multihash names")
    if entry.codec == RAW or entry.codec not in READABLE:
        return []
    cid = Cid(1, entry.codec, entry.multihash)
    if len(entry.data) != entry.block.length:
        raise InvalidRequest(f"the bytes of {cid} must come with it: its links are read")
    cid.verify(entry.data)
    found = dict.fromkeys(c.multihash for c in dag.links_of(cid, entry.data) if not c.is_identity)
    return list(found)


class _Checker:
    """The ordinary blocks of a request: newly written ones are the holder's, others are there."""

    def __init__(self, tx: Transaction, request: PutContents, rules: WriteRules) -> None:
        self._tx = tx
        self._request = request
        self._rules = rules
        self.replication = request.replication or rules.replication
        self.fresh: list[BlockCommit] = []  # blocks that were written for this request

    def check(self, known: dict[bytes, Content]) -> None:
        request = self._request
        fresh = self.fresh
        fresh += [as_commit(entry.block) for entry in request.blocks if entry.block.nodes]
        shared = [e.block for e in request.blocks if not e.block.nodes and e.multihash not in known]
        for file in request.files:
            fresh += [as_commit(block) for block in file.blocks if block.nodes]
            fresh += file.dag.nodes
            shared += [block for block in file.blocks if not block.nodes]
        require_new(
            self._tx,
            request.holder,
            fresh,
            replication=self.replication,
            min_replicas=self._rules.min_replicas,
        )
        require_existing(self._tx, shared)

    def hold(self, blocks: Sequence[ContentBlock]) -> None:
        """Rows for the new ones, one more reference on the others."""
        tx = self._tx
        new = [b for b in blocks if b.nodes]
        tx.many(
            INSERT_BLOCK,
            [(b.block_id, b.generation, b.length, 1, self.replication, b.digest) for b in new],
        )
        tx.many(
            INSERT_REPLICA,
            [(b.block_id, n, GOOD, b.generation) for b in new for n in sorted(set(b.nodes))],
        )
        share_blocks(tx, [b for b in blocks if not b.nodes], self.replication)


def as_commit(block: ContentBlock) -> BlockCommit:
    return BlockCommit(
        block_id=block.block_id,
        generation=block.generation,
        length=block.length,
        digest=block.digest,
        nodes=block.nodes,
    )


def existing(tx: Transaction, ids: Sequence[int]) -> dict[int, tuple[int, int, bytes]]:
    """block id -> (generation, length, digest) of those of *ids* that are finalized and wanted."""
    found = {}
    for start in range(0, len(ids), IN_LIMIT):
        part = ids[start : start + IN_LIMIT]
        for row in tx.all(
            "SELECT block_id, generation, length, digest FROM blocks"
            f" WHERE refs > 0 AND digest IS NOT NULL AND block_id IN ({marks(len(part))})",
            part,
        ):
            found[row[0]] = (row[1], row[2], bytes(row[3]))
    return found


def require_existing(tx: Transaction, blocks: Sequence[ContentBlock]) -> None:
    """BlockNotFound unless every one of *blocks* is held, with just this length and digest."""
    found = existing(tx, [block.block_id for block in blocks])
    for block in blocks:
        row = found.get(block.block_id)
        if row is None or row[1:] != (block.length, block.digest):
            raise BlockNotFound(f"block {block.block_id} is not held (any more); store its bytes")


def share_blocks(tx: Transaction, blocks: Sequence[ContentBlock], replication: int) -> None:
    """One more reference on each, and no fewer copies than are asked for now."""
    tx.many("UPDATE blocks SET refs = refs + 1 WHERE block_id = ?", [(b.block_id,) for b in blocks])
    blockmap.raise_replication(tx, [b.block_id for b in blocks], replication)


def _put_file(
    tx: Transaction, file: PutContentFile, found: dags.Plan, checker: _Checker, now_ms: int
) -> int:
    content_id = dags.record(tx, found, replication=checker.replication, now_ms=now_ms)
    row = tx.one("SELECT leaves FROM contents WHERE content_id = ?", (content_id,))
    assert row is not None
    if row[0]:
        return 0  # held already; the blocks of the request are orphans if they are new
    checker.hold(file.blocks)
    tx.many(
        INSERT_FILE_BLOCK,
        [(content_id, number, block.block_id) for number, block in enumerate(file.blocks)],
    )
    tx.execute("UPDATE contents SET leaves = 1, complete = 1 WHERE content_id = ?", (content_id,))
    return 1 + len(found.made)


class _Batch:
    """Rows of blocks that are put, written together at the end."""

    def __init__(self, tx: Transaction, now_ms: int, checker: _Checker) -> None:
        self._tx = tx
        self._now_ms = now_ms
        self._checker = checker
        self._first_id: int | None = None
        self._rows: dict[bytes, Content] = {}
        self._touched: list[tuple[int, int]] = []
        self._links: list[tuple[int, int]] = []
        self._held: list[ContentBlock] = []
        self.added = 0
        self.incomplete: list[bytes] = []

    def put(self, entry: PutContent, inside: list[bytes], known: dict[bytes, Content]) -> None:
        key = entry.multihash
        row = self._rows.get(key) or known.get(key)
        children = [self._rows.get(h) or known.get(h) for h in inside]
        complete = int(all(child is not None and child.complete for child in children))
        if row is not None:
            self._touched.append((self._now_ms, row.content_id))
            if row.complete and (row.codec == entry.codec or not inside):
                return
            if row.leaves and row.complete:
                return  # a file, whose leaves are no rows
        else:
            self.added += 1
            row = Content(
                self._tx.new_ids("inode"), key, entry.codec, entry.block.block_id,
                0, 0, 0, 0, complete, self._now_ms,
            )  # fmt: skip
            self._held.append(entry.block)
        if not complete:
            self.incomplete.append(key)
        linked = 0
        for child in children:
            if child is not None:
                self._links.append((row.content_id, child.content_id))
                linked += 1
        known_before = key in known
        row = row._replace(codec=entry.codec, complete=complete, links=linked)
        if known_before:
            known[key] = row
            self._upgrade(row)
        else:
            self._rows[key] = row

    def _upgrade(self, row: Content) -> None:
        """A row that was raw, or incomplete, is more now. Its links are inserted with the others."""
        self._tx.execute(
            "UPDATE contents SET codec = ?, complete = ? WHERE content_id = ?",
            (row.codec, row.complete, row.content_id),
        )

    def write(self) -> None:
        tx = self._tx
        self._checker.hold(self._held)
        links = list(dict.fromkeys(self._links))
        # References from parents in this batch are counted into the rows of their children as they are made.
        refs: dict[int, int] = {}
        new = {row.content_id for row in self._rows.values()}
        older = [pair for pair in links if pair[0] not in new]
        for parent, child in links:
            if parent in new:
                refs[child] = refs.get(child, 0) + 1
        tx.many(
            INSERT_CONTENT,
            [row._replace(refs=refs.get(row.content_id, 0)) for row in self._rows.values()],
        )
        tx.many(INSERT_LINK, [pair for pair in links if pair[0] in new])
        tx.many(
            "UPDATE contents SET refs = refs + ? WHERE content_id = ?",
            [(count, child) for child, count in refs.items() if child not in new],
        )
        for parent, child in older:
            dags.link(tx, parent, child)
        tx.many("UPDATE contents SET touched_ms = ? WHERE content_id = ?", self._touched)


# --- collecting --------------------------------------------------------------------------------


def collect(tx: Transaction, caller: Caller, request: Collect, *, now_ms: int) -> Collected:
    """One step: at most about `limit` rows of what is loose."""
    before_ms = now_ms - int(request.grace_s * 1000) + 1
    # A holder counts until it is forgotten, which is when it was silent (`silence.py`), and not only unheard.
    row = tx.one("SELECT MIN(a.started_ms) FROM adds a JOIN lease_holders h ON h.holder = a.holder")
    if row is not None and row[0] is not None:
        before_ms = min(before_ms, row[0])
    rows = [
        Content(found[0], bytes(found[1]), *found[2:])
        for found in tx.all(
            f"SELECT {dags.COLUMNS} FROM contents WHERE refs = 0 AND touched_ms < ?"
            " AND (direct = 0 OR links > 0 OR leaves > 0) ORDER BY touched_ms LIMIT ?",
            (before_ms, request.limit),
        )
    ]
    if request.dry_run:
        gone = [row for row in rows if not row.direct]
        return Collected(work=len(rows), blocks=len(gone), bytes=_bytes_of(tx, gone))
    work, open_parents = _unlink(tx, rows, request.limit)
    ended = [row for row in rows if row.content_id not in open_parents]
    work += _drop_leaves(tx, [row.content_id for row in ended if row.leaves])
    kept = [row for row in ended if row.direct]
    tx.many(
        "UPDATE contents SET complete = ?, leaves = 0, links = 0 WHERE content_id = ?",
        [(int(row.codec == RAW), row.content_id) for row in kept],
    )
    gone = [row for row in ended if not row.direct]
    freed = _bytes_of(tx, gone)
    tx.many("DELETE FROM contents WHERE content_id = ?", [(row.content_id,) for row in gone])
    if gone:
        references: dict[int, int] = {}
        for row in gone:
            references[row.block_id] = references.get(row.block_id, 0) + 1
        blockmap.release(tx, references)
    return Collected(work=work + len(ended), blocks=len(gone), bytes=freed)


def _unlink(tx: Transaction, rows: Sequence[Content], limit: int) -> tuple[int, set[int]]:
    """Take the links off the first of *rows*; (how many, which rows still have some and must wait)."""
    linked = [row for row in rows if row.links]
    pairs: list[tuple[int, int]] = []
    counts: dict[int, int] = {}
    waiting: set[int] = set()
    for row in linked:
        room = limit - len(pairs)
        if room <= 0:
            waiting.add(row.content_id)
            continue
        found = tx.all(
            "SELECT parent_id, child_id FROM content_links WHERE parent_id = ? LIMIT ?",
            (row.content_id, room),
        )
        pairs += [(pair[0], pair[1]) for pair in found]
        counts[row.content_id] = len(found)
        if len(found) < row.links:
            waiting.add(row.content_id)
    tx.many("DELETE FROM content_links WHERE parent_id = ? AND child_id = ?", pairs)
    tx.many(
        "UPDATE contents SET links = links - ?, complete = 0 WHERE content_id = ?",
        [(count, parent) for parent, count in counts.items() if count],
    )
    tx.many(
        "UPDATE contents SET refs = refs - 1 WHERE content_id = ?", [(pair[1],) for pair in pairs]
    )
    return len(pairs), waiting


def _drop_leaves(tx: Transaction, content_ids: Sequence[int]) -> int:
    references = blockmap.blocks_of(tx, content_ids)
    if references:
        blockmap.release(tx, dict(references))
    for start in range(0, len(content_ids), IN_LIMIT):
        part = content_ids[start : start + IN_LIMIT]
        tx.execute(f"DELETE FROM file_blocks WHERE inode_id IN ({marks(len(part))})", part)
    return references.total()


def _bytes_of(tx: Transaction, rows: Sequence[Content]) -> int:
    """Bytes of the blocks of *rows*, leaves included."""
    total = 0
    ids = [row.block_id for row in rows]
    for start in range(0, len(ids), IN_LIMIT):
        part = ids[start : start + IN_LIMIT]
        found = tx.one(
            f"SELECT COALESCE(SUM(length), 0) FROM blocks WHERE block_id IN ({marks(len(part))})",
            part,
        )
        total += int(found[0]) if found else 0
    for row in rows:
        if row.leaves:
            total += blockmap.length_of(tx, row.content_id)
    return total
