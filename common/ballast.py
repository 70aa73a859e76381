"""Room kept on a disk for the moment when it is full: deleting takes some before it gives any back, and so does a start."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from . import disk

log = logging.getLogger(__name__)
BALLAST_BYTES = 8 * 1024 * 1024
PLENTY = 10  # times as much has to be free before it is laid aside (again)


class Ballast:
    """A file without content that takes space. Methods never fail: without it all goes on as it would have."""

    def __init__(self, folder: Path, size_bytes: int = BALLAST_BYTES) -> None:
        self._path = folder / "ballast"
        self._size_bytes = size_bytes

    def keep(self) -> None:
        """Have it, if the disk has plenty."""
        with contextlib.suppress(OSError):
            plenty = disk.has_room(self._path.parent, PLENTY * self._size_bytes)
            if self._path.exists() or not plenty:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size_bytes)
            except OSError:
                self._path.unlink()
            finally:
                os.close(descriptor)

    def release(self) -> bool:
        """Give it up; whether there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("the disk of %s is full; the room kept for that is used", self._path.parent)
        return True

    @property
    def missing_bytes(self) -> int:
        """What is free, but for it."""
        return 0 if self._path.exists() else self._size_bytes

    def release_if_full(self) -> None:
        """Before something that has to be possible on a full disk, too."""
        if not disk.has_room(self._path.parent, self._size_bytes // 4):
            self.release()
