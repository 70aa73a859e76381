"""What threads bring bytes to, until nobody wants them any more: memory, and files."""

from __future__ import annotations

import os
import threading

from ..common import disk
from ..common.errors import StorageError

AT_ONCE = getattr(os, "RWF_NOWAIT", 0)  # only Linux has it


class Abandoned(Exception):
    """Nobody waits for these bytes any more."""


class Landing:
    """Where one attempt puts verified bytes of a block, until it is closed.

    The memory may be the caller's, who uses it for something else once the read is over; an attempt that
    lost the race must not write there. The lock makes sure of that. It is never held while a disk is waited for:
    who closes would wait, too.
    """

    __slots__ = ("_lock", "_open", "start", "view")

    def __init__(self, view: memoryview, start: int) -> None:
        """*view* is for the bytes of the block from *start* on."""
        self.view = view
        self.start = start
        self._lock = threading.Lock()
        self._open = True

    def __call__(self, at: int, data: memoryview) -> None:
        """Take bytes for *at* of the block."""
        with self._lock:
            if not self._open:
                raise Abandoned
            self.view[at - self.start : at - self.start + len(data)] = data

    def take_from(self, descriptor: int, at: int, size: int) -> memoryview | None:
        """*size* bytes at *at* of a replica's file, brought here without a copy in between, and not verified yet. None if the system
        does not have them in its memory, or they don't lie within."""
        low = at - self.start
        if not AT_ONCE or low < 0 or low + size > len(self.view):
            return None
        here = self.view[low : low + size]
        with self._lock:
            if not self._open:
                raise Abandoned
            try:
                count = os.preadv(descriptor, [here], at, AT_ONCE)
            except OSError:
                return None  # or the file system can't tell; who reads it in the plain way sees what is wrong
        return here if count == size else None

    def require_open(self) -> None:
        """Abandoned if it is closed: then others may have written to the memory."""
        with self._lock:
            if not self._open:
                raise Abandoned

    def close(self) -> None:
        with self._lock:
            self._open = False


class OpenTarget:
    """A local file that threads write to, until it is closed.

    A thread can't be called off: one that still brings bytes when its fetch has failed, or was given up, must not write to the
    descriptor, whose number is that of another file by then. The kernel lets one writer of a file in at a time as well.
    """

    def __init__(self, descriptor: int, shown: str) -> None:
        """*descriptor* is closed with it; *shown*: what the file is to become, for messages."""
        self.descriptor = descriptor
        self._shown = shown
        self._lock = threading.Lock()
        self._open = True

    def write(self, view: memoryview | bytes, offset: int | None = None) -> None:
        """Write all of *view*, behind what was written if there is no *offset*. StorageError, also once it is closed."""
        with self._lock:
            if not self._open:
                raise StorageError(f"{self._shown} is not fetched any more")
            try:
                disk.write_all(self.descriptor, view, offset)
            except OSError as error:
                raise local_error(error, self._shown) from None

    def close(self) -> None:
        with self._lock:
            self._open = False
            os.close(self.descriptor)


def local_error(error: OSError, shown: object) -> StorageError:
    return StorageError(f"{shown}: {error.strerror or error}")
