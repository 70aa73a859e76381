"""The change stream as a log that can't be rewritten unseen: its Merkle tree, signed checkpoints, proofs, and retention.

The tree's leaves are the events' own hashes (which chain each to the one before). Complete nodes of level 8, 16 ... are rows that stay
when events are dropped; the rest is computed from the events that are there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ..common import disk, merkle, notes
from ..common.config import NameNodeConfig
from ..common.errors import InvalidConfig, InvalidRequest, StoreDamaged
from ..common.follow import (
    Checkpoint,
    Checkpoints,
    GetCheckpoints,
    GetProof,
    MakeCheckpoint,
    Proof,
    Verified,
    VerifyEvents,
)
from ..common.runtime import Clock
from . import events
from .permissions import Caller
from .store.base import MetadataStore, Transaction

log = logging.getLogger(__name__)
WIDTH: Final = (
    256  # leaves of a stored node, and nodes of one under a node of the next stored level
)
STEP: Final = 8
VERIFIED_AT_ONCE: Final = 10_000
KEY_FILE: Final = "audit.key"


class Tree:
    """Nodes of the tree as a transaction sees it."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._tiles: dict[tuple[int, int], dict[int, bytes]] = {}

    def _tile(self, level: int, tile: int) -> dict[int, bytes]:
        """Hashes of the up to 256 nodes of a stored level (or leaves) under one node of the stored level above."""
        found = self._tiles.get((level, tile))
        if found is not None:
            return found
        first = tile * WIDTH
        if level:
            rows = self._tx.all(
                "SELECT number, hash FROM event_tree WHERE level = ? AND number >= ? AND number < ?",
                (level, first, first + WIDTH),
            )
            found = {row[0]: bytes(row[1]) for row in rows}
        else:
            rows = self._tx.all(
                "SELECT event_offset, hash FROM events WHERE event_offset > ? AND event_offset <= ?",
                (first, first + WIDTH),
            )
            found = {row[0] - 1: merkle.leaf_hash(bytes(row[1])) for row in rows}
        self._tiles[(level, tile)] = found
        return found

    def node(self, level: int, number: int) -> bytes:
        """See `merkle.Node`. InvalidRequest where it needs events that are no longer (or not yet) there."""
        stored = level - level % STEP
        first, count = number << (level - stored), 1 << (level - stored)
        tile = self._tile(stored, first // WIDTH)
        try:
            return merkle.fold([tile[first + index] for index in range(count)])
        except KeyError:
            pass
        if stored:  # the job that stores nodes has not come to all of these
            return merkle.fold([self._fresh(stored, first + index) for index in range(count)])
        raise InvalidRequest(
            "this proof needs events that are no longer kept; sizes that are multiples of 256 can still be proved"
        )

    def _fresh(self, level: int, number: int) -> bytes:
        """A node of a stored level, from those of the stored level below."""
        known = self._tile(level, number // WIDTH).get(number)
        if known is not None:
            return known
        below = level - STEP
        return merkle.fold([self.node(below, number * WIDTH + n) for n in range(WIDTH)])


def built(tx: Transaction) -> int:
    """How many events are under complete rows of level 8."""
    row = tx.one(f"SELECT MAX(number) FROM event_tree WHERE level = {STEP}")
    return 0 if row is None or row[0] is None else (int(row[0]) + 1) * WIDTH


def unsigned(tx: Transaction) -> int:
    """How many events there are after the newest checkpoint."""
    row = tx.one("SELECT MAX(size) FROM checkpoints")
    return events.ends(tx)[1] - (int(row[0]) if row is not None and row[0] is not None else 0)


def behind(tx: Transaction) -> bool:
    """Whether there are events for another node of level 8."""
    return events.ends(tx)[1] - built(tx) >= WIDTH


def build(tx: Transaction, limit: int = 20) -> int:
    """Store up to *limit* more nodes of level 8, and those above that become complete; how many of level 8."""
    number = built(tx) // WIDTH
    first, last = events.ends(tx)
    added = 0
    while added < limit and (number + 1) * WIDTH <= last:
        rows = tx.all(
            "SELECT hash FROM events WHERE event_offset > ? AND event_offset <= ? ORDER BY event_offset",
            (number * WIDTH, (number + 1) * WIDTH),
        )
        if len(rows) < WIDTH:
            # A stream that lost its beginning before it had a tree: what is gone can't be hashed any more.
            log.error("events below %d are missing: no checkpoint can be made", first)
            return added
        node = merkle.fold([merkle.leaf_hash(bytes(row[0])) for row in rows])
        level, at = STEP, number
        while True:
            tx.execute(
                "INSERT INTO event_tree (level, number, hash) VALUES (?, ?, ?)", (level, at, node)
            )
            if (at + 1) % WIDTH:
                break
            at //= WIDTH
            rows = tx.all(
                "SELECT hash FROM event_tree WHERE level = ? AND number >= ? AND number < ? ORDER BY number",
                (level, at * WIDTH, (at + 1) * WIDTH),
            )
            node, level = merkle.fold([bytes(row[0]) for row in rows]), level + STEP
        number, added = number + 1, added + 1
    return added


# --- retention -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of the stream: so many events at most, none older than *age_ms*, about *size_bytes* at most; 0: no such limit."""

    count: int = 0
    age_ms: int = 0
    size_bytes: int = 0


ROW_BYTES: Final = 90  # of an event beside its texts, as SQLite keeps it


def retain(tx: Transaction, policy: Retention, now_ms: int, limit: int = 5_000) -> int:
    """Drop what *policy* no longer keeps, the oldest first, at most *limit* at once; how many.

    Whole nodes of level 8 only, and only those that the tree has.
    """
    first, last = events.ends(tx)
    upto = 0
    if policy.count:
        upto = max(upto, last - policy.count)
    if policy.size_bytes:
        row = tx.one(
            "SELECT AVG(LENGTH(path) + LENGTH(destination) + LENGTH(detail) + LENGTH(user_name)) FROM"
            " (SELECT path, destination, detail, user_name FROM events ORDER BY event_offset DESC LIMIT 1000) newest"
        )
        average = ROW_BYTES + float(row[0] or 0) if row is not None else ROW_BYTES
        upto = max(upto, last - int(policy.size_bytes / average))
    if policy.age_ms:
        upto = max(upto, _older_than(tx, first, last, now_ms - policy.age_ms))
    upto = min(upto, built(tx))
    upto -= upto % WIDTH
    if upto < first:
        return 0
    upto = min(upto, first + max(limit, WIDTH) - 1)
    upto -= upto % WIDTH
    if upto < first:
        return 0
    return tx.execute("DELETE FROM events WHERE event_offset <= ?", (upto,))


def _older_than(tx: Transaction, first: int, last: int, before_ms: int) -> int:
    """The last offset whose event is older than *before_ms*: times grow with offsets, near enough, so it can be searched for."""
    low, high = first - 1, last
    while low < high:
        middle = (low + high + 1) // 2
        row = tx.one("SELECT time_ms FROM events WHERE event_offset = ?", (middle,))
        if row is not None and row[0] < before_ms:
            low = middle
        else:
            high = middle - 1
    return low


# --- checkpoints and proofs ------------------------------------------------------------------------


def load_key(config: NameNodeConfig) -> Ed25519PrivateKey | None:
    """The key that signs checkpoints: that of *audit_key*, or one beside the SQLite database, made when it is missing.

    None where several NameNodes share a database and no key is configured: they would sign with different ones.
    """
    if config.audit_key:
        return _read_key(Path(config.audit_key))
    if config.database:
        return None
    path = Path(config.dir) / KEY_FILE
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        temporary = path.with_name(f".{KEY_FILE}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            disk.fsync(file.fileno(), "audit.sync")
        disk.rename(temporary, path, "audit.rename")
        disk.fsync_directory(path.parent, "audit.folder")
        return key
    return _read_key(path)


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        reason = (
            getattr(error, "strerror", None) or "it is no PEM file with an unencrypted private key"
        )
        raise InvalidConfig(f"can't use the audit key {path}: {reason}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidConfig(f"the audit key {path} must be an Ed25519 key")
    return key


class Auditor:
    """Handlers of the operations about proofs."""

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        key: Ed25519PrivateKey | None,
        cluster_id: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._key = key
        self._name = f"twinfs/{cluster_id}"

    def handlers(self) -> dict[str, Callable[[Caller, Any], Any]]:
        return {
            "make_checkpoint": self.make_checkpoint,
            "checkpoints": self.checkpoints,
            "event_proof": self.proof,
            "verify_events": self.verify,
        }

    async def make_checkpoint(self, caller: Caller, request: MakeCheckpoint) -> Checkpoint:
        return await self.sign(0)

    async def sign(self, multiple: int) -> Checkpoint:
        """Checkpoint the stream; at the largest multiple of *multiple*, if that is not 0. One that is there already stays."""
        if self._key is None:
            raise InvalidRequest("checkpoints need a key: set audit_key on every NameNode")
        key, name, now_ms = self._key, self._name, self._clock.wall_ms()

        def work(tx: Transaction) -> Checkpoint:
            _, size = events.ends(tx)
            if multiple:
                size -= size % multiple
            row = tx.one(
                "SELECT size, root, made_ms, note FROM checkpoints WHERE size = ?", (size,)
            )
            if row is not None:
                return _checkpoint(row)
            root = merkle.root(Tree(tx).node, size)
            note = notes.checkpoint(name, size, root, key)
            tx.execute(
                "INSERT INTO checkpoints (size, root, made_ms, note) VALUES (?, ?, ?, ?)",
                (size, root, now_ms, note),
            )
            return Checkpoint(size=size, root=root, made_ms=now_ms, note=note)

        return await self._store.run(work)

    async def checkpoints(self, caller: Caller, request: GetCheckpoints) -> Checkpoints:
        rows = await self._store.read(
            lambda tx: tx.all(
                "SELECT size, root, made_ms, note FROM checkpoints ORDER BY size DESC LIMIT ?",
                (request.limit,),
            )
        )
        key = notes.verifier_key(self._name, self._key) if self._key is not None else ""
        return Checkpoints(checkpoints=[_checkpoint(row) for row in rows], key=key)

    async def proof(self, caller: Caller, request: GetProof) -> Proof:
        return await self._store.read(lambda tx: _prove(tx, request))

    async def verify(self, caller: Caller, request: VerifyEvents) -> Verified:
        def check(tx: Transaction) -> Verified:
            first, last = events.ends(tx)
            after = max(request.after, 0)
            if after >= last and last:
                raise InvalidRequest(f"the last event is {last}")
            checked = events.verify_chain(tx, after, VERIFIED_AT_ONCE)
            row = tx.one("SELECT hash FROM events WHERE event_offset = ?", (checked,))
            _verify_nodes(tx, after, checked)
            return Verified(
                first=max(first, after + 1),
                checked=checked,
                last_hash=bytes(row[0]) if row is not None else b"",
                done=checked >= last,
            )

        return await self._store.read(check)


def _verify_nodes(tx: Transaction, after: int, upto: int) -> None:
    """StoreDamaged if a stored node of level 8 whose events were just verified does not fit them."""
    for number in range(-(-after // WIDTH), upto // WIDTH):
        row = tx.one("SELECT hash FROM event_tree WHERE level = ? AND number = ?", (STEP, number))
        rows = tx.all(
            "SELECT hash FROM events WHERE event_offset > ? AND event_offset <= ? ORDER BY event_offset",
            (number * WIDTH, (number + 1) * WIDTH),
        )
        if row is None or len(rows) < WIDTH:
            continue
        if merkle.fold([merkle.leaf_hash(bytes(entry[0])) for entry in rows]) != bytes(row[0]):
            raise StoreDamaged(
                f"events {number * WIDTH + 1} to {(number + 1) * WIDTH} are not those that were"
                " recorded: history was changed"
            )


def _checkpoint(row: tuple[object, ...]) -> Checkpoint:
    size, root, made_ms, note = row
    assert isinstance(size, int)
    assert isinstance(made_ms, int)
    assert isinstance(note, str)
    assert isinstance(root, bytes | memoryview | bytearray)
    return Checkpoint(size=size, root=bytes(root), made_ms=made_ms, note=note)


def _prove(tx: Transaction, request: GetProof) -> Proof:
    _, last = events.ends(tx)
    size = request.size or last
    if size > last:
        raise InvalidRequest(f"there are {last} events, not {size}")
    tree = Tree(tx)
    root = _root(tx, tree, size)
    if request.offset:
        hashes = merkle.inclusion(tree.node, request.offset - 1, size)
        row = tx.one("SELECT hash FROM events WHERE event_offset = ?", (request.offset,))
        if row is None:
            raise InvalidRequest(f"event {request.offset} is no longer kept")
        return Proof(size=size, root=root, hashes=hashes, leaf=bytes(row[0]))
    if not request.from_size:
        raise InvalidRequest("give an offset (inclusion) or from_size (consistency)")
    hashes = merkle.consistency(tree.node, request.from_size, size)
    return Proof(size=size, root=root, hashes=hashes, from_root=_root(tx, tree, request.from_size))


def _root(tx: Transaction, tree: Tree, size: int) -> bytes:
    row = tx.one("SELECT root FROM checkpoints WHERE size = ?", (size,))
    return bytes(row[0]) if row is not None else merkle.root(tree.node, size)
