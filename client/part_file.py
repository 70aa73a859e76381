"""A local file while it is fetched: whole chunks in their places, and a record of which are there.

`.NAME.dfs-part` has the bytes, `.NAME.dfs-part.map` what they are of and a byte a chunk. A get that was interrupted, or failed,
leaves both; the next one of the same file goes on from them. What the record claims is hashed before it counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..common import disk
from ..common.checksum import CHUNK_BYTES, DIGEST_BYTES, chunk_count, digest_of
from ..common.errors import InvalidRequest
from ..common.model import LocatedBlock
from .beside import beside

SUFFIX = ".dfs-part"
FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class PartFile:
    """Methods block, and raise OSError. `put` may be called from several threads, the others from one.

    Whoever closes it need not wait for threads that are still at it: they get InvalidRequest, and touch the descriptors no more,
    whose numbers other files have by then.
    """

    def __init__(self, local: Path, blocks: Sequence[LocatedBlock]) -> None:
        """Open it, or begin it. BlockingIOError if another process is at it."""
        self.path = beside(local, SUFFIX)
        self._map_path = self.path.with_name(self.path.name + ".map")
        self._blocks = list(blocks)
        self._first: list[int] = []  # number of each block's first chunk
        self.chunks = 0
        for located in blocks:
            self._first.append(self.chunks)
            self.chunks += chunk_count(located.block.length)
        self.length = sum(located.block.length for located in blocks)
        self.present = bytearray(self.chunks)
        self._lock = threading.Lock()
        self._closed = False
        self.descriptor = self._own()
        self._map = -1
        try:
            self._map = os.open(self._map_path, FLAGS, 0o600)
            self._recall()
        except BaseException:
            self.close()
            raise

    def _own(self) -> int:
        """The locked file of that name."""
        while True:
            descriptor = os.open(self.path, FLAGS, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another process may have finished between the two: then it is the goal itself, or nobody's, by now.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.lstat(self.path)):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _recall(self) -> None:
        identity = digest_of(msgspec.msgpack.encode([located.block for located in self._blocks]))
        known = os.pread(self._map, DIGEST_BYTES + self.chunks, 0)
        if known[:DIGEST_BYTES] == identity and os.fstat(self.descriptor).st_size == self.length:
            self.present[: len(known) - DIGEST_BYTES] = known[DIGEST_BYTES:]
            return
        # Of another file, or of this one before it changed.
        os.ftruncate(self._map, 0)
        os.ftruncate(self.descriptor, 0)
        os.ftruncate(self.descriptor, self.length)
        disk.write_all(self._map, identity, 0)

    def claimed(self, index: int) -> bool:
        """Whether the record says that anything of a block is there."""
        first = self._first[index]
        return any(self.present[first : first + chunk_count(self._blocks[index].block.length)])

    def check(self, index: int, digests: bytes) -> int:
        """Hash what the record claims of a block; *digests*: of its chunks, proven. The bytes that are right stay."""
        located, right = self._blocks[index], 0
        buffer = memoryview(bytearray(CHUNK_BYTES))
        for number in range(chunk_count(located.block.length)):
            if not self.present[self._first[index] + number]:
                continue
            start = number * CHUNK_BYTES
            chunk = buffer[: min(CHUNK_BYTES, located.block.length - start)]
            wanted = digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
            with self._lock:
                self._require_open()
                count = os.preadv(self.descriptor, [chunk], located.offset + start)
                if count == len(chunk) and digest_of(chunk) == wanted:
                    right += len(chunk)
                else:
                    self._mark(index, number, 0)
        return right

    def forget(self, index: int) -> None:
        """Nothing of a block counts."""
        with self._lock:
            self._require_open()
            for number in range(chunk_count(self._blocks[index].block.length)):
                self._mark(index, number, 0)

    def missing(self, index: int, most_chunks: int) -> list[tuple[int, int]]:
        """(start, size) of what is not there of a block, in runs of whole chunks."""
        length, first = self._blocks[index].block.length, self._first[index]
        runs: list[tuple[int, int]] = []
        begun = -1
        for number in range(chunk_count(length) + 1):
            absent = number < chunk_count(length) and not self.present[first + number]
            if begun >= 0 and (not absent or number - begun >= most_chunks):
                start = begun * CHUNK_BYTES
                runs.append((start, min(number * CHUNK_BYTES, length) - start))
                begun = -1
            if absent and begun < 0:
                begun = number
        return runs

    def put(self, index: int, start: int, chunk: memoryview) -> bool:
        """A verified whole chunk, at *start* of the block; False if it was there already."""
        located = self._blocks[index]
        if start % CHUNK_BYTES or len(chunk) != min(CHUNK_BYTES, located.block.length - start):
            raise InvalidRequest("only whole chunks are recorded")
        number = start // CHUNK_BYTES
        # The kernel lets one writer of a file in at a time as well.
        with self._lock:
            self._require_open()
            if self.present[self._first[index] + number]:
                return False
            disk.write_all(self.descriptor, chunk, located.offset + start)
            self._mark(index, number, 1)
        return True

    def _require_open(self) -> None:
        if self._closed:
            raise InvalidRequest("the file is closed")

    def _mark(self, index: int, number: int, mark: int) -> None:
        place = self._first[index] + number
        self.present[place] = mark
        disk.write_all(self._map, bytes((mark,)), DIGEST_BYTES + place)

    def remove_record(self) -> None:
        """After the file has its name."""
        with contextlib.suppress(OSError):
            self._map_path.unlink()

    def remove(self) -> None:
        """Give it up, where nothing came."""
        for path in (self.path, self._map_path):
            with contextlib.suppress(OSError):
                path.unlink()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            os.close(self.descriptor)
            if self._map >= 0:
                os.close(self._map)
