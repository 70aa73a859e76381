"""What makes bytes and names durable: fsync, rename, link, commit. Every place that does it is a named point.

A point is where a test, or an operator who tries a cluster out, may have the process crash, lose power, wait or see an
error (`common/faults.py`). That is switched on by configuration only; while it is off, a point costs one comparison.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, TypeVar

T = TypeVar("T")
POINTS: Final[dict[str, str]] = {
    # both roles
    "database.commit": "a group of operations is committed to the log of a SQLite file, or to PostgreSQL",
    "database.sync": "the log of a SQLite file is made durable; answers leave after that",
    "database.folder": "the name of a new log is made durable",
    "database.checkpoint": "the log of a SQLite file is copied into the file, both made durable",
    "ready.rename": "the ready file gets its name: the server answers",
    # DataNodes: a replica's life
    "replica.sync": "the bytes of a replica being written are made durable (hsync, or before it is published)",
    "replica.writeback": "the disk is set to work early on a large replica being written",
    "replica.rename": "a replica is published: its file gets its final name",
    "replica.folder": "the final name of a replica is made durable",
    "replica.unpublish": "publishing failed half-way: the file goes back to where it was being written",
    "replica.generation": "a replica being written gets a later generation",
    "batch.sync": "the bytes of a small block with a file of its own are made durable",
    "batch.rename": "a small block with a file of its own gets its final name",
    "batch.folder": "the final names of a batch are made durable",
    "base.link": "an append begins with the bytes of the block before it, by a hard link",
    "reopen.sync": "a finalized small replica is taken back into writing: its bytes are made durable",
    "reopen.rename": "a finalized replica is taken back into writing",
    "reopen.folder": "the name of a replica taken back into writing is made durable",
    "reopen.back": "taking a finalized replica back failed half-way: its file gets its final name again",
    "quarantine.rename": "a damaged replica is put aside",
    "sums.sync": "which pages of a volume's index are about to change is made durable",
    "sums.rename": "the sums of a volume's index, written anew, get their name",
    "sums.folder": "that name is made durable",
    "scrub.rename": "how far the scrubber has come is written down",
    "move.sync": "a replica moved to another volume is made durable there",
    "move.rename": "a replica moved to another volume gets its final name there",
    "move.folder": "that name is made durable",
    "recovery.link": "a recovered replica gets the name of its new generation beside the old one",
    "recovery.folder": "the name of the new generation is made durable",
    # DataNodes: volumes
    "version.sync": "the identity of a volume is made durable",
    "version.rename": "the identity of a volume gets its name",
    "version.folder": "the name of a volume's identity is made durable",
    "blocks.folder": "a new folder for replicas is made durable",
    "draining.folder": "that a volume is drained, or not any more, is made durable",
    "removed.folder": "that a volume was removed is made durable",
    "rebuild.sync": "of which damaged index a volume's index is made anew is made durable",
    "rebuild.folder": "that a volume's index is made anew is made durable",
    "index.aside": "a damaged index is put aside",
    "sweep.unrecorded": "at the start: a file that was never recorded goes back to being written",
    "sweep.recorded": "at the start: a recorded file gets its final name",
    # NameNodes: backups
    "backup.sync": "the new pieces of a backup, or its manifest, are made durable",
    "backup.rename": "a backup's manifest gets its name: the backup is there",
    "backup.folder": "the name of a backup's manifest is made durable",
    "restore.sync": "a restored namespace is made durable",
    "restore.rename": "a restored namespace gets its name",
    "restore.folder": "the name of a restored namespace is made durable",
    "audit.sync": "the new key that signs the change stream is made durable",
    "audit.rename": "that key gets its name",
    "audit.folder": "and its directory is fsynced",
    # Content that a peer fetches for itself
    "fetch.sync": "the leaves of a DAG that were fetched are fsynced",
    "fetch.rename": "the file of them becomes a replica's",
    "fetch.folder": "and its directory is fsynced",
    "peer.sync": "a file of a peer's own (its list of leaves, a name's record) is fsynced",
    "peer.rename": "and gets its name",
    "peer.folder": "and its directory is fsynced",
    # A disk that is slow or fails, apart from the points above
    "disk.read": "a replica is opened for reading, or read to check it",
    "disk.write": "bytes are written to a replica, or to probe a volume",
}
Where = str | os.PathLike[str] | int  # a path, or an open descriptor
LogMark = tuple[bytes, int]  # (which life of the log file, frames in it)


class Faults(Protocol):
    """What may happen at a point. See `common/faults.py`."""

    def before(self, point: str, where: Where) -> None:
        """Raises OSError, waits, or never returns."""

    def after(self, point: str, where: Where) -> None:
        """As `before`, with what the point does already done."""

    def synced(self, descriptor: int, size_bytes: int) -> None:
        """The first *size_bytes* of an open file are durable."""

    def wrote(self, descriptor: int, offset: int) -> None:
        """Bytes from *offset* on are about to be written."""

    def renamed(self, source: Path, target: Path) -> None: ...

    def linked(self, target: Path) -> None: ...

    def folder_synced(self, folder: Path) -> None: ...

    def committing(self, database: Path) -> None:
        """A transaction of *database* is about to be appended to its write-ahead log."""

    def log_mark(self, database: Path) -> LogMark:
        """How far the write-ahead log of *database* has come."""

    def log_synced(self, database: Path, mark: LogMark) -> None:
        """The write-ahead log of *database* is durable up to *mark*."""

    def checkpoint(self, database: Path, copy: Callable[[], object]) -> None:
        """Run *copy*, which makes all of the log durable in the file, as one step."""


_faults: Faults | None = None


def install(faults: Faults | None) -> None:
    """From now on, ask *faults* at every point of this process; None switches it off again."""
    global _faults
    _faults = faults


def fsync(descriptor: int, point: str) -> None:
    if _faults is None:
        os.fsync(descriptor)
        return
    _sync(_faults, os.fsync, descriptor, point)


def fdatasync(descriptor: int, point: str) -> None:
    if _faults is None:
        os.fdatasync(descriptor)
        return
    _sync(_faults, os.fdatasync, descriptor, point)


def _sync(faults: Faults, call: Callable[[int], None], descriptor: int, point: str) -> None:
    faults.before(point, descriptor)
    size_bytes = os.fstat(descriptor).st_size
    call(descriptor)
    faults.synced(descriptor, size_bytes)
    faults.after(point, descriptor)


def sync_log(descriptor: int, database: Path, point: str) -> None:
    """fdatasync of *database*'s write-ahead log, open as *descriptor*."""
    if _faults is None:
        os.fdatasync(descriptor)
        return
    _faults.before(point, database)
    mark = _faults.log_mark(database)
    os.fdatasync(descriptor)
    _faults.log_synced(database, mark)
    _faults.after(point, database)


