"""A replica that is being written: a file in `writing/`, its digests so far, and how much of it may be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..common import disk
from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, ChunkHasher, digest_of
from ..common.errors import ChecksumMismatch, InvalidRequest, StaleGeneration
from ..common.model import MAX_BLOCK_BYTES
from .volumes import Volume, storage_error

WRITEBACK_BYTES = 16 * 1024 * 1024  # dirty bytes after which the disk is set to work


class WritingReplica:
    """The bytes that came so far. One thread writes; others may read up to `visible`.

    *owner* is who may write: taking it over (recovery, a new pipeline, deletion) makes the former writer fail.
    """

    def __init__(self, volume: Volume, block_id: int, generation: int, path: Path) -> None:
        self.volume = volume
        self.block_id = block_id
        self.generation = generation
        self.path = path
        self.length = 0
        self.lock = threading.Lock()
        # Held while it is published, so that whoever wants to take it over meets it before or after.
        self.publishing = threading.Lock()
        self.owner: object = None
        self.is_copy = (
            False  # of a finalized block: not to be mistaken for a write that is left over
        )
        self.abort: Callable[[], None] = lambda: None
        self.descriptor = -1
        # Its bytes were found to be others than were written: nothing is made of them, by no writer and no recovery.
        self.spoiled = False
        self._hasher: ChunkHasher | None = None
        self._flushing: Future[None] | None = None
        self._flushed_bytes = 0

    # --- opening ---

    def open_new(self) -> None:
        self.descriptor = self._open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._hasher = ChunkHasher()

    def open_existing(self, length: int, digests: bytes, held: int | None = None) -> None:
        """Go on after *length* of the *held* bytes that are there, whose chunks have *digests*.

        ChecksumMismatch if bytes are missing, or the chunk that is gone on with is not as its digest says: hashed again, damage would get a
        digest that fits it. Whole chunks before it keep theirs, which tell. Without *held*, as for what a former process left, there are no
        digests, and the bytes are taken as they are.
        """
        if self.spoiled:
            raise ChecksumMismatch(f"{self.path.name} has other bytes than were written")
        self.descriptor = self._open(os.O_RDWR)
        try:
            self._go_on(length, digests, held)
        except OSError as error:
            raise storage_error(error, f"can't read {self.path.name}") from None
        except ChecksumMismatch:
            self.spoiled = True
            self.close()
            raise

    def _go_on(self, length: int, digests: bytes, held: int | None) -> None:
        whole = length // CHUNK_BYTES
        begins, done = whole * CHUNK_BYTES, whole * DIGEST_BYTES
        # The last chunk as far as it goes, even if not all of it is kept: its digest is that of all of it.
        ends = min(held, begins + CHUNK_BYTES) if held is not None and begins < length else length
        if os.fstat(self.descriptor).st_size < ends:
            raise ChecksumMismatch(f"{self.path.name} is shorter than the {ends} bytes written")
        if held is None:
            digests = self._rehash(whole)
        disk.writing(self.descriptor, length)
        chunk = os.pread(self.descriptor, ends - begins, begins)
        if held is not None and chunk and digest_of(chunk) != digests[done : done + DIGEST_BYTES]:
            raise ChecksumMismatch(f"{self.path.name} has other bytes than were written")
        os.ftruncate(self.descriptor, length)
        self._hasher = ChunkHasher(digests[:done], chunk[: length - begins])
        self.length = length

    def _rehash(self, chunks: int) -> bytes:
        found = bytearray()
        for number in range(chunks):
            found += digest_of(os.pread(self.descriptor, CHUNK_BYTES, number * CHUNK_BYTES))
        return bytes(found)

    def _open(self, flags: int) -> int:
        try:
            return os.open(self.path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, f"can't open {self.path.name} for writing") from None

    # --- writing ---

    def append(self, owner: object, offset: int, payload: memoryview, digest: bytes) -> None:
        """Write the next bytes; *digest* is the payload's own, already verified."""
        if offset != self.length:
            raise InvalidRequest(f"a packet at {offset} came, {self.length} was to be next")
        if offset + len(payload) > MAX_BLOCK_BYTES:
            raise InvalidRequest("the block grows beyond 128 MiB")
        if offset // CHUNK_BYTES != (offset + max(1, len(payload)) - 1) // CHUNK_BYTES:
            raise InvalidRequest("a packet may not cross a chunk's end")
        with self.lock:
            # Before all else: whoever took it over may have closed it.
            self._require_owner(owner)
            assert self._hasher is not None
            try:
                disk.write_all(self.descriptor, payload, offset)
            except OSError as error:
                raise storage_error(error, f"can't write {self.path.name}") from None
            if len(payload) == CHUNK_BYTES:
                self._hasher.add_whole_chunk(digest)
            else:
                self._hasher.update(payload)
            self.length += len(payload)

    def _require_owner(self, owner: object) -> None:
        if self.owner is not owner:
            raise StaleGeneration("another writer or a recovery has taken this block over")

    def start_writeback(self, threads: ThreadPoolExecutor) -> None:
        """Have the disk write what has gathered, while more comes: the last fsync is then short."""
        if self.length - self._flushed_bytes < WRITEBACK_BYTES:
            return
        if self._flushing is None or self._flushing.done():
            self._flushed_bytes = self.length
            self._flushing = threads.submit(disk.fdatasync, self.descriptor, "replica.writeback")

    def sync(self) -> None:
        """fsync of everything written so far."""
        try:
            if self._flushing is not None:
                self._flushing.result()
                self._flushing = None
            disk.fdatasync(self.descriptor, "replica.sync")
        except OSError as error:
            raise storage_error(error, f"can't sync {self.path.name}") from None

    # --- reading ---

    def snapshot(self) -> tuple[int, int, bytes]:
        """(generation, length, digests) of what is there now."""
        with self.lock:
            if self._hasher is None:
                return self.generation, self.length, b""
            return self.generation, self.length, self._hasher.digests()

    def take_over(self, owner: object, generation: int) -> None:
        """Make *owner* the only writer, in a generation that is not older."""
        with self.lock:
            if generation < self.generation:
                raise StaleGeneration(
                    f"block {self.block_id} is of generation {self.generation} here, "
                    f"not {generation}"
                )
            former = self.abort
            self.owner = owner
            self.abort = lambda: None
        former()

    def cut(self, length: int) -> None:
        """Drop what is beyond *length*; the owner's affair."""
        with self.lock:
            if length > self.length:
                raise InvalidRequest(
                    f"only {self.length} bytes of block {self.block_id} are here, not {length}"
                )
            if length == self.length and self._hasher is not None:
                return
            digests = b"" if self._hasher is None else self._hasher.digests()
            held = None if self._hasher is None else self.length
            self.close()
            self.open_existing(length, digests, held)

    def close(self) -> None:
        if self._flushing is not None:
            self._flushing.exception()
            self._flushing = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self._hasher = None
