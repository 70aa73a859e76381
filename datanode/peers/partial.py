"""Leaves of a DAG while they are fetched: each written in its place of a sparse file, with a record of what is there.

A partial file becomes a local replica when its last leaf is in. After an interruption, or a kill, it goes on from what is
on the disk: every leaf that the record claims is hashed once before it counts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from ...common import disk
from ...common.checksum import CHUNK_BYTES, digest_of
from ...common.errors import DfsError, InvalidRequest
from ...common.ipld import multihash
from ...common.ipld.cid import Cid
from ..cidstore import CidStore, key_of
from ..volumes import Volume, storage_error

log = logging.getLogger(__name__)
MAX_SLOTS = 128  # leaves of a replica: 128 MiB
FLUSH_BYTES = 16 * 1024 * 1024


class Partial:
    """One file of at most `MAX_SLOTS` leaves, each a chunk; only the last may be shorter. Methods block."""

    def __init__(self, path: Path, volume: Volume, slots: Sequence[tuple[Cid, int]]) -> None:
        self.path = path
        self.volume = volume
        self.slots = list(slots)
        self.place = {cid.multihash: number for number, (cid, _) in enumerate(self.slots)}
        self.present: set[int] = set()
        self._lock = threading.Lock()
        self._descriptor = -1
        self._digests: dict[int, bytes] = {}
        self._unflushed = 0

    # --- beginning and going on ---

    @classmethod
    def create(
        cls, folder: Path, volume: Volume, name: str, slots: Sequence[tuple[Cid, int]]
    ) -> Partial:
        """A new one, durably named, so that a kill does not lose what it is for."""
        if not 0 < len(slots) <= MAX_SLOTS or any(n != CHUNK_BYTES for _, n in slots[:-1]):
            raise InvalidRequest("leaves of these lengths do not lie in one replica")
        partial = cls(folder / name, volume, slots)
        try:
            folder.mkdir(exist_ok=True)
            listing = json.dumps([[str(cid), length] for cid, length in slots])
            write_file(partial.path.with_suffix(".json"), listing.encode())
            partial._open()
        except OSError as error:
            raise storage_error(error, "can't begin to fetch") from None
        return partial

    @classmethod
    def resume(cls, listing: Path, volume: Volume) -> Partial | None:
        """One that is on the disk; None (and it is removed) if it can't be used."""
        path = listing.with_suffix("")
        try:
            entries = json.loads(listing.read_text(encoding="utf-8"))
            slots = [(Cid.parse(text), int(length)) for text, length in entries[:MAX_SLOTS]]
            partial = cls(path, volume, slots)
            partial._open()
            partial._recall()
        except (OSError, ValueError, TypeError, DfsError) as error:
            log.warning("what was fetched into %s can't be used: %s", path, error)
            for suffix in ("", ".json", ".map", ".new"):
                with contextlib.suppress(OSError):
                    path.with_suffix(suffix).unlink()
            return None
        return partial

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        os.ftruncate(self._descriptor, sum(length for _, length in self.slots))
        self._map = os.open(self.path.with_suffix(".map"), flags, 0o600)

    def _recall(self) -> None:
        claimed = os.pread(self._map, len(self.slots), 0)
        for number, mark in enumerate(claimed):
            if mark != 1:
                continue
            cid, length = self.slots[number]
            data = os.pread(self._descriptor, length, number * CHUNK_BYTES)
            with contextlib.suppress(DfsError):
                cid.verify(data)
                self._note(number, cid, data)

    def _note(self, number: int, cid: Cid, data: bytes | memoryview) -> None:
        code, digest, _ = multihash.split(cid.multihash)
        self._digests[number] = digest if code == multihash.BLAKE3 else digest_of(data)
        self.present.add(number)

    # --- filling ---

    def wanted(self) -> list[Cid]:
        """Leaves that are not there yet, in order."""
        return [cid for number, (cid, _) in enumerate(self.slots) if number not in self.present]

    def has(self, cid: Cid) -> bool:
        return self.place[cid.multihash] in self.present

    def write(self, cid: Cid, data: bytes) -> bool:
        """Put a verified leaf in its place; True when it was the last one missing."""
        number = self.place[cid.multihash]
        if len(data) != self.slots[number][1]:
            raise InvalidRequest("the leaf has another length than its node says")
        try:
            disk.write_all(self._descriptor, data, number * CHUNK_BYTES)
            with self._lock:
                self._unflushed += len(data)
                flush = self._unflushed >= FLUSH_BYTES
                if flush:
                    self._unflushed = 0
            if flush:
                disk.fdatasync(self._descriptor, "fetch.sync")  # so that the last one is short
            disk.write_all(self._map, b"\x01", number)
        except OSError as error:
            self.volume.check()
            raise storage_error(error, "can't write what was fetched") from None
        with self._lock:
            self._note(number, cid, data)
            return len(self.present) == len(self.slots)

    def publish(self, cids: CidStore) -> None:
        """Make it a replica, durably."""
        try:
            disk.fdatasync(self._descriptor, "fetch.sync")
        except OSError as error:
            raise storage_error(error, "can't sync what was fetched") from None
        names = []
        for number, (cid, length) in enumerate(self.slots):
            if multihash.split(cid.multihash)[0] != multihash.BLAKE3:
                names.append((key_of(cid.multihash), number * CHUNK_BYTES, length))
        digests = b"".join(self._digests[number] for number in range(len(self.slots)))
        cids.adopt(self.volume, self.path, sum(n for _, n in self.slots), digests, names)
        self.close()
        for suffix in (".json", ".map"):
            with contextlib.suppress(OSError):
                self.path.with_suffix(suffix).unlink()

    def opened(self, hashed: bytes) -> tuple[int, int, int] | None:
        """(descriptor of the caller's own, start, length) of a leaf that is there; None if it is not, or all has been published."""
        number = self.place[hashed]
        with self._lock:
            if self._descriptor < 0 or number not in self.present:
                return None
            return os.dup(self._descriptor), number * CHUNK_BYTES, self.slots[number][1]

    def close(self) -> None:
        """Let go of the files; they stay."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                os.close(self._map)
                self._descriptor = -1


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Give *path* this content: durably, and whole or not at all. OSError."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        disk.write_all(descriptor, data)
        disk.fdatasync(descriptor, "peer.sync")
    finally:
        os.close(descriptor)
    disk.rename(temporary, path, "peer.rename")
    disk.fsync_directory(path.parent, "peer.folder")
