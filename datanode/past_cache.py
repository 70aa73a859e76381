"""Reading a file from its disk, and not from what the system remembers of it: for whoever wants to know what the disk has.

What clients read stays in the system's memory meanwhile, where the file system can do that (`O_DIRECT`); else it has to forget
the file first.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable

PIECE_BYTES = 4 * 1024 * 1024  # read at a time: enough for a disk to be quick
SECTOR_BYTES = 4096  # such reads have to begin, and to ask for as much, as sectors do
DIRECT = getattr(os, "O_DIRECT", 0)


class PastCache:
    """The bytes of an open file, a piece at a time. For one thread, and one at a time: what was read is good until the next read."""

    def __init__(self, descriptor: int, pause: Callable[[int], None]) -> None:
        """*descriptor* is the caller's, and is used for nothing else meanwhile. *pause* is called with the size of each piece before
        that is read."""
        self._descriptor = descriptor
        self._pause = pause
        self._memory = memoryview(mmap.mmap(-1, PIECE_BYTES))  # whose address fits
        self._piece, self._size = -1, 0
        self._direct = bool(DIRECT) and self._set_direct(DIRECT)
        if not self._direct:
            self._forget()

    def read(self, size: int, offset: int) -> memoryview:
        """*size* bytes at *offset*, which don't cross a multiple of PIECE_BYTES; fewer at the file's end. OSError."""
        piece, start = divmod(offset, PIECE_BYTES)
        if piece != self._piece:
            left = os.fstat(self._descriptor).st_size - piece * PIECE_BYTES
            self._pause(max(0, min(PIECE_BYTES, left)))
            try:
                self._size = self._fill(piece * PIECE_BYTES)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                # It took the flag, and can't do it after all.
                self._direct = False
                self._set_direct(0)
                self._forget()
                self._size = self._fill(piece * PIECE_BYTES)
            self._piece = piece
        return self._memory[start : max(start, min(start + size, self._size))]

    def _fill(self, offset: int) -> int:
        size = 0
        while size < PIECE_BYTES:
            count = os.preadv(self._descriptor, [self._memory[size:]], offset + size)
            size += count
            if not count or size % SECTOR_BYTES:
                break
        return size

    def _set_direct(self, flag: int) -> bool:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & ~DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | flag)
        except OSError:
            return False
        return True

    def _forget(self) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
