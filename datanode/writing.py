"""A replica that is being written: a file in `writing/`, its digests so far, and how much of it may be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..common import disk
from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, ChunkHasher, digest_of
from ..common.errors import InvalidRequest, StaleGeneration
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
        self._hasher: ChunkHasher | None = None
        self._flushing: Future[None] | None = None
        self._flushed_bytes = 0

    # --- opening ---

    def open_new(self) -> None:
        self.descriptor = self._open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self._hasher = ChunkHasher()

    def open_existing(self, length: int, digests: bytes) -> None:
        """Go on after *length* bytes, whose whole chunks have *digests*; the rest is hashed again."""
        self.descriptor = self._open(os.O_RDWR)
        whole = length // CHUNK_BYTES
        if len(digests) < whole * DIGEST_BYTES:
            digests = self._rehash(whole)
        try:
            disk.writing(self.descriptor, length)
            os.ftruncate(self.descriptor, length)
            tail = os.pread(self.descriptor, length - whole * CHUNK_BYTES, whole * CHUNK_BYTES)
        except OSError as error:
            raise storage_error(error, f"can't read {self.path.name}") from None
        self._hasher = ChunkHasher(digests[: whole * DIGEST_BYTES], tail)
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
            self.close()
            self.open_existing(length, digests)

    def close(self) -> None:
        if self._flushing is not None:
            self._flushing.exception()
            self._flushing = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self._hasher = None
