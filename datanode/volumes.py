"""Volumes: directories on disks, their identity, health and space."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import random
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from ..common import disk
from ..common.ballast import Ballast
from ..common.checksum import CHUNK_BYTES, digest_of
from ..common.errors import (
    DfsError,
    DiskFull,
    InvalidConfig,
    StoreDamaged,
    StoreTooNew,
    VolumeFailed,
)
from ..common.messages import VolumeReport
from ..common.runtime import new_uuid
from .cidindex import CidIndex
from .index import Added, Index, Name, Replica

log = logging.getLogger(__name__)
FORMAT_VERSION = 1
# Files by which a volume remembers what operators decided about it.
DRAINING = "draining"
REBUILDING = "rebuilding"  # there while an index does not know all files yet
RECORDED_AT_ONCE = 512  # files; a commit for each would take a slow disk minutes
REMOVED = "removed"
NAME = re.compile(r"blk_(\d+)_(\d+)")


def block_name(block_id: int, generation: int) -> str:
    return f"blk_{block_id}_{generation}"


def storage_error(error: OSError, what: str) -> DfsError:
    """What an error of the operating system at a volume means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"{what}: no space left")
    return VolumeFailed(f"{what}: {error.strerror or error}")


class Volume:
    """One directory. See DESIGN.md, "Disk format of a DataNode"."""

    def __init__(self, path: Path, *, reserved_bytes: int, limit_bytes: int = 0) -> None:
        """Open or create the volume, sweep what a crash left, and load its index.

        Raises InvalidConfig if it is in use or foreign, StoreTooNew, VolumeFailed, DiskFull.
        """
        self.path = path
        self.reserved_bytes = reserved_bytes
        self.limit_bytes = limit_bytes
        self.failure = ""
        self.renewing = (
            False  # its index is being made anew: nothing can be said about what is here
        )
        self.draining = (path / DRAINING).exists()  # what is here moves away, nothing new comes
        self.lock = threading.Lock()
        self._identifying = threading.Lock()  # several NameNodes may answer at once
        self._checking = threading.Lock()  # two probes at once would take each other's file away
        try:
            for name in ("", "blocks", "writing", "quarantine"):
                (path / name).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, f"the volume {path} can't be used") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise InvalidConfig(f"the volume {path} is in use by another DataNode") from None
        self._ballast = Ballast(path)
        self._ballast.release_if_full()
        try:
            self.version = self._read_version()
            self.index = self._open_index()
            try:
                self._settle()
            except StoreDamaged as error:
                # It opened, but can't be read to its end. The node starts nevertheless, with what is left.
                self.index.suspect = self.index.suspect or error.message
                self.renew_index()
                if self.failure:
                    raise StoreDamaged(f"the volume {path}: {self.failure}") from None
                self._settle()
            self.cids = CidIndex(path / "cids.db", self.index)
        except BaseException:
            os.close(self._lock)
            raise
        self._ballast.keep()

    # --- identity ---

    def _read_version(self) -> dict[str, object]:
        file = self.path / "VERSION"
        try:
            version: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            version = {
                "format": FORMAT_VERSION,
                "volume_id": new_uuid(),
                "node_uuid": "",
                "cluster_id": "",
                "node_id": 0,
            }
        except (OSError, ValueError) as error:
            raise StoreDamaged(f"the file {file} can't be read: {error}") from None
        number = version.get("format")
        if not isinstance(number, int) or number > FORMAT_VERSION:
            raise StoreTooNew(
                f"the volume {self.path} has format {number}; this TwinFS knows up to {FORMAT_VERSION}"
            )
        return version

    def identify(self, *, node_uuid: str, cluster_id: str, node_id: int) -> None:
        """Write down whom the volume belongs to."""
        with self._identifying:
            self._identify(node_uuid, cluster_id, node_id)

    def _identify(self, node_uuid: str, cluster_id: str, node_id: int) -> None:
        belongs = {"node_uuid": node_uuid, "cluster_id": cluster_id, "node_id": node_id}
        wanted = {**self.version, **belongs}
        if wanted == self.version and (self.path / "VERSION").exists():
            return
        temporary = self.path / "VERSION.new"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(wanted, file)
            file.flush()
            disk.fsync(file.fileno(), "version.sync")
        disk.rename(temporary, self.path / "VERSION", "version.rename")
        disk.fsync_directory(self.path, "version.folder")
        self.version = wanted

    @property
    def volume_id(self) -> str:
        return str(self.version["volume_id"])

    # --- what operators decided ---

    @property
    def takes_bytes(self) -> bool:
        """Whether anything new may be put here."""
        return not self.failure and not self.draining

    def set_draining(self, draining: bool) -> None:
        """Have nothing new put here, or end that; remembered over restarts. VolumeFailed, DiskFull."""
        try:
            if draining:
                (self.path / DRAINING).touch()
            else:
                (self.path / DRAINING).unlink(missing_ok=True)
            disk.fsync_directory(self.path, "draining.folder")
        except OSError as error:
            raise storage_error(error, f"can't write to {self.path}") from None
        self.draining = draining

    def set_removed(self) -> None:
        """Have the volume not be opened again, should it still be configured at the next start."""
        (self.path / REMOVED).touch()
        (self.path / DRAINING).unlink(missing_ok=True)
        disk.fsync_directory(self.path, "removed.folder")

    # --- files ---

    def final_path(self, block_id: int, generation: int) -> Path:
        return self.path / "blocks" / f"{block_id & 0xFF:02x}" / block_name(block_id, generation)

    def has_file(self, stored: Replica) -> bool:
        """Whether the bytes of a recorded replica are there, as far as their number shows it."""
        if stored.inline:
            return True
        try:
            return (
                self.final_path(stored.block_id, stored.generation).stat().st_size == stored.length
            )
        except OSError:
            return False

    def writing_path(self, block_id: int, generation: int) -> Path:
        return self.path / "writing" / block_name(block_id, generation)

    def make_folder(self, path: Path) -> None:
        """The folder of a final path, durable when this returns."""
        folder = path.parent
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            disk.fsync_directory(folder.parent, "blocks.folder")

    def files(self, kind: str) -> Iterator[tuple[int, int, Path]]:
        """(block id, generation, path) of the files in `blocks` or `writing`."""
        base = self.path / kind
        folders = [base] if kind == "writing" else sorted(base.iterdir())
        for folder in folders:
            for path in folder.iterdir():
                if match := NAME.fullmatch(path.name):
                    yield int(match[1]), int(match[2]), path

    # --- starting ---

    def _open_index(self) -> Index:
        file = self.path / "index.db"
        fresh = not file.exists()
        if fresh:
            self._begin_rebuild()
        try:
            index = Index(file)
        except StoreDamaged as error:
            aside = self.path / "quarantine" / f"index.db.{new_uuid()}"
            log.error(
                "%s; it is kept as %s and rebuilt from the block files. Blocks up to the size of "
                "small_block_bytes lived in it and have to come from other nodes",
                error,
                aside,
            )
            self._begin_rebuild()
            disk.rename(file, aside, "index.aside")
            with contextlib.suppress(FileNotFoundError):
                disk.rename(Path(f"{file}-wal"), Path(f"{aside}-wal"), "index.aside")
            Path(f"{file}-shm").unlink(missing_ok=True)
            index, fresh = Index(file), True
        if fresh or (self.path / REBUILDING).exists():
            self._salvage_again(index)
            self._rebuild(index)
        return index

    def _salvage_again(self, index: Index) -> None:
        """What a former process was about to take over from a damaged index when it died."""
        with contextlib.suppress(FileNotFoundError):
            name = (self.path / REBUILDING).read_text(encoding="utf-8")
            aside = self.path / "quarantine" / name
            if not name or not aside.exists():
                return
            try:
                damaged = Index(aside)
                try:
                    self._take_over(index, *damaged.salvage())
                finally:
                    damaged.close()
            except DfsError as error:
                log.error("%s; what was in it has to come from other nodes", error.message)

    def _take_over(
        self, index: Index, replicas: Sequence[Replica], data: Sequence[tuple[int, bytes]]
    ) -> None:
        """Record what was salvaged, as far as its files are there."""
        sizes = {path.name: path.stat().st_size for _, _, path in self.files("blocks")}
        kept = [
            replica
            for replica in replicas
            if replica.inline
            or sizes.get(block_name(replica.block_id, replica.generation)) == replica.length
        ]
        for start in range(0, len(kept), RECORDED_AT_ONCE):
            part = kept[start : start + RECORDED_AT_ONCE]
            ids = {replica.block_id for replica in part}
            index.add(part, [entry for entry in data if entry[0] in ids]).result()

    def renew_index(self) -> None:
        """Put a damaged index aside and make a new one of what can still be read of it, and of the block files.

        Meanwhile the volume is out of service. Replicas whose bytes lived in what is lost have to come from other nodes.
        """
        if self.failure:
            return
        self.renewing = True
        self.failure = "its index was damaged and is being made anew"
        log.error(
            "the index of the volume %s is damaged (%s); making it anew",
            self.path,
            self.index.suspect,
        )
        try:
            replicas, data = self.index.salvage()
            aside = self.path / "quarantine" / f"index.db.{new_uuid()}"
            self._begin_rebuild(aside.name)
            self.index.renew(aside)
            self._take_over(self.index, replicas, data)
            self._rebuild(self.index)
            self.replicas, self.used_bytes = self.index.totals()
        except (OSError, DfsError) as error:
            self.failure = f"its index could not be made anew: {error}"
            log.error("the volume %s is out of service: %s", self.path, self.failure)
        else:
            self.failure = ""
            log.warning("the volume %s is back with %d replicas", self.path, self.replicas)
        finally:
            self.renewing = False

    def _begin_rebuild(self, salvaged: str = "") -> None:
        """Note, durably, that the index lacks what is there: should the process end, the next one goes on with it, and takes no file
        for a write that is left over. *salvaged*: in quarantine, the damaged index that has more."""
        if not salvaged and next(self.files("blocks"), None) is None:
            return
        try:
            with (self.path / REBUILDING).open("wb", buffering=0) as file:
                file.write(salvaged.encode())
                disk.fdatasync(file.fileno(), "rebuild.sync")
            disk.fsync_directory(self.path, "rebuild.folder")
        except OSError as error:
            log.warning("%s can't be written: %s", self.path / REBUILDING, error.strerror)

    def _rebuild(self, index: Index) -> None:
        """Hash every block file that a new index does not know."""
        recorded: list[Future[Added]] = []
        for block_id, generation, path in self.files("blocks"):
            known = index.get(block_id)
            if known is not None and known.generation >= generation:
                continue
            recorded.append(self._record(index, block_id, generation, path))
            if len(recorded) == RECORDED_AT_ONCE:
                _wait_for(recorded)
        _wait_for(recorded)
        (self.path / REBUILDING).unlink(missing_ok=True)

    @staticmethod
    def _record(index: Index, block_id: int, generation: int, path: Path) -> Future[Added]:
        """Hash a block file and record it; done when that is durable."""
        digests = bytearray()
        length = 0
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                digests += digest_of(chunk)
                length += len(chunk)
        log.info("indexed %s again", path.name)
        return index.add([Replica(block_id, generation, length, False, bytes(digests))])

    def _settle(self) -> None:
        self._sweep()
        self.replicas, self.used_bytes = self.index.totals()

    def _sweep(self) -> None:
        """Settle what was half-way when the process died.

        What was being written, and what was being published but is not recorded, is kept for recovery:
        bytes of it may have been acknowledged as synced. Nothing goes by a row that a disk has changed: StoreDamaged.
        """
        for block_id, generation, path in list(self.files("blocks")):
            known = self.index.sure(block_id)
            if known is None:
                log.info("%s was never recorded; it counts as being written", path)
                disk.rename(path, self.writing_path(block_id, generation), "sweep.unrecorded")
            elif known.inline or known.generation != generation:
                path.unlink()
        for block_id, generation, path in list(self.files("writing")):
            known = self.index.sure(block_id)
            if known is None:
                continue
            final = self.final_path(block_id, known.generation)
            if known.inline or known.generation > generation:
                # An inline one with a file of a later generation: taking it back did not get to its end, and the
                # file may be cut short. Nothing was written to it yet, so the record has all there is.
                path.unlink()
            elif known.generation == generation:
                if final.exists():
                    path.unlink()
                else:
                    disk.rename(path, final, "sweep.recorded")
        for path in (self.path / "writing").glob("put_*"):
            path.unlink()
        after, lost = 0, []
        while page := self.index.page(after, 5_000):
            for replica in page:
                if not replica.inline:
                    path = self.final_path(replica.block_id, replica.generation)
                    try:
                        size = path.stat().st_size
                    except FileNotFoundError:
                        size = -1
                    if size < replica.length:
                        self.index.sure(replica.block_id)
                        log.error("%s is missing or cut short; its record is dropped", path)
                        lost.append(replica.block_id)
                        if size >= 0:
                            aside = self.path / "quarantine" / path.name
                            disk.rename(path, aside, "quarantine.rename")
            after = page[-1].block_id
        if lost:
            self.index.remove(lost)

    def strangers(self, before_ms: int) -> list[int]:
        """Record files older than *before_ms* that the index does not know; their block ids."""
        found = []
        for block_id, generation, path in list(self.files("blocks")):
            try:
                if path.stat().st_mtime_ns > before_ms * 1_000_000:
                    continue
            except OSError:
                continue
            known = self.index.get(block_id)
            if known is None:
                log.warning("%s was not recorded any more", path)
                self._record(self.index, block_id, generation, path).result()
                self.count(1, path.stat().st_size)
                found.append(block_id)
        return found

    # --- space and health ---

    def space(self) -> tuple[int, int]:
        """(capacity, bytes that may still be written)."""
        found = os.statvfs(self.path)
        capacity = found.f_blocks * found.f_frsize
        free = found.f_bavail * found.f_frsize
        if self.limit_bytes:
            capacity = min(capacity, self.limit_bytes)
            free = min(free, self.limit_bytes - self.used_bytes)
        return capacity, max(0, free - self.reserved_bytes - self._ballast.missing_bytes)

    def report(self) -> VolumeReport:
        capacity = remaining = 0
        if not self.failure:
            try:
                capacity, remaining = self.space()
            except OSError as error:
                self.fail(str(error.strerror or error))
        return VolumeReport(
            volume_id=self.volume_id,
            path=str(self.path),
            capacity_bytes=capacity,
            used_bytes=max(0, self.used_bytes),
            remaining_bytes=0 if self.draining else remaining,
            failure=self.failure,
            draining=self.draining,
            replicas=max(0, self.replicas),
        )

    def add(
        self,
        replicas: Sequence[Replica],
        data: Sequence[tuple[int, bytes | memoryview]] = (),
        names: Sequence[Name] = (),
    ) -> Future[Added]:
        """Record replicas in the index, and in the counts what is new of them; done when durable and counted."""
        counted: Future[Added] = Future()

        def count(done: Future[Added]) -> None:
            if (error := done.exception()) is not None:
                counted.set_exception(error)
                return
            added = done.result()
            self.count(*added)
            counted.set_result(added)

        self.index.add(replicas, data, names).add_done_callback(count)
        return counted

    def remove(self, block_ids: Sequence[int]) -> None:
        """Forget replicas in the index, and in the counts."""
        try:
            gone = self.index.remove(block_ids)
        except DiskFull:
            # What would make room needs some.
            if not self._ballast.release():
                raise
            gone = self.index.remove(block_ids)
        self.count(-len(gone), -sum(replica.length for replica in gone))

    def count(self, replicas: int, size_bytes: int) -> None:
        with self.lock:
            self.replicas += replicas
            self.used_bytes += size_bytes

    def fail(self, reason: str) -> None:
        """Take the volume out of service."""
        if not self.failure:
            self.failure = reason
            log.error("the volume %s is out of service: %s", self.path, reason)

    def check(self) -> None:
        """Try a small durable write; fail the volume if that is impossible (a full disk is no failure)."""
        with self._checking:
            self._check()

    def _check(self) -> None:
        if self.failure or self.index.suspect:
            return
        if self.index.failure:
            self.fail(self.index.failure)
            return
        probe = self.path / "writing" / "probe"
        try:
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                disk.writing(descriptor, 0)
                os.write(descriptor, b"probe")
            finally:
                os.close(descriptor)
            probe.unlink()
            self._ballast.keep()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE):
                self.fail(error.strerror or str(error))

    def close(self) -> None:
        # It may be going through the index: a connection that is closed under a reading thread ends the process.
        self.cids.stop()
        self.index.close()
        self.cids.close()
        os.close(self._lock)


def _wait_for(recorded: list[Future[Added]]) -> None:
    """Until all is durable; the list is empty then."""
    for future in recorded:
        future.result()
    recorded.clear()


def choose_volume(volumes: Sequence[Volume], size_bytes: int, rng: random.Random) -> Volume:
    """A volume for *size_bytes* more bytes, by chance in proportion to the space left.

    Raises DiskFull, or VolumeFailed when none is in service.
    """
    working = [volume for volume in volumes if volume.takes_bytes]
    if not working:
        raise VolumeFailed("no volume of this DataNode is in service")
    weights = []
    for volume in working:
        try:
            remaining = volume.space()[1]
        except OSError as error:
            volume.fail(error.strerror or str(error))
            remaining = 0
        weights.append(remaining if remaining > size_bytes and not volume.failure else 0)
    if not any(weights):
        raise DiskFull(f"no volume of this DataNode has {size_bytes} bytes left")
    return rng.choices(working, weights)[0]
