"""Checksums of a SQLite file's pages, kept beside it: any bit of the file that a disk changes is found, also where SQLite never looks.

With a write-ahead log, the file changes only when the log is copied into it. So at each checkpoint it is known which pages are about
to change, and what they have to be then. The sums are a row of records, each with a digest of its own: *pages that are about to
change* (durable before the first of them does), and *pages and their digests* (after that). A crash in between leaves pages of
which nothing is known; they are taken as they are, as those of a file from before there were sums.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from . import disk
from .checksum import digest_of

log = logging.getLogger(__name__)
SUM_BYTES: Final = 4
UNKNOWN: Final = bytes(SUM_BYTES)
LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
INTENDED, DONE = 1, 2
RECORD: Final = struct.Struct(">4sBII")  # magic, kind, bytes of a page, how many pages follow
MAGIC: Final = b"crcs"
FRAMES_AT_ONCE: Final = 64  # read from the log
CHECKED_AT_ONCE: Final = 256  # pages; a checkpoint waits for so many at most
SQLITE_PAGE_BYTES: Final = 4096  # unless somebody says otherwise
REWRITE_BYTES: Final = 64 * 1024  # the file may be so much longer than what it says


def slabs(descriptor: int, page_bytes: int) -> Iterator[memoryview]:
    """The frames of a write-ahead log, many at a time: a call for each would have other threads wait for the interpreter thousands of
    times."""
    size = FRAME_HEADER_BYTES + page_bytes
    offset = LOG_HEADER_BYTES
    while True:
        data = os.pread(descriptor, FRAMES_AT_ONCE * size, offset)
        whole = len(data) // size * size
        if whole:
            yield memoryview(data)[:whole]
        if whole < FRAMES_AT_ONCE * size:
            return
        offset += whole


def committed_pages(descriptor: int, page_bytes: int) -> tuple[bytes, list[int]]:
    """(salts, the page in each frame up to the last commit) of a write-ahead log.

    Source: "WAL-mode File Format", section 1, of the SQLite documentation.
    """
    header = os.pread(descriptor, LOG_HEADER_BYTES, 0)
    salts, committed = header[16:24], 0
    pages: list[int] = []
    if len(header) < LOG_HEADER_BYTES:
        return salts, []
    frame = struct.Struct(f">II8s8x{page_bytes}x")
    for slab in slabs(descriptor, page_bytes):
        for page, size_after, of_log in frame.iter_unpack(slab):
            if of_log != salts:
                return salts, pages[:committed]
            pages.append(page)
            if size_after:
                committed = len(pages)
    return salts, pages[:committed]


class PageSums:
    """The sums of one database file. Usable from several threads."""

    def __init__(self, database: Path) -> None:
        """Never fails because of what it finds: sums that can't be read say nothing."""
        self._database = database
        self._log = Path(f"{database}-wal")
        self.path = Path(f"{database}-sums")
        self._lock = threading.Lock()
        self._sums = (
            bytearray()
        )  # SUM_BYTES for each page, from page 1; UNKNOWN where nothing is known
        self._page_bytes = 0
        self._size_bytes = 0  # of the file of sums
        self._opened = -1  # the database
        if database.exists():
            self._load()
        else:
            self.path.unlink(missing_ok=True)

    # --- the file of sums ---

    def _load(self) -> None:
        try:
            data = self.path.read_bytes()
        except OSError:
            return
        open_pages: set[int] = set()
        at = 0
        while at < len(data):
            if (end := self._take(data, at, open_pages)) < 0:
                break
            at = end
        # A checkpoint that did not get to the end of the log is not durable: a power loss may have taken it back. The log is
        # copied anew from its beginning then.
        self._unknown(open_pages | self._logged())
        if at < len(data) and MAGIC in data[at + 1 :]:
            # Not the end of a record that a crash cut off.
            log.warning("%s is damaged; what it says is not used", self.path)
            self._sums.clear()
            at = 0
        self._size_bytes = at
        with contextlib.suppress(OSError):
            os.truncate(self.path, at)

    def _logged(self) -> set[int]:
        """Pages that the log of a former life has."""
        try:
            descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return set()
        try:
            if not self._page_bytes:
                return set()
            return set(committed_pages(descriptor, self._page_bytes)[1])
        finally:
            os.close(descriptor)

    def _take(self, data: bytes, at: int, open_pages: set[int]) -> int:
        """Take over the record at *at*: where it ends, -1 if there is no whole one."""
        if len(data) - at < RECORD.size:
            return -1
        magic, kind, page_bytes, count = RECORD.unpack_from(data, at)
        width = 4 if kind == INTENDED else 4 + SUM_BYTES
        end: int = at + RECORD.size + count * width
        if magic != MAGIC or data[end : end + 32] != digest_of(data[at:end]):
            return -1
        self._page_bytes = page_bytes
        for start in range(at + RECORD.size, end, width):
            page = int.from_bytes(data[start : start + 4], "big")
            if kind == INTENDED:
                open_pages.add(page)
            else:
                open_pages.discard(page)
                self._set(page, data[start + 4 : start + width])
        return end + 32

    def _set(self, page: int, value: bytes) -> None:
        missing = page * SUM_BYTES - len(self._sums)
        if missing > 0:
            self._sums += bytes(missing)
        self._sums[(page - 1) * SUM_BYTES : page * SUM_BYTES] = value

    def _unknown(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._set(page, UNKNOWN)
        # The file need not be so long.
        while self._sums.endswith(UNKNOWN):
            del self._sums[-SUM_BYTES:]

    def _get(self, page: int) -> bytes:
        return bytes(self._sums[(page - 1) * SUM_BYTES : page * SUM_BYTES]) or UNKNOWN

    def _record(self, kind: int, pages: Sequence[int]) -> bytes:
        numbers = struct.pack(f">{len(pages)}I", *pages)
        body = bytearray(RECORD.pack(MAGIC, kind, self._page_bytes, len(pages)))
        if kind == DONE:
            sums = b"".join(map(self._get, pages))
            rows = bytearray(len(pages) * (4 + SUM_BYTES))
            # Byte by byte of all rows at once: in a loop over a large file's pages, other threads would wait.
            for at in range(4):
                rows[at :: 4 + SUM_BYTES] = numbers[at::4]
            for at in range(SUM_BYTES):
                rows[4 + at :: 4 + SUM_BYTES] = sums[at::SUM_BYTES]
            body += rows
        else:
            body += numbers
        return bytes(body) + digest_of(body)

    def _append(self, kind: int, pages: Iterable[int], *, durable: bool) -> None:
        if self._size_bytes > 3 * len(self._sums) + REWRITE_BYTES:
            self._rewrite()
        record = self._record(kind, sorted(pages))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            disk.write_all(descriptor, record, self._size_bytes)
            if durable:
                disk.fdatasync(descriptor, "sums.sync")
        finally:
            os.close(descriptor)
        self._size_bytes += len(record)

    def _rewrite(self) -> None:
        """One record instead of many."""
        record = self._record(DONE, range(1, len(self._sums) // SUM_BYTES + 1))
        temporary = Path(f"{self.path}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            disk.write_all(descriptor, record, 0)
            disk.fdatasync(descriptor, "sums.sync")
        finally:
            os.close(descriptor)
        disk.rename(temporary, self.path, "sums.rename")
        # What follows goes to this file: the old one must not come back after a power loss.
        disk.fsync_directory(self.path.parent, "sums.folder")
        self._size_bytes = len(record)

    def forget(self) -> None:
        """Nothing is known any more (the database is another one, or changes in ways that are not seen here)."""
        with self._lock:
            self._sums.clear()
            self._size_bytes = 0
            self.path.unlink(missing_ok=True)

    # --- checkpoints ---

    def checkpoint(
        self, connection: sqlite3.Connection, copy: Callable[[], tuple[int, int, int]]
    ) -> None:
        """Run *copy*, a checkpoint: its answer is SQLite's (whether it was held up, frames in the log, frames copied).

        It leaves the log as long as it was. While it runs, nobody may start the log anew: there is no other writer, or
        *connection*, which is not the one of *copy*, sees the log as it was when its transaction began. Raises OSError if
        nothing can be written down; then nothing was copied.
        """
        with self._lock:
            try:
                descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                copy()
                return
            try:
                self._checkpoint(connection, copy, descriptor)
            finally:
                os.close(descriptor)

    def _checkpoint(
        self,
        connection: sqlite3.Connection,
        copy: Callable[[], tuple[int, int, int]],
        descriptor: int,
    ) -> None:
        (self._page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        salts, frames = committed_pages(descriptor, self._page_bytes)
        pages = set(frames)
        if not pages:
            copy()
            return
        self._append(INTENDED, pages, durable=True)
        try:
            _, logged, copied = copy()
        except BaseException:
            self._unknown(pages)
            raise
        # SQLite leaves a page out altogether if there is a later frame of it that must not be copied yet. So the frames that
        # it saw count, also those written since the first look.
        _, frames = committed_pages(descriptor, self._page_bytes)
        digests = self._digests(descriptor, frames[: max(0, logged)], copied)
        if os.pread(descriptor, LOG_HEADER_BYTES, 0)[16:24] != salts:
            # A new log: all of the old one had been copied when the transaction began, and nothing could be since.
            digests = {}
        for page, digest in digests.items():
            self._set(page, digest)
        self._append(DONE, pages, durable=False)

    def _digests(self, descriptor: int, frames: Sequence[int], copied: int) -> dict[int, bytes]:
        """What a checkpoint of *frames* that got as far as *copied* makes of the pages: the last frame of each counts."""
        last = {page: number for number, page in enumerate(frames)}
        found: dict[int, bytes] = {}
        size, number = FRAME_HEADER_BYTES + self._page_bytes, 0
        for slab in slabs(descriptor, self._page_bytes):
            for at in range(FRAME_HEADER_BYTES, len(slab), size):
                if number == min(copied, len(frames)):
                    return found
                page = frames[number]
                if last[page] == number:
                    found[page] = _sum(slab[at : at + self._page_bytes])
                number += 1
        return found

    # --- looking ---

    def check(self, pause: Callable[[int], None] | None = None) -> str:
        """Read all of the database file from the disk: what is wrong with it, "" if nothing is. OSError if it can't be read.

        *pause* is called with the size of each piece before that is read.
        """
        first = 1
        while True:
            if pause is not None:
                left = self._database.stat().st_size - (first - 1) * self._page_bytes
                pause(max(0, min(left, CHECKED_AT_ONCE * (self._page_bytes or SQLITE_PAGE_BYTES))))
            with self._lock:
                if self._opened < 0:
                    self._opened = os.open(self._database, os.O_RDONLY | os.O_CLOEXEC)
                wrong, more = self._check(self._opened, first)
            if wrong or not more:
                return wrong
            first += CHECKED_AT_ONCE

    def close(self) -> None:
        """To be called once SQLite has closed the database, and not before: closing any descriptor of a file takes away the
        locks that SQLite has on it."""
        with self._lock:
            if self._opened >= 0:
                os.close(self._opened)
                self._opened = -1

    def _check(self, descriptor: int, first: int) -> tuple[str, bool]:
        """(what is wrong, whether there are pages after these)."""
        if not self._page_bytes:
            # No checkpoint yet with sums. Source: "Database File Format", section 1.3.2, of the SQLite documentation.
            size = int.from_bytes(os.pread(descriptor, 2, 16), "big")
            self._page_bytes = 65_536 if size == 1 else size
        if not self._page_bytes:
            return "", False  # nothing was ever copied into it
        size, known = self._page_bytes, len(self._sums) // SUM_BYTES
        offset, wanted = (first - 1) * size, CHECKED_AT_ONCE * size
        os.posix_fadvise(descriptor, offset, wanted, os.POSIX_FADV_DONTNEED)
        disk.reading(descriptor)
        data = os.pread(descriptor, wanted, offset)
        new = []
        for start in range(0, len(data), size):
            page = first + start // size
            found, expected = _sum(data[start : start + size]), self._get(page)
            if expected == UNKNOWN:
                self._set(page, found)
                new.append(page)
            elif found != expected:
                return f"page {page} has changed", False
        if new:
            with contextlib.suppress(OSError):  # then they are new once more after a restart
                self._append(DONE, new, durable=False)
        if len(data) < wanted:
            there = first - 1 + -(-len(data) // size)
            return ("it is cut short" if there < known else ""), False
        return "", True


def _sum(page: bytes | memoryview) -> bytes:
    """CRC-32: any changed bit and any changed 32 in a row are found for certain, all else but once in four billion times.

    A cryptographic digest would do no more against a disk, which is no adversary, and its library lets go of the interpreter's lock for
    every page: a thread that has to wait for it four thousand times is late by as many turns of the others.
    """
    return (zlib.crc32(page) or 1).to_bytes(SUM_BYTES, "big")
