"""CID blocks on this DataNode: where their bytes lie, reading them verified, and keeping new ones.

A CID block is a range of a replica: a chunk of a file that was put by path, a small block that holds a dag-pb node, or content
that a peer keeps for itself in replicas with ids of its own (`FIRST_LOCAL_BLOCK`). All methods block and are called from threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..common import disk
from ..common.checksum import CHUNK_BYTES, digest_of
from ..common.errors import BlockNotFound, ChecksumMismatch, DfsError, InvalidContent, Unsupported
from ..common.ipld import multihash
from ..common.ipld.cid import MAX_BLOCK_BYTES, Cid
from ..common.model import BlockId, BlockRef, GenerationStamp
from ..common.runtime import SystemClock
from ..common.transfer import MAX_MANY_BYTES, SmallBlock
from .blockstore import BlockStore
from .cidindex import BLAKE3_KEY
from .claims import Claims
from .index import FIRST_LOCAL_BLOCK, Name, Replica
from .volumes import Volume, storage_error

LOCAL_GENERATION = GenerationStamp(1)
ID_BITS_BELOW_MS = 20


def key_of(hashed: bytes) -> bytes:
    """The key of a multihash in the index of hashes. Unsupported for a function whose blocks nobody here could verify."""
    code, digest, _ = multihash.split(hashed)
    if code not in (multihash.BLAKE3, multihash.SHA2_256):
        raise Unsupported(f"blocks named by hash function 0x{code:x} are not kept here")
    return bytes((code,)) + digest


class Opened(NamedTuple):
    """A CID block to read: from *data*, or *length* bytes at *start* of *descriptor* (the caller's to close).

    *block*: the replica it lies in; NO_BLOCK for one in none.
    """

    block: BlockRef
    start: int
    length: int
    data: bytes | memoryview | None
    descriptor: int


class Copy(NamedTuple):
    """A copy of a CID block. *whole*: it is all of its replica."""

    block_id: int
    damaged: bool
    whole: bool


class CidStore:
    """What this DataNode can say and do about CID blocks."""

    def __init__(
        self,
        store: BlockStore,
        *,
        wall_ms: Callable[[], int],
        on_bad: Callable[[BlockRef], None],
        now_s: Callable[[], float] | None = None,
    ) -> None:
        """*on_bad* is told of replicas whose bytes are not those that were recorded.

        `arriving`, set by who fetches, opens blocks that are on the disk and in no replica yet.
        """
        self.claims = Claims(now_s or SystemClock().monotonic_s)
        self._store = store
        self._wall_ms = wall_ms
        self._on_bad = on_bad
        self._lock = threading.Lock()
        self._last_id = 0
        self.arriving: Callable[[bytes], Opened | None] = lambda hashed: None

    # --- finding ---

    def has(self, hashed: bytes) -> bool:
        """Whether the block with this multihash is here."""
        if hashed[:1] == b"\x00":
            return True
        key = key_of(hashed)
        return any(
            volume.cids.find(key) is not None
            for volume in self._store.volumes
            if not volume.failure
        )

    def claim(self, hashed: bytes) -> bool:
        """Whether this peer has the block for itself, for somebody who relies on it from now on: a collection spares it while his
        add goes on. What a NameNode has put here does not count, as it goes when the NameNode says so."""
        if hashed[:1] == b"\x00":
            return True
        key = key_of(hashed)
        for volume in self._store.volumes:
            if volume.failure:
                continue
            place = volume.cids.find(key, first_id=FIRST_LOCAL_BLOCK)
            if place is not None and self.claims.claim(place.block_id):
                return True
        return False

    def own(self, hashed: bytes) -> list[Copy]:
        """The copies of a block among this peer's own content; none for hash functions that are not kept."""
        try:
            key = key_of(hashed)
        except Unsupported:
            return []
        found = []
        for volume in self._store.volumes:
            if volume.failure:
                continue
            for place in volume.cids.all(key, first_id=FIRST_LOCAL_BLOCK):
                replica = volume.index.get(place.block_id)
                if replica is not None:
                    damaged = place.block_id in volume.index.damaged
                    found.append(Copy(place.block_id, damaged, replica.length == place.length))
        return found

    def replicas(self, hashes: Sequence[bytes]) -> dict[bytes, list[int]]:
        """Ids of undamaged replicas of our own content that blocks lie in, as the directories of hashes have it: not all may be there.

        For many blocks at a time; those without any are left out, and may be here all the same (see `places`).
        """
        keys = {}
        for hashed in hashes:
            with contextlib.suppress(Unsupported):
                keys[key_of(hashed)] = hashed
        found: dict[bytes, list[int]] = {}
        for volume in self._store.volumes:
            if volume.failure:
                continue
            for key, block_id in volume.cids.blocks(list(keys)):
                if block_id >= FIRST_LOCAL_BLOCK and block_id not in volume.index.damaged:
                    found.setdefault(keys[key], []).append(block_id)
        return found

    def size(self, hashed: bytes) -> int | None:
        """The block's length; None if it is not here."""
        if hashed[:1] == b"\x00":
            return len(multihash.split(hashed)[1])
        key = key_of(hashed)
        for volume in self._store.volumes:
            if not volume.failure and (place := volume.cids.find(key)) is not None:
                return place.length
        return None

    def place(self, hashed: bytes) -> tuple[BlockRef, int, int] | None:
        """(replica, offset, length) of a block that lies in a replica here."""
        key = key_of(hashed)
        for volume in self._store.volumes:
            if volume.failure or (place := volume.cids.find(key)) is None:
                continue
            replica = volume.index.get(place.block_id)
            if replica is not None:
                return (
                    _reference(replica.block_id, replica.generation),
                    place.start,
                    place.length,
                )
        return None

    def open(self, hashed: bytes) -> Opened | None:
        """The block, unverified: whoever gets the bytes has their hash. None if it is not here."""
        return self.open_kept(hashed) or self.arriving(hashed)

    def open_kept(self, hashed: bytes) -> Opened | None:
        """As `open`, of what lies in a replica."""
        if hashed[:1] == b"\x00":
            data = multihash.split(hashed)[1]
            return Opened(NO_BLOCK, 0, len(data), data, -1)
        key = key_of(hashed)
        for volume in self._store.volumes:
            if volume.failure or (place := volume.cids.find(key)) is None:
                continue
            replica = volume.index.get(place.block_id)
            if replica is None:
                continue
            block = _reference(replica.block_id, replica.generation)
            try:
                found = self._store.open(block)
            except DfsError:
                self._on_bad(block)
                continue
            if found.data is None:
                return Opened(block, place.start, place.length, None, found.descriptor)
            inside = memoryview(found.data)[place.start : place.start + place.length]
            return Opened(block, 0, place.length, inside, -1)
        return None

    def read(self, cid: Cid) -> bytes:
        """The block's bytes, verified. BlockNotFound; ChecksumMismatch if what is on the disk is not that."""
        opened = self.open(cid.multihash)
        if opened is None:
            raise BlockNotFound(f"the block {cid} is not here")
        return self._verified(cid, opened)

    def read_at(self, cid: Cid, replica: Replica, start: int, length: int) -> bytes:
        """As `read`, of one copy."""
        block = _reference(replica.block_id, replica.generation)
        found = self._store.open(block)
        if found.data is None:
            return self._verified(cid, Opened(block, start, length, None, found.descriptor))
        inside = memoryview(found.data)[start : start + length]
        return self._verified(cid, Opened(block, 0, length, inside, -1))

    def _verified(self, cid: Cid, opened: Opened) -> bytes:
        try:
            data = self._bytes_of(opened)
        finally:
            if opened.descriptor >= 0:
                os.close(opened.descriptor)
        try:
            cid.verify(data)
        except ChecksumMismatch:
            self._bad(opened.block)
            raise
        return data

    def _bad(self, block: BlockRef) -> None:
        if block is not NO_BLOCK:
            self._on_bad(block)

    def _bytes_of(self, opened: Opened) -> bytes:
        if opened.data is not None:
            return bytes(opened.data)
        try:
            data = os.pread(opened.descriptor, opened.length, opened.start)
        except OSError as error:
            self._bad(opened.block)
            raise BlockNotFound(f"the replica can't be read: {error.strerror}") from None
        if len(data) != opened.length:
            self._bad(opened.block)
            raise BlockNotFound("the replica is shorter than recorded")
        return data

    # --- keeping ---

    def next_id(self) -> BlockId:
        """An id for a replica of this peer's own content; ascending with time, so that the index grows at its end."""
        with self._lock:
            wanted = FIRST_LOCAL_BLOCK + (self._wall_ms() << ID_BITS_BELOW_MS)
            self._last_id = max(self._last_id + 1, wanted)
            block_id = self._last_id
        # Before it is recorded anywhere: a collection that finds it finds it claimed.
        self.claims.claim(block_id)
        return BlockId(block_id)

    def put(self, blocks: Sequence[tuple[Cid, bytes | memoryview]]) -> int:
        """Keep CID blocks, durably; how many were not here yet. Nothing is kept unless all have the bytes they say.

        Raises ChecksumMismatch, InvalidContent, Unsupported, DiskFull.
        """
        fresh: dict[bytes, tuple[Cid, bytes | memoryview]] = {}
        for cid, data in blocks:
            if len(data) > MAX_BLOCK_BYTES:
                raise InvalidContent(f"a CID block of {len(data)} bytes exceeds {MAX_BLOCK_BYTES}")
            cid.verify(data)
            if not cid.is_identity and not self.claim(cid.multihash):
                fresh[cid.multihash] = (cid, data)
        batch: list[tuple[Cid, bytes | memoryview]] = []
        size_bytes = 0
        for cid, data in fresh.values():
            if len(data) > CHUNK_BYTES:
                self._put_long(cid, data)
                continue
            if size_bytes + len(data) > MAX_MANY_BYTES:
                self._put_batch(batch)
                batch, size_bytes = [], 0
            batch.append((cid, data))
            size_bytes += len(data)
        self._put_batch(batch)
        return len(fresh)

    def _put_batch(self, batch: Sequence[tuple[Cid, bytes | memoryview]]) -> None:
        if not batch:
            return
        items: list[SmallBlock] = []
        names: list[Name] = []
        for cid, data in batch:
            block_id = self.next_id()
            code, digest, _ = multihash.split(cid.multihash)
            if code != multihash.BLAKE3:
                names.append((bytes((code,)) + digest, block_id, 0, len(data)))
                digest = digest_of(data)
            elif not data:
                # A replica of nothing has no digest that would tell its name.
                names.append((BLAKE3_KEY + digest, block_id, 0, 0))
            items.append(
                SmallBlock(
                    block_id=block_id,
                    generation=LOCAL_GENERATION,
                    length=len(data),
                    digest=digest,
                )
            )
        payload = memoryview(b"".join(bytes(data) for _, data in batch))
        for future in self._store.put_small(items, payload, durable=True, names=names):
            future.result()

    def _put_long(self, cid: Cid, data: bytes | memoryview) -> None:
        """A block of more than one chunk: its hash does not follow from the digests of its chunks."""
        writer = LocalWriter(self, len(data))
        try:
            writer.write(memoryview(data))
            key = key_of(cid.multihash)
            writer.finish([(key, 0, len(data))])
        except BaseException:
            writer.abandon()
            raise

    def begin(self, expected_bytes: int) -> LocalWriter:
        """A new local replica, written front to back: the chunks of a file."""
        return LocalWriter(self, expected_bytes)

    def adopt(
        self,
        volume: Volume,
        path: Path,
        length: int,
        digests: bytes,
        names: Sequence[tuple[bytes, int, int]],
    ) -> None:
        """Make a durable file on *volume*, whose chunk digests are known, a local replica."""
        block_id = self.next_id()
        final = volume.final_path(block_id, LOCAL_GENERATION)
        rows = [(key, block_id, start, size) for key, start, size in names]
        try:
            volume.make_folder(final)
            disk.rename(path, final, "fetch.rename")
            disk.fsync_directory(final.parent, "fetch.folder")
        except OSError as error:
            volume.check()
            raise storage_error(error, "can't keep what was fetched") from None
        stored = Replica(block_id, LOCAL_GENERATION, length, False, digests)
        volume.add([stored], (), rows).result()

    @property
    def store(self) -> BlockStore:
        return self._store


class LocalWriter:
    """A replica of this peer's own content while it is written."""

    def __init__(self, cids: CidStore, expected_bytes: int) -> None:
        self._store = cids.store
        self._claims = cids.claims
        self._block = _reference(cids.next_id(), LOCAL_GENERATION)
        self._replica = self._store.begin(self._block, self, expected_bytes)
        self._done = False

    @property
    def length(self) -> int:
        return self._replica.length

    def write(self, data: memoryview, digest: bytes = b"") -> None:
        """The next bytes; *digest* is that of a whole chunk, where it is known and verified."""
        done = 0
        while done < len(data):
            room = CHUNK_BYTES - self._replica.length % CHUNK_BYTES
            piece = data[done : done + room]
            whole = len(piece) == CHUNK_BYTES
            known = digest if whole and digest and len(data) == CHUNK_BYTES else b""
            self._replica.append(
                self, self._replica.length, piece, known or (digest_of(piece) if whole else b"")
            )
            self._store.writeback(self._replica)
            done += len(piece)

    def finish(self, names: Sequence[tuple[bytes, int, int]] = ()) -> bytes:
        """Publish it, durably, with further hashes (key, start, length) of what is in it; its chunk digests."""
        rows = [(key, self._block.block_id, start, length) for key, start, length in names]
        self._claims.claim(self._block.block_id)  # anew: the first claim may be old by now
        digests = self._store.finalize(self._replica, self, durable=True, names=rows)
        self._done = True
        return digests

    def abandon(self) -> None:
        """Give up what is not finished; nothing once it is."""
        if self._done:
            return
        with contextlib.suppress(DfsError):
            self._store.discard(self._replica)


def _reference(block_id: int, generation: int) -> BlockRef:
    return BlockRef(block_id=BlockId(block_id), generation=GenerationStamp(generation))


NO_BLOCK = _reference(0, 0)