def fsync_directory(path: Path, point: str) -> None:
    """Make the names in a directory durable."""
    if _faults is not None:
        _faults.before(point, path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if _faults is not None:
        _faults.folder_synced(path)
        _faults.after(point, path)


def rename(source: Path, target: Path, point: str) -> None:
    """As `os.replace`. Durable only with the directory."""
    if _faults is None:
        os.replace(source, target)  # noqa: PTH105
        return
    _faults.before(point, source)
    os.replace(source, target)  # noqa: PTH105
    _faults.renamed(source, target)
    _faults.after(point, target)


def link(source: Path, target: Path, point: str) -> None:
    """A second name for a file. Durable only with the directory."""
    if _faults is not None:
        _faults.before(point, source)
    os.link(source, target)
    if _faults is not None:
        _faults.linked(target)
        _faults.after(point, target)


def commit(execute: Callable[[], T], database: Path, point: str) -> T:
    """Run *execute*, which commits a transaction; its result."""
    if _faults is None:
        return execute()
    _faults.before(point, database)
    _faults.committing(database)
    result = execute()
    _faults.after(point, database)
    return result


def checkpoint(copy: Callable[[], object], database: Path, point: str) -> None:
    """Run *copy*, which copies the write-ahead log into the database file and syncs both."""
    if _faults is None:
        copy()
        return
    _faults.before(point, database)
    _faults.checkpoint(database, copy)
    _faults.after(point, database)


def has_room(folder: Path, size_bytes: int) -> bool:
    """Whether a file system has so many bytes free; True if it does not say."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return True
    return found.f_bavail * found.f_frsize >= size_bytes


def reading(where: Where) -> None:
    """Something is about to be read. OSError as the disk's own would be."""
    if _faults is not None:
        _faults.before("disk.read", where)


def writing(descriptor: int, offset: int) -> None:
    """Bytes are about to be written at *offset*. OSError as the disk's own would be."""
    if _faults is not None:
        _faults.before("disk.write", descriptor)
        _faults.wrote(descriptor, offset)


def write_all(descriptor: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Write all of *data* at *offset*, or where the file is. OSError.

    A disk that becomes full takes a part and says nothing; only who asks it to take the rest hears of it.
    """
    writing(descriptor, offset or 0)
    view = memoryview(data)
    while view:
        if offset is None:
            done = os.write(descriptor, view)
        else:
            done = os.pwrite(descriptor, view, offset)
            offset += done
        view = view[done:]
